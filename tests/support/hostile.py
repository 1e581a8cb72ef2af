"""Hostile messages and the files in them, made when asked for and the same each time.

No real harm is in here: the one "virus" is the EICAR test string, which stands nowhere in clear.
"""

# ruff: noqa: E501 - messages
import binascii
import gzip
import struct
import tarfile
import zipfile
import zlib
from base64 import encodebytes
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from random import Random

import libarchive

from gateway.content import archives

EICAR = b"".join((b"X5O!P%@AP[4\\PZX54(P^)7CC)7}", b"$EICAR-", b"STANDARD-ANTI", b"VIRUS-TEST-FILE!", b"$H+H*"))
EXE = b"MZ\x90\0" + b"\0" * 200
ELF = b"\x7fELF\x02\x01\x01" + b"\0" * 100
LNK = b"\x4c\0\0\0\x01\x14\x02\0" + b"\0" * 100
PASSWORD = b"infected"
HEADER = (
    b"From: Alice Sender <alice@sender.example>\r\nTo: Bob <user@example.org>\r\n"
    b"Date: Tue, 14 Jul 2026 10:00:00 +0000\r\nMessage-ID: <x1@sender.example>\r\n"
)
START = HEADER + b"Subject: probe\r\nMIME-Version: 1.0\r\n"
MIXED = START + b'Content-Type: multipart/mixed; boundary="B"\r\n\r\n'


# --- messages -----------------------------------------------------------------------------------------------------


def base64_lines(octets: bytes) -> bytes:
    return encodebytes(octets).replace(b"\n", b"\r\n")


def quoted(octets: bytes) -> bytes:
    return b"".join(b"=%02X" % octet for octet in octets) + b"\r\n"


def uuencoded(name: bytes, octets: bytes) -> bytes:
    lines = (binascii.b2a_uu(octets[at : at + 45]) for at in range(0, len(octets), 45))
    text = b"begin 644 " + name + b"\n" + b"".join(lines) + b"`\nend\n"
    return text.replace(b"\n", b"\r\n")


def single(fields: bytes, body: bytes) -> bytes:
    """fields: without the line end of the last."""
    return START + fields + b"\r\n\r\n" + body


def attached(
    octets: bytes,
    name: bytes,
    media_type: bytes = b"application/octet-stream",
    encoding: bytes = b"base64",
    disposition: bytes = b"attachment",
) -> bytes:
    """A text and one attachment; the name stands in quotes as it is."""
    body = {b"base64": base64_lines, b"quoted-printable": quoted}.get(encoding, bytes)(octets)
    return (
        MIXED
        + b"--B\r\nContent-Type: text/plain\r\n\r\nsee attachment\r\n--B\r\nContent-Type: "
        + media_type
        + b'; name="' + name + b'"\r\nContent-Disposition: ' + disposition + b'; filename="' + name
        + b'"\r\nContent-Transfer-Encoding: ' + encoding + b"\r\n\r\n" + body + b"\r\n--B--\r\n"
    )  # fmt: skip


def disposed(parameters: bytes, octets: bytes = EXE) -> bytes:
    """A message that is one attachment with these parameters of its disposition."""
    fields = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: "
    return single(fields + b"attachment; " + parameters, base64_lines(octets))


def nested_multiparts(depth: int) -> bytes:
    opens = (b'--b%d\r\nContent-Type: multipart/mixed; boundary="b%d"\r\n\r\n' % (n, n + 1) for n in range(depth))
    closes = (b"--b%d--\r\n" % n for n in range(depth, -1, -1))
    leaf = b"--b%d\r\nContent-Type: text/plain\r\n\r\ndeep\r\n" % depth
    return START + b'Content-Type: multipart/mixed; boundary="b0"\r\n\r\n' + b"".join((*opens, leaf, *closes))


def nested_messages(depth: int, innermost: bytes = b"\r\ndeep\r\n") -> bytes:
    opens = b"".join(b"Subject: %d\r\nContent-Type: message/rfc822\r\n\r\n" % n for n in range(depth))
    return HEADER + opens + innermost


# --- archives -----------------------------------------------------------------------------------------------------


def zip_of(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, octets in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), octets, method)
    return out.getvalue()


def tar_of(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, octets in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(octets)
            archive.addfile(info, BytesIO(octets))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return out.getvalue()


def packed(octets: bytes) -> bytes:
    return gzip.compress(octets, mtime=0)


def by_library(form: str, files: Mapping[str, bytes], options: str = "", passphrase: str | None = None) -> bytes:
    """form: "7zip", "iso9660", "zip". Needs libarchive."""
    blocks: list[bytes] = []

    def write(block: bytes) -> int:
        blocks.append(bytes(block))
        return len(block)

    with libarchive.custom_writer(write, form, options=options, passphrase=passphrase) as archive:
        for name, octets in files.items():
            archive.add_file_from_memory(name, len(octets), octets, mtime=0)
    return b"".join(blocks)


def seven_zip_of(files: Mapping[str, bytes]) -> bytes:
    return by_library("7zip", files)


def rar_of(files: Mapping[str, bytes]) -> bytes:
    """RAR 5.0, stored."""

    def block(fields: bytes, data: bytes = b"") -> bytes:
        sized = _vint(len(fields)) + fields
        return struct.pack("<I", zlib.crc32(sized)) + sized + data

    out = [b"Rar!\x1a\x07\x01\0", block(b"\x01\0\0")]
    for name, octets in files.items():
        path = name.encode()
        size = _vint(len(octets))
        fields = b"\x02\x02" + size + b"\x04" + size + b"\x20" + struct.pack("<I", zlib.crc32(octets)) + b"\0\0"
        out.append(block(fields + _vint(len(path)) + path, octets))
    return b"".join((*out, block(b"\x05\0\0")))


def _vint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def cab_of(files: Mapping[str, bytes]) -> bytes:
    """Stored, in one folder and one block."""
    entries, data = b"", b""
    for name, octets in files.items():
        entries += struct.pack("<IIHHHH", len(octets), len(data), 0, 0x5C21, 0, 32) + name.encode() + b"\0"
        data += octets
    first = 36 + 8
    block = struct.pack("<IHH", 0, len(data), len(data)) + data
    size = first + len(entries) + len(block)
    header = struct.pack("<4sIIIIIBBHHHHH", b"MSCF", 0, size, 0, first, 0, 3, 1, 1, len(files), 0, 0, 0)
    return header + struct.pack("<IHH", first + len(entries), 1, 0) + entries + block


def encrypted_zip_of(name: str, octets: bytes, password: bytes = PASSWORD) -> bytes:
    """With the encryption of PKWARE (APPNOTE 6.1), stored."""
    keys = [0x12345678, 0x23456789, 0x34567890]
    table = [_crc_of_octet(octet) for octet in range(256)]

    def update(octet: int) -> None:
        keys[0] = table[(keys[0] ^ octet) & 255] ^ (keys[0] >> 8)
        keys[1] = ((keys[1] + (keys[0] & 255)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = table[(keys[2] ^ (keys[1] >> 24)) & 255] ^ (keys[2] >> 8)

    def encrypt(octet: int) -> int:
        word = (keys[2] | 2) & 0xFFFF
        update(octet)
        return octet ^ (word * (word ^ 1)) >> 8 & 255

    for octet in password:
        update(octet)
    crc = zlib.crc32(octets)
    body = bytes(map(encrypt, Random(0).randbytes(11) + bytes([crc >> 24]) + octets))
    path = name.encode()
    common = struct.pack("<HHHHIIIHH", 1, 0, 0, 0x5C21, crc, len(body), len(octets), len(path), 0)
    local = b"PK\x03\x04\x14\0" + common + path + body
    central = b"PK\x01\x02\x14\0\x14\0" + common + struct.pack("<HHHII", 0, 0, 0, 0, 0) + path
    return local + central + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local), 0)


def _crc_of_octet(octet: int) -> int:
    for _ in range(8):
        octet = (octet >> 1) ^ 0xEDB88320 if octet & 1 else octet >> 1
    return octet


# --- documents ----------------------------------------------------------------------------------------------------


def ole_of(names: Sequence[str], text: bytes = b"") -> bytes:
    """The header of a compound file (MS-CFB 2.2), a sector of content and one of a directory with these names."""
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 16 + b"\x3e\0\x03\0\xfe\xff\x09\0\x06\0"
    entries = b"".join(name.encode("utf-16-le").ljust(64, b"\0") + b"\0" * 64 for name in ("Root Entry", *names))
    return header.ljust(512, b"\0") + text.ljust(512, b"\0") + entries


def office_of(files: Mapping[str, bytes] | None = None, folder: str = "word") -> bytes:
    """A package of Office (OPC) with what each has, and these files."""
    plain = {
        "[Content_Types].xml": b'<?xml version="1.0"?><Types/>',
        "_rels/.rels": b'<?xml version="1.0"?><Relationships/>',
        f"{folder}/document.xml": b'<?xml version="1.0"?><document><t>hello</t></document>',
    }
    return zip_of({**plain, **(files or {})})


def external_relationship(kind: str = "attachedTemplate", target: str = "https://evil.example/t.dotm") -> bytes:
    return (
        '<?xml version="1.0"?><Relationships><Relationship Id="rId1" '
        f'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/{kind}" '
        f'Target="{target}" TargetMode="External"/></Relationships>'
    ).encode()


# --- the messages -------------------------------------------------------------------------------------------------

STRUCTURE: dict[str, bytes] = {
    "empty": b"",
    "only a line end": b"\r\n",
    "body without header": b"\r\nhello\r\n",
    "header without end": HEADER + b"Subject: none",
    "no final line end": START + b"\r\nhello",
    "lines end with LF": (MIXED + b"--B\r\n\r\nx\r\n--B--\r\n").replace(b"\r\n", b"\n"),
    "lines end with CR": (START + b"\r\nx\r\n").replace(b"\r\n", b"\r"),
    "multiparts 10 deep": nested_multiparts(10),
    "multiparts 1000 deep": nested_multiparts(1000),
    "messages 10 deep": nested_messages(10),
    "messages 1000 deep": nested_messages(1000),
    "one boundary for both": MIXED + b'--B\r\nContent-Type: multipart/alternative; boundary="B"\r\n\r\n' * 50 + b"--B--\r\n",
    "one boundary begins with the other": MIXED
    + b'--B\r\nContent-Type: multipart/mixed; boundary="BB"\r\n\r\n--BB\r\n\r\nx\r\n--BB--\r\n--B--\r\n',
    "no boundary named": START + b"Content-Type: multipart/mixed\r\n\r\n--x\r\n\r\nhi\r\n--x--\r\n",
    "empty boundary": START + b'Content-Type: multipart/mixed; boundary=""\r\n\r\n--\r\n\r\nhi\r\n----\r\n',
    "boundary never comes": MIXED + b"hello\r\n",
    "boundary with NUL": START + b'Content-Type: multipart/mixed; boundary="a\0b"\r\n\r\n--a\0b\r\n\r\nhi\r\n--a\0b--\r\n',
    "letters behind the boundary": MIXED + b"--B\r\n\r\na\r\n--Bx\r\n\r\nb\r\n--B--\r\n",
    "no closing delimiter": attached(EXE, b"a.exe").replace(b"--B--\r\n", b""),
    "10,000 parts": MIXED + b"--B\r\n\r\nx\r\n" * 10_000 + b"--B--\r\n",
    "200,000 dashed lines": MIXED + b"--\r\n" * 200_000,
    "two boundaries": START + b'Content-Type: multipart/mixed; boundary="a"; boundary="b"\r\n\r\n--a\r\n\r\nA\r\n--a--\r\n'
    b"--b\r\nContent-Disposition: attachment; filename=a.exe\r\n\r\nMZ\r\n--b--\r\n",
    "two content types": HEADER + b'Content-Type: text/plain\r\nContent-Type: multipart/mixed; boundary="B"\r\n\r\n'
    b"--B\r\nContent-Disposition: attachment; filename=a.exe\r\n\r\nMZ\r\n--B--\r\n",
    "part in the preamble": MIXED + b'Content-Disposition: attachment; filename="a.exe"\r\n\r\nMZ\r\n--B\r\n\r\nhi\r\n--B--\r\n',
    "part in the epilogue": MIXED + b"--B\r\n\r\nhi\r\n--B--\r\nContent-Disposition: attachment; filename=a.exe\r\n\r\nMZ\r\n",
    "part header without end": MIXED + b"--B\r\nContent-Type: text/plain\r\n--B\r\n\r\nhi\r\n--B--\r\n",
    "line without a colon in a part header": MIXED + b"--B\r\nnonsense\r\nContent-Type: image/png\r\n\r\nhi\r\n--B--\r\n",
    "fragment of a message": START + b'Content-Type: message/partial; id="a@x"; number=1; total=3\r\n\r\nSubject: x\r\n\r\nTVqQ',
    "body elsewhere": START + b"Content-Type: message/external-body; access-type=URL; URL=\"http://evil.example/a.exe\""
    b"\r\n\r\nContent-Type: application/octet-stream\r\n\r\n",
    "mbox line first": b"From alice@sender.example Tue Jul 14 10:00:00 2026\r\n" + START + b"\r\nhi\r\n",
    "byte order mark first": b"\xef\xbb\xbf" + START + b"\r\nhi\r\n",
    "bounce of a bounce": START + b"Content-Type: multipart/report; report-type=delivery-status; boundary=R\r\n\r\n"
    b"--R\r\n\r\nfailed\r\n--R\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\n--R\r\n"
    b"Content-Type: message/rfc822\r\n\r\nContent-Type: multipart/report; boundary=R\r\n\r\n--R--\r\n--R--\r\n",
    "random octets": Random(20260101).randbytes(65_536),
    "random header": b"From: " + Random(1).randbytes(2000) + b"\r\nContent-Type: " + Random(2).randbytes(500) + b"\r\n\r\nx",
}  # fmt: skip

_BASE64 = b"Content-Transfer-Encoding: base64"
ENCODINGS: dict[str, bytes] = {
    "base64 with foreign letters": single(_BASE64, b"!!!aGVsbG8*&^=====aHR0cDovL2V2aWwuZXhhbXBsZS8=\r\n=\r\n====\r\n"),
    "base64 with padding in it": single(_BASE64, base64_lines(b"hello ") + base64_lines(EICAR)),
    "base64 one letter a line": single(_BASE64, b"\r\n".join(bytes([each]) for each in base64_lines(b"A" * 30_000))),
    "base64 not at all": single(_BASE64, b"\xff\xfe\0"),
    "quoted-printable that is broken": single(
        b"Content-Transfer-Encoding: quoted-printable", b"=ZZ=3=\r\n=\r\n=3D=3d==0A= \r\nx="
    ),
    "unknown encoding": single(b"Content-Transfer-Encoding: x-rot47", b"hi\r\n"),
    "two encodings": single(b"Content-Transfer-Encoding: 7bit\r\n" + _BASE64, base64_lines(EICAR)),
    "base64 multipart": START + _BASE64 + b'\r\nContent-Type: multipart/mixed; boundary="B"\r\n\r\n'
    + base64_lines(b"--B\r\nContent-Disposition: attachment; filename=a.exe\r\n\r\n" + EICAR + b"\r\n--B--\r\n"),
    "encoding with a comment": single(b"Content-Transfer-Encoding: BaSe64 (c) ; x=y", base64_lines(EICAR)),
    "uuencoded in text": single(b"Content-Type: text/plain", b"hello\r\n\r\n" + uuencoded(b"a.exe", EXE)),
    "yEnc": single(b"Content-Type: text/plain", b"=ybegin line=128 size=3 name=a.exe\r\n\x8c\x8d\x8e\r\n=yend size=3\r\n"),
    "charset that decompresses": single(
        b"Content-Type: text/plain; charset=zlib_codec\r\n" + _BASE64, base64_lines(zlib.compress(b"\0" * 1_000_000, 9))
    ),
    "NUL in text": single(b"Content-Type: text/plain", b"hello\0\0\0http://evil.example/\r\n"),
}  # fmt: skip

NAMES: dict[str, bytes] = {
    "continued": disposed(b"filename*1=\"ice.\"; filename*2*=%65xe; filename*0*=utf-8''inv%6F"),
    "plain and extended": disposed(b"filename=a.txt; filename*=utf-8''a.exe"),
    "2,000 segments": disposed(b"".join(b"\r\n filename*%d=a;" % n for n in range(2000))),
    "huge number": disposed(b"filename*0*=utf-8''a; filename*999999999*=b"),
    "unknown charset": disposed(b"filename*=x-bogus'en'%ff%fe.exe"),
    "line break": disposed(b"filename*=utf-8''a%0D%0AX-Injected%3A%20yes%0D%0A.txt"),
    "unquoted": disposed(b"filename=a;b c.exe; size=x"),
    "unquoted with blanks": disposed(b"filename=my invoice.exe"),
    "double extension": attached(EXE, b"report.pdf.exe"),
    "many blanks": attached(EXE, b"report.pdf" + b" " * 40 + b".exe"),
    "right to left": attached(EXE, "annexe\u202efdp.exe".encode()),
    "path of Windows": attached(EXE, b"..\\\\..\\\\windows\\\\a.exe"),
    "path": attached(EXE, b"../../../etc/a.exe"),
    "dot at the end": attached(EXE, b"a.exe."),
    "blank at the end": attached(EXE, b"a.exe "),
    "NUL in it": attached(EXE, b"a.exe\0.txt"),
    "capitals": attached(EXE, b"A.EXE"),
    "encoded word": attached(EXE, b"=?utf-8?B?YS5leGU=?="),
    "stream of a file": attached(EXE, b"a.txt:b.exe"),
    "one dot leader": attached(EXE, "a\u2024exe".encode()),
    "full width": attached(EXE, "a\uff0e\uff45\uff58\uff45".encode()),
    "zero width": attached(EXE, "a.e\u200bxe".encode()),
    "markup": attached(EXE, b"<script>alert(1)</script>.exe"),
    "5,000 letters": attached(EXE, b"A" * 5000 + b".exe"),
    "in Content-Type alone": single(b"Content-Type: image/png; name=a.exe\r\nContent-Disposition: inline", EXE),
    "two that differ": single(b"Content-Type: image/png; name=a.png\r\nContent-Disposition: attachment; filename=a.exe", EXE),
    "none": single(b"Content-Type: application/octet-stream", EXE),
}  # fmt: skip

_EXE_ZIP = zip_of({"a.exe": EXE})
ARCHIVES: dict[str, bytes] = {
    "zip": attached(zip_of({"doc/invoice.pdf.exe": EXE}), b"a.zip"),
    "zip in zip": attached(zip_of({"b.zip": zip_of({"c.zip": _EXE_ZIP})}), b"a.zip"),
    "zip called docx": attached(_EXE_ZIP, b"a.docx"),
    "zip that is a bomb": attached(zip_of({"zeros": b"\0" * 40_000_000}), b"a.zip"),
    "10,000 files": attached(zip_of({f"f{n}": b"" for n in range(10_000)}, zipfile.ZIP_STORED), b"a.zip"),
    "names that lead out": attached(zip_of({"../../a.txt": b"x"}), b"a.zip"),
    "absolute names": attached(zip_of({"/etc/x": b"x"}), b"a.zip"),
    "names of Windows": attached(zip_of({"C:\\x.exe": EXE}), b"a.zip"),
    "encrypted": attached(encrypted_zip_of("secret.exe", EXE), b"a.zip"),
    "cut in half": attached(_EXE_ZIP[: len(_EXE_ZIP) // 2], b"a.zip"),
    "wrong checksum": attached(_EXE_ZIP[:14] + b"\0\0\0\0" + _EXE_ZIP[18:], b"a.zip"),
    "behind a picture": attached(b"GIF89a" + b"x" * 1000 + _EXE_ZIP, b"a.gif", b"image/gif"),
    "sizes that lie": attached(_EXE_ZIP.replace(struct.pack("<I", len(EXE)), struct.pack("<I", 0xFFFFFFF0)), b"a.zip"),
    "gz": attached(packed(EXE), b"a.exe.gz"),
    "tar.gz with links": attached(packed(tar_of({"../x": b"x"}, {"link": "/etc/passwd"})), b"a.tar.gz"),
    "rar": attached(rar_of({"a.exe": EXE}), b"a.rar"),
    "rar of nothing": attached(b"Rar!\x1a\x07\x01\0" + Random(3).randbytes(300), b"a.rar"),
    "7z of nothing": attached(b"7z\xbc\xaf\x27\x1c\0\4" + Random(4).randbytes(300), b"a.7z"),
    "cab": attached(cab_of({"a.exe": EXE}), b"a.cab"),
    "message in zip": attached(zip_of({"a.eml": attached(EXE, b"b.exe")}), b"a.zip"),
}

DOCUMENTS: dict[str, bytes] = {
    "word with macros": attached(
        ole_of(("WordDocument", "Macros", "VBA", "_VBA_PROJECT"), b"Sub AutoOpen()"), b"a.doc"
    ),
    "docx with macros": attached(office_of({"word/vbaProject.bin": ole_of(("VBA", "_VBA_PROJECT"))}), b"a.docm"),
    "docx with a template elsewhere": attached(
        office_of({"word/_rels/settings.xml.rels": external_relationship()}), b"a.docx"
    ),
    "encrypted docx": attached(ole_of(("EncryptionInfo", "EncryptedPackage")), b"a.docx"),
    "pdf that starts something": attached(b"%PDF-1.7\n1 0 obj<</OpenAction<</S/Launch/F(cmd.exe)>>>>", b"a.pdf"),
    "rtf with an object": attached(rb"{\rtf1{\object\objemb{\*\objdata 0105}}}", b"a.rtf"),
    "page that makes a file": attached(
        b"<html><script>var b=new Blob([atob('TVqQ')]);a.download='a.exe'</script>", b"a.html", b"text/html"
    ),
}


def eicars() -> dict[str, bytes]:
    """EICAR in all that it must be found in. Those that need libarchive only where it is."""
    plain = {
        "alone": START + b"\r\n" + EICAR + b"\r\n",
        "plain": attached(EICAR, b"eicar.com", encoding=b"7bit"),
        "base64": attached(EICAR, b"eicar.com"),
        "quoted-printable": attached(EICAR, b"eicar.com", encoding=b"quoted-printable"),
        "uuencoded": ENCODINGS["uuencoded in text"].replace(uuencoded(b"a.exe", EXE), uuencoded(b"e.com", EICAR)),
        "uuencoded part": single(b"Content-Transfer-Encoding: x-uuencode", uuencoded(b"e.com", EICAR)),
        "zip": attached(zip_of({"eicar.com": EICAR}), b"e.zip"),
        "zip in zip": attached(zip_of({"e.zip": zip_of({"eicar.com": EICAR})}), b"e.zip"),
        "tar.gz": attached(packed(tar_of({"eicar.com": EICAR})), b"e.tar.gz"),
        "gz": attached(packed(EICAR), b"eicar.com.gz"),
        "message in a message": single(b"Content-Type: message/rfc822", attached(EICAR, b"eicar.com")),
        "message in base64": attached(attached(EICAR, b"eicar.com"), b"m.eml", b"message/rfc822"),
        "message in zip": attached(zip_of({"m.eml": attached(EICAR, b"eicar.com")}), b"m.zip"),
        "behind a boundary that never comes": attached(EICAR, b"eicar.com").replace(b'"B"', b'"Z"', 1),
        "behind no boundary": START
        + b"Content-Type: multipart/mixed\r\n"
        + _BASE64
        + b"\r\n\r\n"
        + base64_lines(EICAR),
        "two encodings": ENCODINGS["two encodings"],
        "base64 multipart": ENCODINGS["base64 multipart"],
        "padding in base64": attached(EICAR, b"e.com").replace(
            base64_lines(EICAR), base64_lines(EICAR[:1]) + base64_lines(EICAR[1:])
        ),
        "in a docx": attached(office_of({"word/media/a.bin": EICAR}), b"a.docx"),
        "behind a picture": attached(b"GIF89a" + b"x" * 1000 + zip_of({"eicar.com": EICAR}), b"a.gif", b"image/gif"),
    }
    if not archives.has_library():
        return plain
    return plain | {
        "7z": attached(seven_zip_of({"eicar.com": EICAR}), b"e.7z"),
        "iso": attached(by_library("iso9660", {"eicar.com": EICAR}), b"e.iso"),
        "iso in zip": attached(zip_of({"e.iso": by_library("iso9660", {"eicar.com": EICAR})}), b"e.zip"),
        "rar": attached(rar_of({"eicar.com": EICAR}), b"e.rar"),
        "cab": attached(cab_of({"eicar.com": EICAR}), b"e.cab"),
    }


def all_messages() -> dict[str, bytes]:
    """By group and name."""
    groups: dict[str, Callable[[], dict[str, bytes]]] = {
        "structure": lambda: STRUCTURE,
        "encodings": lambda: ENCODINGS,
        "names": lambda: NAMES,
        "archives": lambda: ARCHIVES,
        "documents": lambda: DOCUMENTS,
        "eicar": eicars,
    }
    return {f"{group}: {name}": octets for group, make in groups.items() for name, octets in make().items()}
