"""What the recorder costs: CPU a message received, and messages a second, with it and without, in turns in one run.

    .venv/bin/python -m bench.recorder_cost [--rounds 5] [--messages 3000] [--sessions 10]

Linux. All traffic is on the loopback interface; mail is held, so that deliveries do not blur the figures.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.common import MESSAGE_SIZE, build, gateway_settings, median, process_cpu, run_load, work_folder
from tests.support.gateway import Gateway
from tests.support.process import missing

UNRECORDED = Path(__file__).resolve().parent / "unrecorded"
HELD = "stage: message\nrules:\n  - hold: all\n"


def one(folder: Path, load: Path, messages: int, sessions: int, *, recorded: bool) -> tuple[float, float]:
    """CPU milliseconds of the SMTP workers a message, and messages a second."""
    env = {} if recorded else {"SMARTHOST_UNRECORDED": "yes", "PYTHONPATH": str(UNRECORDED)}
    policies = {"50-message.yaml": HELD}
    with Gateway(folder, settings=gateway_settings(gateway={"workers": 2}), policies=policies, env=env) as gateway:
        workers = [pid for name, pid in gateway.role_pids().items() if name.startswith("smtp-")]
        run_load(load, gateway.ports["smtp"], messages // 10, sessions, b=MESSAGE_SIZE, t="user%d@remote.test")
        before = process_cpu(workers)
        done = run_load(load, gateway.ports["smtp"], messages, sessions, b=MESSAGE_SIZE, t="user%d@remote.test")
        spent = process_cpu(workers) - before
        if done.errors:
            raise RuntimeError(done.first_error)
        return 1000 * spent / messages, done.rate


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.recorder_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, 21), metavar="1..20")
    parser.add_argument("--messages", type=int, default=3000, choices=range(100, 50_001), metavar="100..50000")
    parser.add_argument("--sessions", type=int, default=10, choices=range(1, 257), metavar="1..256")
    options = parser.parse_args(arguments)
    reason = missing("cc")
    if reason is not None:
        parser.error(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything started is stopped and removed
    costs: list[float] = []
    rates: list[float] = []
    with work_folder() as folder:
        load = build("load", folder)
        for number in range(options.rounds):
            order = (True, False) if number % 2 else (False, True)
            found = {
                recorded: one(
                    folder / f"{number}-{recorded}", load, options.messages, options.sessions, recorded=recorded
                )
                for recorded in order
            }
            costs.append(found[True][0] / found[False][0] - 1)
            rates.append(1 - found[True][1] / found[False][1])
            print(
                f"round {number + 1}: recorded {found[True][0]:.3f} ms {found[True][1]:.0f}/s,"
                f" not {found[False][0]:.3f} ms {found[False][1]:.0f}/s"
            )
    print(f"recording costs {100 * median(costs):.1f} % of the workers' CPU, {100 * median(rates):.1f} % of the rate")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
