"""A thousand mixed transactions under the shipped policy, one rule changed: replay names exactly those that change."""

import json
import random
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.demo.nameserver import NameServer
from tests.e2e.test_default_policy import DIAL_UP, FORGER, FRIEND, GOOD, LISTED, NAMELESS, answer, records
from tests.support.gateway import REPOSITORY, Gateway
from tests.support.process import wait_until
from tests.support.raw import temporary_gateway

COUNT = 1000
SOURCES = (GOOD, LISTED, DIAL_UP, NAMELESS, FRIEND, FORGER, "127.0.0.1")
RECIPIENTS = ("alice@example.org", "bob@example.org", "nobody@example.org", "postmaster@example.org", "x@else.test")
HELOS = ("client.test", "nowhere.test", "localhost")
SENDERS = ("a@sender.test", "", "a@nowhere.test", "alice@example.org")
ID = re.compile(r"\[(\w{16})\]|Queued as (\w{16})")


def one(gateway: Gateway, number: int) -> tuple[str, str, str]:
    """Source, reply and id of one transaction."""
    chance = random.Random(number)
    source = chance.choice(SOURCES)
    sender = chance.choices(SENDERS, (8, 1, 1, 1))[0]
    helo = chance.choices(HELOS, (8, 1, 1))[0]
    text = answer(gateway, source, sender, chance.choices(RECIPIENTS, (5, 3, 1, 1, 1))[0], helo=helo)
    match = ID.search(text)
    assert match is not None, text
    return source, text, match[1] or match[2]


@pytest.mark.long
def test_of_a_thousand_transactions_exactly_those_that_change_are_named(tmp_path: Path) -> None:
    shipped = REPOSITORY / "policies"
    files = {f"policies/{path.relative_to(shipped)}": path.read_text() for path in shipped.rglob("*") if path.is_file()}
    files["policies/lists/friends_networks.networks"] = f"{FRIEND}\n"
    with (
        NameServer(records()) as dns,
        temporary_gateway(
            settings={"dns": {"servers": [dns.address]}, "limits": {"connections_by_address": 1000}}, files=files
        ) as gateway,
    ):
        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda number: one(gateway, number), range(COUNT)))
        wait_until(lambda: gateway.cli("policy", "coverage").stdout.count("\n") > 1, 10, "records")
        gateway.stop()
        candidate = tmp_path / "candidate"
        shutil.copytree(gateway.folder / "policies", candidate)
        replay = ("policy", "replay", "--candidate", str(candidate), "--json")
        unchanged = json.loads(gateway.cli(*replay).expect(0).stdout)
        assert (unchanged["transactions"], unchanged["changed"], unchanged["undecidable"]) == (COUNT, 0, {})
        rules = candidate / "40-recipient.yaml"
        rules.write_text(rules.read_text().replace("when: score >= 5", "when: score >= 3"))
        for path in (candidate / "tests").iterdir():
            path.unlink()
        started = time.monotonic()
        found = json.loads(gateway.cli(*replay).expect(0).stdout)
        seconds = time.monotonic() - started
    greylisted = {decision for source, text, decision in done if "Greylisted" in text and source == DIAL_UP}
    # Of others those with three small signs, such as no reverse name and a HELO that does not resolve.
    waiting = {decision for _, text, decision in done if "Greylisted" in text}
    changes = {(row["before"], row["after"]): set(row["ids"]) for row in found["changes"]}
    before = "defer by “odd newcomers wait five minutes”"
    after = "reject by “too much speaks against this client”"
    assert set(changes) == {(before, after)}
    assert greylisted <= changes[before, after] <= waiting
    assert found["changed"] == len(changes[before, after]) >= 50
    print(f"{COUNT} transactions, {found['changed']} change, {seconds:.1f} s")
