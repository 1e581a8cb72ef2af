"""What rules do beside accepting and refusing: dispositions, effects, score and marks, judgement by recipient.

Rules are steered by what the client says: a source address at connect, the greeting's first label at helo, local parts
at sender and recipient, words of an X-Do field at message. Each test has a sender's domain of its own to be found by.
"""

import itertools
import json
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing

import pytest

from gateway.storage.queue_tables import STATES
from gateway.storage.sqlite_trace import SqliteTrace
from tests.support.gateway import Gateway
from tests.support.peers import added_trace
from tests.support.process import wait_until
from tests.support.raw import RawClient, RawReply, send_whole, spool_files, temporary_gateway
from tests.support.remote import Report

ALICE, BOB, CAROL, DORA = (f"{name}@example.org" for name in ("alice", "bob", "carol", "dora"))
NOBODY = "nobody@example.org"
STATE_OF = {"quarantine": "quarantined", "hold": "held"}
RESULT_OF = {"discard": "discarded", "quarantine": "quarantined", "hold": "held"}
ACTIONS = tuple(RESULT_OF)
STAGES = ("connect", "helo", "sender", "recipient", "message")
SOURCE_OF = {"": "127.0.0.1", "discard": "127.0.0.31", "quarantine": "127.0.0.32", "hold": "127.0.0.33"}
TIMES = itertools.count(1)
LARGE = b"".join(b"%05d " % number + b"x" * 70 + b"\r\n" for number in range(2500))  # over what a queue row takes


def policy(stage: str, condition: str, rules: str = "") -> str:
    """A policy file: these rules, then one for each disposition; WORD in the condition stands for its action."""
    lines = [f"stage: {stage}", "rules:", rules.rstrip("\n")]
    for action in ACTIONS:
        word = SOURCE_OF[action] if stage == "connect" else action
        lines += [f"  - {action}: {action} at {stage}", f"    when: {condition.replace('WORD', word)}"]
    return "\n".join(lines) + "\n"


CONNECT = """\
  - note: everybody
    do: {score: 1, mark: connected}
  - note: signed in
    when: auth.user
    do: {score: 1000, mark: known}
  - quarantine: strangers until they sign in
    when: client.ip == "127.0.0.34" and not auth.user
"""
HELO = """\
  - note: odd greeting
    when: starts_with(helo.name, "odd")
    do: {score: 10, mark: odd-helo}
"""
SENDER = """\
  - note: odd sender
    when: sender.local == "odd"
    do: {score: 100, mark: [odd-sender, seen-at-sender]}
  - note: slow sender
    when: sender.local == "slow"
    do: {delay: 0.4}
  - note: still slow
    when: sender.local == "slow"
    do: {delay: 0.3}
  - reject: monitored sender
    when: sender.local == "watched"
    mode: monitor
    do: {score: 50, mark: watched, redirect: dora@example.org, delay: 20}
"""
RECIPIENT = """\
  - note: odd recipient
    when: ends_with(recipient.local, "+odd")
    do: {score: 0.5, mark: odd-recipient}
  - note: tagged for this one
    when: ends_with(recipient.local, "+tag")
    do: {tag_subject: "[EXT]"}
  - note: unwanted by this one
    when: ends_with(recipient.local, "+unwanted")
    do: {mark: unwanted}
  - note: moved
    when: ends_with(recipient.local, "+moved")
    do: {redirect: carol@example.org}
"""
MESSAGE = """\
  - reject: refused by its content
    when: "'refuse' in header('X-Do')"
    reply: 550 5.7.1 refused with score {score}
  - defer: put off by its content
    when: "'put-off' in header('X-Do')"
    reply: 450 4.7.1 put off
  - reject: unwanted mark
    when: '"unwanted" in marks'
  - note: shown
    when: "'show' in header('X-Do')"
    do: {add_header: "X-Seen: {score} {marks}"}
  - note: client shown
    when: "'client' in header('X-Do')"
    do: {add_header: "X-Client: {client.ip} for {sender.address}"}
  - note: subject shown
    when: "'subject' in header('X-Do')"
    do: {add_header: "X-Subject: <{message.subject}>"}
  - note: tagged
    when: "'tag' in header('X-Do')"
    do: {tag_subject: "[EXT]"}
  - note: tagged once more
    when: "'twice' in header('X-Do')"
    do: {tag_subject: "[EXT]"}
  - note: tagged otherwise
    when: "'other' in header('X-Do')"
    do: {tag_subject: "[*]"}
  - note: sent to dora
    when: "'to-dora' in header('X-Do')"
    do: {redirect: dora@example.org}
  - note: sent to carol
    when: "'to-carol' in header('X-Do')"
    do: {redirect: carol@example.org}
  - note: sent to nobody
    when: "'to-nobody' in header('X-Do')"
    do: {redirect: nobody@example.org}
  - note: copied to carol
    when: "'copy-carol' in header('X-Do')"
    do: {bcc: carol@example.org}
  - note: copied to nobody
    when: "'copy-nobody' in header('X-Do')"
    do: {bcc: nobody@example.org}
  - reject: monitored content
    when: "'watch' in header('X-Do')"
    mode: monitor
    do: {tag_subject: "[WATCH]", add_header: "X-Watch: yes", bcc: dora@example.org, mark: watched}
  - quarantine: monitored quarantine
    when: "'watch' in header('X-Do')"
    mode: monitor
  - accept: let through by its content
    when: "'let' in header('X-Do')"
"""
POLICIES = {
    "10-connect.yaml": policy("connect", 'client.ip == "WORD"', CONNECT),
    "20-helo.yaml": policy("helo", 'starts_with(helo.name, "WORD")', HELO),
    "30-sender.yaml": policy("sender", 'sender.local == "WORD"', SENDER),
    "40-recipient.yaml": policy("recipient", 'ends_with(recipient.local, "+WORD")', RECIPIENT),
    "50-message.yaml": policy("message", "\"'WORD' in header('X-Do')\"", MESSAGE),
}
BY_RECIPIENT = """\
  - reject: not for this one
    when: ends_with(recipient.local, "+no")
    reply: 550 5.7.2 not for <{recipient.address}>
  - reject: neither for that one
    when: ends_with(recipient.local, "+never")
    reply: 554 5.7.3 never for <{recipient.address}>
  - defer: later for this one
    when: ends_with(recipient.local, "+later")
    reply: 450 4.7.5 later for <{recipient.address}>
  - note: named
    when: "'name' in header('X-Do')"
    do: {add_header: "X-For: {recipient.address}"}
"""
USERS = (ALICE, BOB, CAROL, DORA)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """Its message rules ask for nothing of the single recipient."""
    with temporary_gateway(policies=POLICIES, users=USERS) as running:
        yield running


@pytest.fixture(scope="module")
def judging() -> Iterator[Gateway]:
    """Its message rules ask for each recipient."""
    by_recipient = policy("message", "\"'WORD' in header('X-Do')\"", BY_RECIPIENT)
    with temporary_gateway(policies=POLICIES | {"50-message.yaml": by_recipient}, users=USERS) as running:
        yield running


# --- sending ----------------------------------------------------------------------------------------------------------


def new_sender(local: str = "sender") -> str:
    """An address that no other test uses."""
    return f"{local}@t{next(TIMES)}.test"


def letter(do: str = "", *, head: bytes = b"Subject: hello\r\n", body: bytes = b"A line.\r\n") -> bytes:
    return f"X-Do: {do}\r\n".encode() + head + b"From: x@elsewhere.test\r\n\r\n" + body


def transact(client: RawClient, sender: str, recipients: tuple[str, ...], message: bytes) -> RawReply:
    """The reply to the end of data."""
    client.begin_data(*recipients, sender=sender)
    client.send(message + b".\r\n")
    return client.reply()


def send(
    gateway: Gateway,
    sender: str,
    *recipients: str,
    message: bytes = b"",
    source: str = "127.0.0.1",
    helo: str = "c.test",
) -> RawReply:
    with RawClient(gateway.ports["smtp"], source=source) as client:
        client.ehlo(helo)
        return transact(client, sender, recipients, message or letter())


def send_given(gateway: Gateway, given: Mapping[str, str], do: str = "", *more: str) -> tuple[str, str, RawReply]:
    """Send to alice (and more) so that each stage in `given` decides so; returns sender, alice's address, reply."""
    sender = new_sender(given.get("sender", "sender"))
    word = given.get("recipient")
    alice = f"alice+{word}@example.org" if word else ALICE
    message = letter(f"{do} {given.get('message', '')}")
    helo = f"{given.get('helo', 'client')}.test"
    answer = send(gateway, sender, alice, *more, message=message, source=SOURCE_OF[given.get("connect", "")], helo=helo)
    return sender, alice, answer


def id_of(answer: RawReply) -> str:
    assert answer.code == 250, answer
    return answer.text.split()[-1]


# --- looking ----------------------------------------------------------------------------------------------------------


def look(gateway: Gateway, sql: str, *values: object) -> list[tuple[object, ...]]:
    path = f"file:{gateway.data / 'queue.db'}?mode=ro"
    with closing(sqlite3.connect(path, uri=True, timeout=10.0)) as connection:
        return connection.execute(sql, values).fetchall()


def kept(gateway: Gateway, sender: str) -> dict[object, str]:
    """Recipient to state of all that the queue holds of a sender; what is ready is shown too."""
    sql = "SELECT forward_path, state FROM recipient JOIN message ON message.id = message WHERE reverse_path = ?"
    return {path: STATES[int(str(state))].value for path, state in look(gateway, sql, sender)}


def wait_kept(gateway: Gateway, sender: str, wanted: Mapping[str, str]) -> None:
    """Until deliveries are over and only this is left."""
    wait_until(lambda: kept(gateway, sender) == wanted, 15.0, f"the queue to hold {wanted} of {sender}")


def mails(gateway: Gateway, user: str, sender: str) -> list[bytes]:
    return [mail for mail in gateway.mails(user) if mail.startswith(f"Return-Path: <{sender}>\r\n".encode())]


def wait_mail(gateway: Gateway, user: str, sender: str) -> bytes:
    """The only message of the sender in a mailbox, waited for."""
    wait_until(lambda: mails(gateway, user, sender), 15.0, f"mail of {sender} for {user}")
    (mail,) = mails(gateway, user, sender)
    return mail


def assert_never_delivered(gateway: Gateway, sender: str, *users: str) -> None:
    """Not in the queue as deliverable, and then not in a mailbox: a message is always in one of both."""
    assert not {"ready", "active"} & set(kept(gateway, sender).values())
    for user in users:
        assert mails(gateway, user, sender) == []


def events(gateway: Gateway, wanted: str, kind: str, count: int = 1) -> list[dict[str, object]]:
    """At least so many events of this kind about `wanted`, waited for: the trace is written a moment later."""

    def find() -> list[dict[str, object]] | None:
        with closing(SqliteTrace(gateway.data / "trace.db")) as trace:
            found = [event.data for event in trace.find(wanted) if event.kind == kind]
        return found if len(found) >= count else None

    return wait_until(find, 5.0, f"{count} events {kind} of {wanted}")  # type: ignore[return-value]


def parts(gateway: Gateway, sender: str) -> dict[str, dict[str, object]]:
    """The parts of a sender's only accepted message, by recipients."""
    (found,) = events(gateway, sender, "transaction")
    return {" ".join(part["recipients"]): part for part in found["parts"]}  # type: ignore[attr-defined]


def seen(mail: bytes) -> str:
    """What the rule `shown` saw: score and marks."""
    (value,) = re.findall(rb"^X-Seen: (.*)\r$", mail, re.MULTILINE)
    return str(value.decode())


def body_files(gateway: Gateway, sender: str) -> set[object]:
    sql = "SELECT name FROM blob JOIN message ON blob.id = blob WHERE reverse_path = ?"
    return {name for (name,) in look(gateway, sql, sender)}


def spooled(gateway: Gateway) -> set[str]:
    return {path.name for path in (gateway.data / "spool" / "blob").glob("*/*")}


def quarantined(gateway: Gateway, sender: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(
        gateway.cli("quarantine", "list", "--json", "--sender", sender).expect().stdout
    )
    return rows


# --- discard ----------------------------------------------------------------------------------------------------------


def test_what_is_discarded_is_answered_250_and_only_the_trace_and_the_metric_know_of_it(gateway: Gateway) -> None:
    sender = new_sender("discard")
    before = gateway.metric("smarthost_messages_total", result="discarded")
    queue_id = id_of(send(gateway, sender, ALICE, BOB))
    assert kept(gateway, sender) == {}
    assert gateway.metric("smarthost_messages_total", result="discarded") == before + 1
    send_whole(gateway, f"behind-{queue_id}")
    assert_never_delivered(gateway, sender, ALICE, BOB)
    (found,) = events(gateway, queue_id, "transaction")
    assert found["result"] == "discarded"
    printed = gateway.cli("trace", queue_id).expect().stdout
    assert f"{queue_id} for {ALICE}, {BOB}: discard by “discard at sender”" in printed
    assert "sender: discard by “discard at sender”" in printed
    assert f"answered 250 2.0.0 Queued as {queue_id}" in printed


def test_the_body_of_a_large_discarded_message_is_removed(gateway: Gateway) -> None:
    before = spooled(gateway)
    assert send(gateway, new_sender("discard"), ALICE, message=letter(body=LARGE)).code == 250
    assert spooled(gateway) == before
    assert spool_files(gateway) == []


# --- hold -------------------------------------------------------------------------------------------------------------


def test_what_is_held_waits_in_the_queue_until_it_is_released(gateway: Gateway) -> None:
    sender, message = new_sender("hold"), letter()
    queue_id = id_of(send(gateway, sender, ALICE, message=message))
    held = json.loads(gateway.cli("queue", "list", "--json", "--state", "held", "--sender", sender).expect().stdout)
    assert [(row["id"], row["state"], row["recipient"]) for row in held] == [(queue_id, "held", ALICE)]
    assert held[0]["info"]["kept_by"] == "hold at sender"
    send_whole(gateway, f"behind-{queue_id}")
    assert_never_delivered(gateway, sender, ALICE)
    assert "released 1 recipients" in gateway.cli("queue", "release", queue_id).expect().stdout
    added_trace(message, wait_mail(gateway, ALICE, sender), released=True)
    wait_kept(gateway, sender, {})


# --- quarantine -------------------------------------------------------------------------------------------------------


def test_what_is_quarantined_is_no_part_of_the_queue(gateway: Gateway) -> None:
    sender = new_sender("quarantine")
    before = gateway.metric("smarthost_quarantine_messages")
    waiting = gateway.metric("smarthost_queue_messages")
    queue_id = id_of(send(gateway, sender, ALICE, BOB, message=letter(head=b"Subject: suspicious\r\n")))
    assert gateway.metric("smarthost_quarantine_messages") == before + 2
    assert gateway.metric("smarthost_queue_messages") == waiting
    assert queue_id not in {row["id"] for row in gateway.queue()}
    gateway.cli("queue", "show", queue_id).expect(1)
    assert "released 0" in gateway.cli("queue", "release", queue_id).expect(1).stdout
    assert "deleted 0" in gateway.cli("queue", "delete", queue_id).expect(1).stdout
    rows = quarantined(gateway, sender)
    assert [(row["id"], row["sender"], row["recipient"], row["kept_by"]) for row in rows] == [
        (queue_id, sender, ALICE, "quarantine at sender"),
        (queue_id, sender, BOB, "quarantine at sender"),
    ]
    shown = gateway.cli("quarantine", "show", queue_id.lower()).expect().stdout
    assert f"from <{sender}>" in shown
    assert "kept_by: quarantine at sender" in shown
    assert "Subject: suspicious" in shown
    assert_never_delivered(gateway, sender, ALICE, BOB)


def test_what_is_released_from_quarantine_is_delivered_as_it_came(gateway: Gateway) -> None:
    sender = new_sender("quarantine")
    message = letter(body=b"..\r\n.dots\r\n\r\n" + bytes(range(128, 256)) + b"\r\n" * 3)
    wire = message.replace(b"\r\n.", b"\r\n..")
    queue_id = id_of(send(gateway, sender, ALICE, BOB, message=wire))
    before = gateway.metric("smarthost_quarantine_messages")
    assert "released 1 recipients" in gateway.cli("quarantine", "release", queue_id, "--recipient", BOB).expect().stdout
    added_trace(message, wait_mail(gateway, BOB, sender), released=True)
    wait_kept(gateway, sender, {ALICE: "quarantined"})
    assert mails(gateway, ALICE, sender) == []
    assert "released 1 recipients" in gateway.cli("quarantine", "release", queue_id).expect().stdout
    added_trace(message, wait_mail(gateway, ALICE, sender), released=True)
    assert gateway.metric("smarthost_quarantine_messages") == before - 2
    gateway.cli("quarantine", "release", queue_id).expect(1)
    told = gateway.cli("trace", queue_id).expect().stdout
    assert re.search(rf"released: {queue_id} for <bob@example.org> as [0-9A-Z]{{16}}, asked by postmaster", told), told


def test_what_is_deleted_from_quarantine_is_gone_with_its_body(gateway: Gateway) -> None:
    sender = new_sender("quarantine")
    before = gateway.metric("smarthost_quarantine_messages")
    queue_id = id_of(send(gateway, sender, ALICE, BOB, message=letter(body=LARGE)))
    (name,) = body_files(gateway, sender)
    assert name in spooled(gateway)
    assert "deleted 1 recipients" in gateway.cli("quarantine", "delete", queue_id, "--recipient", BOB).expect().stdout
    assert kept(gateway, sender) == {ALICE: "quarantined"}
    assert name in spooled(gateway)
    assert "deleted 1 recipients" in gateway.cli("quarantine", "delete", "--sender", sender).expect().stdout
    assert kept(gateway, sender) == {}
    assert name not in spooled(gateway)
    assert gateway.metric("smarthost_quarantine_messages") == before
    gateway.cli("quarantine", "show", queue_id).expect(1)
    assert_never_delivered(gateway, sender, ALICE, BOB)


# --- scopes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_disposition_takes_all_recipients_of_its_scope(gateway: Gateway, stage: str, action: str) -> None:
    before = {result: gateway.metric("smarthost_messages_total", result=result) for result in RESULT_OF.values()}
    sender, alice, answer = send_given(gateway, {stage: action}, "", BOB)
    assert answer.code == 250
    takes_bob = stage != "recipient"
    bound = (alice, BOB) if takes_bob else (alice,)
    if not takes_bob:
        wait_mail(gateway, BOB, sender)
    wait_kept(gateway, sender, {to: STATE_OF[action] for to in bound if action in STATE_OF})
    assert_never_delivered(gateway, sender, ALICE, *([BOB] if takes_bob else []))
    part = parts(gateway, sender)[" ".join(bound)]
    assert (part["disposition"], part["rule"]) == (action, f"{action} at {stage}")
    after = {result: gateway.metric("smarthost_messages_total", result=result) for result in RESULT_OF.values()}
    assert after == before | ({RESULT_OF[action]: before[RESULT_OF[action]] + 1} if takes_bob else {})


@pytest.mark.parametrize(("stage", "lasts"), [("connect", True), ("helo", True), ("sender", False), ("message", False)])
def test_a_disposition_ends_with_its_scope(gateway: Gateway, stage: str, lasts: bool) -> None:
    first, second = new_sender("quarantine" if stage == "sender" else "sender"), new_sender()
    with RawClient(gateway.ports["smtp"], source=SOURCE_OF["quarantine" if stage == "connect" else ""]) as client:
        client.ehlo("quarantine.test" if stage == "helo" else "client.test")
        transact(client, first, (ALICE,), letter("quarantine" if stage == "message" else ""))
        transact(client, second, (ALICE,), letter())
    assert kept(gateway, first) == {ALICE: "quarantined"}
    if lasts:
        assert kept(gateway, second) == {ALICE: "quarantined"}
    else:
        wait_mail(gateway, ALICE, second)


def test_a_recipients_disposition_ends_with_the_transaction(gateway: Gateway) -> None:
    sender = new_sender()
    with RawClient(gateway.ports["smtp"]) as client:
        client.ehlo()
        client.envelope("alice+discard@example.org", sender=sender)
        client.line("RSET")
        transact(client, sender, (ALICE,), letter())
    wait_mail(gateway, ALICE, sender)


@pytest.mark.parametrize(("word", "code", "result"), [("refuse", 550, "rejected"), ("put-off", 450, "deferred")])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("stage", STAGES[:-1])
def test_a_refusal_of_the_message_wins_over_what_was_disposed_before(
    gateway: Gateway, stage: str, action: str, word: str, code: int, result: str
) -> None:
    before = spooled(gateway)
    sender, _, answer = send_given(gateway, {stage: action}, word, BOB)
    assert answer.code == code
    assert kept(gateway, sender) == {}
    assert_never_delivered(gateway, sender, ALICE, BOB)
    assert spooled(gateway) == before
    (found,) = events(gateway, answer.id, "transaction")
    assert (found["result"], found["parts"]) == (result, [])


@pytest.mark.parametrize(
    ("given", "do", "expected"),
    [
        ({"connect": "discard", "helo": "quarantine"}, "", "quarantine at helo"),
        ({"connect": "quarantine", "sender": "hold"}, "", "hold at sender"),
        ({"helo": "hold", "recipient": "discard"}, "", "discard at recipient"),
        ({"sender": "discard", "message": "hold"}, "", "hold at message"),
        ({"recipient": "quarantine", "message": "discard"}, "", "discard at message"),
        (dict.fromkeys(STAGES[:-1], "discard") | {"message": "quarantine"}, "", "quarantine at message"),
        ({"connect": "hold", "sender": "quarantine"}, "let", "quarantine at sender"),
    ],
)  # fmt: skip
def test_of_several_dispositions_the_last_stages_counts(
    gateway: Gateway, given: dict[str, str], do: str, expected: str
) -> None:
    sender, alice, answer = send_given(gateway, given, do)
    assert answer.code == 250
    action = expected.split()[0]
    assert kept(gateway, sender) == ({alice: STATE_OF[action]} if action in STATE_OF else {})
    assert_never_delivered(gateway, sender, ALICE)
    part = parts(gateway, sender)[alice]
    assert (part["disposition"], part["rule"]) == (action, expected)


# --- judgement by recipient -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("bob", "alice+no"), ("alice+no", "bob")])
def test_one_rejected_of_two_gets_a_copy_in_quarantine_and_nobody_a_bounce(
    judging: Gateway, order: tuple[str, str]
) -> None:
    sender, message = f"dora+{next(TIMES)}@example.org", letter()
    answer = send(judging, sender, *(f"{local}@example.org" for local in order), message=message)
    assert answer.code == 250
    added_trace(message, wait_mail(judging, BOB, sender))
    wait_kept(judging, sender, {"alice+no@example.org": "quarantined"})
    (row,) = quarantined(judging, sender)
    assert (row["recipient"], row["kept_by"]) == ("alice+no@example.org", "not for this one")
    found = parts(judging, sender)
    assert found[BOB]["disposition"] is None
    assert found["alice+no@example.org"]["disposition"] == "quarantine"
    send_whole(judging, f"behind-{row['id']}", user=DORA)
    assert [mail for mail in judging.mails(DORA) if mail.startswith(b"Return-Path: <>")] == []
    judging.cli("quarantine", "release", str(row["id"])).expect()
    added_trace(message, wait_mail(judging, ALICE, sender), released=True)


def test_a_rejected_recipients_copy_is_kept_although_an_earlier_stage_discards(judging: Gateway) -> None:
    sender = new_sender("discard")
    assert send(judging, sender, BOB, "alice+no@example.org").code == 250
    assert kept(judging, sender) == {"alice+no@example.org": "quarantined"}
    assert_never_delivered(judging, sender, ALICE, BOB)
    assert parts(judging, sender)[BOB]["disposition"] == "discard"


@pytest.mark.parametrize(
    ("locals_", "heading"),
    [
        (("alice+no",), "550 5.7.2 not for <alice+no@example.org>"),
        (("alice+no", "bob+never"), "550 5.7.2 not for <alice+no@example.org>"),
        (("bob+never", "alice+no", "carol+no"), "554 5.7.3 never for <bob+never@example.org>"),
        (("alice+later",), "450 4.7.5 later for <alice+later@example.org>"),
        (("bob", "alice+later"), "450 4.7.5 later for <alice+later@example.org>"),
        (("alice+later", "bob"), "450 4.7.5 later for <alice+later@example.org>"),
        (("alice+no", "bob+later", "carol"), "450 4.7.5 later for <bob+later@example.org>"),
        (("carol+quarantine", "bob+later"), "450 4.7.5 later for <bob+later@example.org>"),
    ],
)
def test_all_rejected_or_any_deferred_is_a_refusal_and_nothing_is_stored(
    judging: Gateway, locals_: tuple[str, ...], heading: str
) -> None:
    sender, before = new_sender(), spooled(judging)
    recipients = tuple(f"{local}@example.org" for local in locals_)
    answer = send(judging, sender, *recipients, message=letter(body=LARGE))
    assert f"{answer.code} {answer.text}" == f"{heading} [{answer.id}]"
    assert kept(judging, sender) == {}
    assert_never_delivered(judging, sender, ALICE, BOB, CAROL)
    assert spooled(judging) <= before  # a large message of another test may just have left
    assert spool_files(judging) == []
    (found,) = events(judging, answer.id, "transaction")
    assert found["result"] == ("rejected" if answer.code >= 500 else "deferred")
    judged = [decision for decision in found["decisions"] if decision["stage"] == "message"]  # type: ignore[attr-defined]
    assert len(judged) == len(recipients)
    if len(recipients) > 1:
        assert [decision["recipients"] for decision in judged] == [[recipient] for recipient in recipients]


def test_a_message_rule_may_give_each_recipient_a_header_of_its_own(judging: Gateway) -> None:
    sender, message = new_sender(), letter("name", body=LARGE)
    assert send(judging, sender, ALICE, BOB, message=message).code == 250
    for user in (ALICE, BOB):
        added_trace(f"X-For: {user}\r\n".encode() + message, wait_mail(judging, user, sender))


def test_what_a_recipient_stage_gave_is_told_apart_where_no_message_rule_names_recipients(gateway: Gateway) -> None:
    """The mark of one of two makes a message rule reject it, and it alone."""
    sender = new_sender()
    assert send(gateway, sender, "alice+unwanted@example.org", BOB, "carol+unwanted@example.org").code == 250
    wait_mail(gateway, BOB, sender)
    wait_kept(
        gateway, sender, dict.fromkeys(("alice+unwanted@example.org", "carol+unwanted@example.org"), "quarantined")
    )
    assert len({row["id"] for row in quarantined(gateway, sender)}) == 1
    assert send(gateway, new_sender(), "alice+unwanted@example.org").code == 550


# --- score and marks --------------------------------------------------------------------------------------------------

ODD, PLAIN = "EHLO odd.test", "EHLO client.test"
FROM_ODD, FROM_PLAIN = "MAIL FROM:<odd@SENDER>", "MAIL FROM:<sender@SENDER>"
TO_ALICE, TO_ODD = f"RCPT TO:<{ALICE}>", "RCPT TO:<alice+odd@example.org>"
DATA = "DATA"
JUST_US = "1.0 connected"


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ((PLAIN, FROM_PLAIN, TO_ALICE), JUST_US),
        (
            (ODD, FROM_ODD, TO_ODD),
            "111.5 connected odd-helo odd-sender seen-at-sender odd-recipient",
        ),
        ((ODD, PLAIN, FROM_PLAIN, TO_ALICE), JUST_US),
        ((PLAIN, ODD, ODD, FROM_PLAIN, TO_ALICE), "11.0 connected odd-helo"),
        (("HELO odd.test", "HELO client.test", FROM_PLAIN, TO_ALICE), JUST_US),
        ((PLAIN, FROM_ODD, TO_ODD, PLAIN, FROM_PLAIN, TO_ALICE), JUST_US),
        ((PLAIN, FROM_ODD, "RSET", FROM_PLAIN, TO_ALICE), JUST_US),
        ((ODD, FROM_ODD, TO_ODD, "RSET", FROM_PLAIN, TO_ALICE), "11.0 connected odd-helo"),
        ((PLAIN, FROM_ODD, "RSET", FROM_ODD, TO_ALICE), "101.0 connected odd-sender seen-at-sender"),
        ((PLAIN, FROM_ODD, TO_ODD, DATA, FROM_PLAIN, TO_ALICE), JUST_US),
        ((ODD, FROM_ODD, TO_ALICE, DATA, FROM_ODD, TO_ALICE), "111.0 connected odd-helo odd-sender seen-at-sender"),
        ((PLAIN, FROM_PLAIN, TO_ODD, "RSET", FROM_PLAIN, TO_ALICE), JUST_US),
    ],
)
def test_score_and_marks_reach_the_message_and_a_new_command_takes_back_what_it_outdates(
    gateway: Gateway, commands: tuple[str, ...], expected: str
) -> None:
    domain = new_sender().partition("@")[2]
    with RawClient(gateway.ports["smtp"]) as client:
        for command in (*commands, DATA):
            assert client.line(command.replace("SENDER", domain)).code in (250, 354)
            if command == DATA:
                client.send(letter("show", head=b"") + b".\r\n")
                assert client.reply().code == 250
    odd, plain = f"odd@{domain}", f"sender@{domain}"
    last, other = (odd, plain) if commands[-2] == FROM_ODD else (plain, odd)
    wait_until(lambda: not kept(gateway, last) | kept(gateway, other), 15.0, "the deliveries")
    found = mails(gateway, ALICE, last)
    assert len(found) + len(mails(gateway, ALICE, other)) == commands.count(DATA) + 1
    assert {seen(mail) for mail in found} == {expected}  # where the sender has two, they are alike


def test_what_is_given_at_recipient_is_seen_for_that_recipient_alone(gateway: Gateway) -> None:
    sender = new_sender()
    assert send(gateway, sender, "alice+odd@example.org", BOB, message=letter("show")).code == 250
    assert seen(wait_mail(gateway, ALICE, sender)) == "1.5 connected odd-recipient"
    assert seen(wait_mail(gateway, BOB, sender)) == JUST_US


def test_a_reply_shows_the_score_of_all_stages(gateway: Gateway) -> None:
    sender = new_sender("odd")
    answer = send(gateway, sender, ALICE, message=letter("refuse"), helo="odd.test")
    assert answer.text == f"5.7.1 refused with score 111.0 [{answer.id}]"
    (found,) = events(gateway, answer.id, "transaction")
    given = {decision["stage"]: decision.get("score") for decision in found["decisions"]}  # type: ignore[attr-defined]
    assert given == {"connect": 1.0, "helo": 10.0, "sender": 100.0, "recipient": None, "message": None}


def test_a_sign_in_runs_connect_and_helo_again_and_doubles_no_score(gateway: Gateway) -> None:
    before, after = new_sender(), new_sender()
    with RawClient(gateway.ports["smtp"]) as client:
        client.ehlo("odd.test")
        client.starttls()
        client.ehlo("odd.test")
        transact(client, before, (ALICE,), letter("show"))
        assert client.login(BOB).code == 235
        transact(client, after, (ALICE,), letter("show"))
    assert seen(wait_mail(gateway, ALICE, before)) == "11.0 connected odd-helo"
    assert seen(wait_mail(gateway, ALICE, after)) == "1011.0 connected known odd-helo"


def test_on_submission_connect_and_helo_run_once_after_the_sign_in(gateway: Gateway) -> None:
    sender = new_sender()
    with RawClient(gateway.ports["submissions"], tls=True) as client:
        client.ehlo("odd.test")
        assert client.login(BOB).code == 235
        transact(client, sender, (ALICE,), letter("show"))
    assert seen(wait_mail(gateway, ALICE, sender)) == "1011.0 connected known odd-helo"


def test_a_sign_in_takes_back_what_connect_disposed(gateway: Gateway) -> None:
    before, after = new_sender(), new_sender()
    with RawClient(gateway.ports["smtp"], source="127.0.0.34") as client:
        client.ehlo()
        client.starttls()
        client.ehlo()
        transact(client, before, (ALICE,), letter())
        assert client.login(BOB).code == 235
        transact(client, after, (ALICE,), letter())
    wait_mail(gateway, ALICE, after)
    assert kept(gateway, before) == {ALICE: "quarantined"}


# --- effects ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("do", "before", "after"),
    [
        ("tag", b"Subject: hello\r\n", b"Subject: [EXT] hello\r\n"),
        ("tag", b"subject :\thello \r\n", b"subject : [EXT]\thello \r\n"),
        ("tag", b"Subject:hello\r\n", b"Subject: [EXT] hello\r\n"),
        ("tag", b"X-A: b\r\nSubject: a\r\n b\r\n\tc\r\n", b"X-A: b\r\nSubject: [EXT] a\r\n b\r\n\tc\r\n"),
        ("tag", b"Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n", b"Subject: [EXT] =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n"),
        ("tag", b"Subject: [EXT] hello\r\n", b"Subject: [EXT] hello\r\n"),
        ("tag", b"Subject:\r\n  [EXT] hello\r\n", b"Subject:\r\n  [EXT] hello\r\n"),
        ("tag", b"Subject: one\r\nSubject: two\r\n", b"Subject: [EXT] one\r\nSubject: two\r\n"),
        ("tag twice", b"Subject: hello\r\n", b"Subject: [EXT] hello\r\n"),
        ("tag other", b"Subject: hello\r\n", b"Subject: [EXT] [*] hello\r\n"),
        ("watch", b"Subject: hello\r\n", b"Subject: hello\r\n"),
    ],
)
def test_a_tag_is_put_before_the_subject_once_and_nothing_else_changes(
    gateway: Gateway, do: str, before: bytes, after: bytes
) -> None:
    sender = new_sender()
    assert send(gateway, sender, ALICE, message=letter(do, head=before)).code == 250
    added_trace(letter(do, head=after), wait_mail(gateway, ALICE, sender))


@pytest.mark.parametrize("body", [b"A line.\r\n", b"x" * 70_000 + b"\r\n"], ids=["small", "large"])
def test_a_message_without_a_subject_gets_the_tag_for_one(gateway: Gateway, body: bytes) -> None:
    sender, message = new_sender(), letter("tag", head=b"", body=re.sub(rb"(.{900})", rb"\1\r\n", body))
    assert send(gateway, sender, ALICE, message=message).code == 250
    added_trace(b"Subject: [EXT]\r\n" + message, wait_mail(gateway, ALICE, sender))


def test_added_fields_stand_above_the_messages_own_in_the_order_of_their_rules(gateway: Gateway) -> None:
    sender, message = new_sender("odd"), letter("show client")
    assert send(gateway, sender, ALICE, message=message, source="127.0.0.40").code == 250
    fields = (
        "X-Seen: 101.0 connected odd-sender seen-at-sender\r\n"
        f"X-Client: 127.0.0.40 for {sender}\r\n"
    )  # fmt: skip
    added_trace(fields.encode() + message, wait_mail(gateway, ALICE, sender))


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        (b"Subject: =?utf-8?q?a=0D=0AX-Evil:_b=00=C3=BC?=\r\n", b"<a??X-Evil: b??>"),
        (b"", b"<none>"),
        (b"Subject: {client.ip}\r\n", b"<{client.ip}>"),
    ],
)
def test_a_fact_in_an_added_field_is_printable_ascii_whatever_the_client_sends(
    gateway: Gateway, subject: bytes, shown: bytes
) -> None:
    sender, message = new_sender(), letter("subject", head=subject)
    assert send(gateway, sender, ALICE, message=message).code == 250
    added_trace(b"X-Subject: " + shown + b"\r\n" + message, wait_mail(gateway, ALICE, sender))


@pytest.mark.parametrize(
    ("do", "alice", "target"),
    [
        ("to-carol", ALICE, CAROL),
        ("to-carol to-dora", ALICE, CAROL),  # in the order of the rules
        ("", "alice+moved@example.org", CAROL),
        ("to-dora", "alice+moved@example.org", DORA),
    ],
)
def test_a_redirected_message_goes_to_the_last_address_named_instead(
    gateway: Gateway, do: str, alice: str, target: str
) -> None:
    sender, message = new_sender(), letter(do)
    assert send(gateway, sender, alice, message=message).code == 250
    added_trace(message, wait_mail(gateway, target, sender))
    wait_kept(gateway, sender, {})
    assert_never_delivered(gateway, sender, *({ALICE, CAROL, DORA} - {target}))


def test_a_redirect_at_recipient_moves_that_recipient_alone_and_at_message_all_into_one_copy(gateway: Gateway) -> None:
    one, all_of_them = new_sender(), new_sender()
    send(gateway, one, "alice+moved@example.org", BOB)
    send(gateway, all_of_them, ALICE, BOB, message=letter("to-dora"))
    for user, sender in ((CAROL, one), (BOB, one), (DORA, all_of_them)):
        wait_mail(gateway, user, sender)
    for sender, others in ((one, (ALICE, DORA)), (all_of_them, (ALICE, BOB, CAROL))):
        wait_kept(gateway, sender, {})
        assert_never_delivered(gateway, sender, *others)


def test_a_blind_copy_is_delivered_too_and_shows_in_nobodys_mail(gateway: Gateway) -> None:
    sender, message = new_sender(), letter("copy-carol")
    assert send(gateway, sender, ALICE, message=message).code == 250
    stored = wait_mail(gateway, ALICE, sender)
    for mail in (stored, wait_mail(gateway, CAROL, sender)):
        added_trace(message, mail)
    assert b"carol" not in stored.removesuffix(message)


def reports(gateway: Gateway, queue_id: str) -> list[Report]:
    """Notifications about a message in bob's mailbox."""
    return [Report(mail) for mail in gateway.mails(BOB) if b"Return-Path: <>" in mail and queue_id.encode() in mail]


@pytest.mark.parametrize(
    ("do", "delivered"), [("copy-nobody", True), ("to-nobody", False)], ids=["bcc", "redirect, for comparison"]
)
def test_the_failure_of_a_blind_copy_is_told_to_nobody(gateway: Gateway, do: str, delivered: bool) -> None:
    """A redirect to the same address fails too, and of that the sender hears."""
    sender = f"bob+{next(TIMES)}@example.org"
    queue_id = id_of(send(gateway, sender, ALICE, message=letter(do)))
    wait_kept(gateway, sender, {})
    failed = [
        event for event in events(gateway, queue_id, "delivery", 2 if delivered else 1) if event["result"] == "failed"
    ]
    assert [event["recipient"] for event in failed] == [NOBODY]
    if delivered:
        wait_mail(gateway, ALICE, sender)
        # A notice would have come into the queue in the transaction that took the failed recipient out of it.
        assert look(gateway, "SELECT info FROM message WHERE instr(info, ?)", queue_id) == []
        assert reports(gateway, queue_id) == []
    else:
        (notice,) = events(gateway, queue_id, "notice")
        assert notice["queue_id"] == queue_id
        (stored,) = wait_until(lambda: reports(gateway, queue_id), 15.0, "a notification")
        assert stored.recipients[NOBODY]["Original-Recipient"] == f"rfc822;{ALICE}"


def test_delays_come_before_the_answer_and_add_up(gateway: Gateway) -> None:
    with RawClient(gateway.ports["smtp"]) as client:
        client.ehlo()
        started = time.monotonic()
        assert client.line(f"MAIL FROM:<{new_sender('slow')}>").code == 250
        assert 0.7 <= time.monotonic() - started < 5.0
        started = time.monotonic()
        assert client.line(TO_ALICE).code == 250
        assert time.monotonic() - started < 0.7


# --- monitor ----------------------------------------------------------------------------------------------------------


def test_a_monitor_rule_only_counts_and_is_traced(gateway: Gateway) -> None:
    def hits(rule: str, mode: str) -> float:
        return gateway.metric("smarthost_policy_rule_hits_total", rule=rule, mode=mode)

    rules = {"monitored sender": "reject", "monitored content": "reject", "monitored quarantine": "quarantine"}
    before = {rule: (hits(rule, "monitor"), hits(rule, "enforce")) for rule in rules}
    sender, message = new_sender("watched"), letter("watch show")
    started = time.monotonic()
    queue_id = id_of(send(gateway, sender, ALICE, message=message))
    assert time.monotonic() - started < 10.0  # its delay is not waited for
    stored = wait_mail(gateway, ALICE, sender)
    added_trace(f"X-Seen: {JUST_US}\r\n".encode() + message, stored)
    wait_kept(gateway, sender, {})
    assert_never_delivered(gateway, sender, DORA)
    for rule, (monitored, enforced) in before.items():
        assert (hits(rule, "monitor"), hits(rule, "enforce")) == (monitored + 1, enforced)
    (found,) = events(gateway, queue_id, "transaction")
    trails = [step for decision in found["decisions"] for step in decision["trail"]]  # type: ignore[attr-defined]
    assert [rule for rule, _, matched in trails if matched == "would"] == list(rules)
    printed = gateway.cli("trace", queue_id).expect().stdout
    for rule, action in rules.items():
        assert f"would have matched: {action} “{rule}”" in printed


# --- parts over one body ----------------------------------------------------------------------------------------------


def test_parts_of_a_large_message_arrive_intact_and_share_a_body_until_both_are_delivered(gateway: Gateway) -> None:
    sender, message = new_sender("hold"), letter(head=b"Subject: large\r\n", body=LARGE)
    tagged = letter(head=b"Subject: [EXT] large\r\n", body=LARGE)
    before = spooled(gateway)
    id_of(send(gateway, sender, "alice+tag@example.org", BOB, message=message))
    (name,) = body_files(gateway, sender)
    assert spooled(gateway) - before == {name}
    assert len(look(gateway, "SELECT 1 FROM message WHERE reverse_path = ?", sender)) == 2
    found = parts(gateway, sender)
    gateway.cli("queue", "release", str(found["alice+tag@example.org"]["queue_id"])).expect()
    added_trace(tagged, wait_mail(gateway, ALICE, sender), released=True)
    wait_kept(gateway, sender, {BOB: "held"})
    assert name in spooled(gateway)
    gateway.cli("queue", "release", str(found[BOB]["queue_id"])).expect()
    added_trace(message, wait_mail(gateway, BOB, sender), released=True)
    wait_until(lambda: name not in spooled(gateway), 10.0, "the body file to be removed")


def test_parts_of_a_large_message_that_are_delivered_at_once_leave_no_file(gateway: Gateway) -> None:
    sender, before = new_sender(), spooled(gateway)
    id_of(send(gateway, sender, "alice+tag@example.org", BOB, message=letter(head=b"Subject: large\r\n", body=LARGE)))
    added_trace(letter(head=b"Subject: [EXT] large\r\n", body=LARGE), wait_mail(gateway, ALICE, sender))
    added_trace(letter(head=b"Subject: large\r\n", body=LARGE), wait_mail(gateway, BOB, sender))
    wait_until(lambda: spooled(gateway) == before, 10.0, "the body file to be removed")
    assert spool_files(gateway) == []


def test_a_kept_part_keeps_the_body_of_a_delivered_one(gateway: Gateway) -> None:
    sender, message = new_sender(), letter(body=LARGE)
    id_of(send(gateway, sender, "alice+quarantine@example.org", BOB, message=message))
    added_trace(message, wait_mail(gateway, BOB, sender))
    wait_kept(gateway, sender, {"alice+quarantine@example.org": "quarantined"})
    (name,) = body_files(gateway, sender)
    assert name in spooled(gateway)
    gateway.cli("quarantine", "release", "--sender", sender).expect()
    added_trace(message, wait_mail(gateway, ALICE, sender), released=True)
    wait_until(lambda: name not in spooled(gateway), 10.0, "the body file to be removed")
