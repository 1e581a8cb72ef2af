"""A second policy beside the live one: it is compared, counted and traced, and changes nothing."""

import itertools
import json
from collections.abc import Iterator

import pytest

from gateway.demo.nameserver import NameServer
from tests.support.gateway import Gateway
from tests.support.process import wait_until
from tests.support.raw import RawClient, message, temporary_gateway

NUMBERS = itertools.count(1)
SENDER = """\
stage: sender
rules:
  - reject: refused by both
    when: sender.domain == "both.test"
  - note: marked by the live one
    when: sender.domain == "marked.test"
    do: {mark: live}
"""
NEXT = {
    "10-connect.yaml": """\
stage: connect
rules:
  - reject: no strangers
    when: client.ip == "127.9.0.2"
""",
    "30-sender.yaml": """\
stage: sender
rules:
  - reject: refused by both
    when: sender.domain == "both.test"
  - defer: only the next one
    when: sender.domain == "next.test"
  - reject: hangs on DNS
    when: sender.domain == "dns.test" and dnsbl("bl.test")
""",
    "40-recipient.yaml": """\
stage: recipient
rules:
  - reject: not for bob
    when: recipient.local == "bob"
    do: {delay: 20}
  - accept: all others
""",
    "50-message.yaml": """\
stage: message
rules:
  - quarantine: odd subject
    when: message.subject == "odd"
  - reject: live marks are not its own
    when: '"live" in marks'
  - note: tagged
    when: message.subject == "tag"
    do: {tag_subject: "[next]"}
""",
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with NameServer() as dns:
        dns.add("2.0.0.127.bl.test A 127.0.0.2", "3.0.9.127.bl.test A 127.0.0.3")
        settings = {"policy": {"shadow": "next"}, "dns": {"servers": [dns.address]}}
        with temporary_gateway(
            policies={"30-sender.yaml": SENDER},
            settings=settings,
            files={f"next/{name}": text for name, text in NEXT.items()},
        ) as running:
            yield running


def send(
    gateway: Gateway, sender: str, *recipients: str, subject: str = "s", source: str = "127.9.0.1"
) -> tuple[str, ...]:
    """The replies to each RCPT, and to the message if anybody was accepted."""
    with RawClient(gateway.ports["smtp"], source=source) as client:
        client.ehlo("client.test")
        client.line(f"MAIL FROM:<{sender}>")
        replies = [str(client.line(f"RCPT TO:<{recipient}>").code) for recipient in recipients]
        if "250" in replies:
            client.line("DATA")
            client.send(message(subject) + b".\r\n")
            replies.append(str(client.reply().code))
        return tuple(replies)


def decisions(gateway: Gateway, sender: str) -> list[dict[str, object]]:
    """Those of the sender's one transaction."""

    def found() -> list[dict[str, object]]:
        shown = gateway.cli("trace", sender, "--json").stdout
        return [event for event in (json.loads(shown) if shown else []) if event["kind"] == "transaction"]

    (event,) = wait_until(found, 10, "the record")
    judged: list[dict[str, object]] = event["decisions"]
    return judged


def shadows(gateway: Gateway, sender: str) -> list[tuple[object, object]]:
    """Stage and shadow verdict, of the decisions that have one."""
    return [(each["stage"], each["shadow"]) for each in decisions(gateway, sender) if "shadow" in each]


def differences(gateway: Gateway, stage: str, live: str, shadow: str) -> float:
    return gateway.metric("smarthost_policy_shadow_differences_total", stage=stage, live=live, shadow=shadow)


def test_where_both_say_the_same_nothing_is_told(gateway: Gateway) -> None:
    assert send(gateway, "a@same.test", "alice@example.org") == ("250", "250")
    assert send(gateway, "a@both.test", "alice@example.org") == ("550",)
    assert shadows(gateway, "a@same.test") == shadows(gateway, "a@both.test") == []


@pytest.mark.parametrize(
    ("sender", "to", "subject", "source", "stage", "action", "rule"),
    [
        ("a@next.test", "alice", "s", "127.9.0.1", "sender", "defer", "only the next one"),
        ("b@else.test", "bob", "s", "127.9.0.1", "recipient", "reject", "not for bob"),
        ("c@else.test", "alice", "odd", "127.9.0.1", "message", "quarantine", "odd subject"),
        ("d@else.test", "alice", "s", "127.9.0.2", "connect", "reject", "no strangers"),
        ("e@else.test", "alice", "tag", "127.9.0.1", "message", "accept", ""),
    ],
)
def test_a_difference_is_counted_and_traced_and_changes_nothing(
    gateway: Gateway, sender: str, to: str, subject: str, source: str, stage: str, action: str, rule: str
) -> None:
    before = differences(gateway, stage, "accept", action)
    assert send(gateway, sender, f"{to}@example.org", subject=subject, source=source) == ("250", "250")
    assert shadows(gateway, sender) == [(stage, {"action": action, "rule": rule})]
    wait_until(lambda: differences(gateway, stage, "accept", action) == before + 1, 5, "the count")


def test_it_has_its_own_marks(gateway: Gateway) -> None:
    assert send(gateway, "a@marked.test", "alice@example.org") == ("250", "250")
    assert shadows(gateway, "a@marked.test") == []


def test_of_several_recipients_only_its_own_refused_differ(gateway: Gateway) -> None:
    assert send(gateway, "f@else.test", "bob@example.org", "alice@example.org") == ("250", "250", "250")
    assert shadows(gateway, "f@else.test") == [("recipient", {"action": "reject", "rule": "not for bob"})]


def test_what_the_live_policy_did_not_look_up_is_undecided(gateway: Gateway) -> None:
    assert send(gateway, "a@dns.test", "alice@example.org", source="127.9.0.3") == ("250", "250")
    assert shadows(gateway, "a@dns.test") == [("sender", {"action": "undecided", "rule": 'dnsbl("bl.test")'})]
    text = gateway.cli("trace", "a@dns.test").stdout
    assert 'shadow: undecided for want of dnsbl("bl.test")' in text


def test_reload_takes_both_and_a_broken_shadow_keeps_nobody_back() -> None:
    with temporary_gateway(
        policies={"30-sender.yaml": SENDER},
        settings={"policy": {"shadow": "next"}},
        files={"next/30-sender.yaml": "stage: sender\nrules: []\n"},
    ) as gateway:
        path = gateway.folder / "next" / "30-sender.yaml"
        path.write_text("stage: sender\nrules:\n  - reject: new\n    when: sender.domain == 'new.test'\n")
        gateway.cli("reload").expect(0)
        wait_until(lambda: told(gateway, "@new.test") == [{"action": "reject", "rule": "new"}], 10, "the new shadow")
        path.write_text("stage: sender\nrules:\n  - reject: new\n    when: sender.domian == 'x'\n")
        live = gateway.folder / "policies" / "30-sender.yaml"
        live.write_text(SENDER.replace("both.test", "other.test"))
        done = gateway.cli("reload").expect(0)
        assert "the shadow policy stays as it was" in done.stderr
        assert "next/30-sender.yaml:4:11: unknown fact `sender.domian`" in done.stderr
        wait_until(lambda: send(gateway, "x@other.test", "alice@example.org") == ("550",), 10, "the new live policy")
        assert told(gateway, "@new.test") == [{"action": "reject", "rule": "new"}]


def told(gateway: Gateway, domain: str) -> list[object]:
    """What the shadow says of one more message."""
    sender = f"n{next(NUMBERS)}{domain}"
    send(gateway, sender, "alice@example.org")
    return [verdict for _, verdict in shadows(gateway, sender)]


@pytest.mark.parametrize(
    ("lookups", "shadow"),
    [(3, {"action": "reject", "rule": "scored"}), (2, {"action": "undecided", "rule": 'dnsbl("l2.test")'})],
)
def test_lookups_of_its_own_are_few(lookups: int, shadow: dict[str, str]) -> None:
    rules = "".join(f"  - note: n{n}\n    when: dnsbl('l{n}.test')\n    do: {{score: 1}}\n" for n in range(3))
    rules = f"stage: sender\nrules:\n{rules}  - reject: scored\n    when: score >= 1\n"
    with NameServer() as dns:
        for number in range(3):
            dns.add(f"2.0.0.127.l{number}.test A 127.0.0.2", f"7.0.9.127.l{number}.test A 127.0.0.3")
        policy = {"shadow": "next", "shadow_lookups": lookups}
        settings = {"policy": policy, "dns": {"servers": [dns.address]}}
        with temporary_gateway(settings=settings, files={"next/30-sender.yaml": rules}) as running:
            assert send(running, "a@x.test", "alice@example.org", source="127.9.0.7") == ("250", "250")
            assert shadows(running, "a@x.test") == [("sender", shadow)]
