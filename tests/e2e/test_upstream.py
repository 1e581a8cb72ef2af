"""Behind a hop of ours: the client that its Received field names is judged, at the end of data."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.demo.nameserver import NameServer
from tests.support import peers
from tests.support.gateway import REPOSITORY, Gateway
from tests.support.process import wait_until
from tests.support.raw import RawClient, temporary_gateway

HOP, SECOND, DIRECT = "127.8.1.1", "127.8.1.2", "127.8.1.3"
INNER = "10.1.2.3"  # in [networks] trusted
CLEAN, LISTED, FORGER = "192.0.2.10", "192.0.2.66", "192.0.2.77"
RECORDS = [
    *(f"{last}.2.0.192.in-addr.arpa PTR host{last}.client.test." for last in (10, 66, 77)),
    *(f"host{last}.client.test A 192.0.2.{last}" for last in (10, 66, 77)),
    "9.9.8.127.in-addr.arpa PTR far.client.test.",
    "far.client.test A 127.8.9.9",
    'far.example TXT "v=spf1 ip4:127.8.9.9 -all"',
    "far.example MX 10 far.client.test.",
    "3.1.8.127.in-addr.arpa PTR direct.client.test.",
    "direct.client.test A 127.8.1.3",
    "sender.example MX 10 host10.client.test.",
    f'sender.example TXT "v=spf1 ip4:{CLEAN} -all"',
    '_dmarc.sender.example TXT "v=DMARC1; p=reject"',
    "2.0.0.127.zen.spamhaus.org A 127.0.0.2",
    "66.2.0.192.zen.spamhaus.org A 127.0.0.2",
    "2.0.0.127.bl.spamcop.net A 127.0.0.2",
]  # fmt: skip
NOT_BOB = """\
stage: recipient
rules:
  - reject: not for bob
    when: recipient.address == "bob@example.org" and client.ip == "192.0.2.10"
    reply: 550 5.7.1 Not for bob
"""
MESSAGE = (
    b"From: anna@sender.example\r\nTo: alice@example.org\r\nSubject: %s\r\n"
    b"Date: Tue, 24 Nov 2026 10:00:00 +0000\r\n\r\nHi.\r\n"
)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    shipped = REPOSITORY / "policies"
    files = {f"policies/{path.relative_to(shipped)}": path.read_text() for path in shipped.rglob("*") if path.is_file()}
    files["policies/39-bob.yaml"] = NOT_BOB
    settings: dict[str, dict[str, object]] = {
        "networks": {
            "trusted": ["127.0.0.1/32", f"{HOP}/32", f"{INNER}/32"],
            "upstream": [f"{HOP}/32", f"{SECOND}/32", "127.8.2.0/24"],
        }
    }
    with NameServer(RECORDS) as dns:
        settings["dns"] = {"servers": [dns.address]}
        with temporary_gateway(settings=settings, files=files) as running:
            yield running


def by(name: str, ip: str, helo: str = "host10.client.test") -> bytes:
    """As Postfix writes it."""
    return (
        f"Received: from {helo} ({name} [{ip}])\r\n\tby hop.example.org (Postfix) with ESMTP id 4X\r\n"
        "\tfor <alice@example.org>; Tue, 24 Nov 2026 10:00:00 +0000 (UTC)\r\n"
    ).encode()


def sent(
    gateway: Gateway,
    message: bytes,
    *,
    source: str = HOP,
    sender: str = "anna@sender.example",
    to: tuple[str, ...] = ("alice@example.org",),
) -> str:
    with RawClient(gateway.ports["smtp"], source=source) as client:
        client.ehlo("hop.example.org")
        client.line(f"MAIL FROM:<{sender}>")
        for recipient in to:
            found = client.line(f"RCPT TO:<{recipient}>")
            if found.code != 250:
                return f"{found.code} {found.text}"
        client.line("DATA")
        client.send(message + b".\r\n")
        found = client.reply()
        return f"{found.code} {found.text}"


def stored(gateway: Gateway, subject: bytes) -> bytes:
    """Alice's only message of that subject."""
    line = b"Subject: " + subject + b"\r\n"
    (found,) = wait_until(
        lambda: [each for each in gateway.mails("alice@example.org") if line in each], 20.0, "the mail to be stored"
    )
    return found


def test_the_client_behind_is_judged_and_told(gateway: Gateway) -> None:
    answer = sent(gateway, by("host10.client.test", CLEAN) + MESSAGE % b"clean")
    assert answer.startswith("250 "), answer
    trace = gateway.cli("trace", answer.split()[-1]).expect().stdout
    assert f"client {CLEAN} by way of {HOP}, HELO host10.client.test" in trace
    found = stored(gateway, b"clean")
    assert b"\tspf=pass smtp.mailfrom=sender.example;" in found
    assert b"Received: from hop.example.org (unknown [127.8.1.1])" in found  # who was here


def test_what_a_list_says_of_the_client_counts(gateway: Gateway) -> None:
    answer = sent(gateway, by("x", LISTED) + MESSAGE % b"listed")
    assert answer.startswith(f"554 5.7.1 {LISTED}: refused by what blocklists"), answer


def test_a_forger_is_refused_by_its_own_address(gateway: Gateway) -> None:
    answer = sent(gateway, by("x", FORGER) + MESSAGE % b"forged")
    assert answer.startswith("450 4.7.1 Greylisted"), answer  # its SPF fails: an odd stranger


def test_who_is_refused_beside_others_has_a_copy_kept_aside(gateway: Gateway) -> None:
    """The hop could only bounce it, to a sender that may be forged."""
    message = by("host10.client.test", CLEAN) + MESSAGE % b"beside"
    assert sent(gateway, message, to=("bob@example.org",)).startswith("550 5.7.1 Not for bob")
    answer = sent(gateway, message, to=("alice@example.org", "bob@example.org"))
    assert answer.startswith("250 "), answer
    assert stored(gateway, b"beside")
    kept = json.loads(gateway.cli("quarantine", "list", "--json").expect().stdout)
    assert [(row["recipient"], row["kept_by"]) for row in kept] == [("bob@example.org", "not for bob")]


def test_a_field_further_down_is_anybody_s_word(gateway: Gateway) -> None:
    forged = by("host10.client.test", CLEAN)
    answer = sent(gateway, by("x", LISTED) + forged + MESSAGE % b"lies")
    assert LISTED in answer, answer


def test_a_row_of_hops_is_followed(gateway: Gateway) -> None:
    answer = sent(gateway, by("second", SECOND) + by("x", LISTED) + MESSAGE % b"row")
    assert LISTED in answer, answer


def test_a_filter_on_the_hop_is_looked_through(gateway: Gateway) -> None:
    """What it hands back comes from the hop's own loopback address."""
    answer = sent(
        gateway, by("localhost", "127.0.0.1") + by("localhost", "127.0.0.1") + by("x", LISTED) + MESSAGE % b"f"
    )
    assert LISTED in answer, answer


def test_the_hop_is_never_trusted(gateway: Gateway) -> None:
    """Though it stands among the trusted; and a client that it names can't be."""
    assert sent(gateway, by("x", INNER) + MESSAGE % b"x", to=("x@elsewhere.test",)).startswith("554 5.7.1")
    answer = sent(gateway, by("x", INNER) + MESSAGE % b"inner")
    trace = gateway.cli("trace", answer.split()[-1].strip("[]")).expect().stdout
    assert f"client {INNER} by way of {HOP}" in trace
    assert ", trusted" not in trace


def test_it_hears_at_once_of_mailboxes_that_are_not_here(gateway: Gateway) -> None:
    assert sent(gateway, b"", to=("nobody@example.org",)).startswith("550 5.1.1 <nobody@example.org>: no such mailbox")


def test_what_the_hop_made_itself_is_judged_as_the_hop_s(gateway: Gateway) -> None:
    answer = sent(gateway, MESSAGE.replace(b"anna@sender.example", b"root@hop.example.org") % b"local", sender="")
    trace = gateway.cli("trace", answer.split()[-1].strip("[]")).expect().stdout
    assert f"client {HOP} by way of {HOP}" in trace


def test_a_hop_s_field_that_nobody_can_read_is_no_way_around_the_rules(gateway: Gateway) -> None:
    field = b"Received: from somewhere, by pigeon [192.0.2.10]\r\n"
    assert sent(gateway, field + MESSAGE % b"pigeon").startswith("451 4.3.5 Nobody can read")


@pytest.mark.parametrize(
    "on_top",
    [
        b"(qmail 12345 invoked from network); 24 Nov 2026 10:00:00 -0000",
        b"by hop.example.org (Postfix, from userid 1001)\r\n\tid 4X; Tue, 24 Nov 2026 10:00:00 +0000 (UTC)",
        b"from debian-spamd by hop.example.org with spam-scanned (Exim 4.96)",
        b"from localhost by hop.example.org with LMTP id x",
    ],
)
def test_what_the_hop_s_own_programs_add_is_looked_through(gateway: Gateway, on_top: bytes) -> None:
    answer = sent(gateway, b"Received: " + on_top + b"\r\n" + by("x", LISTED) + MESSAGE % b"filtered")
    assert LISTED in answer, answer


def test_a_bounce_that_the_hop_made_is_taken_as_the_hop_s(gateway: Gateway) -> None:
    field = b"Received: from Debian-exim by hop.example.org with local (Exim 4.96)\r\n"
    answer = sent(
        gateway, field + MESSAGE.replace(b"anna@sender.example", b"root@hop.example.org") % b"made", sender=""
    )
    trace = gateway.cli("trace", answer.split()[-1].strip("[]")).expect().stdout
    assert f"client {HOP} by way of {HOP}" in trace
    assert "unreadable hop" not in trace


def test_a_client_that_comes_by_itself_is_judged_as_ever(gateway: Gateway) -> None:
    answer = sent(gateway, by("x", LISTED) + MESSAGE % b"direct", source=DIRECT, sender="x@sender.example")
    assert LISTED not in answer


def test_a_second_message_of_the_hop_is_another_client_s(gateway: Gateway) -> None:
    with RawClient(gateway.ports["smtp"], source=HOP) as client:
        client.ehlo("hop.example.org")
        found = []
        for name, ip in (("x", LISTED), ("host10.client.test", CLEAN), ("x", LISTED)):
            client.line("MAIL FROM:<anna@sender.example>")
            assert client.line("RCPT TO:<alice@example.org>").code == 250
            client.line("DATA")
            client.send(by(name, ip) + MESSAGE % b"again" + b".\r\n")
            found.append(client.reply().code)
    assert found == [554, 250, 554]


@pytest.mark.peers
@pytest.mark.skipif(peers.postfix_missing() is not None, reason=str(peers.postfix_missing()))
def test_a_real_postfix_in_front(gateway: Gateway, tmp_path: Path) -> None:
    """Its clients' addresses reach our SPF."""
    main = {"smtp_bind_address": SECOND, "mynetworks": "127.0.0.1/32", "relay_domains": "example.org",
            "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination"}  # fmt: skip
    with peers.Postfix(tmp_path, ("127.0.0.1", gateway.ports["smtp"]), extra_main=main) as postfix:
        for source, subject in (("127.8.9.9", b"postfix-pass"), ("127.8.9.8", b"postfix-fail")):
            with RawClient(postfix.port, source=source) as client:
                client.ehlo("far.client.test")
                client.line("MAIL FROM:<bo@far.example>")
                assert client.line("RCPT TO:<alice@example.org>").code == 250
                client.line("DATA")
                client.send(MESSAGE.replace(b"anna@sender.example", b"bo@far.example") % subject + b".\r\n")
                assert client.reply().code == 250
        wait_until(lambda: "Greylisted" in postfix.log(), 20.0, "the second one to be greylisted")
        found = stored(gateway, b"postfix-pass")
    assert b"\tspf=pass smtp.mailfrom=far.example;" in found
    trace = gateway.cli("trace", "bo@far.example").expect().stdout
    assert f"client 127.8.9.9 by way of {SECOND}, HELO far.client.test" in trace
    assert f"client 127.8.9.8 by way of {SECOND}, HELO far.client.test" in trace
