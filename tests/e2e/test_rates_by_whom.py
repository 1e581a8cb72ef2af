"""Rates that differ from recipient to recipient, and connections of people who sign in."""

from collections.abc import Callable

import pytest

from tests.support.gateway import Gateway
from tests.support.raw import RawClient, message

BY_RECIPIENT = 'stage: message\nrules:\n  - reject: often\n    when: rate("recipient", "1h", "messages") >= 1\n'
BY_CLIENT = (
    'stage: helo\nrules:\n  - reject: too many\n    when: auth.user and rate("client", "1h", "connections") >= 2\n'
)
OPEN = {f"{name}.yaml": f"stage: {name[3:]}\nrules: []\n" for name in ("20-helo", "30-sender", "40-recipient")}


@pytest.mark.parametrize("order", [("alice", "bob"), ("bob", "alice")])
def test_a_rate_by_recipient_is_judged_for_each(make_gateway: Callable[..., Gateway], order: tuple[str, str]) -> None:
    with make_gateway(policies={**OPEN, "50-message.yaml": BY_RECIPIENT}) as gateway:
        assert gateway.send("alice@example.org", message("first")) == {}
        assert gateway.send([f"{name}@example.org" for name in order], message("second")) == {}
        gateway.wait_mails("bob@example.org", 1)
        kept = gateway.cli("quarantine", "list").expect(0).stdout
        assert "alice@example.org" in kept
        assert "bob@example.org" not in kept


def test_connections_of_who_signs_in_are_counted_on_every_listener(make_gateway: Callable[..., Gateway]) -> None:
    with make_gateway(policies={**OPEN, "20-helo.yaml": BY_CLIENT, "50-message.yaml": ""}) as gateway:
        codes = []
        for _ in range(4):
            with RawClient(gateway.ports["submissions"], tls=True, source="127.0.0.60") as client:
                client.ehlo()
                assert client.login().code == 235
                client.line("MAIL FROM:<alice@example.org>")
                codes.append(client.line("RCPT TO:<bob@example.org>").code)
        assert codes == [250, 250, 550, 550]
