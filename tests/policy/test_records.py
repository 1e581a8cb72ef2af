"""Facts that are lists of records: `any(a.extension == "exe" for a in attachments)`."""

from pathlib import Path

import pytest

from gateway.content.attachment import Attachment
from gateway.core.errors import ConfigError
from gateway.core.verdict import Stage
from gateway.policy.cases import load_cases, run_cases
from gateway.policy.context import Context
from gateway.policy.expression import compile_condition
from gateway.policy.rehearsal import Surroundings
from gateway.policy.syntax import ExpressionError
from gateway.policy.values import PENDING, UNKNOWN, Found
from tests.support.policies import context, policy_of

PROGRAM = Attachment("setup.exe", "exe", true_type="exe", extensions=("exe",), types=("exe",))
ARCHIVE = Attachment(
    "a.zip", "zip", true_type="zip", size=100, is_encrypted=True, members=("b.js", "c.txt"),
    extensions=("zip", "js", "txt"), types=("zip",), traits=("double_extension",),
)  # fmt: skip
PICTURE = Attachment("x.png", "png", "image/png", "png", size=5000, extensions=("png",), types=("png",))


def with_attachments(*found: Attachment) -> Context:
    return context(sender="a@b.example", message=b"\r\n").anew(given={"attachments": found})


def answer(text: str, where: Context) -> Found:
    return compile_condition(text, Stage.MESSAGE, {}).test(where)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("attachments", True),
        ("count(attachments) == 3", True),
        ('any(a.extension == "exe" for a in attachments)', True),
        ('any(a.extension == "com" for a in attachments)', False),
        ("all(a.size > 50 for a in attachments)", False),
        ("any(a.is_encrypted for a in attachments)", True),
        ("any(a.has_macros for a in attachments)", False),
        ('any("js" in a.extensions for a in attachments)', True),
        ('any(any(e in ["js", "vbs"] for e in a.extensions) for a in attachments)', True),
        ('any(any(ends_with(m, ".txt") for m in a.members) for a in attachments)', True),
        ('any("double_extension" in a.traits and a.true_type == "zip" for a in attachments)', True),
        ('any(any(t in ["exe", "elf"] for t in a.types) for a in attachments)', True),
        ('all(matches(a.name, "^[a-z.]+$") for a in attachments)', True),
        ("any(count(a.members) == 2 for a in attachments)", True),
        ("any(a.members for a in attachments)", True),
    ],
)
def test_conditions_go_through_records(text: str, expected: bool) -> None:
    assert answer(text, with_attachments(PROGRAM, ARCHIVE, PICTURE)) is expected


def test_without_attachments_nothing_is_any_and_everything_all() -> None:
    assert answer("attachments", with_attachments()) is False
    assert answer("any(a.is_encrypted for a in attachments)", with_attachments()) is False
    assert answer("all(a.is_encrypted for a in attachments)", with_attachments()) is True


def test_they_are_pending_until_they_are_fetched_and_unknown_where_that_fails() -> None:
    text = "any(a.is_encrypted for a in attachments)"
    where = context(sender="a@b.example", message=b"\r\n")
    assert answer(text, where) is PENDING
    assert [need.provider for need in where.pending] == ["content"]
    assert answer(text, where.anew(given={"attachments": UNKNOWN})) is UNKNOWN


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("any(a.extensoin for a in attachments)", "no field `extensoin`. Did you mean `extension`?"),
        ("any(a for a in attachments)", "`a` has fields: name, extension,"),
        ('any(a == "exe" for a in attachments)', "`a` has fields:"),
        ('any(m.name == "x" for m in marks)', "`m` is a text and has no fields"),
        ('any(a.true_type == "pfd" for a in attachments)', "`pfd` is none of"),
        ('any("exx" in a.types for a in attachments)', "`exx` is none of"),
        ('any(any(t == "reversed" for t in a.traits) for a in attachments)', "`reversed` is none of"),
        ('"a.exe" in attachments', "`in` wants a list or a text on its right, this is list of records"),
        ('attachments == "x"', "compare with a list by `in`"),
        ("any(a.size for a in [1, 2])", "`any` wants a fact that is a list"),
        ("attachments.name", "unknown fact `attachments.name`"),
        ('any(a.size == "big" for a in attachments)', "cannot compare number with text"),
        ("any(any(a.size > 1 for a in attachments) for a in attachments)", "`a` has a meaning already"),
        ('"bad_headr" in message.faults', "`bad_headr` is none of"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_condition(text, Stage.MESSAGE, {})
    assert message in str(caught.value)


RULES = {
    "50-message.yaml": """\
stage: message
rules:
  - reject: programs
    when: any(a.extension == "exe" for a in attachments)
  - quarantine: passwords
    when: any(a.is_encrypted for a in attachments)
    do: {add_header: "X-Files: {attachments}"}
"""
}


def cases(tmp_path: Path, given: str, expect: str) -> list[str]:
    policy = policy_of(tmp_path, RULES)
    folder = tmp_path / "policies"
    (folder / "tests").mkdir(exist_ok=True)
    (folder / "tests" / "t.yaml").write_text(f"- test: it\n  given: {given}\n  expect: {expect}\n")
    return [result.failure for result in run_cases(folder, policy, Surroundings())]


def test_cases_give_attachments_and_what_follows_from_a_name_is_worked_out(tmp_path: Path) -> None:
    assert cases(tmp_path, "{attachments: [{name: report.pdf}, {name: SETUP.EXE}]}", "{reject: programs}") == [""]
    given = '{attachments: [{name: a.zip, is_encrypted: true, size: "2 * MB"}]}'
    assert cases(tmp_path, given, '{quarantine: passwords, effects: ["add_header X-Files: a.zip"]}') == [""]
    assert cases(tmp_path, "{attachments: []}", "accept") == [""]
    assert cases(tmp_path, "{attachments: unknown}", "{defer: programs}") == [""]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{attachments: [{nmae: a.exe}]}", "unknown key `nmae`"),
        ("{attachments: [{true_type: pfd}]}", "one of empty, text,"),
        ("{attachments: [{is_encrypted: maybe}]}", "true or false is wanted here"),
        ("{attachments: [a.exe]}", "t.yaml:2"),
        ("{attachments: a.exe}", "list of records is wanted here"),
        ("{message.faults: [bad]}", "one of bad_header,"),
    ],
)
def test_mistakes_in_cases_are_named(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cases(tmp_path, given, "accept")
    assert message in str(caught.value)


def test_a_message_in_a_case_is_looked_into(tmp_path: Path) -> None:
    sample = (
        "Content-Type: application/octet-stream; name=a.exe\\nContent-Transfer-Encoding: base64\\n"
        "MIME-Version: 1.0\\n\\nTVqQAAMAAAAEAAAA\\n"
    )
    assert cases(tmp_path, f'{{message: "From: a@b.example\\n{sample}"}}', "{reject: programs}") == [""]
    assert cases(tmp_path, '{message: "From: a@b.example\\n\\nhello\\n"}', "accept") == [""]
    policy = policy_of(tmp_path, RULES)
    assert load_cases(tmp_path / "policies", policy, Surroundings())[0].message is not None
