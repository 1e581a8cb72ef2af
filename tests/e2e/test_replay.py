"""`policy replay` names exactly the recorded mail whose verdict a candidate changes, on the facts of that day."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest

from gateway.demo.nameserver import NameServer
from tests.support.gateway import Gateway
from tests.support.process import Finished, wait_until
from tests.support.raw import RawClient, message, temporary_gateway

COUNT = 120
NOTED = "stage: sender\nrules:\n  - note: one\n    when: sender.domain == 'x1.example'\n    do: {mark: one}\n"
DEFERS = "stage: sender\nrules:\n  - defer: one\n    when: sender.domain == 'x1.example'\n"
ASKS = "stage: message\nrules:\n  - hold: marked\n    when: header('X-Marker') and message.size > 10\n"
HELO = "stage: helo\nrules:\n  - accept: anybody\n"
BIG = "stage: message\nrules:\n  - quarantine: small\n    when: message.size < 100000\n"


@dataclass(frozen=True)
class Recorded:
    """A stopped gateway's records. accepted: queue ids by sender domain; refused: how many RCPT were."""

    gateway: Gateway
    accepted: dict[str, list[str]]

    def replay(self, folder: Path, files: dict[str, str], *options: str) -> Finished:
        candidate = folder / "candidate"
        shutil.copytree(self.gateway.folder / "policies", candidate)
        for name, text in files.items():
            (candidate / name).write_text(text)
        return self.gateway.cli("policy", "replay", "--candidate", str(candidate), *options)

    def changes(self, folder: Path, files: dict[str, str]) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.replay(folder, files, "--json").expect(0).stdout)
        return found


@pytest.fixture(scope="module")
def recorded() -> Iterator[Recorded]:
    accepted: dict[str, list[str]] = {}
    with temporary_gateway(policies={"30-sender.yaml": NOTED}) as gateway:
        for number in range(COUNT):
            domain = f"x{number % 4}.example"
            with RawClient(gateway.ports["smtp"], source=f"127.9.0.{number % 9 + 1}") as client:
                client.ehlo("client.test" if number % 5 else "localhost")
                client.line(f"MAIL FROM:<s{number}@{domain}>")
                client.line("RCPT TO:<nobody@example.org>")
                client.line("RCPT TO:<alice@example.org>")
                if client.line("DATA").code == 354:
                    client.send(message(f"m{number}") + b".\r\n")
                    accepted.setdefault(domain, []).append(client.reply().text.split()[-1])
        total = sum(map(len, accepted.values()))
        wait_until(lambda: gateway.cli("policy", "coverage").stdout.count("\n") > 1, 10, "records")
        wait_until(lambda: gateway.metric("smarthost_messages_total", result="accepted") == total, 10, "all counted")
        gateway.stop()  # what waited to be recorded is on disk
        yield Recorded(gateway, accepted)


def test_the_policy_itself_changes_nothing(recorded: Recorded, tmp_path: Path) -> None:
    found = recorded.changes(tmp_path, {})
    assert (found["transactions"], found["changed"], found["undecidable"]) == (COUNT, 0, {})
    assert "0 change, 0 undecidable" in recorded.replay(tmp_path / "again", {}, "--fail-on-change").expect(0).stdout


def test_one_changed_rule_names_exactly_the_mail_that_it_changes(recorded: Recorded, tmp_path: Path) -> None:
    found = recorded.changes(tmp_path, {"30-sender.yaml": DEFERS})
    changes = {(row["before"], row["after"]): row["ids"] for row in found["changes"]}  # type: ignore[attr-defined,index]
    assert set(changes) == {
        ("accept", "defer by “one”"),
        ("reject by “no such mailbox”", "defer by “one”"),
    }
    assert sorted(changes["accept", "defer by “one”"]) == sorted(recorded.accepted["x1.example"])
    assert found["undecidable"] == {}


def test_a_rule_over_facts_that_nobody_asked_for_is_decided_all_the_same(recorded: Recorded, tmp_path: Path) -> None:
    found = recorded.changes(tmp_path, {"50-message.yaml": BIG})
    (row,) = found["changes"]  # type: ignore[misc]
    assert (row["before"], row["after"]) == ("accept", "quarantine by “small”")  # type: ignore[has-type]
    assert sorted(row["ids"]) == sorted(chain(*recorded.accepted.values()))  # type: ignore[has-type]


def test_what_was_not_recorded_is_undecidable_and_never_guessed(recorded: Recorded, tmp_path: Path) -> None:
    found = recorded.changes(tmp_path, {"50-message.yaml": ASKS})
    assert found["changed"] == 0
    assert found["undecidable"] == {'header("X-Marker")': sum(map(len, recorded.accepted.values()))}


def test_what_an_early_refusal_hid_is_told_as_far_as_the_record_goes(recorded: Recorded, tmp_path: Path) -> None:
    result = recorded.replay(tmp_path, {"20-helo.yaml": HELO}, "--fail-on-change").expect(1)
    assert " ".join(result.stdout.splitlines()[2].split()).startswith("48 reject by “HELO is no host name” accept")


def test_a_broken_candidate_is_refused_at_its_place(recorded: Recorded, tmp_path: Path) -> None:
    result = recorded.replay(tmp_path, {"30-sender.yaml": DEFERS.replace("sender.domain", "sender.domian")})
    assert "candidate/30-sender.yaml:4:11: unknown fact `sender.domian`" in result.expect(1).stderr


def test_coverage_puts_rules_that_never_matched_first(recorded: Recorded) -> None:
    rows = json.loads(recorded.gateway.cli("policy", "coverage", "--json").expect(0).stdout)
    counts = {row["rule"]: row["count"] for row in rows}
    assert counts["one"] == len(recorded.accepted["x1.example"])
    assert counts["no such mailbox"] == sum(map(len, recorded.accepted.values()))
    assert rows[0]["count"] == 0
    assert [row["count"] for row in rows] == sorted(row["count"] for row in rows)


def test_explain_goes_through_all_rules_on_what_was_recorded(recorded: Recorded) -> None:
    queue_id = recorded.accepted["x1.example"][0]
    told = recorded.gateway.cli("policy", "explain", queue_id).expect(0).stdout
    assert "accepted by this policy: session" in told
    assert "x1.example> to <nobody@example.org>" in told
    assert 'MATCH       note “one”   sender.domain = "x1.example"' in told
    assert "no match    accept “own networks and signed-in users”" in told
    assert "not recorded" not in told
    only = recorded.gateway.cli("policy", "explain", queue_id, "--to", "alice@example.org").expect(0).stdout
    assert "nobody@example.org" not in only
    assert only.rstrip().endswith("outcome: accept")


def test_explain_says_so_where_the_policy_is_another_and_asks_for_more(recorded: Recorded) -> None:
    folder = recorded.gateway.folder / "policies"
    rules = (folder / "50-message.yaml").read_text()
    try:
        (folder / "50-message.yaml").write_text(ASKS)
        told = recorded.gateway.cli("policy", "explain", recorded.accepted["x2.example"][0]).expect(0).stdout
    finally:
        (folder / "50-message.yaml").write_text(rules)
    assert "accepted by another policy than that of now" in told
    assert 'not recorded, taken as unknown: header("X-Marker")' in told


def test_explain_of_what_nobody_knows_is_no(recorded: Recorded) -> None:
    assert "no transaction of 1ABC is recorded" in recorded.gateway.cli("policy", "explain", "1ABC").expect(1).stderr
    refused = recorded.gateway.cli("policy", "explain", "1ABC", "--helo", "x.example")
    assert "with an ID all facts are those of the record" in refused.expect(2).stderr


def test_live_replay_asks_dns_for_what_was_not_recorded(tmp_path: Path) -> None:
    listed = "stage: connect\nrules:\n  - reject: listed\n    when: dnsbl('bl.test') and not client.trusted\n"
    with NameServer() as dns:
        dns.add("2.0.0.127.bl.test A 127.0.0.2", "7.0.9.127.bl.test A 127.0.0.3")
        with temporary_gateway(settings={"dns": {"servers": [dns.address]}}) as gateway:
            for source in ("127.9.0.7", "127.9.0.8"):
                with RawClient(gateway.ports["smtp"], source=source) as client:
                    client.ehlo("client.test")
                    client.line("MAIL FROM:<a@x.example>")
                    client.line("RCPT TO:<alice@example.org>")
                    assert client.line("DATA").code == 354
                    client.send(message("live") + b".\r\n")
                    assert client.reply().code == 250
            wait_until(lambda: gateway.cli("policy", "coverage").stdout.count("\n") > 1, 10, "records")
            gateway.stop()
            recorded = Recorded(gateway, {})
            then = json.loads(
                recorded.replay(tmp_path / "then", {"10-connect.yaml": listed}, "--json").expect(0).stdout
            )
            now = recorded.replay(tmp_path / "now", {"10-connect.yaml": listed}, "--json", "--live").expect(0).stdout
    assert then["undecidable"] == {'dnsbl("bl.test")': 2}
    (change,) = json.loads(now)["changes"]
    assert (change["after"], change["count"]) == ("reject by “listed”", 1)
    assert json.loads(now)["undecidable"] == {}
