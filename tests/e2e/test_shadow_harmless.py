"""A shadow policy must never change the live answer, and where it is the live policy itself it never differs."""

import json
import socket
from collections.abc import Sequence

import pytest

from tests.support.gateway import Gateway
from tests.support.process import wait_until
from tests.support.raw import RawClient, RawReply, message, temporary_gateway

PARTNER = {'relay_domains."partner.test"': {}}
FOR_BOB = 'stage: message\nrules:\n  - note: for bob\n    when: recipient.local == "bob"\n    do: {mark: bob}\n'
RATE = """\
stage: {}
rules:
  - {}: enough for {}
    when: rate("client", "1h", "recipients") >= {}
"""
SCORED = "stage: message\nrules:\n  - quarantine: scored\n    when: score >= 1\n"
FIRST = "stage: recipient\nrules:\n  - note: first\n    when: recipients.count == 0\n    do: {score: 1}\n"


def send(gateway: Gateway, sender: str, recipients: Sequence[str], body: bytes = b"x\r\n") -> RawReply:
    with RawClient(gateway.ports["smtp"], source="127.9.0.1") as client:
        client.ehlo()
        client.begin_data(*recipients, sender=sender)
        client.send(message("s", body) + b".\r\n")
        return client.reply()


def shadows(gateway: Gateway, sender: str) -> list[object]:
    def found() -> list[list[dict[str, object]]]:
        shown = gateway.cli("trace", sender, "--json").stdout
        return [event["decisions"] for event in json.loads(shown or "[]") if event["kind"] == "transaction"]

    return [each["shadow"] for each in wait_until(found, 10, "the record")[0] if "shadow" in each]


def test_a_blank_in_a_quoted_local_part_does_not_cost_the_mail() -> None:
    shadow = {"policy": {"shadow": "next"}}
    with temporary_gateway(
        policies={"45-message.yaml": FOR_BOB}, settings=PARTNER | shadow, files={"next/45-message.yaml": FOR_BOB}
    ) as gateway:
        assert send(gateway, "a@x.test", ["bob@example.org", '"a b"@partner.test']).code == 250


def test_look_ups_of_the_shadow_do_not_use_up_the_time_of_the_message_stage() -> None:
    rules = "".join(f"  - note: n{n}\n    when: uribl('l{n}.test')\n    do: {{score: 1}}\n" for n in range(3))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        settings = {
            "dns": {"servers": [f"127.0.0.1:{silent.getsockname()[1]}"]},
            "policy": {"shadow": "next", "shadow_lookups": 3},
            "limits": {"message_stage": "2s"},
        }
        files = {"next/50-message.yaml": f"stage: message\nrules:\n{rules}"}
        with temporary_gateway(settings=settings, files=files) as gateway:
            answer = send(gateway, "a@x.test", ["alice@example.org"], b"http://a.example/\r\n")
            assert answer.code == 250, answer


@pytest.mark.parametrize(
    ("policy", "recipients"),
    [
        (
            {
                "35-sender.yaml": RATE.format("sender", "note", "sender", 100),
                "45-message.yaml": RATE.format("message", "quarantine", "message", 2),
            },
            ["alice@example.org", "bob@example.org"],
        ),
        ({"41-recipient.yaml": FIRST, "45-message.yaml": SCORED}, ["alice@example.org", "alice@example.org"]),
    ],
    ids=["a rate asked for at two stages", "one recipient given twice"],
)
def test_the_live_policy_as_its_own_shadow_never_differs(policy: dict[str, str], recipients: list[str]) -> None:
    files = {f"next/{name}": text for name, text in policy.items()}
    with temporary_gateway(policies=policy, settings={"policy": {"shadow": "next"}}, files=files) as gateway:
        assert send(gateway, "a@x.test", recipients).code == 250
        assert shadows(gateway, "a@x.test") == []


def test_what_is_counted_and_remembered_for_the_live_policy_only_is_not_at_hand() -> None:
    """The live policy has no greylist: its memory is empty, and says nothing of who has been here before."""
    files = {"next/40-recipient.yaml": "stage: recipient\nrules:\n  - defer: new\n    when: greylist.state == 'new'\n"}
    settings = {"policy": {"shadow": "next", "shadow_lookups": 5}, "checks.greylist": {"delay": "1s"}}
    with temporary_gateway(settings=settings, files=files) as gateway:
        for number in range(2):
            assert send(gateway, f"a{number}@x.test", ["alice@example.org"]).code == 250
        assert {"action": "defer", "rule": "new"} not in shadows(gateway, "a1@x.test")
