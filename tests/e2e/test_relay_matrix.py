"""Who may send to whom: every kind of client on every port, and what open-relay scanners try."""

import shutil
import smtplib
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.gateway import STRANGER, Gateway, quick_dns

TRUSTED = "127.0.0.1"
USER = "bob@example.org"
RECIPIENTS = {
    "local": "alice@example.org",
    "unknown": "nobody@example.org",
    "remote": "victim@remote.test",
    "relayed": "someone@partner.test",
}
PARTNER: dict[str, dict[str, object]] = {'relay_domains."partner.test"': {"host": "smtp:127.0.0.1:9"}}
TAKEN, NO_MAILBOX, DENIED = "250 2.1.5", "550 5.1.1", "554 5.7.1"


def no_dns() -> dict[str, dict[str, object]]:
    """Nothing here is to be delivered outside."""
    return {"dns": {"servers": [quick_dns("servfail")]}}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """One gateway with a local and a relayed domain."""
    folder = Path(tempfile.mkdtemp(prefix="smarthost-test-", dir="/tmp"))
    folder.chmod(0o755)
    with Gateway(folder / "gateway", settings=no_dns() | PARTNER) as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


def heading(answer: tuple[int, bytes]) -> str:
    """Code and enhanced code of a reply."""
    return f"{answer[0]} {answer[1].split()[0].decode()}"


def reply_to_recipient(client: smtplib.SMTP, recipient: str, sender: str = "someone@elsewhere.test") -> str:
    """Open a transaction and return the heading of the reply to RCPT."""
    client.ehlo_or_helo_if_needed()
    code, text = client.mail(sender)
    assert code == 250, text
    return heading(client.rcpt(recipient))


def talk(gateway: Gateway, octets: bytes, replies: int, *, source: str = STRANGER, port: str = "smtp") -> list[str]:
    """Send octets in one piece and return that many replies (their last lines); fewer when the server closes."""
    found: list[str] = []
    with socket.create_connection((TRUSTED, gateway.ports[port]), 10.0, (source, 0)) as connection:
        connection.sendall(octets)
        with connection.makefile("rb") as lines:
            for line in lines:
                if line[3:4] == b" ":
                    found.append(line.decode().rstrip())
                if len(found) == replies:
                    break
    return found


# --- the matrix -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "user", "expected"),
    [
        (STRANGER, "", {"local": TAKEN, "unknown": NO_MAILBOX, "remote": DENIED, "relayed": TAKEN}),
        (TRUSTED, "", {"local": TAKEN, "unknown": NO_MAILBOX, "remote": TAKEN, "relayed": TAKEN}),
        (STRANGER, USER, {"local": TAKEN, "unknown": NO_MAILBOX, "remote": TAKEN, "relayed": TAKEN}),
        (TRUSTED, USER, {"local": TAKEN, "unknown": NO_MAILBOX, "remote": TAKEN, "relayed": TAKEN}),
    ],
    ids=["stranger", "trusted", "user", "trusted-user"],
)
@pytest.mark.parametrize("kind", list(RECIPIENTS))
def test_the_smtp_port_takes_what_each_client_may_send(
    gateway: Gateway, source: str, user: str, expected: dict[str, str], kind: str
) -> None:
    with gateway.smtp("smtp", source=source, user=user) as client:
        sender = user or "someone@elsewhere.test"
        assert reply_to_recipient(client, RECIPIENTS[kind], sender) == expected[kind]


@pytest.mark.parametrize("listener", ["submission", "submissions"])
@pytest.mark.parametrize("source", [STRANGER, TRUSTED], ids=["stranger", "trusted"])
@pytest.mark.parametrize("kind", list(RECIPIENTS))
def test_submission_ports_want_a_sign_in_from_everybody(
    gateway: Gateway, listener: str, source: str, kind: str
) -> None:
    with gateway.smtp(listener, source=source) as client:
        assert heading(client.mail("someone@elsewhere.test")) == "530 5.7.0"
        assert heading(client.rcpt(RECIPIENTS[kind])) == "503 5.5.1"
        assert client.docmd("DATA")[0] == 503


def test_submission_in_clear_takes_neither_mail_nor_a_password(gateway: Gateway) -> None:
    with smtplib.SMTP(TRUSTED, gateway.ports["submission"], "client.test", 15.0) as client:
        client.ehlo()
        assert client.has_extn("starttls")
        assert not client.has_extn("auth")
        assert heading(client.mail("someone@elsewhere.test")) == "530 5.7.0"
        assert client.docmd("AUTH", "PLAIN AGFsaWNlAHB3")[0] in (530, 538)


@pytest.mark.parametrize("listener", ["submission", "submissions"])
@pytest.mark.parametrize("source", [STRANGER, TRUSTED], ids=["stranger", "trusted"])
@pytest.mark.parametrize(
    ("kind", "expected"), [("local", TAKEN), ("unknown", NO_MAILBOX), ("remote", TAKEN), ("relayed", TAKEN)]
)
def test_submission_ports_let_users_send_to_all_that_exist(
    gateway: Gateway, listener: str, source: str, kind: str, expected: str
) -> None:
    with gateway.smtp(listener, source=source, user=USER) as client:
        assert reply_to_recipient(client, RECIPIENTS[kind], USER) == expected


def test_the_smtp_port_offers_auth_behind_starttls_only(gateway: Gateway) -> None:
    with gateway.smtp("smtp", source=STRANGER) as client:
        assert client.has_extn("starttls")
        assert not client.has_extn("auth")
        assert client.docmd("AUTH", "PLAIN AGFsaWNlAHB3")[0] in (530, 538)
        client._host = "localhost"  # type: ignore[attr-defined]
        client.starttls()
        client.ehlo()
        assert client.has_extn("auth")
        assert not client.has_extn("starttls")


def test_a_wrong_password_opens_nothing(gateway: Gateway) -> None:
    with gateway.smtp("submissions", source="127.0.0.10") as client:
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            client.login(USER, "not the password")
        assert caught.value.smtp_code == 535
        assert heading(client.mail(USER)) == "530 5.7.0"


def test_a_starttls_without_a_sign_in_opens_nothing(gateway: Gateway) -> None:
    with gateway.smtp("smtp", source=STRANGER) as client:
        client.starttls()
        assert reply_to_recipient(client, RECIPIENTS["remote"]) == DENIED


def test_one_denied_recipient_does_not_hinder_the_others(gateway: Gateway) -> None:
    message = b"From: someone@elsewhere.test\r\nSubject: one of three\r\n\r\nA line.\r\n"
    recipients = [RECIPIENTS["remote"], RECIPIENTS["local"], RECIPIENTS["unknown"]]
    refused = gateway.send(recipients, message, sender="someone@elsewhere.test", source=STRANGER)
    assert {address: code for address, (code, _) in refused.items()} == {
        RECIPIENTS["remote"]: 554,
        RECIPIENTS["unknown"]: 550,
    }
    stored = gateway.wait_mails(RECIPIENTS["local"], 1)
    assert [mail for mail in stored if mail.endswith(message)] != []
    assert not [row for row in gateway.queue() if row["recipient"] == RECIPIENTS["remote"]]


# --- proxies ----------------------------------------------------------------------------------------------------------

PROXY, FRONT = "127.0.0.2", "127.0.0.3"


@pytest.fixture(scope="module")
def proxied() -> Iterator[Gateway]:
    """A gateway whose trusted network has a PROXY peer and an XCLIENT peer in it."""
    folder = Path(tempfile.mkdtemp(prefix="smarthost-test-", dir="/tmp"))
    folder.chmod(0o755)
    settings: dict[str, dict[str, object]] = {
        "listen": {"proxy_from": [f"{PROXY}/32"], "xclient_from": [f"{FRONT}/32"]},
        "networks": {"trusted": ["127.0.0.0/8"]},
    }
    with Gateway(folder / "gateway", settings=no_dns() | settings) as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


TRANSACTION = b"EHLO client.test\r\nMAIL FROM:<a@elsewhere.test>\r\nRCPT TO:<victim@remote.test>\r\nQUIT\r\n"
V2 = b"\r\n\r\n\x00\r\nQUIT\n"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"PROXY UNKNOWN\r\n", DENIED),
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 4711 25\r\n", DENIED),
        (b"PROXY TCP4 127.0.0.1 127.0.0.1 4711 25\r\n", TAKEN),
        (V2 + b"\x20\x00\x00\x00", DENIED),  # LOCAL
        (V2 + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 7, 127, 0, 0, 1, 18, 103, 0, 25]), DENIED),
        (V2 + b"\x21\x11\x00\x0c" + bytes([127, 0, 0, 1, 127, 0, 0, 1, 18, 103, 0, 25]), TAKEN),
    ],
    ids=["v1-unknown", "v1-stranger", "v1-trusted", "v2-local", "v2-stranger", "v2-trusted"],
)
def test_a_proxy_relays_only_for_the_client_that_it_names(proxied: Gateway, header: bytes, expected: str) -> None:
    _, _, _, rcpt, _ = talk(proxied, header + TRANSACTION, 5, source=PROXY)
    assert rcpt.startswith(expected)


def test_a_proxy_that_sends_no_header_is_not_served(proxied: Gateway) -> None:
    try:
        replies = talk(proxied, TRANSACTION, 5, source=PROXY)
    except ConnectionResetError:
        replies = []
    assert not [line for line in replies if line.startswith("250")]


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        (b"", DENIED),
        (b"XCLIENT ADDR=192.0.2.7\r\n", DENIED),
        (b"XCLIENT NAME=trusted.example.org\r\n", DENIED),
        (b"XCLIENT ADDR=[UNAVAILABLE]\r\n", DENIED),
        (b"XCLIENT LOGIN=alice@example.org ADDR=192.0.2.7\r\n", DENIED),
        (b"XCLIENT ADDR=127.0.0.1\r\nEHLO front.test\r\nXCLIENT ADDR=192.0.2.7\r\n", DENIED),
        (b"XCLIENT ADDR=127.0.0.1\r\n", TAKEN),
    ],
    ids=["none", "stranger", "name-only", "unavailable", "login", "trusted-then-stranger", "trusted"],
)
def test_an_xclient_peer_relays_only_for_the_client_that_it_names(
    proxied: Gateway, commands: bytes, expected: str
) -> None:
    before = 2 + commands.count(b"\r\n")  # greeting, EHLO
    replies = talk(proxied, b"EHLO front.test\r\n" + commands + TRANSACTION, before + 4, source=FRONT)
    assert replies[before + 2].startswith(expected)


def test_xclient_is_nothing_for_others(proxied: Gateway) -> None:
    commands = b"EHLO front.test\r\nXCLIENT ADDR=127.0.0.1\r\nQUIT\r\n"
    assert talk(proxied, commands, 4, source=STRANGER)[2].startswith(("500", "502"))


# --- what scanners try ------------------------------------------------------------------------------------------------

PROBES = {
    "plain": "<victim@remote.test>",
    "percent hack": "<victim%remote.test@example.org>",
    "percent hack, twice": "<victim%remote.test%partner.test@example.org>",
    "percent hack to our name": "<victim%remote.test@gateway.test>",
    "percent hack at our literal": "<victim%remote.test@[127.0.0.1]>",
    "percent hack without a domain": "<victim%remote.test>",
    "bang path": "<remote.test!victim@example.org>",
    "bang path without a domain": "<remote.test!victim>",
    "bang path through us": "<example.org!remote.test!victim>",
    "bang path at a remote domain": "<example.org!victim@remote.test>",
    "quoted local part": '<"victim@remote.test"@example.org>',
    "quoted local part at our literal": '<"victim@remote.test"@[127.0.0.1]>',
    "quoted local part without a domain": '<"victim@remote.test">',
    "quoted percent": '<"victim%remote.test"@example.org>',
    "quoted remote": '<"victim"@remote.test>',
    "source route": "<@example.org:victim@remote.test>",
    "source route of two": "<@example.org,@partner.test:victim@remote.test>",
    "source route with our literal": "<@[127.0.0.1]:victim@remote.test>",
    "route in the local part": '<"@example.org:victim@remote.test"@example.org>',
    "address literal": "<victim@[192.0.2.1]>",
    "loopback literal": "<victim@[127.0.0.1]>",
    "IPv6 literal": "<victim@[IPv6:2001:db8::1]>",
    "address without brackets": "<victim@192.0.2.1>",
    "two ats": "<victim@remote.test@example.org>",
    "two ats, remote last": "<alice@example.org@remote.test>",
    "bang and at": "<remote.test!user@example.org>",
    "upper case": "<VICTIM@REMOTE.TEST>",
    "trailing dot": "<victim@remote.test.>",
    "trailing dot and percent": "<victim%remote.test@example.org.>",
    "no brackets": "victim@remote.test",
    "a blank in front": "< victim@remote.test>",
    "two paths": "<alice@example.org><victim@remote.test>",
    "two paths with a comma": "<alice@example.org>,<victim@remote.test>",
    "mailto": "<SMTP:victim@remote.test>",
    "subdomain of ours": "<victim@sub.example.org>",
    "our domain as a prefix": "<victim@example.org.remote.test>",
    "our domain as a suffix": "<victim@notexample.org>",
    "subdomain of a relayed domain": "<victim@sub.partner.test>",
    "percent at a relayed domain": "<victim%remote.test@partner.test>",
    "bang at a relayed domain": "<remote.test!victim@partner.test>",
    "at in a relayed domain's local part": '<"victim@remote.test"@partner.test>',
    "quoted percent at a relayed domain": '<"victim%remote.test"@PARTNER.test>',
    "postmaster elsewhere": "<postmaster@remote.test>",
}
SENDERS = {
    "stranger": "<someone@elsewhere.test>",
    "null": "<>",
    "user": "<alice@example.org>",
    "postmaster": "<postmaster@example.org>",
    "our name": "<root@gateway.test>",
    "literal": "<someone@[127.0.0.1]>",
    "recipient": "<victim@remote.test>",
}


@pytest.mark.parametrize("probe", list(PROBES))
def test_no_stranger_relays_through_us_by(gateway: Gateway, probe: str) -> None:
    """Every sender, four times in a session, each transaction ended another way: nothing is left over from before."""
    for name, sender in SENDERS.items():
        with gateway.smtp("smtp", source=STRANGER) as client:
            for end in ("RSET", "EHLO client.test", "HELO client.test", "DATA"):
                assert client.docmd("MAIL", f"FROM:{sender}")[0] == 250, (name, end)
                code, text = client.docmd("RCPT", f"TO:{PROBES[probe]}")
                assert 500 <= code < 600, (name, code, text)
                assert client.docmd(end)[0] == (554 if end == "DATA" else 250)


@pytest.mark.parametrize("probe", list(PROBES))
def test_no_pipelining_stranger_relays_through_us_by(gateway: Gateway, probe: str) -> None:
    rcpt = f"RCPT TO:{PROBES[probe]}\r\n".encode()
    commands = (
        b"EHLO client.test\r\nMAIL FROM:<alice@example.org>\r\n" + rcpt + b"RCPT TO:<alice@example.org>\r\n" + rcpt
        + b"RSET\r\nMAIL FROM:<>\r\n" + rcpt + b"DATA\r\nRSET\r\n"
        + b"EHLO client.test\r\nMAIL FROM:<a@elsewhere.test>\r\n" + rcpt + b"BDAT 8 LAST\r\nA: b\r\n\r\n" + b"QUIT\r\n"
    )  # fmt: skip
    codes = [int(line[:3]) for line in talk(gateway, commands, 16)]
    refused = {3, 5, 8, 9, 13, 14}
    assert len(codes) == 16
    for number, code in enumerate(codes):
        assert (500 <= code < 600) == (number in refused), (number, codes)


@pytest.mark.parametrize("policies", ["late", "open"])
def test_no_policy_opens_the_gateway(make_gateway: Callable[..., Gateway], policies: str) -> None:
    """Rules that accept everybody, or none at all, still leave the fixed guard."""
    opened = "stage: recipient\nrules:\n  - accept: everybody\n    when: true\n"
    replaced = {"40-recipient.yaml": opened if policies == "open" else "stage: recipient\nrules: []\n"}
    gateway = make_gateway(settings=no_dns() | PARTNER, policies=replaced)
    with gateway, gateway.smtp("smtp", source=STRANGER) as client:
        assert reply_to_recipient(client, RECIPIENTS["remote"]) == DENIED
        assert heading(client.rcpt("victim%remote.test@partner.test")) == DENIED
        assert heading(client.rcpt(RECIPIENTS["local"])) == TAKEN


def test_routes_in_local_parts_are_followed_for_those_who_may_relay_and_nobody_else(
    make_gateway: Callable[..., Gateway],
) -> None:
    routing = {"gateway": {"sender_specified_routing": ["example.org"]}}
    with make_gateway(settings=no_dns() | PARTNER | routing) as gateway:
        for probe in PROBES.values():
            with gateway.smtp("smtp", source=STRANGER) as client:
                assert client.docmd("MAIL", "FROM:<someone@elsewhere.test>")[0] == 250
                assert 500 <= client.docmd("RCPT", f"TO:{probe}")[0] < 600, probe
        with gateway.smtp("smtp", source=TRUSTED) as client:
            assert reply_to_recipient(client, "victim%remote.test@example.org") == TAKEN
            assert heading(client.rcpt("remote.test!other@example.org")) == TAKEN
            assert heading(client.rcpt("nobody%example.org@example.org")) == NO_MAILBOX
            assert client.data("Subject: x\r\n\r\nx\r\n")[0] == 250
        assert {row["recipient"] for row in gateway.queue()} == {"victim@remote.test", "other@remote.test"}
