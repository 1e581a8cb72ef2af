"""What a file is by its content, in one word that rules can compare. Only what a policy asks about is told apart:
this recognises what runs, what holds other files and what documents are, and leaves hundreds of harmless kinds alone.
"""

import re

TYPES = (
    "empty", "text", "unknown",
    "exe", "elf", "macho", "script", "class", "lnk", "chm", "wasm", "msi",
    "zip", "7z", "rar", "gz", "bz2", "xz", "zst", "tar", "iso", "cab", "arj", "ace", "lha", "vhd", "wim", "ar", "rpm",
    "ole", "word", "excel", "powerpoint", "outlook", "ooxml", "docx", "xlsx", "pptx", "odf", "rtf", "onenote", "access",
    "pdf", "postscript", "html", "xml", "svg", "email", "tnef", "pkcs7", "activemime", "jar", "apk", "epub",
    "png", "jpg", "gif", "webp", "bmp", "tiff", "ico", "heif", "audio", "video", "flash", "font", "pgp",
)  # fmt: skip
RUNNABLE = frozenset({"exe", "elf", "macho", "script", "class", "lnk", "chm", "msi", "jar", "apk", "flash", "wasm"})
ARCHIVES = frozenset("zip 7z rar gz bz2 xz zst tar iso cab lha ar rpm docx xlsx pptx ooxml odf jar apk epub".split())
_HEAD = 1024  # octets within which a PDF's start may come
_EARLY = 64 * 1024  # within which a page shows that it is one

# Offset, octets, type. The longest that fits is not sought: the first of this order is.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x7fELF", "elf"),
    (0, b"\xfe\xed\xfa\xce", "macho"), (0, b"\xfe\xed\xfa\xcf", "macho"), (0, b"\xcf\xfa\xed\xfe", "macho"),
    (0, b"\xce\xfa\xed\xfe", "macho"),
    (0, b"\x4c\x00\x00\x00\x01\x14\x02\x00", "lnk"),
    (0, b"ITSF", "chm"), (0, b"\0asm", "wasm"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"), (0, b"Rar!\x1a\x07", "rar"), (0, b"\x1f\x8b", "gz"), (0, b"BZh", "bz2"),
    (0, b"\xfd7zXZ\0", "xz"), (0, b"\x28\xb5\x2f\xfd", "zst"), (257, b"ustar", "tar"), (0, b"MSCF", "cab"),
    (0, b"\x60\xea", "arj"), (7, b"**ACE**", "ace"), (2, b"-lh", "lha"), (0, b"conectix", "vhd"),
    (0, b"vhdxfile", "vhd"), (0, b"MSWIM\0\0\0", "wim"), (0, b"!<arch>\n", "ar"), (0, b"\xed\xab\xee\xdb", "rpm"),
    (32769, b"CD001", "iso"), (34817, b"CD001", "iso"), (36865, b"CD001", "iso"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "ole"),
    (0, b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d", "onenote"),
    (4, b"Standard Jet DB", "access"), (4, b"Standard ACE DB", "access"),
    (0, b"\x89PNG\r\n\x1a\n", "png"), (0, b"\xff\xd8\xff", "jpg"), (0, b"GIF8", "gif"), (8, b"WEBP", "webp"),
    (0, b"II*\0", "tiff"), (0, b"MM\0*", "tiff"), (0, b"\0\0\x01\0", "ico"), (4, b"ftypheic", "heif"),
    (4, b"ftypavif", "heif"), (4, b"ftypmif1", "heif"),
    (0, b"ID3", "audio"), (0, b"OggS", "audio"), (0, b"fLaC", "audio"), (8, b"WAVE", "audio"), (0, b"#!AMR", "audio"),
    (4, b"ftypM4A", "audio"), (4, b"ftyp", "video"), (8, b"AVI ", "video"), (0, b"\x1aE\xdf\xa3", "video"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video"),
    (0, b"FWS", "flash"), (0, b"CWS", "flash"), (0, b"ZWS", "flash"),
    (0, b"wOFF", "font"), (0, b"wOF2", "font"), (0, b"OTTO", "font"), (0, b"\0\x01\0\0\0", "font"),
    (0, b"\x78\x9f\x3e\x22", "tnef"), (0, b"ActiveMime", "activemime"),
    (2, b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07", "pkcs7"),
    (4, b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07", "pkcs7"),
)  # fmt: skip
_ANY_MACHO = b"\xca\xfe\xba\xbe"  # Java classes begin so too
_PDF = re.compile(rb"\A\s{0,100}%PDF-|%PDF-\d\.\d\s*[\r\n]")
_SHEBANG = re.compile(rb"#![ \t]*/")
_SCRIPT = re.compile(
    rb"(?i)\A\s*(?:@echo\s+off|<job\b|<\?wsf|<package\b|dim\s+\w+[ \t]*(?:,[ \t]*\w+[ \t]*)*(?:[\r\n]|as\b)"
    rb"|on\s+error\s+resume|set\s+\w+\s*=\s*createobject|option\s+explicit[ \t]*[\r\n]|\$\w+\s*=\s*new-object"
    rb"|powershell(?:\.exe)?[ \t]+-|<\?php|<%@|windows registry editor|\[internetshortcut\])"
)
_HTML = re.compile(rb"(?i)<(?:!doctype\s+html|html[\s>]|head[\s>]|body[\s>]|script[\s>]|iframe[\s>]|meta\s|title>)")
_SVG = re.compile(rb"(?i)<svg[\s>]")
_HTA = re.compile(rb"(?i)<hta:application\b")
_EMAIL = re.compile(
    rb"(?i)\A(?:(?:received|return-path|from|to|date|subject|message-id|mime-version|delivered-to|x-[a-z-]+):"
    rb"[^\n]*(?:\n[ \t][^\n]*)*\n){3}"
)
_OFFICE = ((b"word/", "docx"), (b"xl/", "xlsx"), (b"ppt/", "pptx"))
_TEXT_OCTETS = bytes(range(32, 127)) + b"\t\r\n\f\x1b" + bytes(range(128, 256))


def type_of(octets: bytes) -> str:
    """A word of TYPES. octets: the whole file, or at least its start."""
    if not octets:
        return "empty"
    head = octets[:_HEAD]
    if is_plain_text(head):
        return _text_type(octets, head)
    if octets.startswith(b"ustar", 257):
        return "tar"
    if octets.startswith(b"MZ"):
        return "exe"
    if octets.startswith(b"PK"):
        return _zip_type(octets)
    for offset, magic, name in _MAGIC:
        if octets.startswith(magic, offset):
            return _ole_type(octets) if name == "ole" else name
    return _other_type(octets, head)


def is_plain_text(head: bytes) -> bool:
    """ASCII, and nothing that no text has: then a word at its start is a word."""
    return head.isascii() and not head.translate(None, _TEXT_OCTETS)


def _other_type(octets: bytes, head: bytes) -> str:
    if octets.startswith(_ANY_MACHO):
        # The number behind is a count of architectures, or a version of Java (45 and up).
        return "macho" if int.from_bytes(octets[4:8], "big") < 40 else "class"
    if octets.startswith(b"BM") and len(octets) > 14 and octets[6:10] == b"\0\0\0\0":
        return "bmp"
    return _text_type(octets, head)


def appended_zip(octets: bytes) -> bytes:
    """The zip behind something else, which unpackers look for from the end; b"" for none."""
    end = octets.rfind(b"PK\x05\x06", max(0, len(octets) - 65_600))
    start = octets.find(b"PK\x03\x04", 1) if end > 0 else -1
    return octets[start:] if 0 < start < end else b""


def hides_archive(octets: bytes) -> bool:
    """Is the start of another archive somewhere behind its own?"""
    return any(
        octets.find(magic, 1) > 0 for magic in (b"Rar!\x1a\x07\x01\0", b"Rar!\x1a\x07\0", b"7z\xbc\xaf\x27\x1c\0")
    )


def _text_type(octets: bytes, head: bytes) -> str:
    early = octets[:_EARLY]
    if b"\0" in head[:2] or head[:2] in (b"\xff\xfe", b"\xfe\xff") or head[1:2] == b"\0":
        early = as_utf8(octets[: 2 * _EARLY])
        head = early[:_HEAD]
    head = head.removeprefix(b"\xef\xbb\xbf")
    if head.startswith(b"{\\rt"):
        return "rtf"
    if head.startswith(b"%!PS"):
        return "postscript"
    if head.startswith(b"-----BEGIN PGP"):
        return "pgp"
    if _SHEBANG.match(head) or _SCRIPT.match(head) or _HTA.search(early):
        return "script"
    if _PDF.search(head):
        return "pdf"
    page, drawing = _HTML.search(early), _SVG.search(early)
    if page is not None and (drawing is None or page.start() < drawing.start()):
        return "html"
    if drawing is not None:
        return "svg"
    if head.lstrip().startswith(b"<?xml"):
        return "xml"
    if head.translate(None, _TEXT_OCTETS):
        return "unknown"
    return "email" if _EMAIL.match(head.replace(b"\r\n", b"\n")) else "text"


def as_utf8(octets: bytes) -> bytes:
    """What is UTF-16, with a mark or without one; all else as it is."""
    if octets[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return octets.decode("utf-16", "replace").encode("utf-8", "replace")
    for name, evens in (("utf-16-le", octets[1:200:2]), ("utf-16-be", octets[0:200:2])):
        if len(evens) >= 4 and evens.count(0) * 4 >= len(evens) * 3:
            return octets.decode(name, "replace").encode("utf-8", "replace")
    return octets


def _zip_type(octets: bytes) -> str:
    """By the names that stand near its start: what a zip holds decides what opens it."""
    if octets[2:4] not in (b"\x03\x04", b"\x05\x06", b"\x07\x08"):
        return "unknown" if octets.rfind(b"PK\x05\x06") < 0 else "zip"
    head = octets[:8192]
    if b"[Content_Types].xml" in octets[:65536] or b"_rels/.rels" in head:
        places = octets[:8192] + octets[-65536:]
        found = next((name for folder, name in _OFFICE if folder in places), "")
        if found or b"_rels/.rels" in places:
            return found or "ooxml"
    if b"mimetypeapplication/vnd.oasis" in head[:120]:
        return "odf"
    if b"mimetypeapplication/epub" in head[:120]:
        return "epub"
    if b"AndroidManifest.xml" in octets[-65536:]:
        return "apk"
    return "jar" if b"META-INF/MANIFEST.MF" in octets[:65536] else "zip"


def _ole_type(octets: bytes) -> str:
    """By the streams that its directory names, in UTF-16."""
    for name, found in (
        ("WordDocument", "word"), ("Workbook", "excel"), ("PowerPoint Document", "powerpoint"),
        ("__properties_version1.0", "outlook"),
    ):  # fmt: skip
        if name.encode("utf-16-le") in octets:
            return found
    if "\u4840\u3b3f\u43f2\u4438\u45b1".encode("utf-16-le") in octets:  # the packed name of an installer's table
        return "msi"
    return "excel" if "Book".encode("utf-16-le") in octets else "ole"
