"""Every hostile message, whole and changed: nothing is raised, what is told is known, EICAR is found; and ordinary mail
has no fault.
"""

# ruff: noqa: E501 - messages
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.checks.findings import from_json, to_json
from gateway.content.attachment import TRAITS
from gateway.content.inspection import Findings, inspect
from gateway.content.signatures import compile_signatures
from gateway.content.types import TYPES
from gateway.message.mime import FAULTS
from tests.support.hostile import (
    START,
    all_messages,
    attached,
    base64_lines,
    eicars,
    office_of,
    ole_of,
    single,
    zip_of,
)

MESSAGES = all_messages()
SMALL = [octets for octets in MESSAGES.values() if len(octets) < 8000]


@cache
def scanner() -> Callable[[bytes], tuple[str, ...]]:
    return compile_signatures(Path(__file__).parents[2] / "policies" / "yara").scanner()


def check(findings: Findings) -> None:
    assert set(findings.faults) <= set(FAULTS)
    for found in findings.attachments:
        assert {found.true_type, *found.types} <= set(TYPES)
        assert set(found.traits) <= set(TRAITS)
        assert "\n" not in found.name
    assert from_json(to_json(findings, None)).findings == findings


@pytest.mark.parametrize("name", MESSAGES)
def test_a_hostile_message_gives_findings(name: str) -> None:
    check(inspect(MESSAGES[name], scanner()))


@pytest.mark.parametrize("name", eicars())
def test_eicar_is_found(name: str) -> None:
    assert inspect(eicars()[name], scanner()).matches == ("EICAR_Test_File",)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.sampled_from(SMALL), st.data())
def test_a_changed_message_gives_findings(octets: bytes, data: st.DataObject) -> None:
    changed = bytearray(octets)
    pieces = st.sampled_from([b"\r\n", b"--B\r\n", b"--B--", b"\0", b"=", b"PK\x03\x04", b"\xff" * 4, b'"', b";", b":"])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed)))
        changed[at : at + data.draw(st.integers(0, 8))] = data.draw(st.one_of(pieces, st.binary(max_size=6)))
    check(inspect(bytes(changed), scanner()))


@given(st.binary(max_size=400))
def test_any_octets_give_findings(octets: bytes) -> None:
    check(inspect(octets))


# --- ordinary mail ------------------------------------------------------------------------------------------------


def multipart(subtype: bytes, *parts: bytes) -> bytes:
    """Each part from its fields on."""
    body = b"".join(b"--=_b1\r\n" + part + b"\r\n" for part in parts)
    return START + b"Content-Type: multipart/" + subtype + b';\r\n\tboundary="=_b1"\r\n\r\n' + body + b"--=_b1--\r\n"


TEXT = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nHello =E2=82=AC\r\n-- =\r\n\r\nBob"
PAGE = (
    b"Content-Type: text/html; charset=utf-8\r\n\r\n<!DOCTYPE html><html><head><style>p{}</style></head><body><p>Hello"
)
CALENDAR = b"Content-Type: text/calendar; charset=utf-8; method=REQUEST\r\n\r\nBEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nEND:VCALENDAR"
CORE = "<cp:coreProperties/>"
SHEET = {"xl/workbook.xml": b"<workbook/>", "xl/worksheets/sheet1.xml": b"<worksheet/>", "docProps/app.xml": b"<a/>",
         "xl/printerSettings/printerSettings1.bin": b"\0" * 50, "xl/_rels/workbook.xml.rels": b"<Relationships/>"}  # fmt: skip
DRAWING = {"word/media/image1.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "word/_rels/document.xml.rels": b"<Relationships>"
           b'<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/hyperlink"'
           b' Target="https://example.org/" TargetMode="External"/></Relationships>'}  # fmt: skip
OPEN = {"mimetype": b"application/vnd.oasis.opendocument.text", "content.xml": b"<?xml version='1.0'?><office/>",
        "META-INF/manifest.xml": b"<?xml version='1.0'?><manifest/>", "Thumbnails/thumbnail.png": b"\x89PNG\r\n\x1a\n"}  # fmt: skip
ORDINARY = {
    "plain text": START + b"Content-Type: text/plain\r\n\r\nHello\r\n-- \r\nBob\r\n",
    "header alone": START,
    "alternative": multipart(b"alternative", TEXT, PAGE),
    "docx": attached(office_of(DRAWING), b"Letter.docx"),
    "xlsx": attached(office_of(SHEET, "xl"), b"Table.xlsx"),
    "doc": attached(ole_of(("WordDocument", "1Table", "\x05SummaryInformation")), b"Letter.doc"),
    "xls": attached(ole_of(("Workbook", "\x05SummaryInformation")), b"Table.xls"),
    "odt": attached(zip_of(OPEN, 0), b"Letter.odt"),
    "pdf": attached(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n", b"Letter.pdf"),
    "png": attached(b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"photo.png", b"image/png", disposition=b"inline"),
    "zip of documents": attached(zip_of({"a/letter.pdf": b"%PDF-1.7\n", "a/photo.jpg": b"\xff\xd8\xff\xe0"}), b"letters.zip"),
    "csv": attached(b"a;b\r\n1;2\r\n", b"table.csv", b"text/csv"),
    "vcard": attached(b"BEGIN:VCARD\r\nEND:VCARD\r\n", b"bob.vcf", b"text/vcard"),
    "name with a fold": single(b'Content-Type: application/pdf;\r\n\tname="A long name of\r\n\ta letter.pdf"\r\n'
                               b"Content-Disposition: attachment;\r\n\tfilename=\"A long name of\r\n\ta letter.pdf\"", b"%PDF-1.7"),
    "name in two ways": single(b'Content-Type: application/pdf;\r\n name="=?UTF-8?Q?Rechnung_f=C3=BCr_Bob=2Epdf?="\r\n'
                               b"Content-Disposition: attachment;\r\n filename*0*=UTF-8''Rechnung%20f%C3%BCr;\r\n"
                               b" filename*1*=%20Bob.pdf", b"%PDF-1.7"),
    "name with a fallback": single(b"Content-Disposition: attachment; filename=\"Rechnung.pdf\";\r\n"
                                   b" filename*=UTF-8''R%C3%A9chnung.pdf", b"%PDF-1.7"),
    "signed by S/MIME": multipart(b"signed; protocol=\"application/pkcs7-signature\"; micalg=sha-256", TEXT,
                                  b"Content-Type: application/pkcs7-signature; name=smime.p7s\r\nContent-Transfer-Encoding: base64\r\n"
                                  b"Content-Disposition: attachment; filename=smime.p7s\r\n\r\n" + base64_lines(b"\x30\x82" + b"\1" * 99)),
    "encrypted by S/MIME": single(b'Content-Type: application/pkcs7-mime; smime-type=enveloped-data; name="smime.p7m"\r\n'
                                  b"Content-Transfer-Encoding: base64", base64_lines(b"\x30\x82" + b"\1" * 99)),
    "signed by PGP": multipart(b"signed; protocol=\"application/pgp-signature\"", TEXT,
                               b'Content-Type: application/pgp-signature; name="signature.asc"\r\n\r\n-----BEGIN PGP SIGNATURE-----\r\n'),
    "encrypted by PGP": multipart(b"encrypted; protocol=\"application/pgp-encrypted\"",
                                  b"Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n",
                                  b"Content-Type: application/octet-stream; name=encrypted.asc\r\n\r\n-----BEGIN PGP MESSAGE-----\r\n"),
    "clear-signed": single(b"Content-Type: text/plain", b"-----BEGIN PGP SIGNED MESSAGE-----\r\nHash: SHA256\r\n\r\nHi\r\n"),
    "invitation": multipart(b"alternative", TEXT, PAGE, CALENDAR),
    "bounce": multipart(b"report; report-type=delivery-status", TEXT,
                        b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a.example\r\n\r\nStatus: 5.1.1\r\n",
                        b"Content-Type: message/rfc822\r\n\r\n" + attached(b"x", b"a.txt")),
    "bounce with a header alone": multipart(b"report; report-type=delivery-status", TEXT,
                                            b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a.example\r\n",
                                            b"Content-Type: text/rfc822-headers\r\n\r\n" + START),
    "bounce with a header as a message": multipart(b"report; report-type=delivery-status", TEXT,
                                                   b"Content-Type: message/rfc822\r\n\r\n" + START.rstrip()),
    "receipt": multipart(b"report; report-type=disposition-notification", TEXT,
                         b"Content-Type: message/disposition-notification\r\n\r\nDisposition: x; displayed\r\n"),
    "digest": multipart(b"digest", b"\r\n" + START + b"\r\none", b"\r\n" + START + b"\r\ntwo"),
    "forwarded message": multipart(b"mixed", TEXT, b"Content-Type: message/rfc822\r\nContent-Disposition: attachment;"
                                   b' filename="Re: x.eml"\r\n\r\n' + START + b"\r\nhello"),
    "boundary with odd letters": START + b"Content-Type: multipart/mixed; boundary=\"'()+_,-./:=? x\"\r\n\r\n"
    b"--'()+_,-./:=? x\r\n\r\nhello\r\n--'()+_,-./:=? x--\r\n",
    "part with an empty body": multipart(b"mixed", TEXT, b"Content-Type: text/plain\r\n"),
    "list footer": multipart(b"mixed", TEXT, b"Content-Type: text/plain\r\nContent-Disposition: inline\r\n\r\n______\r\nlist"),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_mail_has_no_fault_and_no_trait(name: str) -> None:
    found = inspect(ORDINARY[name], scanner())
    harmless = {"two_names"} if name == "name with a fallback" else set()
    assert set(found.faults) - harmless == set()
    assert found.matches == ()
    for attachment in found.attachments:
        assert attachment.traits == ()
        assert (attachment.has_macros, attachment.is_encrypted) == (False, False)
