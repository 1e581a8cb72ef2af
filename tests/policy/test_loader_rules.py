"""What is wrong in `do:`, `mode:`, `on_unknown:` and templates is told at load, with its place."""

from pathlib import Path

import pytest

from gateway.core.errors import ConfigError
from gateway.core.verdict import Action, Stage
from gateway.policy.catalogue import FACTS, SCAN, Fact
from gateway.policy.rules import OnUnknown, Rule
from gateway.policy.values import Kind
from tests.support.policies import policy_of

HEAD = "stage: connect\nrules:\n"


def rule_of(folder: Path, rule: str) -> Rule:
    return policy_of(folder, {"a.yaml": HEAD + rule}).rules[Stage.CONNECT][0]


def error_of(folder: Path, rule: str, stage: str = "connect") -> tuple[str, str, str]:
    """`line:column` of the only error, its message, and what its caret stands under."""
    with pytest.raises(ConfigError) as caught:
        policy_of(folder, {"a.yaml": f"stage: {stage}\nrules:\n{rule}\n"})
    head, source, carets = str(caught.value).split("\n")
    place, _, message = head.removeprefix("policies/a.yaml:").partition(": ")
    start = carets.index("^")
    return place, message, source[start : start + carets.count("^")]


TLS = "write `require_tls: true`, or `verified` to have the certificate checked too"
KEYS = "score, mark, add_header, tag_subject, redirect, bcc, route, require_tls, delay, strip_attachments, self_release"
PORT = "unknown fact `client.prt`. Did you mean `client.port`?"
MARK = "a mark is a letter and up to 39 letters, digits, - and _"
TAG = "a tag is up to 60 printable ASCII characters"
DELAY = "a delay is more than 0 and at most 30 seconds"
FIELD = 'write `add_header: "Name: value"`'


@pytest.mark.parametrize(
    ("do", "place", "message", "piece"),
    [
        ("[score]", "4:9", f"a mapping with some of {KEYS} is wanted here", "["),
        ("score", "4:9", f"a mapping with some of {KEYS} is wanted here", "s"),
        ("{scor: 1}", "4:10", "unknown key `scor`. Did you mean `score`?", "scor"),
        ("{score: 1, header: x}", "4:20", "unknown key `header`. Did you mean `add_header`?", "header"),
        ("{score: 1, zzz: 2}", "4:20", "unknown key `zzz`", "zzz"),
        ("{score: 1, mark: x, score: 2}", "4:29", "key `score` given twice", "score"),
        ("\n      mark: x\n      mark: y", "6:7", "key `mark` given twice", "mark"),
        ("{score: true}", "4:17", "a number is wanted, this is true or false", "true"),
        ("{score: none}", "4:17", "a number is wanted, this is none", "none"),
        ("{score: client.ip}", "4:17", "a number is wanted, this is address", "client.ip"),
        ("{score: marks}", "4:17", "a number is wanted, this is list", "marks"),
        ("{score: auth.user}", "4:17", "a number is wanted, this is text", "auth.user"),
        ("{score: 1 < 2}", "4:17", "a number is wanted, this is true or false", "1 < 2"),
        ("{score: yes}", "4:17", "unknown fact `yes`", "yes"),
        ("{score: client.prt * 2}", "4:17", PORT, "client.prt"),
        ("{score: 2 * helo.esmtp}", "4:21", "fact `helo.esmtp` is not known at stage connect", "helo.esmtp"),
        ("{score: 1 + auth.user}", "4:21", "arithmetic wants numbers, this is text", "auth.user"),
        ("{score: 4 / 2}", "4:17", "only + - * are offered", "4 / 2"),
        ("{mark: x, score: '1 + client.prt'}", "4:31", PORT, "client.prt"),
        ("{score: 1e999}", "4:17", f"a number is at most {2**53}", "1e999"),
        ("{score: ''}", "4:17", "this is no expression", "'"),
        ("{score: [1]}", "4:17", "a text is wanted here", "["),
        ("\n      mark: x\n      score: 2 * client.prt", "6:18", PORT, "client.prt"),
        ("{mark: 9x}", "4:16", MARK, "9x"),
        ("{mark: a b}", "4:16", MARK, "a b"),
        ("{mark: -a}", "4:16", MARK, "-a"),
        ("{mark: a.b}", "4:16", MARK, "a.b"),
        ("{mark: ä}", "4:16", MARK, "ä"),
        ("{mark: " + "x" * 41 + "}", "4:16", MARK, "x" * 41),
        ("{mark: ''}", "4:16", MARK, "'"),
        ("{mark: [ok, no good]}", "4:21", MARK, "no good"),
        ("\n      mark:\n        - ok\n        - n!", "7:11", MARK, "n!"),
        ("{mark: [ok, [a]]}", "4:21", "a text is wanted here", "["),
        ("{mark: {a: b}}", "4:16", "a text is wanted here", "{"),
        ("{delay: 0}", "4:17", DELAY, "0"),
        ("{delay: -1}", "4:17", DELAY, "-1"),
        ("{delay: 30.01}", "4:17", DELAY, "30.01"),
        ("{delay: 31}", "4:17", DELAY, "31"),
        ("{delay: inf}", "4:17", DELAY, "inf"),
        ("{delay: nan}", "4:17", DELAY, "nan"),
        ("{delay: 5s}", "4:17", "`5s` is no number of seconds", "5s"),
        ("{delay: 2 * 3}", "4:17", "`2 * 3` is no number of seconds", "2 * 3"),
        ("{delay: [5]}", "4:17", "a text is wanted here", "["),
        ("{route: [a]}", "4:17", "a text is wanted here", "["),
        ("{require_tls: false}", "4:23", TLS, "false"),
        ("{redirect: nobody}", "4:20", "address has no domain", "nobody"),
        ("{redirect: a@-b}", "4:20", "domain has a label that is no host name", "a@-b"),
        ("{bcc: a b@c.example}", "4:15", "local part is neither dot-string nor quoted string", "a b@c.example"),
        ("{bcc: [a@b.example]}", "4:15", "a text is wanted here", "["),
        ("{tag_subject: [SPAM]}", "4:23", "a text is wanted here", "["),
        ("{tag_subject: ä}", "4:23", TAG, "ä"),
        ("{tag_subject: " + "x" * 61 + "}", "4:23", TAG, "x" * 61),
        ('{tag_subject: "a\\r\\nb"}', "4:23", TAG, '"a\\r'),
        ("{add_header: X-A}", "4:22", FIELD, "X-A"),
        ("{add_header: 'X-A:'}", "4:22", FIELD, "'X-A"),
        ("{add_header: 'X A: b'}", "4:22", FIELD, "'X A: "),
        ("{add_header: ': b'}", "4:22", FIELD, "': "),
        ("{add_header: 'ä: b'}", "4:22", FIELD, "'ä: "),
        ("{add_header: {X-A: b}}", "4:22", "a text is wanted here", "{"),
    ],
)  # fmt: skip
def test_a_wrong_effect_is_told_with_its_place(tmp_path: Path, do: str, place: str, message: str, piece: str) -> None:
    assert error_of(tmp_path, f"  - note: x\n    do: {do}") == (place, message, piece)


@pytest.mark.parametrize(
    "name",
    [
        "Received", "Return-Path", "Delivered-To", "Bcc", "Subject", "From", "Sender", "To", "Cc", "Date", "Message-ID",
        "MIME-Version", "Content-Type", "content-transfer-encoding", "DKIM-Signature", "ARC-Seal",
        "ARC-Message-Signature", "ARC-Authentication-Results", "Authentication-Results", "Resent-From",
        "RESENT-DATE", "rEcEiVeD",
    ],
)  # fmt: skip
def test_a_field_that_says_where_mail_has_been_or_who_vouches_for_it_is_no_rule_s_to_add(
    tmp_path: Path, name: str
) -> None:
    rule = f"  - note: x\n    do:\n      add_header: {name}: a"
    quoted = f"  - note: x\n    do:\n      add_header: '{name}: a'"
    with pytest.raises(ConfigError):
        policy_of(tmp_path, {"a.yaml": HEAD + rule})
    place, message, piece = error_of(tmp_path, quoted)
    assert (place, message) == ("5:19", f"`{name}` is not a rule's to add")
    assert piece == f"'{name}: "


@pytest.mark.parametrize(
    "name", ["X-Spam", "X-Subject", "Subject-X", "List-Id", "Reply-To", "Auto-Submitted", "Content"]
)
def test_other_fields_may_be_added(tmp_path: Path, name: str) -> None:
    rule = rule_of(tmp_path, f"  - note: x\n    do: {{add_header: '{name}: a'}}\n")
    assert [effect.key for effect in rule.effects] == ["add_header"]


CHOICES = [
    ("mode", "montior", "one of enforce, monitor is wanted here. Did you mean `monitor`?"),
    ("mode", "Monitor", "one of enforce, monitor is wanted here. Did you mean `monitor`?"),
    ("mode", "off", "one of enforce, monitor is wanted here"),
    ("mode", "true", "one of enforce, monitor is wanted here"),
    ("on_unknown", "skp", "one of skip, defer, match is wanted here. Did you mean `skip`?"),
    ("on_unknown", "SKIP", "one of skip, defer, match is wanted here"),
    ("on_unknown", "reject", "one of skip, defer, match is wanted here"),
    ("on_unknown", "tempfail", "one of skip, defer, match is wanted here"),
]


@pytest.mark.parametrize(("key", "value", "message"), CHOICES)
def test_a_wrong_choice_is_told_with_its_place(tmp_path: Path, key: str, value: str, message: str) -> None:
    found = error_of(tmp_path, f"  - reject: x\n    when: auth.user\n    {key}: {value}")
    assert found == (f"5:{len(key) + 7}", message, value)


@pytest.mark.parametrize("key", ["mode", "on_unknown", "do", "when", "reply"])
def test_a_key_of_a_rule_given_twice_is_told_with_its_place(tmp_path: Path, key: str) -> None:
    value = {"mode": "monitor", "on_unknown": "skip", "do": "{score: 1}", "when": "auth.user", "reply": "550 No"}[key]
    found = error_of(tmp_path, f"  - reject: x\n    {key}: {value}\n    {key}: {value}")
    assert found == ("5:5", f"key `{key}` given twice", key)


@pytest.mark.parametrize("key", ["mode", "on_unknown"])
@pytest.mark.parametrize("value", ["[monitor]", "{skip: match}"])
def test_a_choice_is_one_word(tmp_path: Path, key: str, value: str) -> None:
    found = error_of(tmp_path, f"  - reject: x\n    {key}: {value}")
    assert found == (f"4:{len(key) + 7}", "a text is wanted here", value[0])


@pytest.mark.parametrize(
    ("wrong", "place", "message", "piece"),
    [
        ("onunknown: skip", "4:5", "unknown key `onunknown`. Did you mean `on_unknown`?", "onunknown"),
        ("mod: monitor", "4:5", "unknown key `mod`. Did you mean `mode`?", "mod"),
        ("score: 1", "4:5", "unknown key `score`", "score"),
        ("mark: x", "4:5", "unknown key `mark`", "mark"),
        ("add_header: x", "4:5", "unknown key `add_header`", "add_header"),
    ],
)
def test_an_unknown_key_of_a_rule_is_told_with_its_place(
    tmp_path: Path, wrong: str, place: str, message: str, piece: str
) -> None:
    found, told, under = error_of(tmp_path, f"  - reject: x\n    {wrong}")
    assert (found, told.partition(". Did")[0], under) == (place, message.partition(". Did")[0], piece)
    assert message in told or "Did" not in message


TEMPLATES = [
    ("{client.prt}", "client.prt", "unknown fact `client.prt`. Did you mean `client.port`?"),
    ("a {client.ip} and {client.i}", "client.i", "unknown fact `client.i`. Did you mean `client.ip`?"),
    ("{client.ip}{client.ip} {client.prt}", "client.prt", "unknown fact `client.prt`. Did you mean `client.port`?"),
    ("äöü {nobody}", "nobody", "unknown fact `nobody`"),
    ("{helo.name}", "helo.name", "`helo.name` is not known yet"),
    ("{recipient.address} {client.ip}", "recipient.address", "`recipient.address` is not known yet"),
    ("a { b", "{", "a brace without its other half; places are written {fact}"),
    ("a } b", "}", "a brace without its other half; places are written {fact}"),
    ("{client.ip} } b", "} b", "a brace without its other half; places are written {fact}"),
    ("{client.port {client.ip} x", "{client.port", "a brace without its other half; places are written {fact}"),
    ("x {client.ip", "{", "a brace without its other half; places are written {fact}"),
    ("client.ip} x", "}", "a brace without its other half; places are written {fact}"),
]
TEXTS_BEFORE = [
    ("  - reject: x\n    reply: 550 5.7.1 ", "", 4),
    ("  - reject: x\n    reply: '550 5.7.1 ", "'", 4),
    ('  - reject: x\n    reply: "550 5.7.1 ', '"', 4),
    ("  - reject: x\n    do: {score: 1, add_header: 'X-A: ", "'}", 4),
    ('  - reject: x\n    do:\n      add_header: "X-A:  ', '"', 5),
]


@pytest.mark.parametrize(("before", "after", "line"), TEXTS_BEFORE)
@pytest.mark.parametrize(("text", "piece", "message"), TEMPLATES)
def test_a_wrong_place_of_a_template_is_told_with_its_place(
    tmp_path: Path, before: str, after: str, line: int, text: str, piece: str, message: str
) -> None:
    place, told, under = error_of(tmp_path, before + text + after)
    column = len(before.split("\n")[-1]) + text.rindex(piece) + 1
    assert (place, told) == (f"{line}:{column}", message)
    assert piece.startswith(under)


@pytest.mark.parametrize(
    ("action", "reply", "message"),
    [
        ("note", "550 5.7.1 no", "`note` has no reply"),
        ("discard", "550 5.7.1 no", "`discard` has no reply"),
        ("quarantine", "250 2.0.0 ok", "`quarantine` has no reply"),
        ("hold", "250 2.0.0 ok", "`hold` has no reply"),
    ],
)
def test_only_a_refusal_has_a_reply(tmp_path: Path, action: str, reply: str, message: str) -> None:
    assert error_of(tmp_path, f"  - {action}: x\n    reply: {reply}")[:2] == ("4:12", message)


def test_all_errors_of_a_rule_are_told_each_with_its_place(tmp_path: Path) -> None:
    rule = (
        "  - reject: x\n    when: client.prt\n    reply: 550 5.7.1 {nobody}\n    mode: off\n    on_unknown: never\n"
        "    do:\n      score: nothing\n      mark: 1\n      delay: 99\n      bcc: x\n"
    )
    with pytest.raises(ConfigError) as caught:
        policy_of(tmp_path, {"a.yaml": HEAD + rule})
    places = [line.split(": ")[0] for line in str(caught.value).split("\n") if line.startswith("policies/")]
    expected = ("4:11", "5:23", "6:11", "7:17", "9:14", "10:13", "11:14", "12:12")
    assert sorted(places) == sorted(f"policies/a.yaml:{place}" for place in expected)


# --- what is right ----------------------------------------------------------------------------------------------------


def test_a_rule_with_every_key_is_taken(tmp_path: Path) -> None:
    rule = rule_of(
        tmp_path,
        "  - reject: x\n    when: auth.user\n    reply: 550 5.7.1 no {client.ip}\n"
        "    mode: monitor\n    on_unknown: match\n"
        "    do: {score: -1.5, mark: [a, B-2_c], delay: 30, add_header: 'X-A: {client.port}', tag_subject: '[S]',\n"
        "         redirect: a@b.example, bcc: c@d.example}\n",
    )
    assert (rule.action, rule.is_monitor, rule.on_unknown, rule.marks) == (
        Action.REJECT,
        True,
        OnUnknown.MATCH,
        ("a", "B-2_c"),
    )
    assert rule.score is not None
    assert rule.score.text == "-1.5"
    assert [effect.key for effect in rule.effects] == ["delay", "add_header", "tag_subject", "redirect", "bcc"]
    assert rule.facts == ("auth.user", "client.port", "client.ip")


@pytest.mark.parametrize(
    ("rest", "is_monitor", "on_unknown"),
    [
        ("", False, None),
        ("    mode: enforce\n", False, None),
        ("    mode: monitor\n", True, None),
        ("    on_unknown: skip\n", False, OnUnknown.SKIP),
        ("    on_unknown: defer\n", False, OnUnknown.DEFER),
        ("    mode: 'monitor'\n    on_unknown: \"match\"\n", True, OnUnknown.MATCH),
    ],
)
def test_mode_and_on_unknown_are_as_written(
    tmp_path: Path, rest: str, is_monitor: bool, on_unknown: OnUnknown | None
) -> None:
    rule = rule_of(tmp_path, "  - reject: x\n    when: auth.user\n" + rest)
    assert (rule.is_monitor, rule.on_unknown) == (is_monitor, on_unknown)


@pytest.mark.parametrize(
    ("written", "marks"),
    [("x", ("x",)), ("[x]", ("x",)), ("[x, y]", ("x", "y")), ("\n        - x\n        - y", ("x", "y"))],
)
def test_a_mark_is_a_name_or_a_list_of_names(tmp_path: Path, written: str, marks: tuple[str, ...]) -> None:
    assert rule_of(tmp_path, f"  - note: x\n    do:\n      mark: {written}\n").marks == marks


def test_a_fact_that_is_fetched_may_stand_in_every_part_of_a_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FACTS, "t.size", Fact("t.size", Kind.NUMBER, Stage.CONNECT, None, "", SCAN, "scanner"))
    rule = rule_of(
        tmp_path,
        "  - reject: x\n    when: t.size > 1\n    reply: 550 5.7.1 {t.size}\n"
        "    do: {score: t.size, add_header: 'X: {t.size}'}\n",
    )
    assert rule.facts == ("t.size",) * 4


@pytest.mark.parametrize(
    ("rules", "warnings"),
    [
        ("  - accept: a\n    mode: monitor\n  - reject: b\n", []),
        ("  - note: a\n    do: {score: 1}\n  - reject: b\n", []),
        ("  - accept: a\n  - note: b\n", ["policies/a.yaml:4: `b` can never be reached: `a` always decides connect"]),
        ("  - note: a\n    when: 1 > 2\n    mode: monitor\n", ["policies/a.yaml:3: `a` can never match"]),
    ],
)
def test_only_a_rule_that_decides_makes_later_ones_out_of_reach(
    tmp_path: Path, rules: str, warnings: list[str]
) -> None:
    assert list(policy_of(tmp_path, {"a.yaml": HEAD + rules}).warnings) == warnings


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('"554 5.7.1 item #3"', "554 5.7.1 item #3"),
        ('"554 5.7.1 item #3"   # why', "554 5.7.1 item #3"),
        ("'554 5.7.1 it''s #3' # why", "554 5.7.1 it's #3"),
        ("554 5.7.1 it's item # 3", "554 5.7.1 it's item"),
        ("554 5.7.1 item#3: no", "554 5.7.1 item#3: no"),
        ('554 5.7.1 "item #3" # why', '554 5.7.1 "item #3"'),
        ('554 5.7.1 "item # why', '554 5.7.1 "item'),
    ],
)
def test_a_comment_begins_after_a_space_and_not_in_quotes(tmp_path: Path, written: str, read: str) -> None:
    rule = rule_of(
        tmp_path, f'  - reject: x\n    when: "a #b" in marks or "b #a" in marks # both\n    reply: {written}\n'
    )
    assert rule.reply is not None
    assert " ".join((str(rule.reply.code), rule.reply.status, *rule.reply.text.parts)) == read
