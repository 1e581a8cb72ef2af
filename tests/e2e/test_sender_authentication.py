"""SPF, DKIM and DMARC in a running gateway with the shipped policy: what is taken, kept aside, refused and told."""

import json
from collections.abc import Iterator

import pytest

from gateway.demo.nameserver import NameServer
from tests.senderauth.signing import MESSAGE, rsa_key, sealed_by, signed
from tests.support.gateway import REPOSITORY, Gateway
from tests.support.process import wait_until
from tests.support.raw import RawClient, temporary_gateway

BANK, LIST, FORGER, FRIEND = (f"127.8.0.{number}" for number in range(1, 5))  # hosts, all with good names
TRUSTED = "127.0.0.1"
US, OTHERS = b"Authentication-Results: gateway.test; dkim=pass header.d=bank.example\r\n", b"X-Mailer: none\r\n"


def records() -> Iterator[str]:
    for number, ip in enumerate((BANK, LIST, FORGER, FRIEND), 1):
        yield f"{'.'.join(reversed(ip.split('.')))}.in-addr.arpa PTR host{number}.client.test."
        yield f"host{number}.client.test A {ip}"
    yield "client.test A 127.0.0.1"
    for domain, ip in (("sender.example", BANK), ("list.example", LIST), ("forger.example", FRIEND)):
        yield f"{domain} MX 10 client.test."
        yield f'{domain} TXT "v=spf1 ip4:{ip} -all"'
    yield "nospf.example MX 10 client.test."
    text = f"v=DKIM1; p={rsa_key()[1]}"
    parts = " ".join(f'"{text[at : at + 200]}"' for at in range(0, len(text), 200))
    for domain in ("sender.example", "list.example", "other.example"):
        yield f"s._domainkey.{domain} TXT {parts}"
    yield '_dmarc.sender.example TXT "v=DMARC1; p=reject"'


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    shipped = REPOSITORY / "policies"
    files = {f"policies/{path.relative_to(shipped)}": path.read_text() for path in shipped.rglob("*") if path.is_file()}
    # What one test has refused is not to speak against the host in the next.
    connect = files["policies/10-connect.yaml"].replace("seen.network_bad >= 5 ", "seen.network_bad >= 500 ")
    assert connect != files["policies/10-connect.yaml"]
    files["policies/10-connect.yaml"] = connect
    del files["policies/tests/strangers.yaml"]  # which tells that this was changed
    files["policies/lists/friends_networks.networks"] = f"{FRIEND}\n"
    files["policies/lists/trusted_sealers.domains"] = "list.example\n"
    with (
        NameServer(records()) as dns,
        temporary_gateway(settings={"dns": {"servers": [dns.address]}}, files=files) as running,
    ):
        yield running


def sent(gateway: Gateway, source: str, sender: str, message: bytes) -> str:
    """The reply to the message."""
    with RawClient(gateway.ports["smtp"], source=source) as client:
        client.ehlo("client.test")
        client.line(f"MAIL FROM:<{sender}>")
        assert client.line("RCPT TO:<alice@example.org>").code == 250
        client.line("DATA")
        client.send(message + b".\r\n")
        reply = client.reply()
        return f"{reply.code} {reply.text}"


def stored(gateway: Gateway, part: bytes) -> bytes:
    """Alice's only message that holds `part`."""

    def look() -> list[bytes]:
        return [each for each in gateway.mails("alice@example.org") if part in each]

    (found,) = wait_until(look, 20.0, "the mail to be stored")
    return found


def test_good_mail_is_told_to_be_good_and_forged_results_go(gateway: Gateway) -> None:
    message = US + OTHERS + signed(MESSAGE.replace(b"One", b"Good"))
    assert sent(gateway, BANK, "bounce@sender.example", message).startswith("250 ")
    found = stored(gateway, b"Subject: Good")
    added, _, rest = found.partition(OTHERS)
    assert OTHERS + rest == message[len(US) :]
    fields = added.split(b"\r\n")
    start = fields.index(b"Authentication-Results: gateway.test;")
    assert fields[start - 4].startswith(b"Received: ")
    assert fields[start + 1] == b"\tspf=pass smtp.mailfrom=sender.example;"
    assert fields[start + 2].startswith(b"\tdkim=pass header.d=sender.example header.s=s header.a=rsa-sha256 header.b=")
    assert fields[start + 3] == b"\tdmarc=pass (p=reject) header.from=sender.example"
    assert added.count(b"Authentication-Results") == 1


def test_all_that_a_report_will_tell_is_recorded(gateway: Gateway) -> None:
    """Of what is taken and of what is refused (RFC 9990)."""
    taken = sent(gateway, BANK, "bounce@sender.example", signed(MESSAGE.replace(b"One", b"Recorded")))
    refused = sent(gateway, FORGER, "x@nospf.example", MESSAGE)
    found = []
    for answer in (taken, refused):
        rows = json.loads(gateway.cli("trace", answer.split()[-1].strip("[]"), "--json").expect().stdout)
        found.append(next(row for row in rows if row["kind"] == "transaction")["authentication"])
    record = {"p": "reject", "sp": "", "np": "", "adkim": "r", "aspf": "r", "testing": False, "rua": []}
    whose = {"domain": "sender.example", "policy": "reject", "policy_domain": "sender.example", "record": record}
    assert found[0] == {
        "spf": {"result": "pass", "domain": "sender.example", "identity": "mailfrom"},
        "dkim": [{"result": "pass", "domain": "sender.example", "selector": "s"}],
        "arc": {"result": "none", "sealers": []},
        "dmarc": {"result": "pass", "spf_aligned": True, "dkim_aligned": True, **whose},
    }
    assert found[1] == {
        "spf": {"result": "none", "domain": "nospf.example", "identity": "mailfrom"},
        "dkim": [],
        "arc": {"result": "none", "sealers": []},
        "dmarc": {"result": "fail", "spf_aligned": False, "dkim_aligned": False, **whose},
    }
    shown = gateway.cli("trace", taken.split()[-1]).expect().stdout
    assert (
        "found spf pass (sender.example), dkim pass (sender.example), arc none, dmarc pass (sender.example, p=reject)"
    ) in shown


def test_a_forged_author_is_refused(gateway: Gateway) -> None:
    answer = sent(gateway, FORGER, "x@nospf.example", MESSAGE)
    assert answer.startswith("550 5.7.26 sender.example wants mail rejected that it does not vouch for (DMARC) [")
    trace = gateway.cli("trace", answer.rpartition("[")[2].rstrip("]"), "--json").expect().stdout
    assert '"dmarc.result": "fail"' in trace
    assert '"dmarc.policy": "reject"' in trace


def test_what_a_list_has_broken_is_kept_aside(gateway: Gateway) -> None:
    message = broken_by_a_list(b"Listed")
    assert sent(gateway, LIST, "bounces@list.example", message).startswith("250 ")
    kept = json.loads(gateway.cli("quarantine", "list", "--json").expect().stdout)
    ours = [row["id"] for row in kept if row["kept_by"] == "the author's domain does not vouch for it"]
    for queue_id in ours:
        gateway.cli("quarantine", "release", queue_id).expect()
    assert b'\tdkim=fail reason="body hash did not verify" header.d=sender.example' in stored(gateway, b"Listed")


def broken_by_a_list(subject: bytes) -> bytes:
    return signed(MESSAGE.replace(b"One", subject)).replace(b"Bye", b"-- \r\nlist.example")


def test_the_chain_of_a_trusted_list_saves_what_it_has_broken(gateway: Gateway) -> None:
    message = sealed_by("list.example", broken_by_a_list(b"Sealed"))
    assert sent(gateway, LIST, "bounces@list.example", message).startswith("250 ")
    found = stored(gateway, b"Subject: Sealed")
    assert b'\tdkim=fail reason="body hash did not verify" header.d=sender.example' in found
    assert b"\tdmarc=fail (p=reject) header.from=sender.example;\r\n\tarc=pass header.d=list.example\r\n" in found


@pytest.mark.parametrize("what", ["untrusted", "untrusted on top", "altered"])
def test_no_other_chain_does(gateway: Gateway, what: str) -> None:
    message = broken_by_a_list(what.encode())
    message = sealed_by("other.example" if what == "untrusted" else "list.example", message)
    message = sealed_by("other.example", message) if what == "untrusted on top" else message
    message = message.replace(b"Hello", b"Hullo") if what == "altered" else message
    assert sent(gateway, LIST, "bounces@list.example", message).startswith("250 ")
    kept = json.loads(gateway.cli("quarantine", "list", "--json").expect().stdout)
    shown = [gateway.cli("quarantine", "show", row["id"]).expect().stdout for row in kept]
    assert any(what in each for each in shown)


def test_a_friend_passes_on_what_it_has_broken(gateway: Gateway) -> None:
    message = MESSAGE.replace(b"One", b"Friendly")
    assert sent(gateway, FRIEND, "bounces@forger.example", message).startswith("250 ")
    assert b"\tdmarc=fail (p=reject) header.from=sender.example\r\n" in stored(gateway, b"Subject: Friendly")


def test_several_authors_are_kept_aside(gateway: Gateway) -> None:
    message = b"From: <ceo@sender.example>, <x@nospf.example>\r\nSubject: Two heads\r\n\r\nx\r\n"
    assert sent(gateway, LIST, "x@nospf.example", message).startswith("250 ")
    kept = json.loads(gateway.cli("quarantine", "list", "--json").expect().stdout)
    assert "nobody can tell who the author is" in {row["kept_by"] for row in kept}


@pytest.mark.parametrize("source", [BANK, TRUSTED])
@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (b" ;\r\n\tdmarc=pass\r\nFrom: a@bank.example\r\n\r\nx\r\n", "550 5.6.0 The message begins"),
        (b"\t\r\nFrom: a@bank.example\r\n\r\nx\r\n", "550 5.6.0 The message begins"),
        (b"From: a@sender.example\r\n" + b"X-A: b\r\n" * 32_000 + b"\r\nx\r\n", "552 5.3.4 The header is over"),
        (b"From: a@sender.example\r\n" + b"X-A: b\r\n" * 32_000, "552 5.3.4 The header is over"),
    ],
    ids=["a blank first", "a tab first", "a long header", "nothing but a header"],
)  # fmt: skip
def test_a_header_that_would_run_into_ours_or_beyond_our_sight_is_refused(
    gateway: Gateway, source: str, message: bytes, answer: str
) -> None:
    assert sent(gateway, source, "a@sender.example", message).startswith(answer)


def test_mail_of_own_networks_is_left_as_it_is(gateway: Gateway) -> None:
    message = US + MESSAGE.replace(b"One", b"Ours")
    assert sent(gateway, TRUSTED, "a@sender.example", message).startswith("250 ")
    found = stored(gateway, b"Subject: Ours")
    assert found.endswith(message)
    assert found.count(b"Authentication-Results") == 1
