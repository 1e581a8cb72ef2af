"""seen.domain_good and its like in a running gateway: who earns and who loses a name, and who cannot for others."""

from collections.abc import Iterator

import pytest

from gateway.demo.nameserver import NameServer
from tests.e2e.test_seen_senders import send
from tests.support.gateway import Gateway
from tests.support.process import free_port
from tests.support.raw import temporary_gateway, wait_stored

ZONE = ('good.test TXT "v=spf1 ip4:127.0.0.41 -all"', 'bad.test TXT "v=spf1 ip4:127.0.0.42 -all"')
SENDER = """\
stage: sender
rules:
  - note: tell
    do:
      add_header: "X-Seen: {seen.domain_good} {seen.domain_bad} {seen.network_good} {seen.network_bad}"
"""
MESSAGE = """\
stage: message
rules:
  - reject: refused
    when: '"reject" in header("X-Do")'
  - quarantine: kept back
    when: '"quarantine" in header("X-Do")'
  - defer: later
    when: '"defer" in header("X-Do")'
"""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    port = free_port()
    with (
        NameServer(ZONE, port=port),
        temporary_gateway(
            policies={"30-sender.yaml": SENDER, "50-message.yaml": MESSAGE},
            settings={"dns": {"servers": [f"127.0.0.1:{port}"]}},
        ) as running,
    ):
        yield running


def seen(gateway: Gateway, sender: str, marker: str, source: str) -> list[float]:
    """domain good, bad, network good, bad, as rules saw them for this message, which is accepted."""
    assert send(gateway, sender, marker, source=source).code == 250
    stored = wait_stored(gateway, marker)
    (line,) = [line for line in stored.split(b"\r\n") if line.startswith(b"X-Seen: ")]
    return [round(float(word), 1) for word in line[8:].split()]


def test_each_message_counts_for_its_domain_and_its_network(gateway: Gateway) -> None:
    assert seen(gateway, "a@good.test", "first", "127.0.0.41") == [0, 0, 0, 0]
    assert seen(gateway, "b@good.test", "second", "127.0.0.41") == [1, 0, 1, 0]
    assert send(gateway, "b@good.test", "refused", "reject", source="127.0.0.41").code == 550
    assert send(gateway, "b@good.test", "kept", "quarantine", source="127.0.0.41").code == 250
    assert send(gateway, "b@good.test", "later", "defer", source="127.0.0.41").code == 450
    assert seen(gateway, "a@good.test", "third", "127.0.0.41") == [2, 2, 2, 2]


def test_nobody_earns_or_loses_a_name_for_a_domain_that_does_not_answer_for_them(gateway: Gateway) -> None:
    assert send(gateway, "a@good.test", "forged", "reject", source="127.0.0.42").code == 550
    assert send(gateway, "a@none.test", "nobody's", source="127.0.0.42").code == 250
    assert seen(gateway, "a@good.test", "own", "127.0.0.41") == [0, 0, 1, 1]
    assert seen(gateway, "a@bad.test", "its own", "127.0.0.42") == [0, 0, 2, 1]


def test_own_networks_are_not_counted(gateway: Gateway) -> None:
    assert send(gateway, "a@good.test", "ours", source="127.0.0.1").code == 250
    assert seen(gateway, "a@good.test", "after", "127.0.0.41") == [0, 0, 0, 0]
