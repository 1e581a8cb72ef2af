"""What a file is by its content."""

import bz2
import lzma
import zipfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.content import archives
from gateway.content.types import ARCHIVES, RUNNABLE, TYPES, appended_zip, type_of
from tests.support.hostile import (
    EICAR,
    ELF,
    EXE,
    LNK,
    START,
    by_library,
    cab_of,
    office_of,
    ole_of,
    packed,
    rar_of,
    seven_zip_of,
    tar_of,
    zip_of,
)

ZIP = zip_of({"a.txt": b"x"})


@pytest.mark.parametrize(
    ("octets", "name"),
    [
        (b"", "empty"),
        (b"hello\r\n", "text"),
        ("grüße".encode(), "text"),
        (b"\0\1\2", "unknown"),
        (EXE, "exe"),
        (ELF, "elf"),
        (LNK, "lnk"),
        (b"\xcf\xfa\xed\xfe" + b"\0" * 20, "macho"),
        (b"\xca\xfe\xba\xbe\0\0\0\x02", "macho"),
        (b"\xca\xfe\xba\xbe\0\0\0\x37", "class"),
        (b"#!/bin/sh\necho", "script"),
        (b"@echo off\r\n", "script"),
        (b"<job id='x'>", "script"),
        (b"<html><hta:application id=x>", "script"),
        ("Set shell = CreateObject(".encode("utf-16"), "script"),
        (b"[InternetShortcut]\r\nURL=file://x\r\n", "script"),
        (b"Windows Registry Editor Version 5.00\r\n", "script"),
        (b"<!DOCTYPE html><p>", "html"),
        (b"\xef\xbb\xbf<HTML>", "html"),
        ("<html><script>".encode("utf-16"), "html"),
        (b"<svg xmlns='x'/>", "svg"),
        (b"<?xml version='1.0'?><a/>", "xml"),
        (b"%PDF-1.7\n", "pdf"),
        (b"x" * 500 + b"%PDF-1.7\n", "pdf"),
        (b"{\\rtf1}", "rtf"),
        (b"{\\rt", "rtf"),
        (START + b"\r\nhello", "email"),
        (START.replace(b"\r\n", b"\n") + b"\nhello", "email"),
        (b"-----BEGIN PGP MESSAGE-----", "pgp"),
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\xff\xd8\xff\xe0", "jpg"),
        (b"GIF89a\x01\0", "gif"),
        (b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0", "bmp"),
        (b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d" + b"\0" * 8, "onenote"),
        (ZIP, "zip"),
        (b"PK\x05\x06" + b"\0" * 18, "zip"),
        (zip_of({"META-INF/MANIFEST.MF": b"x", "a.class": b"y"}), "jar"),
        (zip_of({"AndroidManifest.xml": b"x"}), "apk"),
        (zip_of({"mimetype": b"application/vnd.oasis.opendocument.text"}, zipfile.ZIP_STORED), "odf"),
        (zip_of({"mimetype": b"application/epub+zip"}, zipfile.ZIP_STORED), "epub"),
        (office_of(), "docx"),
        (office_of(folder="xl"), "xlsx"),
        (office_of(folder="ppt"), "pptx"),
        (office_of(folder="visio"), "ooxml"),
        (ole_of(("WordDocument",)), "word"),
        (ole_of(("Workbook",)), "excel"),
        (ole_of(("Book",)), "excel"),
        (ole_of(("PowerPoint Document",)), "powerpoint"),
        (ole_of(("__properties_version1.0",)), "outlook"),
        (ole_of(("\u4840\u3b3f\u43f2\u4438\u45b1",)), "msi"),
        (ole_of(("Other",)), "ole"),
        (packed(b"x"), "gz"),
        (bz2.compress(b"x"), "bz2"),
        (lzma.compress(b"x"), "xz"),
        (tar_of({"a": b"x"}), "tar"),
        (rar_of({"a": b"x"}), "rar"),
        (cab_of({"a": b"x"}), "cab"),
        (b"\x78\x9f\x3e\x22\x01\0", "tnef"),
    ],
)
def test_types_by_content(octets: bytes, name: str) -> None:
    assert type_of(octets) == name
    assert name in TYPES


@pytest.mark.skipif(not archives.has_library(), reason="needs libarchive")
def test_types_that_libarchive_writes() -> None:
    assert type_of(seven_zip_of({"a": b"x"})) == "7z"
    assert type_of(by_library("iso9660", {"a": b"x"})) == "iso"


@pytest.mark.parametrize("name", ["PKI.txt", "BZh.txt", "MZ.txt", "GIF8.txt", "FWS.txt", "#!/x", "%PDF-x"])
def test_a_tar_is_one_whatever_its_first_file_is_called(name: str) -> None:
    assert type_of(tar_of({name: b"x"})) == "tar"


@pytest.mark.parametrize(
    "text",
    [
        b"Dim sum on Friday\r\n",
        b"PowerShell is a language\r\n",
        b"FWS, the Fish and Wildlife Service\r\n",
        b"CWS and ZWS\r\n",
        b"MZ told me\r\n",
        b"BZh, compressed\r\n",
        b"PK, my friend\r\n",
        b"Mr-lhasa\r\n",
        b"Option explicit is good style in Basic\r\n",
    ],
)
def test_plain_text_that_begins_like_something_else_is_text(text: bytes) -> None:
    assert type_of(text) == "text"


def test_a_page_with_a_drawing_in_it_is_a_page() -> None:
    assert type_of(b"<!doctype html><html><body><svg></svg>") == "html"


def test_a_page_is_one_behind_a_long_comment() -> None:
    assert type_of(b"<!-- " + b"x" * 3000 + b" --><script>alert(1)</script>") == "html"


def test_a_page_in_utf_16_without_a_mark_is_a_page() -> None:
    assert type_of("<html><script>alert(1)</script>".encode("utf-16-le")) == "html"


@pytest.mark.parametrize("front", [b"GIF89a" + b"x" * 50, b"%PDF-1.4\n", EXE, b"text"])
def test_a_zip_behind_something_else_is_found(front: bytes) -> None:
    assert appended_zip(front + ZIP) == ZIP


@pytest.mark.parametrize("octets", [b"", ZIP, b"x" * 100, b"x" + ZIP[:-22], b"PK\x05\x06PK\x03\x04"])
def test_no_zip_is_found_where_there_is_none_behind(octets: bytes) -> None:
    assert appended_zip(octets) == b""


def test_the_sets_are_of_types() -> None:
    assert set(TYPES) >= RUNNABLE | ARCHIVES
    assert len(set(TYPES)) == len(TYPES)


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"MZ", b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"\xff\xfe", b"BM"]),
)
@example(EICAR, b"")
def test_any_octets_have_a_type(octets: bytes, front: bytes) -> None:
    assert type_of(front + octets) in TYPES
    appended_zip(front + octets)
