"""A message looked through: what is told of its attachments, and that nothing in it is passed over."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.checks.findings import from_json, to_json
from gateway.content import archives
from gateway.content.attachment import TRAITS, Attachment
from gateway.content.inspection import MAX_ATTACHMENTS, MAX_MEMBERS_TOLD, Findings, inspect
from gateway.content.types import TYPES
from gateway.message.mime import AMBIGUOUS, FAULTS
from gateway.servers.content import MAX_ANSWER, _packet
from gateway.spam.filter import SpamVerdict
from tests.support.hostile import (
    ARCHIVES,
    DOCUMENTS,
    EXE,
    LNK,
    MIXED,
    NAMES,
    START,
    attached,
    base64_lines,
    disposed,
    office_of,
    packed,
    rar_of,
    single,
    tar_of,
    uuencoded,
    zip_of,
)

JS = b"var shell = new ActiveXObject('WScript.Shell');"
MARK = b"a mark to find"
needs_library = pytest.mark.skipif(not archives.has_library(), reason="needs libarchive")


def one(octets: bytes) -> Attachment:
    (found,) = inspect(octets).attachments
    return found


def is_found(octets: bytes) -> bool:
    """Is MARK, alone, among what is scanned?"""
    return bool(inspect(octets, lambda each: ("Mark",) if each.strip() == MARK else ()).matches)


def test_what_is_told_of_an_attachment() -> None:
    found = one(attached(EXE, b"doc/invoice.pdf.exe", b"Application/PDF"))
    assert replace(found, part="") == Attachment(
        name="invoice.pdf.exe",
        extension="exe",
        media_type="application/pdf",
        true_type="exe",
        size=len(EXE),
        depth=1,
        extensions=("exe",),
        types=("exe",),
        traits=("double_extension",),
    )


def test_a_message_of_text_has_no_attachments() -> None:
    alternative = (
        START + b"Content-Type: multipart/alternative; boundary=B\r\n\r\n--B\r\n\r\nhello\r\n--B\r\n"
        b"Content-Type: text/html\r\n\r\n<p>hello\r\n--B--\r\n"
    )  # fmt: skip
    for octets in (START + b"\r\nhello\r\n", alternative, single(b"Content-Disposition: inline", b"hello")):
        assert inspect(octets) == Findings()


@pytest.mark.parametrize(
    "body",
    [
        b"Dim sum on Friday?\r\n",
        b"PowerShell question: how do I quote?\r\n",
        b"MZ told me.\r\n",
        b"FWS, the Fish and Wildlife Service\r\n",
        b"#!/bin/sh\r\necho that was the script\r\n",
        b"-----BEGIN PGP SIGNED MESSAGE-----\r\nHash: SHA256\r\n\r\nhello\r\n",
        b"The file begins with %PDF-1.4, see?\r\n",
    ],
)
def test_a_text_that_is_shown_is_no_attachment_whatever_it_begins_with(body: bytes) -> None:
    assert inspect(single(b"Content-Type: text/plain", body)).attachments == ()


def test_a_page_that_is_shown_is_no_attachment_with_a_drawing_in_it() -> None:
    body = b"<!doctype html><html><body><svg width=1></svg><p>hello"
    assert inspect(single(b"Content-Type: text/html", body)).attachments == ()


def test_a_program_called_a_text_is_an_attachment() -> None:
    assert one(single(b"Content-Type: text/plain", EXE)).true_type == "exe"


def test_a_text_that_is_attached_is_an_attachment() -> None:
    assert one(single(b"Content-Disposition: attachment", b"hello")).true_type == "text"
    assert one(single(b"Content-Type: text/plain; name=a.js", JS)).extension == "js"


def test_what_is_harmless_by_name_and_runs_is_a_mismatch() -> None:
    assert one(attached(EXE, b"photo.png", b"image/png")).traits == ("type_mismatch",)
    assert one(attached(EXE, b"a.exe")).traits == ()
    assert one(attached(b"\x89PNG\r\n\x1a\n", b"photo.png")).traits == ()


@pytest.mark.parametrize(
    ("name", "octets"),
    [
        ("deploy.sh", b"#!/bin/sh\necho\n"),
        ("tool.py", b"#!/usr/bin/env python3\n"),
        ("A.class", b"\xca\xfe\xba\xbe\0\0\0\x37" + b"\0" * 50),
        ("page.php", b"<?php echo 1;"),
        ("lib.so", b"\x7fELF\x02\x01\x01" + b"\0" * 50),
        ("menu.txt", b"Dim sum, 5.90\r\n"),
        ("birds.txt", b"FWS list of birds\r\n"),
    ],
    ids=["shell", "python", "java", "php", "library", "menu", "birds"],
)
def test_what_is_named_for_what_it_is_is_no_mismatch(name: str, octets: bytes) -> None:
    assert "type_mismatch" not in one(attached(octets, name.encode())).traits


@pytest.mark.parametrize(
    ("name", "extension", "faults"),
    [
        ("continued", "exe", set()),
        ("plain and extended", "exe", {"two_names"}),
        ("unknown charset", "exe", set()),
        ("line break", "txt", {"control_in_name"}),
        ("unquoted with blanks", "exe", set()),
        ("double extension", "exe", set()),
        ("many blanks", "exe", set()),
        ("right to left", "exe", set()),
        ("path of Windows", "exe", set()),
        ("path", "exe", set()),
        ("dot at the end", "exe", set()),
        ("blank at the end", "exe", set()),
        ("NUL in it", "exe", {"control_in_name"}),
        ("capitals", "exe", set()),
        ("encoded word", "exe", set()),
        ("stream of a file", "exe", set()),
        ("one dot leader", "exe", set()),
        ("full width", "exe", set()),
        ("zero width", "exe", set()),
        ("markup", "exe", set()),
        ("in Content-Type alone", "exe", set()),
        ("two that differ", "exe", {"two_names"}),
        ("none", "", set()),
    ],
)
def test_names(name: str, extension: str, faults: set[str]) -> None:
    found = inspect(NAMES[name])
    assert found.attachments[0].extension == extension
    assert set(found.faults) - {"bad_encoding", "two_parameters"} == faults
    assert "\r" not in found.attachments[0].name


def test_a_plain_name_for_old_readers_beside_the_extended_one_is_not_ambiguous() -> None:
    """As RFC 2231 4 and RFC 6266 suggest; both are told, and the worse one counts."""
    found = inspect(disposed(b"filename=\"Rechnung fur.pdf\"; filename*=utf-8''Rechnung%20f%C3%BCr.pdf", b"%PDF-1.4"))
    assert not set(found.faults) & AMBIGUOUS


def test_a_name_folded_with_a_tab_is_no_fault() -> None:
    assert inspect(disposed(b'filename="a long\r\n\tname.pdf"', b"%PDF-1.4")).faults == ()


@pytest.mark.parametrize("media_type", [b"application/javascript", b"application/hta", b"application/x-msdownload"])
def test_a_part_without_a_name_has_the_extension_of_its_type(media_type: bytes) -> None:
    """Mail programs make a name up by it."""
    assert one(single(b"Content-Type: " + media_type, JS)).extension != ""


def test_a_message_with_a_file_name_is_told() -> None:
    """A reader may offer it as that file."""
    octets = single(b'Content-Type: message/rfc822; name="a.js"\r\nContent-Disposition: attachment', b"\r\n" + JS)
    assert "js" in {extension for each in inspect(octets).attachments for extension in each.extensions}


# --- archives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "members", "traits"),
    [
        ("zip", ("invoice.pdf.exe",), {"double_extension"}),
        ("zip in zip", ("b.zip", "c.zip", "a.exe"), set()),
        ("zip called docx", ("a.exe",), set()),
        ("zip that is a bomb", (), {"archive_limits"}),
        ("names that lead out", ("a.txt",), {"path_traversal"}),
        ("absolute names", ("x",), {"path_traversal"}),
        ("names of Windows", ("x.exe",), {"path_traversal"}),
        ("behind a picture", ("a.exe",), {"hidden_archive"}),
        ("gz", (), set()),
        ("tar.gz with links", ("x", "link"), {"path_traversal", "link_inside"}),
        ("message in zip", ("a.eml", "b.exe"), set()),
    ],
)
def test_archives(name: str, members: tuple[str, ...], traits: set[str]) -> None:
    found = one(ARCHIVES[name])
    assert (found.members, set(found.traits)) == (members, traits)


@pytest.mark.parametrize("name", ["zip", "zip in zip", "zip called docx", "behind a picture", "gz", "message in zip"])
def test_a_program_in_an_archive_is_told(name: str) -> None:
    found = one(ARCHIVES[name])
    assert "exe" in found.types
    assert "exe" in found.extensions or name == "gz"


@needs_library
@pytest.mark.parametrize("name", ["rar", "cab", "wrong checksum", "sizes that lie", "cut in half"])
def test_a_program_in_an_archive_of_another_kind_or_a_broken_one_is_told(name: str) -> None:
    found = one(ARCHIVES[name])
    assert ("exe" in found.types, "exe" in found.extensions) == (True, True)


def test_an_encrypted_archive_tells_its_names() -> None:
    found = one(ARCHIVES["encrypted"])
    assert (found.is_encrypted, found.members, found.extensions) == (True, ("secret.exe",), ("zip", "exe"))


def test_many_members_are_a_limit() -> None:
    found = one(ARCHIVES["10,000 files"])
    assert "archive_limits" in found.traits
    assert len(found.members) == MAX_MEMBERS_TOLD


@needs_library
@pytest.mark.parametrize("name", ["rar of nothing", "7z of nothing"])
def test_noise_is_a_broken_archive(name: str) -> None:
    assert one(ARCHIVES[name]).traits == ("archive_broken",)


def test_archives_in_archives_have_a_limit() -> None:
    octets = JS
    for _ in range(12):
        octets = zip_of({"a.zip": octets})
    assert "archive_limits" in one(attached(octets, b"a.zip")).traits


def test_a_script_that_is_packed_alone_has_the_extension_of_its_name() -> None:
    """What unpacks a.js.gz makes a.js of it."""
    assert "js" in one(attached(packed(JS), b"invoice.js.gz")).extensions


def test_a_zip_is_no_office_file_by_one_name_in_it() -> None:
    octets = zip_of({"[Content_Types].xml": b"x", "invoice.js": JS, "b.lnk": LNK})
    found = one(attached(octets, b"a.zip"))
    assert {"js", "lnk"} <= set(found.extensions)
    assert "invoice.js" in found.members


@pytest.mark.parametrize("name", [b"a.zip", b"a.docx"])
def test_an_archive_in_an_office_file_is_opened(name: bytes) -> None:
    assert is_found(attached(office_of({"word/embeddings/a.zip": zip_of({"a": MARK})}), name))


def test_macros_in_a_file_embedded_in_an_office_file_are_told() -> None:
    inner = office_of({"xl/vbaProject.bin": b"x"}, "xl")
    assert one(attached(office_of({"word/embeddings/Sheet1.xlsm": inner}), b"a.docx")).has_macros


@pytest.mark.parametrize(
    "front",
    [packed(b"x"), b"BZh9", b"Rar!\x1a\x07\x01\0", tar_of({"a": b"x"}), zip_of({"a": b"x"})],
    ids=["gz", "bz2", "rar", "tar", "zip"],
)
def test_a_zip_behind_another_archive_is_found(front: bytes) -> None:
    """Explorer and most unpackers look for a zip from its end."""
    assert is_found(attached(front + zip_of({"a.txt": MARK}), b"a.zip"))


@needs_library
def test_a_rar_behind_something_else_is_found_or_told() -> None:
    octets = attached(b"\xff\xd8\xff" + b"x" * 99 + rar_of({"a.txt": MARK}), b"a.rar")
    assert is_found(octets) or one(octets).traits


@pytest.mark.parametrize("name", ["PKI.txt", "BZh.txt", "MZ.txt"])
def test_a_tar_is_opened_whatever_its_first_file_is_called(name: str) -> None:
    assert is_found(attached(tar_of({name: b"x", "b": MARK}), b"a.tar"))


# --- documents ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "true_type", "is_encrypted", "has_macros", "traits"),
    [
        ("word with macros", "word", False, True, ("autorun",)),
        ("docx with macros", "docx", False, True, ()),
        ("docx with a template elsewhere", "docx", False, False, ("external_template",)),
        ("encrypted docx", "ole", True, False, ()),
        ("pdf that starts something", "pdf", False, False, ("launch",)),
        ("rtf with an object", "rtf", False, False, ("embedded_object",)),
        ("page that makes a file", "html", False, False, ("html_smuggling", "script")),
    ],
)
def test_documents(name: str, true_type: str, is_encrypted: bool, has_macros: bool, traits: tuple[str, ...]) -> None:
    found = one(DOCUMENTS[name])
    assert (found.true_type, found.is_encrypted, found.has_macros) == (true_type, is_encrypted, has_macros)
    assert found.traits == traits


def test_macros_of_open_document_are_told() -> None:
    files = {"mimetype": b"application/vnd.oasis.opendocument.text", "Basic/Standard/Module1.xml": b"<script:module/>"}
    assert one(attached(zip_of(files, 0), b"a.odt")).has_macros


def test_a_word_file_saved_as_a_web_archive_tells_its_macros() -> None:
    octets = (
        START + b"Content-Type: multipart/related; boundary=Q\r\n\r\n--Q\r\nContent-Location: file:///C:/editdata.mso"
    )
    octets += b"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64_lines(b"ActiveMime" + b"\0" * 50) + b"--Q--\r\n"
    assert one(attached(octets, b"a.doc")).has_macros


# --- messages in messages, and other wrappings --------------------------------------------------------------------


def test_messages_in_messages_are_seen_through() -> None:
    octets = single(b"Content-Type: message/rfc822", attached(EXE, b"a.exe"))
    assert [(each.name, each.depth) for each in inspect(octets).attachments] == [("a.exe", 2)]


INNER = b"X-Any: field\r\nContent-Type: multipart/mixed; boundary=Q\r\n\r\n--Q\r\nContent-Type: x/y; name=a.txt\r\n\r\n"
INNER += MARK + b"\r\n--Q--\r\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda octets: octets,
        lambda octets: octets.replace(b"\r\n", b"\n"),
        lambda octets: octets.replace(b"\r\n", b"\n") + b"\r\n",
        lambda octets: b"From a@b.example\r\n" + octets,
    ],
    ids=["as it is", "with LF", "with LF and one CRLF", "behind a line of mbox"],
)
@pytest.mark.parametrize(("name", "media_type"), [(b"a.eml", b"application/octet-stream"), (b"a", b"message/rfc822")])
def test_a_message_as_a_file_is_looked_through(
    change: Callable[[bytes], bytes], name: bytes, media_type: bytes
) -> None:
    assert is_found(attached(change(INNER), name, media_type))


@pytest.mark.parametrize("fields", [b"Content-Type: message/global", b"Content-Type: message/rfc822\r\n"
                                    b"Content-Transfer-Encoding: 8-bit"])  # fmt: skip
def test_other_messages_are_looked_through(fields: bytes) -> None:
    assert is_found(single(fields, INNER))


def test_what_has_no_name_in_a_message_as_a_file_is_told() -> None:
    inner = single(b"Content-Type: application/x-msdownload\r\nContent-Transfer-Encoding: base64", base64_lines(EXE))
    assert "exe" in one(attached(inner, b"a.eml")).types


def test_uuencoded_files_in_text_are_attachments() -> None:
    octets = single(b"Content-Type: text/plain", b"hello\r\n\r\n" + uuencoded(b"a.exe", EXE))
    assert [(each.name, each.true_type) for each in inspect(octets).attachments] == [("a.exe", "exe")]


def test_uuencoded_files_without_an_end_are_attachments() -> None:
    octets = single(b"Content-Type: text/plain", b"hello\r\n\r\n" + uuencoded(b"a.exe", EXE)[:-5])
    assert [each.name for each in inspect(octets).attachments] == ["a.exe"]


def test_a_uuencoded_part_has_the_name_that_it_gives() -> None:
    octets = single(b"Content-Transfer-Encoding: x-uuencode", uuencoded(b"a.js", JS))
    assert "js" in {extension for each in inspect(octets).attachments for extension in each.extensions}


def test_uuencoded_text_in_a_message_as_a_file_is_decoded() -> None:
    assert is_found(attached(single(b"Content-Type: text/plain", b"x\r\n" + uuencoded(b"a.txt", MARK)), b"a.eml"))


def test_an_encoded_multipart_is_looked_through() -> None:
    inner = b"--B\r\nContent-Disposition: attachment; filename=a.txt\r\n\r\n" + MARK + b"\r\n--B--\r\n"
    fields = b"Content-Type: multipart/mixed; boundary=B\r\nContent-Transfer-Encoding: base64"
    assert is_found(single(fields, base64_lines(inner)))


def test_a_message_in_a_signed_envelope_is_looked_through_or_told() -> None:
    """S/MIME, RFC 8551 3.5.2: the message stands in the octets of the signature's file."""
    octets = attached(
        b"\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x80" + attached(EXE, b"a.exe"), b"smime.p7m"
    )
    found = one(octets)
    assert "exe" in found.types or found.traits or found.is_encrypted


def test_a_winmail_dat_is_looked_through_or_told() -> None:
    found = one(
        attached(b"\x78\x9f\x3e\x22\x01\0" + b"\0" * 50 + b"a.exe\0" + EXE, b"winmail.dat", b"application/ms-tnef")
    )
    assert found.true_type != "unknown" or found.traits


def test_attachments_are_counted() -> None:
    part = b"--B\r\nContent-Type: x/y; name=a\r\n\r\nx\r\n"
    found = inspect(MIXED + part * (MAX_ATTACHMENTS + 5) + b"--B--\r\n")
    assert len(found.attachments) == MAX_ATTACHMENTS
    assert found.faults == ("too_many_parts",)


# --- records ------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
attachments = st.builds(
    Attachment,
    name=texts, extension=texts, media_type=texts, true_type=st.sampled_from(TYPES), size=st.integers(0, 1 << 40),
    is_encrypted=st.booleans(), has_macros=st.booleans(), depth=st.integers(0, 32),
    members=st.lists(texts, max_size=4).map(tuple), extensions=st.lists(texts, max_size=4).map(tuple),
    types=st.lists(st.sampled_from(TYPES), max_size=4).map(tuple),
    traits=st.lists(st.sampled_from(TRAITS), max_size=4).map(tuple),
)  # fmt: skip


@given(
    st.builds(
        Findings,
        st.lists(attachments, max_size=4).map(tuple),
        st.lists(st.sampled_from(FAULTS), max_size=4).map(tuple),
        st.lists(texts, max_size=4).map(tuple),
    )
)
def test_findings_come_back_from_their_record(findings: Findings) -> None:
    assert from_json(to_json(findings, None)).findings == findings


def test_a_name_that_no_encoding_has_can_be_recorded() -> None:
    record = to_json(Findings((Attachment(name="a\ud800.exe"),)), None)
    assert from_json(record).findings.attachments[0].name == "a?.exe"


@pytest.mark.parametrize(
    "octets", [b"", b"{", b"[]", b"{}", b"null", b'{"attachments":[{"x":1}],"faults":[],"matches":[]}']
)
def test_what_is_no_record_is_a_value_error(octets: bytes) -> None:
    with pytest.raises(ValueError):
        from_json(octets)


def test_findings_can_leave_members_out() -> None:
    findings = Findings((Attachment(name="a.zip", members=("a", "b")),), ("partial",), ("X",))
    assert findings.without_members() == replace(findings, attachments=(Attachment(name="a.zip"),))


def test_of_too_many_extensions_those_that_can_be_run_are_told() -> None:
    files = {f"a.x{number}": b"" for number in range(1000)} | {"b.js": JS}
    found = one(attached(zip_of(files), b"a.zip"))
    assert "js" in found.extensions
    assert len(found.extensions) <= 200
    assert "archive_limits" in found.traits


def test_an_answer_fits_whatever_a_message_holds() -> None:
    files = {f"{'n' * 200}{number}.{'x' * 15}{number}": b"" for number in range(300)}
    part = attached(zip_of(files), b"a.zip").partition(b"--B\r\n")[2].rpartition(b"--B--")[0]
    octets = MIXED + b"--B\r\n" + (part + b"--B\r\n") * 16 + b"\r\n--B--\r\n"
    verdict = SpamVerdict(0.5, 0.0)
    packet = _packet(octets, lambda octets: (), lambda octets, parts: verdict)
    assert len(packet) <= MAX_ANSWER
    looked = from_json(packet)
    assert looked.spam == verdict
    assert looked.findings.attachments or "too_many_parts" in looked.findings.faults
