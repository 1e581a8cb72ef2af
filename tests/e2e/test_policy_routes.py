"""Which way mail takes by a rule's word: `route` and `require_tls`."""

from collections.abc import Iterator

import pytest

from tests.support.gateway import Gateway
from tests.support.process import free_port, wait_until
from tests.support.remote import Remote, make_certificate, send, wait_row
from tests.support.tlssink import TlsSink

MESSAGE = b"From: a@elsewhere.test\r\nSubject: which way\r\n\r\nA line.\r\n"
RULES = """\
stage: recipient
rules:
  - note: lists
    when: recipient.local == "list" or recipient.local == "both"
    do: {route: lists}
  - note: provider
    when: recipient.local == "both"
    do: {route: provider}
  - note: encrypted
    when: starts_with(recipient.local, "tls")
    do: {require_tls: true}
  - note: verified
    when: ends_with(recipient.local, "verified")
    do: {require_tls: verified}
"""


@pytest.fixture(scope="module")
def hops(remote: Remote) -> Iterator[dict[str, TlsSink]]:
    with TlsSink(port=free_port()) as lists, TlsSink(port=free_port()) as provider:
        yield {"lists": lists, "provider": provider}


@pytest.fixture(scope="module")
def gateway(remote: Remote, hops: dict[str, TlsSink]) -> Iterator[Gateway]:
    routes = {f"routes.{name}": {"host": f"smtp:{sink.host}:{sink.port}"} for name, sink in hops.items()}
    with Gateway(
        remote.folder / "gateway",
        settings={**remote.settings, **routes},
        users=("alice@example.org", "list@example.org"),
        policies={"40-recipient.yaml": RULES},
        env={"SSL_CERT_FILE": str(remote.certificate)},
    ) as running:
        yield running


def last_reply(gateway: Gateway, recipient: str) -> str:
    return str(wait_row(gateway, recipient)["last_reply"])


def test_a_routes_host_gets_mail_of_any_domain_also_of_ours(gateway: Gateway, hops: dict[str, TlsSink]) -> None:
    before = len(hops["lists"].messages)
    send(gateway, "a@elsewhere.test", ["list@example.org"], MESSAGE)
    send(gateway, "a@elsewhere.test", ["list@else.test"], MESSAGE)
    taken = hops["lists"].wait_messages(before + 2)[before:]
    assert {message.forward_paths for message in taken} == {("list@example.org",), ("list@else.test",)}
    assert gateway.mails("list@example.org") == []


def test_of_several_routes_the_last_counts_and_only_for_its_recipients(
    gateway: Gateway, hops: dict[str, TlsSink]
) -> None:
    before = {name: len(sink.messages) for name, sink in hops.items()}
    send(gateway, "a@elsewhere.test", ["both@else.test", "list@else.test"], MESSAGE)
    assert hops["provider"].wait_messages(before["provider"] + 1)[-1].forward_paths == ("both@else.test",)
    assert hops["lists"].wait_messages(before["lists"] + 1)[-1].forward_paths == ("list@else.test",)


def test_required_encryption_takes_any_certificate(gateway: Gateway, remote: Remote) -> None:
    domain, address = remote.place()
    with remote.sink(address) as sink:
        send(gateway, "a@elsewhere.test", [f"tls@{domain}"], MESSAGE)
        assert sink.wait_messages(1)[0].tls.startswith("TLS")
    assert gateway.metric("smarthost_tls_total", direction="out", policy="encrypt") >= 1


@pytest.mark.parametrize("trouble", [{"starttls": False}, {"broken_handshake": True}], ids=["not offered", "broken"])
def test_where_encryption_is_required_and_fails_the_message_waits_and_others_go(
    gateway: Gateway, remote: Remote, trouble: dict[str, object]
) -> None:
    domain, address = remote.place()
    with remote.sink(address, **trouble) as sink:
        send(gateway, "a@elsewhere.test", [f"tls@{domain}"], MESSAGE)
        assert last_reply(gateway, f"tls@{domain}").startswith("451 4.7.")
        send(gateway, "a@elsewhere.test", [f"plain@{domain}"], MESSAGE)
        (taken,) = sink.wait_messages(1)
        assert (taken.forward_paths, taken.tls) == ((f"plain@{domain}",), "")


def test_verified_wants_the_certificate_to_name_the_host(gateway: Gateway, remote: Remote) -> None:
    domain, address = remote.place()
    named, its_address = "remote.test", remote.place()[1]
    remote.dns.add(f"{named} MX 10 mx.remote.test.", f"mx.remote.test A {its_address}")
    with remote.sink(its_address) as right, remote.sink(address) as wrong:
        send(gateway, "a@elsewhere.test", [f"verified@{named}"], MESSAGE)
        assert right.wait_messages(1)[0].tls.startswith("TLS")
        send(gateway, "a@elsewhere.test", [f"tls-verified@{domain}"], MESSAGE)
        assert last_reply(gateway, f"tls-verified@{domain}").startswith("451 4.7.5")
        assert wrong.messages == []


def test_verified_does_not_believe_a_certificate_that_nobody_vouches_for(gateway: Gateway, remote: Remote) -> None:
    domain, address = remote.place()
    certificate, key = make_certificate(remote.folder / "unknown-tls", f"mx.{domain}")
    with TlsSink(host=address, port=remote.port, certificate=certificate, key=key) as sink:
        send(gateway, "a@elsewhere.test", [f"verified@{domain}"], MESSAGE)
        assert last_reply(gateway, f"verified@{domain}").startswith("451 4.7.5")
        assert sink.messages == []


def test_mail_waits_when_its_route_was_taken_from_the_configuration(gateway: Gateway, hops: dict[str, TlsSink]) -> None:
    """A route may be there so that mail takes no other."""
    hops["lists"].replies["."] = "450 4.2.0 later"
    try:
        send(gateway, "a@elsewhere.test", ["list@gone.test"], MESSAGE)
        wait_row(gateway, "list@gone.test")
        gateway.stop()
        text = gateway.config.read_text()
        gateway.config.write_text(text.replace("[routes.lists]", "[routes.lists2]"))
        broken = gateway.cli("check")
        assert "no route `lists` in the configuration. Did you mean `lists2`?" in broken.expect(1).stderr
        rules = gateway.folder / "policies" / "40-recipient.yaml"
        rules.write_text(RULES.replace("lists}", "lists2}"))
        gateway.start()
        gateway.cli("queue", "retry", "--all").expect(0)
        wait_until(lambda: "no route lists" in last_reply(gateway, "list@gone.test"), 15, "the route to be missed")
    finally:
        hops["lists"].replies.clear()
        gateway.stop()
        gateway.config.write_text(gateway.config.read_text().replace("[routes.lists2]", "[routes.lists]"))
        (gateway.folder / "policies" / "40-recipient.yaml").write_text(RULES)
        gateway.start()
