"""Names of files as a mail program or a desktop would read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.content.attachment import MAX_NAME, TRAITS
from gateway.content.names import extension_of, extensions_of, shown, traits_of


@pytest.mark.parametrize(
    ("name", "extension"),
    [
        ("a.txt", "txt"),
        ("a.tar.gz", "gz"),
        ("A.EXE", "exe"),
        ("a", ""),
        ("", ""),
        (".", ""),
        ("..", ""),
        (".exe", "exe"),
        ("a.exe.", "exe"),
        ("a.exe . .", "exe"),
        ("a. exe", "exe"),
        ("a.exe\u00a0", "exe"),
        ("a.exe\u3000", "exe"),
        ("a.exe\t", "exe"),
        ("a.e\0xe", "exe"),
        ("a.exe\0.txt", "exe"),
        ("a.txt\0.exe", "exe"),
        ("a.e\u200bxe", "exe"),
        ("a.e\u00adxe", "exe"),
        ("a\u2024exe", "exe"),
        ("a\uff0eexe", "exe"),
        ("a\u3002exe", "exe"),
        ("a.\uff45\uff58\uff45", "exe"),
        ("a.txt:b.exe", "exe"),
        ("a.exe:b.txt", "exe"),
        ("a.exe::$DATA", "exe"),
        ("annexe\u202efdp.exe", "exe"),
        ("..\\..\\a.exe", "exe"),
        ("../x.y/a", ""),
        ("\u0130.exe", "exe"),
        ("a.settingcontent-ms", "settingcontent-ms"),
    ],
)
def test_the_extension_is_the_worst_that_some_program_reads(name: str, extension: str) -> None:
    assert extension_of((name,)) == extension


def test_of_two_names_the_one_that_can_be_run_counts() -> None:
    assert extension_of(("a.txt", "a.exe")) == "exe"
    assert extension_of(("a.exe", "a.txt")) == "exe"
    assert extension_of(("a.png", "a.txt")) == "png"
    assert extension_of(()) == ""


def test_all_readings_are_told() -> None:
    assert set(extensions_of("a.exe\0.txt")) == {"exe", "txt"}
    assert set(extensions_of("a.txt:b.exe")) == {"exe", "txt"}


@pytest.mark.parametrize(
    "extension",
    "exe scr pif com bat cmd js jse vbs vbe wsf wsh hta lnk cpl msi jar ps1 chm iso img vhd vhdx one xll iqy url reg "
    "py pyc sh csh ksh command desktop appimage pkg scpt diagcfg diagpkg".split(),
)
def test_what_runs_with_a_double_click_counts_as_worse(extension: str) -> None:
    assert extension_of(("a.txt", f"a.{extension}")) == extension


def test_the_class_id_of_a_program_counts_as_an_extension() -> None:
    """Explorer opens such a file by its class and does not show it."""
    assert extension_of(("a.txt.{3050F4D8-98B5-11CF-BB82-00AA00BDCE0B}",)) != ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "a.txt"),
        ("..\\..\\windows\\a.exe", "a.exe"),
        ("../../etc/passwd", "passwd"),
        ("a\r\nX-Injected: y\0.txt", "aX-Injected: y.txt"),
        ("gpj.\u202eexe", "gpj.exe"),
        ("  a.txt  ", "a.txt"),
        ("a" * 400, "a" * MAX_NAME),
        ("grün.txt", "grün.txt"),
    ],
)
def test_names_are_shown_in_one_harmless_line(name: str, text: str) -> None:
    assert shown(name) == text


@pytest.mark.parametrize(
    ("name", "traits"),
    [
        ("invoice.pdf.exe", {"double_extension"}),
        ("invoice.pdf .exe", {"double_extension"}),
        ("Invoice.PDF.Js", {"double_extension"}),
        ("invoice.pdf.exe.", {"double_extension"}),
        ("invoice.pdf" + " " * 30 + ".exe", {"double_extension", "blank_name"}),
        ("annexe\u202efdp.exe", {"reversed_name"}),
        ("a\u2067b.exe", {"reversed_name"}),
        ("a.exe", set()),
        ("report.2026.07.pdf", set()),
        ("a.tar.gz", set()),
        ("setup.v1.exe", set()),
        ("שלום\u200f.pdf", set()),
        ("", set()),
    ],
)
def test_traits_of_names(name: str, traits: set[str]) -> None:
    assert set(traits_of(name)) == traits


@given(st.text(max_size=60))
def test_any_name_has_a_line_to_show_and_extensions(name: str) -> None:
    line = shown(name)
    assert len(line) <= MAX_NAME
    assert not any(char < " " or char in "/\\\u202e" for char in line)
    assert all(extension and not set(extension) & set("/\\") for extension in extensions_of(name))
    assert set(traits_of(name)) <= set(TRAITS)


@given(st.text(st.characters(exclude_characters="/\\:\0", exclude_categories=("Cs",)), max_size=30))
def test_an_extension_that_is_put_behind_any_name_is_read(stem: str) -> None:
    assert "exe" in extensions_of(f"{stem}.exe")
