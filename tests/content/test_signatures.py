"""The embedded engine: what is compiled, what matches, what is told of broken rules."""

from pathlib import Path

import pytest

from gateway.content.signatures import MAX_MATCHES, NO_SIGNATURES, compile_signatures
from gateway.core.errors import ConfigError
from tests.support.hostile import EICAR, LNK

SHIPPED = Path(__file__).parents[2] / "policies" / "yara"


def test_every_rule_that_matches_is_told_unless_it_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "a.yar").write_text('rule One { strings: $a = "x" condition: $a } rule Two : note { condition: true }')
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.yara").write_text("rule Three : other { condition: filesize > 2 }")
    (tmp_path / "c.txt").write_text("no rule")
    found = compile_signatures(tmp_path)
    scan = found.scanner()
    assert found.count == 3
    assert scan(b"x") == ("One",)
    assert sorted(scan(b"xyz")) == ["One", "Three"]
    assert scan(b"") == ()


def test_two_files_may_have_rules_of_one_name(tmp_path: Path) -> None:
    for name in ("a.yar", "b.yar"):
        (tmp_path / name).write_text("rule Same { condition: true }")
    assert set(compile_signatures(tmp_path).scanner()(b"x")) == {"Same"}


def test_no_folder_has_no_rules(tmp_path: Path) -> None:
    found = compile_signatures(tmp_path / "none")
    assert (found.count, found.scanner()(EICAR)) == (0, ())
    assert NO_SIGNATURES.scanner()(EICAR) == ()


def test_so_many_matches_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.yar").write_text("".join(f"rule R{n} {{ condition: true }}\n" for n in range(MAX_MATCHES + 5)))
    assert len(compile_signatures(tmp_path).scanner()(b"x")) == MAX_MATCHES


def test_broken_rules_are_told_by_file_and_line_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "bad.yar").write_text("rule Good { condition: true }\nrule Bad { condition: nonsense }")
    (tmp_path / "worse.yar").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError) as caught:
        compile_signatures(tmp_path)
    text = str(caught.value)
    assert "bad.yar" in text
    assert ":2:" in text
    assert "worse.yar" in text


def test_a_rule_cannot_read_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.yar").write_text('include "/etc/passwd"')
    with pytest.raises(ConfigError):
        compile_signatures(tmp_path)


SHORTCUT = LNK + "powershell.exe -enc SQBFAFgA".encode("utf-16-le")
HARMFUL = {
    "EICAR_Test_File": EICAR,
    "RTF_Equation_Editor_Object": rb"{\rtf1{\object\objdata 0105000002000000" + b"4571756174696F6E2E33",
    "Office_Follina_Handler": b'location.href = "ms-msdt:/id PCWDiagnostic /param \\"IT_BrowseForFile=$(x)\\""',
    "Shortcut_Starts_Interpreter": SHORTCUT,
    "Script_Downloads_And_Runs": b'CreateObject("WScript.Shell").Run x: "MSXML2.XMLHTTP" "ADODB.Stream"',
    "Macro_Runs_Shell_On_Open": b'Sub AutoOpen()\n Shell("powershell -w hidden")',
    "OneNote_Embedded_Program": bytes.fromhex("E4525C7B8CD8A74D") + b"\0" * 64
    + bytes.fromhex("E716E3BD65261145A4C48D4D0B7A9EAC") + b"\0" * 20 + b"MZ\x90",
}  # fmt: skip


@pytest.mark.parametrize("name", HARMFUL)
def test_a_shipped_rule_matches_what_it_is_for(name: str) -> None:
    assert compile_signatures(SHIPPED).scanner()(HARMFUL[name]) == (name,)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        EICAR + b" " * 300,
        b"This is the string: " + EICAR,
        rb"{\rtf1 about Equation.3}",
        LNK,
        LNK + "C:\\Program Files\\app.exe".encode("utf-16-le"),
        b"How to use WScript.Shell and MSXML2.XMLHTTP",
        b"ms-msdt:/id",
        bytes.fromhex("E4525C7B8CD8A74D") + b"notes about <script>",
    ],
)
def test_no_shipped_rule_matches_what_is_harmless(octets: bytes) -> None:
    assert compile_signatures(SHIPPED).scanner()(octets) == ()


def test_the_shipped_rules_do_not_match_themselves() -> None:
    scan = compile_signatures(SHIPPED).scanner()
    for path in SHIPPED.iterdir():
        assert scan(path.read_bytes()) == ()
