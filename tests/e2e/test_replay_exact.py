"""Replay through the policy that judged: the same verdict for each recipient, nothing undecidable."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.policy.loader import load_policy
from gateway.policy.replay import Replayed, replay
from gateway.storage.sqlite_trace import SqliteTrace
from tests.support.gateway import Gateway
from tests.support.raw import RawClient, message, temporary_gateway

POLICY = {
    "15-connect.yaml": """\
stage: connect
rules:
  - note: in clear
    when: not client.trusted and not session.tls.active
    do: {mark: clear}
""",
    "25-helo.yaml": """\
stage: helo
rules:
  - reject: a name of ours
    when: helo.claims_us
""",
    "35-sender.yaml": """\
stage: sender
rules:
  - reject: far too many
    when: rate("sender", "1h", "recipients") >= 2
""",
    "39-recipient.yaml": """\
stage: recipient
rules:
  - defer: not at once
    when: recipient.local == "twice" and session.errors == 0
  - accept: role
    when: recipient.local == "postmaster"
  - discard: trap
    when: recipient.local == "trap"
  - reject: at most two
    when: recipients.count >= 2
  - quarantine: encrypted on the way
    when: recipient.local == "tls" and session.tls.active and "clear" in marks
  - note: looked up
    when: recipient.is_relayed and greylist.state == "new"
    do: {mark: new}
""",
    "45-message.yaml": """\
stage: message
rules:
  - note: for one
    when: recipient.local in ["alice", "postmaster"]
  - note: many
    when: recipients.count > 5 or rate("sender", "1h", "recipients") > 5
    do: {mark: many}
""",
}
USERS = ("alice@example.org", "bob@example.org", "trap@example.org", "twice@example.org", "tls@example.org")


def mail(client: RawClient, *recipients: str, head: bytes = b"") -> None:
    client.line(f"MAIL FROM:<a@{client.socket.getsockname()[0]}.test>")
    if "250" in [str(client.line(f"RCPT TO:<{recipient}>").code) for recipient in recipients]:
        client.line("DATA")
        client.send(head + message("s") + b".\r\n")
        client.reply()


def with_tls(client: RawClient) -> None:
    client.starttls()
    client.ehlo()
    mail(client, "tls@example.org")


TRAFFIC: dict[str, Callable[[RawClient], object]] = {
    "a command outside of any transaction": lambda c: c.line("FOO"),
    "a sender that is none": lambda c: c.line("MAIL FROM:<a@>"),
    "HELO with our own name": lambda c: (c.ehlo("gateway.test"), mail(c, "alice@example.org")),
    "a mail loop": lambda c: mail(c, "alice@example.org", head=b"Received: x\r\n" * 51),
    "the relay guard after a look-up": lambda c: mail(c, "a%b@partner.test"),
    "a blank in a local part": lambda c: mail(c, '"a b"@partner.test'),
    "one refused, one accepted by a rule that message rules see": lambda c: mail(
        c, "nobody@example.org", "postmaster@example.org"
    ),
    "one refused, one dropped before it was looked at": lambda c: mail(c, "x@else.test", "trap@example.org"),
    "a recipient tried twice": lambda c: mail(c, "twice@example.org", "twice@example.org"),
    "a count asked for at two stages": lambda c: mail(c, "alice@example.org", "bob@example.org"),
    "encrypted after the first stage": with_tls,
}
NAMES = list(TRAFFIC)


def errors_first(client: RawClient) -> None:
    for _ in range(6):
        client.line("FOO")
    mail(client, "alice@example.org")


GUESSED = {
    "errors before the transaction": (errors_first, "recipient", "session.errors >= 5"),
    "recipients of the message": (TRAFFIC["a count asked for at two stages"], "message", "recipients.count >= 2"),
    "encrypted after the first stage": (with_tls, "recipient", "session.tls.active"),
}


@pytest.mark.parametrize("name", GUESSED)
def test_a_fact_of_another_stage_is_no_guess_at_what_a_candidate_asks(tmp_path: Path, name: str) -> None:
    """The candidate's rule matches this traffic: that is told, or undecidable, and never `no change`."""
    talk, stage, condition = GUESSED[name]
    live = {"15-connect.yaml": POLICY["15-connect.yaml"]}
    with temporary_gateway(policies=live, users=USERS) as gateway:
        with RawClient(gateway.ports["smtp"], source="127.9.3.1") as client:
            client.ehlo()
            talk(client)
        gateway.stop()
        (tmp_path / "candidate.yaml").write_text(f"stage: {stage}\nrules:\n  - hold: matches\n    when: {condition}\n")
        policy = load_policy(tmp_path)
        trace = SqliteTrace(gateway.data / "trace.db")
        records = [event.data for event in trace.transactions(time.time() - 3600) if event.data["parts"]]
        trace.close()
    found = [each for record in records for each in replay(policy, record)]
    assert found
    assert all(each.differs or each.lacks for each in found)


@pytest.fixture(scope="module")
def replayed() -> Iterator[dict[str, list[Replayed]]]:
    """What replay says, by name of the traffic; each comes from an address of its own."""
    with temporary_gateway(policies=POLICY, settings={'relay_domains."partner.test"': {}}, users=USERS) as gateway:
        for number, talk in enumerate(TRAFFIC.values(), 1):
            with RawClient(gateway.ports["smtp"], source=f"127.9.3.{number}") as client:
                client.ehlo()
                talk(client)
                client.line("QUIT")
        gateway.stop()  # what waited to be recorded is on disk
        yield _replayed(gateway)


def _replayed(gateway: Gateway) -> dict[str, list[Replayed]]:
    policy = load_policy(Path(gateway.folder / "policies"))
    trace = SqliteTrace(gateway.data / "trace.db")
    found: dict[str, list[Replayed]] = {name: [] for name in NAMES}
    for event in trace.transactions(time.time() - 3600):
        if event.data["client"].startswith("127.9.3."):
            name = NAMES[int(event.data["client"].rpartition(".")[2]) - 1]
            found[name] += replay(policy, event.data)
    trace.close()
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_policy_itself_changes_nothing(replayed: dict[str, list[Replayed]], name: str) -> None:
    assert [(each.recipient, str(each.before), str(each.after), each.lacks) for each in replayed[name]] == [
        (each.recipient, str(each.before), str(each.before), "") for each in replayed[name]
    ]
