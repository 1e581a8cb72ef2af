"""File names as senders give them: what people would see, which program would open the file, and what is meant to
deceive.

A name is read in all the ways in which a mail program may read it, and the worst of them counts.
"""

import re
import unicodedata
from collections.abc import Iterable

from gateway.content.attachment import MAX_NAME

# Declared types that a mail program gives a name to.
BY_MEDIA_TYPE = {
    "application/javascript": "js", "text/javascript": "js", "application/x-javascript": "js", "application/hta": "hta",
    "application/x-msdownload": "exe", "application/x-msdos-program": "exe", "application/x-dosexec": "exe",
    "application/vnd.microsoft.portable-executable": "exe", "application/x-sh": "sh", "application/java-archive": "jar",
    "application/x-ms-shortcut": "lnk", "text/vbscript": "vbs", "application/x-bat": "bat",
    "application/x-msi": "msi", "application/vnd.ms-htmlhelp": "chm", "application/x-powershell": "ps1",
}  # fmt: skip
# Opened with a double click, these run something of the sender's on a common desktop.
RUNNABLE = frozenset(
    """
    ace ade adp apk appcontent-ms appimage appinstaller application appref-ms appx appxbundle bas bat cab chm cmd cnt
    com command cpl csh desktop diagcab diagcfg diagpkg dll dmg elf ex_ exe fxp gadget grp hlp hpj hta htc img inf ins
    iqy iso isp its jar jnlp js jse ksh library-ms lnk mad maf mag mam maq mar mas mat mau mav maw mcf mda mdb mde mdt
    mdw mdz mjs msc msh msh1 msh1xml msh2 msh2xml mshxml msi msix msixbundle msp mst msu nsh ocx one onepkg ops osd
    pcd pif pkg plg prf prg printerexport ps1 ps1xml ps2 ps2xml psc1 psc2 psd1 psdm1 pssc py pyc pyw pyz pyzw rdp reg
    scf scpt scr sct search-ms settingcontent-ms sh shb shs slk sys theme tmp udl url vb vbe vbp vbs vhd vhdx vsmacros
    vsw vxd webpnp website wim ws wsb wsc wsf wsh xbap xll xnk
    """.split()
)
HARMLESS = frozenset(
    """
    pdf doc docx xls xlsx ppt pptx txt rtf csv odt ods jpg jpeg png gif bmp tif tiff mp3 mp4 avi mov htm html xml zip
    """.split()
)
_BIDI = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
MAX_READ = 300  # characters of a name's end
_CLASS_ID = re.compile(r"\{[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\}")
_MANY_BLANKS = re.compile(r"\s{5,}")
_DOTS = str.maketrans({"\u2024": ".", "\u3002": ".", "\uff0e": ".", "\uff61": ".", "\ufe52": "."})


def shown(name: str) -> str:
    """One line of printable characters for logs, traces and notices; the last part of a path."""
    last = re.split(r"[/\\]", _CONTROLS.sub("", name))[-1]
    return _BIDI.sub("", last).strip()[:MAX_NAME]


def extensions_of(name: str) -> tuple[str, ...]:
    """All that some program takes for its extension, the plainest reading first; lower case, no dot."""
    readings = [name]
    if "\0" in name:
        readings.append(name.partition("\0")[0])  # where a name is a C string, it ends here
    found: dict[str, None] = {}
    for reading in readings:
        plain = unicodedata.normalize("NFKC", _INVISIBLE.sub("", reading[-MAX_READ:]).translate(_DOTS))
        # Windows drops dots and blanks at the end; "a.txt:b.exe" is a stream of a.txt, and some open it as b.exe.
        plain = _CONTROLS.sub("", plain).rstrip(". \t\u00a0").lower()
        for part in (plain, *plain.split(":")[1:], plain.partition(":")[0]):
            _, dot, extension = part.rpartition(".")
            is_short = len(extension) <= 20 or _CLASS_ID.fullmatch(extension) is not None
            if dot and extension and is_short and not re.search(r"[/\\]", extension):
                found[extension.strip()] = None
    return tuple(extension for extension in found if extension)


def extension_of(names: Iterable[str]) -> str:
    """Of all names and readings the first; but if one can be run, that one."""
    found = [extension for name in names for extension in extensions_of(name)]
    return next((extension for extension in found if runs(extension)), found[0] if found else "")


def runs(extension: str) -> bool:
    """Opened with a double click, does it run something of the sender's? A class id stands for any program."""
    return extension in RUNNABLE or _CLASS_ID.fullmatch(extension) is not None


def traits_of(name: str) -> Iterable[str]:
    parts = [part.strip() for part in shown(name).lower().rstrip(". ").split(".")]
    if len(parts) > 2 and parts[-1] in RUNNABLE and parts[-2] in HARMLESS:
        yield "double_extension"
    if _BIDI.search(name) and any(char in name for char in "\u202e\u202d\u2067\u2066"):
        yield "reversed_name"
    if _MANY_BLANKS.search(name):
        yield "blank_name"
