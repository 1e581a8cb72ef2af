"""What policies cost, on facts at hand: a stage of 100 rules, lists short and long, loading 500 rules with 100 tests.

    .venv/bin/python -m bench.policy_cost [--rounds 5]

One process, no network. Times are the least of the rounds, in wall time of a quiet machine.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.core.verdict import Stage
from gateway.policy.cases import load_tested_policy
from gateway.policy.engine import decide
from gateway.policy.loader import load_policy
from gateway.policy.rehearsal import Surroundings
from gateway.policy.replay import replay
from tests.support.policies import STRANGER, context

CONDITIONS = (
    "client.ip in @networks and not client.trusted",
    'sender.domain in @domains or helo.name == "x{n}.example"',
    "session.errors > {n} and recipient.is_local",
    'not auth.user and ends_with(helo.name, ".dyn{n}.example")',
    '"mark{n}" in marks',
)
REPLAYED = 10_000


def write(folder: Path, rules: int, entries: int, tests: int = 0) -> Path:
    """A policy of so many rules at recipient, none of which matches, over two lists of so many entries."""
    lines = ["stage: recipient", "rules:"]
    for number in range(rules):
        condition = CONDITIONS[number % len(CONDITIONS)].format(n=number)
        lines += [f"  - reject: rule {number}", f"    when: {condition}"]
    (folder / "lists").mkdir(parents=True)
    (folder / "40-recipient.yaml").write_text("\n".join(lines) + "\n")
    networks = "".join(f"10.{number // 256 % 256}.{number % 256}.0/24\n" for number in range(entries))
    (folder / "lists" / "networks.networks").write_text(networks)
    (folder / "lists" / "domains.domains").write_text("".join(f"d{number}.example\n" for number in range(entries)))
    cases = [
        f"- test: case {n}\n  given: {{client.ip: 203.0.113.{n % 250}, recipient.address: a@b.example}}\n"
        "  expect: accept\n"
        for n in range(tests)
    ]
    if cases:
        (folder / "tests").mkdir()
        (folder / "tests" / "cases.yaml").write_text("".join(cases))
    return folder


def least(rounds: int, call: Callable[[], object]) -> float:
    """Seconds of the quickest round."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def stage_us(folder: Path, entries: int, rounds: int) -> float:
    policy = load_policy(write(folder / f"p{entries}", 100, entries))

    def thousand() -> None:
        for _ in range(1000):
            where = context(STRANGER, sender="a@b.example", recipient="alice@example.org")
            decide(policy, Stage.RECIPIENT, where)

    return least(rounds, thousand) * 1000


def record(number: int) -> dict[str, object]:
    """A transaction as the recorder writes it."""
    facts = {"client.ip": "203.0.113.7", "client.trusted": False, "auth.user": None, "helo.name": f"x{number}.example"}
    more = {
        "session.errors": 0,
        "sender.domain": "b.example",
        "recipient.is_local": True,
        "recipient.is_relayed": False,
    }
    decision = {
        "id": "",
        "stage": "recipient",
        "action": "accept",
        "rule": "",
        "recipients": ["a@example.org"],
        "trail": [],
    }
    return {
        "session": f"S{number}", "queue_id": f"Q{number}", "recipients": ["a@example.org"], "facts": facts | more,
        "background": {}, "decisions": [decision], "trusted": False, "user": None, "method": "",
        "client": "203.0.113.7",
        "port": 40000, "listener": "smtp", "tls": None, "cipher": None, "helo": f"x{number}.example", "esmtp": True,
        "sender": "a@b.example",
    }  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.policy_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, 51), metavar="1..50")
    rounds = parser.parse_args(arguments).rounds
    with tempfile.TemporaryDirectory(prefix="smarthost-bench-") as name:
        folder = Path(name)
        short, long = stage_us(folder, 10, rounds), stage_us(folder, 10_000, rounds)
        large = write(folder / "large", 500, 10, tests=100)
        load_s = least(rounds, lambda: load_tested_policy(large, Surroundings()))
        candidate = load_policy(folder / "p10")
        records = [record(number) for number in range(REPLAYED)]
        replay_s = least(1, lambda: [list(replay(candidate, each)) for each in records])
    print("| | measured | goal |\n|---|---|---|")
    print(f"| a stage of 100 rules, lists of 10, µs | {short:.0f} | under 100 |")
    print(f"| the same with lists of 10,000, µs | {long:.0f} | no slower |")
    print(f"| loading and testing 500 rules with 100 tests, s | {load_s:.2f} | under 1 |")
    print(f"| replay of {REPLAYED:,} recorded transactions, s | {replay_s:.1f} | under 20 |")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
