"""Random traffic, the shipped policy and message rules: as its own shadow and in replay the policy never differs."""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.demo.nameserver import NameServer
from tests.e2e.test_default_policy import DIAL_UP, FORGER, FRIEND, GOOD, LISTED, NAMELESS, records
from tests.support.gateway import REPOSITORY, Gateway
from tests.support.raw import RawClient, message, temporary_gateway

SESSIONS = 200
RULES = {
    "15-helo.yaml": """\
stage: helo
rules:
  - note: encrypted
    when: session.tls.active
    do: {score: -0.5}
""",
    "25-sender.yaml": """\
stage: sender
rules:
  - quarantine: kept early
    when: sender.local == "quar"
  - note: first
    when: not seen.sender_before
    do: {mark: first}
""",
    "35-recipient.yaml": """\
stage: recipient
rules:
  - note: tagged
    when: recipient.untagged != recipient.address
    do: {mark: tagged, score: 0.5}
  - discard: trap
    when: recipient.local == "trap"
""",
    "45-message.yaml": """\
stage: message
rules:
  - note: journal
    when: message.from_is_local or message.is_bulk
    do: {bcc: bob@example.org, mark: journal}
  - discard: dropped
    when: message.subject == "discard"
  - quarantine: for bob only
    when: recipient.local == "bob" and message.subject == "split"
  - reject: alice refuses
    when: recipient.local == "alice" and message.subject == "refuse"
  - hold: held
    when: message.subject == "hold" and "first" in marks
  - defer: odd bulk
    when: message.is_bulk and score >= 2 and recipient.is_relayed
  - note: links
    when: count(message.urls) > 0
    do: {score: 1}
""",
}
SOURCES = (GOOD, LISTED, DIAL_UP, NAMELESS, FRIEND, FORGER, "127.0.0.1")
KINDS = ("smtp", "starttls", "auth", "submission", "submissions")
SENDERS = (
    "a@sender.test", "", "a@nowhere.test", "alice@example.org", "alice+x@example.org", "postmaster@example.org",
    "quar@sender.test", "jörg@sender.test", '"q q"@sender.test', "a@[IPv6:2001:db8::2]", "a@bücher.test",
)  # fmt: skip
RECIPIENTS = (
    "alice@example.org", "Bob@Example.ORG", "nobody@example.org", "postmaster", "abuse@example.org", "x@else.test",
    "x@partner.test", "y@sub.deep.test", "alice+tag@example.org", "trap@example.org", "Trap@partner.test",
    "jörg@partner.test", "a@[192.0.2.4]", "a@[IPv6:2001:db8::1]", "b@bücher.test", '"q.q"@partner.test',
    '"x"@example.org', '"a\\"b"@partner.test', '"a b"@partner.test', "a%b@partner.test",
)  # fmt: skip
HELOS = ("client.test", "nowhere.test", "localhost", "[127.9.0.1]", "[IPv6:2001:db8::1]", "example.org", "x_y.test")
SUBJECTS = ("s", "discard", "split", "refuse", "hold")


def session(gateway: Gateway, number: int) -> None:
    chance = random.Random(number)
    kind = chance.choices(KINDS, (6, 2, 1, 1, 1))[0]
    port = gateway.ports["smtp" if kind in ("starttls", "auth") else kind]
    source = chance.choice(SOURCES) if kind in ("smtp", "starttls", "auth") else "127.0.0.1"
    with RawClient(port, source=source, tls=kind == "submissions") as client:
        client.ehlo(chance.choice(HELOS))
        if kind not in ("smtp", "submissions"):
            client.starttls()
            client.ehlo(chance.choice(HELOS))
        if kind not in ("smtp", "starttls"):
            client.login(chance.choice(("alice@example.org", "bob@example.org")))
        for _ in range(chance.randint(1, 3)):
            transaction(client, chance)
        client.line("QUIT")


def transaction(client: RawClient, chance: random.Random) -> None:
    smtputf8 = chance.choice((" SMTPUTF8", ""))
    if client.line(f"MAIL FROM:<{chance.choice(SENDERS)}>{smtputf8}".encode()).code != 250:
        return
    chosen = chance.sample(RECIPIENTS, chance.randint(1, 6))
    codes = [client.line(f"RCPT TO:<{recipient}>".encode()).code for recipient in chosen]
    if 250 not in codes or chance.random() < 0.1:
        client.line("RSET")
        return
    client.line("DATA")
    body = chance.choice((b"x\r\n", b"http://a.test/x\r\n", (b"y" * 70 + b"\r\n") * 1500))
    client.send(chance.choice((b"", b"", b"Precedence: bulk\r\n")) + message(chance.choice(SUBJECTS), body) + b".\r\n")
    client.reply()


@pytest.mark.long
def test_the_policy_itself_never_differs() -> None:
    shipped = REPOSITORY / "policies"
    files = {str(path.relative_to(shipped)): path.read_text() for path in shipped.glob("*.yaml")} | RULES
    lists = {f"lists/{path.name}": path.read_text() for path in (shipped / "lists").iterdir()}
    lists["lists/friends_networks.networks"] = f"{FRIEND}\n"
    both = {f"{folder}/{name}": text for name, text in (files | lists).items() for folder in ("policies", "shadow")}
    both |= {"shadow/README": ""}  # the folder itself before what is in it
    with NameServer(records()) as dns:
        settings = {
            "dns": {"servers": [dns.address]},
            "policy": {"shadow": "shadow"},
            "limits": {"connections_by_address": 1000},
            'relay_domains."partner.test"': {},
            'relay_domains.".deep.test"': {},
        }
        with temporary_gateway(settings=settings, files=dict(sorted(both.items()))) as gateway:
            with ThreadPoolExecutor(6) as pool:
                list(pool.map(lambda number: session(gateway, number), range(SESSIONS)))
            differences = gateway.metric("smarthost_policy_shadow_differences_total")
            gateway.stop()  # what waited to be recorded is on disk
            replay = ("policy", "replay", "--candidate", str(gateway.folder / "policies"), "--json")
            found = json.loads(gateway.cli(*replay).expect(0).stdout)
            log = gateway.log()
    assert '"level": "error"' not in log
    assert found["transactions"] >= SESSIONS
    assert (differences, found["changes"], found["undecidable"]) == (0, [], {})
