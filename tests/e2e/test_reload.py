"""`smarthost reload` and `[policy] watch`: applied to all workers or refused; a session keeps what it began with."""

import os
import signal
from collections.abc import Callable

from tests.support.gateway import Gateway
from tests.support.process import wait_until
from tests.support.raw import RawClient, message

CLOSED = "stage: recipient\nrules:\n  - reject: closed\n    reply: 550 5.7.1 closed for today\n"
OPEN = "stage: recipient\nrules:\n  - accept: open\n"
FAILING = "domains: [example.org]\ntests:\n  - {test: never, expect: {reject: closed}}\n"


def answers(gateway: Gateway, count: int = 12) -> set[int]:
    """To RCPT, over connections to whichever worker."""
    found = set()
    for _ in range(count):
        with RawClient(gateway.ports["smtp"]) as client:
            client.ehlo()
            client.line("MAIL FROM:<a@b.example>")
            found.add(client.line("RCPT TO:<alice@example.org>").code)
    return found


def write(gateway: Gateway, name: str, text: str) -> None:
    path = gateway.folder / "policies" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_a_reload_reaches_all_workers_and_restarted_ones_or_none(make_gateway: Callable[..., Gateway]) -> None:
    with make_gateway(policies={"40-recipient.yaml": OPEN}) as gateway:
        assert answers(gateway) == {250}
        with RawClient(gateway.ports["smtp"]) as old:
            old.ehlo()
            write(gateway, "40-recipient.yaml", CLOSED)
            assert answers(gateway) == {250}  # not yet
            assert "applied" in gateway.cli("reload").expect(0).stdout
            wait_until(lambda: answers(gateway, 4) == {550}, 10, "the new policy in all workers")
            old.line("MAIL FROM:<a@b.example>")
            assert old.line("RCPT TO:<alice@example.org>").code == 250  # the policy it began with
        killed = gateway.role_pids()["smtp-0"]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: gateway.role_pids().get("smtp-0", killed) != killed, 10, "a new smtp-0")
        assert answers(gateway) == {550}

        write(gateway, "40-recipient.yaml", OPEN.replace("accept", "acept"))
        refused = gateway.cli("reload").expect(1).stderr
        assert "the running policy" in refused
        assert "policies/40-recipient.yaml:3:5: unknown key `acept`. Did you mean `accept`?" in refused
        write(gateway, "40-recipient.yaml", OPEN)
        write(gateway, "tests/x.yaml", FAILING)
        assert "no rule is called “closed”" in gateway.cli("reload").expect(1).stderr
        assert answers(gateway) == {550}
        counted = "smarthost_policy_reload_total"
        wait_until(lambda: gateway.metric(counted, result="refused") == 2, 10, "refusals counted")
        assert gateway.metric(counted, result="applied") == 1
        (gateway.folder / "policies" / "tests" / "x.yaml").unlink()
        gateway.cli("reload").expect(0)
        wait_until(lambda: answers(gateway, 4) == {250}, 10, "the policy open again")
        assert gateway.send("alice@example.org", message("after")) == {}


def test_a_watched_policy_is_applied_when_its_files_change(make_gateway: Callable[..., Gateway]) -> None:
    settings = {"policy": {"watch": True}}
    with make_gateway(policies={"40-recipient.yaml": OPEN}, settings=settings) as gateway:
        assert answers(gateway, 4) == {250}
        write(gateway, "40-recipient.yaml", CLOSED)
        wait_until(lambda: answers(gateway, 4) == {550}, 20, "the change taken")
        write(gateway, "40-recipient.yaml", "nonsense")
        wait_until(lambda: "policy refused" in gateway.log(), 20, "the wrong one refused")
        assert answers(gateway) == {550}


def test_nothing_to_reload_without_a_gateway(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway()
    with gateway:
        pass
    assert "no gateway is running" in gateway.cli("reload").expect(3).stderr
