"""Our IMAP store and Dovecot 2.3 in one run, in turns: the same messages, the same client, the same disk.

    .venv/bin/python -m bench.imap_side_by_side [--count 10000] [--rounds 5] [--parts steps,delivery,idle]
        [--fsync optimized|always] [--deliveries 2000] [--idle 1000] [--json FILE]

Needs root and Linux, and the packages dovecot-imapd and dovecot-lmtpd. Figures are the least of all rounds; only their
ratios mean anything.
"""

import argparse
import json
import smtplib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench.common import gateway_settings, process_cpu, show, tree, tree_cpu, tree_memory, work_folder
from bench.dovecot import PASSWORD as DOVECOT_PASSWORD
from bench.dovecot import Dovecot
from bench.imap_client import ImapClient
from bench.imap_steps import STEPS, Side, cold_steps, least, run_round
from bench.lmtp_rate import lmtp_rate
from bench.messages import message
from tests.support.dovecot import dovecot_missing
from tests.support.gateway import PASSWORD, REPOSITORY, Gateway

ALICE = "alice@example.org"
IDLERS = 200  # accounts of the sessions that idle
IDLER = "user%d@example.org"
IDLER_MESSAGES = 10
RATES = [f"rate{number}@example.org" for number in range(100)]
LIMITS = {"connections": 10_000, "connections_by_address": 10_000}
WATCHED_S = 31.0  # how long idling is watched: longer than anything that is done at intervals
CONNECTIONS = (1, 4)


class Writer:
    """`bench.store_writer` over the gateway's store."""

    def __init__(self, gateway: Gateway) -> None:
        argv = [sys.executable, "-m", "bench.store_writer", str(gateway.data / "mail"), "nobody"]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)

    def run(self, do: str, **wish: object) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **wish}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30.0)


@dataclass(slots=True)
class Run:
    """Both servers, and what was found. Servers are on while they are measured."""

    gateway: Gateway
    dovecot: Dovecot
    writer: Writer
    options: argparse.Namespace
    found: dict[str, object] = field(default_factory=dict)


def our_side(run: Run) -> Side:
    def restart() -> None:
        run.gateway.stop()
        run.gateway.start()

    def deliver() -> None:
        run.writer.run("deliver", account=ALICE, messages=1, threads=1, size=5000)

    return Side(
        "smarthost",
        lambda: ImapClient(run.gateway.ports["imaps"], ALICE, PASSWORD),
        deliver,
        restart,
        run.options.count,
    )


def their_side(run: Run) -> Side:
    def deliver() -> None:
        with smtplib.LMTP("127.0.0.1", run.dovecot.lmtp) as client:
            client.sendmail("sender@elsewhere.test", [ALICE], message(1))

    return Side(
        "dovecot",
        lambda: ImapClient(run.dovecot.imaps, ALICE, DOVECOT_PASSWORD),
        deliver,
        lambda: run.dovecot.forget_index(ALICE),
        run.options.count,
    )


# --- steps --------------------------------------------------------------------------------------------------------


def measure_steps(run: Run) -> None:
    started = time.monotonic()
    run.writer.run("fill", account=ALICE, first=0, end=run.options.count)
    run.dovecot.fill(ALICE, 0, run.options.count)
    show({"filled": run.options.count, "seconds": time.monotonic() - started})
    sides = [our_side(run), their_side(run)]
    run_round(sides, STEPS)  # what is worked out once is worked out here
    rounds = []
    for number in range(run.options.rounds):
        turn = sides if number % 2 == 0 else sides[::-1]
        rounds.append({**run_round(turn, STEPS), **run_round(turn, cold_steps())})
        show({"round": number + 1, "seconds": time.monotonic() - started})
        for side in sides:  # the next round is warm again
            side.run("FETCH 1:* (ENVELOPE)")
            side.leave()
    run.found["steps"] = least(rounds)
    run.found["rounds"] = rounds
    run.found["octets"] = {side.name: side.octets for side in sides}


# --- delivery -----------------------------------------------------------------------------------------------------


def measure_delivery(run: Run) -> None:
    """Messages a second, the best round. Every measurement has a mailbox of its own."""
    accounts = iter(RATES)
    best: dict[str, float] = {}
    messages = run.options.deliveries

    def note(name: str, rate: float) -> None:
        best[name] = max(best.get(name, 0.0), rate)
        show({"delivery": name, "rate": rate})

    for _ in range(min(3, run.options.rounds)):
        for count in CONNECTIONS:
            told = run.writer.run("deliver", account=next(accounts), messages=messages, threads=count, size=5000)
            note(f"smarthost's store, {count} threads", messages / told["seconds"])
            cpu = told["cpu"] / messages * 1000
            best[f"smarthost's store, {count} threads: CPU ms a message"] = min(
                cpu, best.get(f"smarthost's store, {count} threads: CPU ms a message", cpu)
            )
            for fsync in ("optimized", "always"):
                restarted(run.dovecot, fsync=fsync)
                before = tree_cpu(run.dovecot.pid)
                rate = lmtp_rate(run.dovecot.lmtp, next(accounts), messages, count)
                note(f"dovecot LMTP, mail_fsync={fsync}, {count} connections", rate)
                show({"cpu_ms": (tree_cpu(run.dovecot.pid) - before) / messages * 1000})
            if "lmtp" in run.gateway.ports:
                rate = lmtp_rate(run.gateway.ports["lmtp"], next(accounts), messages, count)
                note(f"smarthost LMTP, {count} connections", rate)
    restarted(run.dovecot, fsync=run.options.fsync)
    run.found["delivery"] = best


def restarted(dovecot: Dovecot, *, fsync: str | None = None, shares_logins: bool = False) -> None:
    dovecot.stop()
    dovecot.fsync = fsync or dovecot.fsync
    dovecot.shares_logins = shares_logins
    dovecot.start()


# --- idle connections ---------------------------------------------------------------------------------------------


def measure_idle(run: Run) -> None:
    for number in range(IDLERS):
        run.writer.run("fill", account=IDLER % number, first=0, end=IDLER_MESSAGES)
        run.dovecot.fill(IDLER % number, 0, IDLER_MESSAGES)
    has_large = "steps" in run.found
    patterns = [(f"{IDLERS} accounts", IDLER)] + ([(f"one of {run.options.count}", ALICE)] if has_large else [])
    found: dict[str, dict[str, float]] = {}
    for name, pattern in patterns:
        run.gateway.stop()
        run.gateway.start()
        key = f"smarthost, {name}"
        found[key] = idle(run, run.gateway.pid, run.gateway.ports["imaps"], pattern, PASSWORD)
        show({"idle": key, **found[key]})
        for shares in (False, True):
            restarted(run.dovecot, shares_logins=shares)
            key = f"dovecot, {name}{', shared login processes' if shares else ''}"
            found[key] = idle(run, run.dovecot.pid, run.dovecot.imaps, pattern, DOVECOT_PASSWORD)
            show({"idle": key, **found[key]})
    run.found["idle"] = found


def idle(run: Run, pid: int, port: int, pattern: str, password: str) -> dict[str, float]:
    """Memory in MiB and processes before and with them, seconds to connect, CPU ms a second."""
    time.sleep(2.0)
    found = {"before_mib": tree_memory(pid)}
    started, cpu = time.monotonic(), tree_cpu(pid)
    argv = [
        sys.executable,
        "-m",
        "bench.idle_clients",
        str(port),
        str(run.options.idle),
        str(IDLERS),
        pattern,
        password,
    ]
    clients = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert clients.stdout is not None
    try:
        told = clients.stdout.readline().strip()
        if told != "ready":
            raise RuntimeError(f"idle sessions: {told or 'none'}")
        found["connect_s"], found["connect_cpu_s"] = time.monotonic() - started, tree_cpu(pid) - cpu
        time.sleep(3.0)
        started, cpu = time.monotonic(), process_cpu(tree(pid))
        time.sleep(WATCHED_S)
        found["cpu_ms_a_second"] = (process_cpu(tree(pid)) - cpu) / (time.monotonic() - started) * 1000
        found["with_mib"], found["processes"] = tree_memory(pid), len(tree(pid))
        found["kib_a_connection"] = (found["with_mib"] - found["before_mib"]) * 1024 / run.options.idle
    finally:
        clients.communicate("", timeout=60.0)
    return found


# --- all of it ----------------------------------------------------------------------------------------------------


def table(run: Run) -> None:
    found = run.found
    print(f"\n{run.options.count} messages, mail_fsync={run.options.fsync}, least of {run.options.rounds} rounds")
    steps, delivery, idles = (found.get(name, {}) for name in ("steps", "delivery", "idle"))
    assert isinstance(steps, dict)
    assert isinstance(delivery, dict)
    assert isinstance(idles, dict)
    if steps:
        print("\n| | Smarthost, ms | Dovecot, ms | ratio |\n|---|---|---|---|")
    for name, each in steps.items():
        print(
            f"| {name} | {each['smarthost']:.1f} | {each['dovecot']:.1f} | {each['smarthost'] / each['dovecot']:.2f} |"
        )
    if delivery:
        print("\n| delivery of 5 kB | messages a second, best |\n|---|---|")
    for name, rate in delivery.items():
        print(f"| {name} | {rate:.4g} |")
    if idles:
        print(f"\n| {run.options.idle} idle sessions | MiB before | MiB with | KiB each | processes | CPU ms/s |")
        print("|---|---|---|---|---|---|")
    for name, each in idles.items():
        numbers = ("before_mib", "with_mib", "kib_a_connection", "processes", "cpu_ms_a_second")
        print(f"| {name} | " + " | ".join(f"{each[number]:.0f}" for number in numbers) + " |")


PARTS: dict[str, Callable[[Run], None]] = {"steps": measure_steps, "delivery": measure_delivery, "idle": measure_idle}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.imap_side_by_side", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="messages in INBOX")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", default="steps,delivery,idle", help="which of these, with commas")
    parser.add_argument("--fsync", default="optimized", choices=("optimized", "always"), help="Dovecot's mail_fsync")
    parser.add_argument("--deliveries", type=int, default=2000)
    parser.add_argument("--idle", type=int, default=1000, help="sessions that idle")
    parser.add_argument("--json", type=Path, help="a file for everything that was found")
    options = parser.parse_args(arguments)
    reason = dovecot_missing()
    if reason is not None:
        parser.error(reason)
    users = [ALICE, *RATES, *(IDLER % number for number in range(IDLERS))]
    with work_folder() as folder, ExitStack() as stack:
        gateway = Gateway(folder / "gateway", settings=gateway_settings(limits=LIMITS), users=users)
        stack.enter_context(gateway)
        dovecot = Dovecot(folder / "dovecot", folder / "gateway" / "tls", fsync=options.fsync)
        stack.enter_context(dovecot)
        run = Run(gateway, dovecot, stack.enter_context(Writer(gateway)), options)
        run.found = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "options": str(options)}
        for part in options.parts.split(","):
            PARTS[part](run)
            if options.json is not None:
                options.json.write_text(json.dumps(run.found, indent=1), encoding="utf-8")
        table(run)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
