"""The shipped policy at work: what it says of strangers by what DNS says of them, and of users by who they are."""

from collections.abc import Iterator

import pytest

from gateway.demo.nameserver import NameServer
from tests.support.gateway import REPOSITORY, Gateway
from tests.support.process import wait_until
from tests.support.raw import RawClient, message, temporary_gateway

ZEN, SPAMCOP, DNSWL = "zen.spamhaus.org", "bl.spamcop.net", "list.dnswl.org"
GOOD, LISTED, DIAL_UP, NAMELESS, FRIEND, FORGER = (f"127.9.0.{number}" for number in range(1, 7))


def reverse(ip: str) -> str:
    return ".".join(reversed(ip.split(".")))


def records() -> Iterator[str]:
    for zone in (ZEN, SPAMCOP):
        yield f"2.0.0.127.{zone} A 127.0.0.2"
    yield f"2.0.0.127.{DNSWL} A 127.0.10.0"
    for ip in (GOOD, LISTED, DIAL_UP, FRIEND):
        yield f"{reverse(ip)}.in-addr.arpa PTR host{ip[-1]}.client.test."
        yield f"host{ip[-1]}.client.test A {ip}"
    yield f"{reverse(FORGER)}.in-addr.arpa PTR mail.bank.test."
    yield f"{reverse(LISTED)}.{ZEN} A 127.0.0.4"
    yield f"{reverse(DIAL_UP)}.{ZEN} A 127.0.0.11"
    yield f"{reverse(FRIEND)}.{ZEN} A 127.0.0.4"
    yield "client.test A 127.0.0.1"
    yield "sender.test MX 10 client.test."
    yield "null.test MX 0 ."
    yield "strict.test MX 10 client.test."
    yield f'strict.test TXT "v=spf1 ip4:{FORGER} -all"'


@pytest.fixture(scope="module")
def dns() -> Iterator[NameServer]:
    with NameServer(records()) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(dns: NameServer) -> Iterator[Gateway]:
    shipped = REPOSITORY / "policies"
    files = {f"policies/{path.relative_to(shipped)}": path.read_text() for path in shipped.rglob("*") if path.is_file()}
    files["policies/lists/friends_networks.networks"] = f"{FRIEND}\n"
    with temporary_gateway(
        settings={"dns": {"servers": [dns.address]}, 'relay_domains."partner.test"': {}}, files=files
    ) as running:
        yield running


def answer(
    gateway: Gateway,
    source: str,
    sender: str = "a@sender.test",
    recipient: str = "alice@example.org",
    *,
    helo: str = "client.test",
) -> str:
    """The reply to RCPT, or to the whole message where that is 250."""
    with RawClient(gateway.ports["smtp"], source=source) as client:
        client.ehlo(helo)
        client.line(f"MAIL FROM:<{sender}>")
        reply = client.line(f"RCPT TO:<{recipient}>")
        if reply.code == 250:
            client.line("DATA")
            client.send(message("default") + b".\r\n")
            reply = client.reply()
        return f"{reply.code} {reply.text}"


@pytest.mark.parametrize(
    ("source", "changes", "wanted"),
    [
        (GOOD, {}, "250 "),
        (GOOD, {"sender": ""}, "250 "),
        (GOOD, {"recipient": "bob@partner.test"}, "250 "),
        (GOOD, {"recipient": "x@elsewhere.test"}, "554 5.7.1 <x@elsewhere.test>: relay access denied"),
        (GOOD, {"recipient": "nobody@example.org"}, "550 5.1.1"),
        (GOOD, {"sender": "a@nowhere.test"}, "550 5.1.8 <a@nowhere.test>"),
        (GOOD, {"sender": "a@null.test"}, "550 5.1.8"),
        (GOOD, {"helo": "localhost"}, "550 5.7.1 <localhost> is no fully"),
        (GOOD, {"helo": "example.org"}, "550 5.7.1 <example.org> is a name of ours"),
        (GOOD, {"helo": "nowhere.test"}, "250 "),
        (LISTED, {}, f"554 5.7.1 {LISTED}: refused by what blocklists and DNS say of it"),
        (LISTED, {"recipient": "postmaster@example.org"}, "250 "),
        (DIAL_UP, {}, "450 4.7.1 Greylisted"),
        (NAMELESS, {}, "450 4.7.1 Greylisted"),
        (NAMELESS, {"helo": "nowhere.test"}, "450 4.7.1 Greylisted"),
        (FORGER, {}, "250 "),
        (FORGER, {"sender": "alice@example.org"}, "450 4.7.1 Greylisted"),
        (FORGER, {"sender": "a@strict.test"}, "250 "),
        (GOOD, {"sender": "a@strict.test"}, "450 4.7.1 Greylisted"),
        (FRIEND, {"sender": "a@strict.test"}, "250 "),
        (FRIEND, {"helo": "nowhere.test"}, "250 "),
        (FRIEND, {"recipient": "x@elsewhere.test"}, "554 5.7.1 <x@elsewhere.test>: relay access denied"),
        ("127.0.0.1", {"recipient": "x@elsewhere.test", "sender": "a@nowhere.test", "helo": "box"}, "250 "),
    ],
)  # fmt: skip
def test_what_becomes_of_a_message(gateway: Gateway, source: str, changes: dict[str, str], wanted: str) -> None:
    assert answer(gateway, source, **changes).startswith(wanted)


def test_a_user_sends_as_the_own_address_and_no_other(gateway: Gateway) -> None:
    with gateway.smtp("submission", user="alice@example.org") as client:
        for sender, code in (("bob@example.org", 553), ("alice+x@example.org", 250), ("", 250)):
            client.mail(sender)
            assert client.rcpt("x@elsewhere.test")[0] == code
            client.rset()


def test_lists_that_list_everybody_refuse_nobody() -> None:
    """The resolver's operator was blocked: every name below the zone answers 127.255.255.254."""
    shipped = REPOSITORY / "policies"
    files = {f"policies/{path.relative_to(shipped)}": path.read_text() for path in shipped.rglob("*") if path.is_file()}
    with NameServer(line for line in records() if ZEN not in line) as refusing:
        refusing.add(f"*.{ZEN} A 127.255.255.254")
        with temporary_gateway(settings={"dns": {"servers": [refusing.address]}}, files=files) as running:
            assert answer(running, LISTED).startswith("250 ")
            assert answer(running, GOOD).startswith("250 ")
            down = 'smarthost_dnsbl_up{zone="zen.spamhaus.org"} 0.0'
            wait_until(lambda: down in running.get("/metrics")[1], 10, "the list to be off")
