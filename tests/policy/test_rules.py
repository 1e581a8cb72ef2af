"""Policy folders: order, errors with their exact place and caret, replies, lints."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ConfigError
from gateway.core.verdict import Action, Stage
from gateway.policy.catalogue import FACTS
from gateway.policy.expression import fact_reader
from gateway.policy.loader import load_policy
from gateway.policy.template import ReplyTemplate, Template
from tests.support.policies import STRANGER, context, policy_of, write_policy

HEAD = "stage: connect\nrules:\n"


def errors_of(folder: Path, files: dict[str, str | bytes]) -> str:
    with pytest.raises(ConfigError) as caught:
        policy_of(folder, files)
    return str(caught.value)


def first_place(text: str) -> tuple[str, str]:
    """`file:line:column` of the first error, and what its caret stands under."""
    head, source, carets = text.split("\n")[:3]
    start, length = carets.index("^"), carets.count("^")
    return head.split(": ")[0], source[start : start + length]


def test_rules_are_tried_in_the_order_of_files_and_lines(tmp_path: Path) -> None:
    policy = policy_of(
        tmp_path,
        {
            "20-b.yaml": "stage: connect\nrules:\n  - accept: three\n    when: client.port == 3\n",
            "10-a.yaml": "# hello\nstage: connect\nrules:\n  - reject: one\n    when: client.port == 1\n"
            "  - defer: two\n    when: client.port == 2\n",
            "30-c.yaml": "stage: message\nrules: []\n",
            "40-empty.yaml": "# nothing yet\n",
        },
    )
    assert [(rule.name, rule.action) for rule in policy.rules[Stage.CONNECT]] == [
        ("one", Action.REJECT),
        ("two", Action.DEFER),
        ("three", Action.ACCEPT),
    ]
    assert policy.rules[Stage.CONNECT][0].place == "policies/10-a.yaml:4"
    assert policy.rules[Stage.MESSAGE] == ()
    assert policy.warnings == ()


def test_the_error_of_the_policy_page_looks_as_it_is_printed_there(tmp_path: Path) -> None:
    text = errors_of(tmp_path, {"a.yaml": HEAD + "  - reject: x\n    when: client.prt in @friends\n"})
    assert text == (
        "policies/a.yaml:4:11: unknown fact `client.prt`. Did you mean `client.port`?\n"
        "    when: client.prt in @friends\n"
        "          ^^^^^^^^^^"
    )


@pytest.mark.parametrize(
    ("rule", "place", "piece"),
    [
        ("  - reject: x\n    when: client.prt", "4:11", "client.prt"),
        ("  - reject: x\n    when:   auth.user and client.prt  # why", "4:27", "client.prt"),
        ("  - when: client.prt\n    reject: x", "3:11", "client.prt"),
        ("  -   reject: x\n      when: client.prt", "4:13", "client.prt"),
        ("  - reject: x\n    when: 'client.prt'", "4:12", "client.prt"),
        ('  - reject: x\n    when: "auth.user or client.prt"', "4:25", "client.prt"),
        ("  - reject: x\n    when: auth.user == 'it: is' or client.prt", "4:36", "client.prt"),
        ("  - reject: x\n    when: auth.user == 'äöü' or client.prt", "4:33", "client.prt"),
        ("  - reject: x\n    when: auth.user == 'ä' and clientü.prt", "4:32", "clientü.prt"),
        ("  - reject: x\n    when: >\n      auth.user and\n      client.prt", "6:7", "client.prt"),
        ("  - reject: x\n    when: |\n      auth.user and\n        client.prt", "6:9", "client.prt"),
        ("  - reject: x\n    when: >-\n      auth.user and client.prt and\n      auth.user", "5:21", "client.prt"),
        ("  - reject: x\n    when: auth.user and\n      client.prt", "5:7", "client.prt"),
        ('  - reject: x\n    when: "auth.user and\n      client.prt"', "5:7", "client.prt"),
        ("  - reject: x\n    when: 'auth.user == ''x'' and client.prt'", "4:35", "client.prt"),
        ('  - reject: x\n    when: "auth.user == \\"x\\" and client.prt"', "4:35", "client.prt"),
        ("  - reject: x\n    when: |\n      client.port == 1 and\n      client", "6:7", "client"),
        ("  - reject: x\n    when: |\n      auth.user == 'x' and\n      client.port == 'x'", "6:22", "'x'"),
        ("  - {reject: x, when: client.prt}", "3:23", "client.prt"),
        ("  - reject: x\n    reply: 550 5.7.1 no {client.prt}", "4:26", "client.prt"),
        ("  - reject: x\n    reply: 550 5.7.1 {client.ip} {client.i}", "4:35", "client.i"),
        ("  - reject: x\n    reply: '550 5.7.1 no {client.prt}'", "4:27", "client.prt"),
        ("  - reject: x\n    wen: true", "4:5", "wen"),
        ("  - reject: x\n    when: true\n    when: false", "5:5", "when"),
    ],
)
def test_an_error_points_at_its_line_and_column(tmp_path: Path, rule: str, place: str, piece: str) -> None:
    text = errors_of(tmp_path, {"a.yaml": HEAD + rule + "\n"})
    assert first_place(text) == (f"policies/a.yaml:{place}", piece)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.yaml": HEAD + "  - reject: x\n  - defer: x\n"}, "a rule of this name exists already: policies/a.yaml:3"),
        (
            {"a.yaml": HEAD + "  - reject: x\n", "b.yaml": "stage: helo\nrules:\n  - reject: x\n"},
            "policies/b.yaml:3:13: a rule of this name exists already: policies/a.yaml:3",
        ),
        ({"a.yaml": HEAD + "  - reject: x\n    wehn: true\n"}, "unknown key `wehn`. Did you mean `when`?"),
        ({"a.yaml": HEAD + "  - rejct: x\n"}, "unknown key `rejct`. Did you mean `reject`?"),
        ({"a.yaml": HEAD + "  - reject: x\n    accept: y\n"}, "exactly one action"),
        ({"a.yaml": HEAD + "  - when: true\n"}, "this has 0"),
        ({"a.yaml": HEAD + "  - just a text\n"}, "a mapping with some of"),
        ({"a.yaml": HEAD + "  - reject: ''\n"}, "1 to 120 printable characters"),
        ({"a.yaml": HEAD + f"  - reject: {'x' * 121}\n"}, "1 to 120 printable characters"),
        ({"a.yaml": HEAD + '  - reject: "a\\tb"\n'}, "1 to 120 printable characters"),
        ({"a.yaml": HEAD + "  - reject:\n    - x\n"}, "a text is wanted here"),
        ({"a.yaml": HEAD + "  - reject: x\n    when:\n      a: b\n"}, "a text is wanted here"),
        ({"a.yaml": "stage: conect\nrules: []\n"}, "1:8: unknown stage `conect`. Did you mean `connect`?"),
        ({"a.yaml": "rules: []\n"}, "`stage:` is missing"),
        ({"a.yaml": "stage: connect\n"}, "`rules:` is missing"),
        ({"a.yaml": "stage: connect\nrules: 5\n"}, "2:8: `rules:` wants a list"),
        ({"a.yaml": "stage: connect\nstage: helo\nrules: []\n"}, "2:1: key `stage` given twice"),
        ({"a.yaml": "stage: connect\nrules: []\nmode: x\n"}, "3:1: unknown key `mode`"),
        ({"a.yaml": "- 1\n"}, "1:1: a mapping with some of stage, rules"),
        ({"a.yaml": "stage: connect\nrules: [\n"}, "YAML: "),
        ({"a.yaml": "stage: a: b\n"}, "policies/a.yaml:1:"),
        ({"a.yaml": b"stage: \xff\n"}, "policies/a.yaml:1:1: cannot be read"),
        ({"a.yaml": HEAD + "  - reject: &a x\n    when: *b\n"}, "policies/a.yaml:4:"),
        ({"a.yaml": HEAD + "  - reject: x\n    when: ''\n"}, "policies/a.yaml:4:"),
        ({"lists/a.domains": "-x\n", "a.yaml": "stage: connect\nrules: []\n"}, "a.domains:1:1: '-x'"),
    ],
)
def test_a_broken_policy_is_refused_with_the_reason(
    tmp_path: Path, files: dict[str, str | bytes], message: str
) -> None:
    assert message in errors_of(tmp_path, files)


@pytest.mark.parametrize(
    ("action", "reply", "message"),
    [
        ("reject", "450 4.7.1 later", "a reply to `reject` is 5xx 5.x.x"),
        ("reject", "550 4.7.1 x", "5xx 5.x.x"),
        ("defer", "550 5.7.1 no", "a reply to `defer` is 4xx 4.x.x"),
        ("defer", "421 4.7.1 bye", "not 421"),
        ("reject", "250 2.0.0 ok", "5xx 5.x.x"),
        ("accept", "250 2.0.0 ok", "`accept` has no reply"),
        ("reject", "no thanks", "a reply is a code"),
        ("reject", "550", "a reply is a code"),
        ("reject", "550 5.7.1", "a reply is a code"),
        ("reject", "'550 '", "a reply is"),
        ("reject", "550 5.7.1 {nobody}", "unknown fact `nobody`"),
        ("reject", "550 5.7.1 {}", "unknown fact"),
        ("reject", "550 5.7.1 {helo.name}", "`helo.name` is not known yet"),
        ("reject", "\n      - 1", "a text is wanted"),
    ],
)
def test_a_reply_that_does_not_fit_is_refused(tmp_path: Path, action: str, reply: str, message: str) -> None:
    assert message in errors_of(tmp_path, {"a.yaml": HEAD + f"  - {action}: x\n    reply: {reply}\n"})


def test_all_errors_of_all_files_are_told(tmp_path: Path) -> None:
    text = errors_of(
        tmp_path,
        {
            "a.yaml": HEAD + "  - reject: x\n    when: foo\n  - reject: y\n    when: bar\n",
            "b.yaml": "stage: x\nrules: []\n",
        },
    )
    assert [line.split(": ")[0] for line in text.split("\n") if line.startswith("policies/")] == [
        "policies/a.yaml:4:11",
        "policies/a.yaml:6:11",
        "policies/b.yaml:1:8",
    ]


def test_a_wrong_list_does_not_make_its_users_wrong_too(tmp_path: Path) -> None:
    text = errors_of(
        tmp_path,
        {"lists/bad.networks": "x\n", "a.yaml": HEAD + "  - reject: x\n    when: client.ip in @bad\n"},
    )
    assert "bad.networks:1:1" in text
    assert "unknown list" not in text


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder"):
        load_policy(tmp_path / "nowhere")


def test_a_policy_file_with_another_ending_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    folder = write_policy(tmp_path, {"a.yml": HEAD + "  - reject: x\n"})
    try:
        policy = load_policy(folder)
    except ConfigError:
        return
    assert policy.warnings or policy.rules[Stage.CONNECT]


def test_yaml_nested_without_end_is_an_error_and_no_crash(tmp_path: Path) -> None:
    folder = write_policy(tmp_path, {"a.yaml": "stage: connect\nrules: " + "[" * 200_000})
    code = (
        "import sys, pathlib\nfrom gateway.policy.loader import load_policy\n"
        "from gateway.core.errors import ConfigError\n"
        "try: load_policy(pathlib.Path(sys.argv[1]))\nexcept ConfigError: sys.exit(7)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False, timeout=30).returncode == 7


def reply_line(template: str, folder: Path, session: object = STRANGER, stage: str = "helo") -> str:
    policy = policy_of(folder, {"a.yaml": f"stage: {stage}\nrules:\n  - reject: x\n    reply: {template}\n"})
    reply = policy.rules[Stage(stage)][0].reply
    assert isinstance(reply, ReplyTemplate)
    return reply.fill(context(session)).render().decode("ascii")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        ("550 5.7.1 no: thanks {client.ip}", "550 5.7.1 no: thanks 203.0.113.7\r\n"),
        ("550 5.7.1 {client.port}{auth.user}, {helo.name}!", "550 5.7.1 40000none, mx.sender.example!\r\n"),
        ("554 No", "554 5.7.1 No\r\n"),
        ("550 5.7.1 it's {client.ip}'s", "550 5.7.1 it's 203.0.113.7's\r\n"),
        ("550 5.7.1 see https://example.org/#x # note", "550 5.7.1 see https://example.org/#x\r\n"),
        ('"550 5.7.1 \\"quoted\\""', '550 5.7.1 "quoted"\r\n'),
        ("550 5.7.1 a text that\n      goes on", "550 5.7.1 a text that goes on\r\n"),
        (">\n      550 5.7.1 folded\n      text", "550 5.7.1 folded text\r\n"),
    ],
)
def test_a_reply_reads_as_written(tmp_path: Path, reply: str, line: str) -> None:
    assert reply_line(reply, tmp_path) == line


@given(st.text(max_size=600))
def test_a_reply_with_any_fact_is_one_printable_line(name: str) -> None:
    place = fact_reader(FACTS["helo.name"])
    template = ReplyTemplate(550, "5.7.1", Template(("<", place, "> and <", place, "> are no name")))
    looked_at = context()
    looked_at.seen["helo.name"] = name
    octets = template.fill(looked_at).with_id("0123456789ABCDEF").render()
    assert octets.endswith(b" [0123456789ABCDEF]\r\n")
    assert len(octets) <= 512
    assert all(32 <= octet <= 126 for octet in octets[:-2])


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=80).map(str.strip).filter(bool))
def test_any_plain_reply_text_survives_yaml(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """What YAML reads as a plain or bare value is what the peer is told; all else is refused, never changed."""
    if "{" in text or "}" in text or text.startswith("#"):
        return
    try:
        line = reply_line(f"550 5.7.1 {text}", tmp_path_factory.mktemp("p"))
    except ConfigError:
        return
    before_comment = text.split(" #")[0].strip()
    assert line == f"550 5.7.1 {before_comment}\r\n"


def test_lints_name_what_can_never_work(tmp_path: Path) -> None:
    policy = policy_of(
        tmp_path,
        {
            "lists/used.networks": "",
            "lists/unused.domains": "",
            "a.yaml": HEAD + "  - accept: never\n    when: 1 > 2\n  - accept: all\n    when: client.port or true\n"
            "  - reject: nets\n    when: client.ip in @used\n",
            "b.yaml": "stage: helo\nrules:\n  - accept: everybody\n  - reject: late\n"
            "  - reject: later\n    when: 1 == 2\n",
        },
    )
    assert [warning.replace(" decides ", " ") for warning in policy.warnings] == [
        "policies/a.yaml:3: `never` can never match",
        "policies/b.yaml:4: `late` can never be reached: `everybody` always helo",
        "policies/b.yaml:5: `later` can never be reached: `everybody` always helo",
        "policies/b.yaml:5: `later` can never match",
        "lists/unused.domains: no rule uses this list",
    ]


def test_an_open_relay_is_a_lint(tmp_path: Path) -> None:
    """POLICY.md: also warnings: an `accept` at recipient for strangers."""
    rules = "  - accept: everybody\n    when: client.port > 0\n"
    policy = policy_of(tmp_path, {"a.yaml": "stage: recipient\nrules:\n" + rules})
    assert policy.warnings


def test_yaml_words_are_no_values(tmp_path: Path) -> None:
    policy = policy_of(tmp_path, {"a.yaml": HEAD + "  - reject: no\n    when: true\n"})
    assert policy.rules[Stage.CONNECT][0].name == "no"
    assert yaml.safe_load("a: no") == {"a": False}


@pytest.mark.parametrize(
    "line", ['"odd" in marks', "'odd' in marks", "'a' == helo.name or \"b: c\" in marks", "'\"odd\" in marks'"]
)
def test_a_condition_may_begin_with_a_text_in_quotes(tmp_path: Path, line: str) -> None:
    files: dict[str, str | bytes] = {"a.yaml": f"stage: helo\nrules:\n  - reject: a\n    when: {line}\n"}
    (rule,) = policy_of(tmp_path, files).rules[Stage.HELO]
    assert rule.condition is not None
    assert "marks" in rule.condition.facts
