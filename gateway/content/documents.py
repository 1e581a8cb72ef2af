"""Office files, PDF, RTF and web pages: macros, encryption, and what makes them act on their own.

Looked for by the marks that such content cannot do without, in the octets as they are: broken files, which a careful
parser gives up on and a viewer opens all the same, are looked at like all others. Members of a zip come one by one from
the archive's reader, so this never unpacks.
"""

import html
import re
from collections.abc import Iterable

from gateway.content.types import as_utf8

OLE_TYPES = frozenset({"ole", "word", "excel", "powerpoint", "access"})
_VBA = tuple(name.encode("utf-16-le") for name in ("_VBA_PROJECT", "VBA\0", "Macros\0", "_VBA_PROJECT_CUR"))
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_PACKAGE = "Ole10Native".encode("utf-16-le")
_AUTORUN = re.compile(
    rb"(?i)auto_?(?:open|exec|close|new|exit)|document_(?:open|close|new|beforeclose)|workbook_(?:open|activate|beforeclose)"
)
# BOF of a macro sheet in an Excel workbook (MS-XLS 2.4.28: dt 0x0040), and a BOUNDSHEET of its kind (2.4.28: type 1).
_XLM = re.compile(rb"\x09\x08.{2}\x00\x06\x40\x00|\x85\x00.{2}.{4}[\x00-\x02]\x01", re.DOTALL)
# FILEPASS behind the BOF (MS-XLS 2.4.117), and fEncrypted of a Word FIB (MS-DOC 2.5.2).
_XLS_ENCRYPTED = re.compile(rb"\x09\x08\x10\x00\x00\x06.{14}\x2f\x00", re.DOTALL)
_DDE = re.compile(rb"(?i)DDEAUTO|\bDDE\b[^<]{0,40}(?:cmd|powershell|mshta)")
_RELATION = re.compile(rb"<(?:\w+:)?Relationship\b([^>]{0,4000})")
_EXTERNAL = re.compile(r"targetmode\s*=\s*[\"']external")
_LOADS = re.compile(r"/(?:attachedtemplate|oleobject|frame|externallinkpath)[\"']")
_ELSEWHERE = re.compile(r"target\s*=\s*[\"'](?:https?|file|ftp|mhtml|\\\\)")
_RTF_TEMPLATE = re.compile(rb"\\template\s+(?:https?|file|\\\\)", re.IGNORECASE)
MAX_MARKUP = 256 * 1024  # octets of a member of a package
_OWN_ENDINGS = frozenset(
    "xml rels png jpg jpeg gif bmp emf wmf svg tif tiff vml bin odttf fntdata ttf thmx xsl rdf".split()
)
MAX_SEARCHED = 4 * 1024 * 1024  # octets of one file that are looked at for such marks
_PDF_SCRIPT = re.compile(rb"/JavaScript\b|/JS\s*(?:[(<]|\d+\s+\d+\s+R\b)")
_PDF_LAUNCH = re.compile(rb"/Launch\b")
_PDF_FILES = re.compile(rb"/EmbeddedFiles?\b")
_PDF_ESCAPE = re.compile(rb"#([0-9A-Fa-f]{2})")
_RTF_OBJECT = re.compile(rb"\\obj(?:data|emb|autlink|html|ocx|update)", re.IGNORECASE)
_SCRIPT_TAG = re.compile(rb"(?i)<script\b|\bon(?:load|error|click)\s*=|javascript:")
_MAKES_FILE = re.compile(rb"(?i)new\s+(?:Blob|File)\b|msSave(?:OrOpen)?Blob|createObjectURL|URL\.createObject")
_DECODES = re.compile(
    rb"(?i)\batob\s*\(|fromCharCode|Uint8Array|charCodeAt|TextDecoder|decodeURIComponent|unescape\s*\("
)
_CARRIES = re.compile(
    rb"(?i)<a\s[^>]{0,2000}\bdownload\b[^>]{0,2000}href\s*=\s*[\"']?data:|<a\s[^>]{0,2000}href\s*=\s*[\"']?data:[^>]{0,200}\bdownload\b"
)
_GIVES = re.compile(
    rb"(?i)\.download\b|\bdownload\s*=|\.click\s*\(\)|location(?:\.href)?\s*=|window\.open|document\.write"
)


def is_encrypted(octets: bytes, true_type: str) -> bool:
    """Is the document under a password? Not for archives, whose members say so."""
    if true_type in OLE_TYPES:
        if _ENCRYPTED_PACKAGE in octets or _XLS_ENCRYPTED.search(octets) is not None:
            return True
        return true_type == "word" and _is_encrypted_word(octets)
    if true_type == "pdf":
        return b"/Encrypt" in octets
    return False


def _is_encrypted_word(octets: bytes) -> bool:
    at = octets.find(b"\xec\xa5", 512)
    return 0 <= at <= len(octets) - 12 and at % 512 == 0 and bool(octets[at + 11] & 1)


def has_macros(octets: bytes, true_type: str) -> bool:
    if true_type == "activemime":
        return True  # what Word keeps macros in, in a document saved as a web page
    if true_type not in OLE_TYPES:
        return False
    return any(mark in octets for mark in _VBA) or (true_type == "excel" and _XLM.search(octets) is not None)


def is_macro_member(name: str) -> bool:
    """Is this member of a document's package code, or a sheet of Excel 4.0 macros?"""
    path = "/" + name.lower().replace("\\", "/")
    is_code = path.rpartition("/")[2] in ("vbaproject.bin", "vbadata.xml")
    return is_code or any(folder in path for folder in ("/macrosheets/", "/basic/", "/scripts/"))


def is_object_member(name: str) -> bool:
    lower = name.lower().replace("\\", "/")
    return "/embeddings/" in f"/{lower}" and lower.endswith((".bin", ".exe", ".vbs", ".js", ".lnk"))


def traits_of(octets: bytes, true_type: str) -> Iterable[str]:
    if true_type in OLE_TYPES:
        if has_macros(octets, true_type) and _AUTORUN.search(octets):
            yield "autorun"
        if _PACKAGE in octets:
            yield "embedded_object"
        if _DDE.search(octets):
            yield "dde"
    elif true_type == "pdf":
        octets = octets[:MAX_SEARCHED]
        plain = _PDF_ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), octets) if b"#" in octets else octets
        if _PDF_SCRIPT.search(plain):
            yield "script"
        if _PDF_LAUNCH.search(plain):
            yield "launch"
        if _PDF_FILES.search(plain):
            yield "embedded_object"
    elif true_type == "rtf":
        if _RTF_TEMPLATE.search(octets):
            yield "external_template"
        if _RTF_OBJECT.search(octets):
            yield "embedded_object"
        if _DDE.search(octets):
            yield "dde"
    elif true_type in ("html", "svg", "xml"):
        yield from page_traits(as_utf8(octets[:MAX_SEARCHED]))


def page_traits(octets: bytes) -> Iterable[str]:
    """Of a web page or a drawing with scripts."""
    if _CARRIES.search(octets):
        yield "html_smuggling"
    if not _SCRIPT_TAG.search(octets):
        return
    yield "script"
    if _DECODES.search(octets) and (_MAKES_FILE.search(octets) or _GIVES.search(octets)):
        yield "html_smuggling"


def is_own_member(name: str) -> bool:
    """Of the files that every package of its kind has, which say nothing by their names?"""
    path = name.lower().replace("\\", "/")
    folder, _, last = path.rpartition("/")
    if path in ("[content_types].xml", "mimetype", "content.xml", "styles.xml", "meta.xml", "settings.xml"):
        return True
    return bool(folder) and last.rpartition(".")[2] in _OWN_ENDINGS


def package_traits(name: str, octets: bytes) -> Iterable[str]:
    """Of one member of an Office package."""
    lower, octets = name.lower(), octets[:MAX_MARKUP]
    if lower.endswith(".rels") and any(map(_is_loaded, _RELATION.findall(as_utf8(octets)))):
        yield "external_template"
    if lower.endswith(".xml") and _DDE.search(octets):
        yield "dde"
    if is_macro_member(lower) and _AUTORUN.search(octets):
        yield "autorun"


def _is_loaded(attributes: bytes) -> bool:
    text = html.unescape(attributes.decode("utf-8", "replace")).lower()
    return all(pattern.search(text) for pattern in (_EXTERNAL, _LOADS, _ELSEWHERE))
