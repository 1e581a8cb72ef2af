"""Smarthost and Postfix in one run, in turns: mail taken in, queued durably and relayed by MX to smtp-sink.

    .venv/bin/python -m bench.side_by_side [--rounds 3] [--messages 2000] [--sessions 10,50]
        [--reuse] [--main-cf KEY=VALUE]

Needs root and Linux. Starts itself again in a network namespace that holds nothing but loopback, with a DNS server on
127.0.0.1:53 in it, so that both look up the MX as they would in real life and no packet can leave the machine.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.common import (
    MESSAGE_SIZE,
    Sink,
    build,
    busy_seconds,
    gateway_settings,
    median,
    process_cpu,
    run_load,
    show,
    tree,
    tree_cpu,
    tree_memory,
    work_folder,
)
from tests.support.gateway import Gateway
from tests.support.peers import Postfix, postfix_missing, sink_missing
from tests.support.process import Daemon, missing

DOMAIN = "remote.test"
SINK = "127.0.0.9"
MAIN_CF = {
    # by MX and DNS, as it comes; the test support's instance asks no name server
    "relayhost": "",
    "smtp_dns_support_level": "enabled",
    "smtp_host_lookup": "dns",
    "smtp_tls_security_level": "may",
    "smtp_tls_loglevel": "0",
    # Postfix's defaults, which the test support changes
    "in_flow_delay": "1s",
    "disable_mime_output_conversion": "no",
    "message_size_limit": "52428800",
}
SETTLE_S = 1.0  # after the last message, for logs and traces that are still written


@dataclass(slots=True)
class System:
    """One side. pid: the root of its process tree; left: how many messages are in its queue."""

    name: str
    port: int
    pid: int
    left: Callable[[], int]
    roles: Callable[[], dict[str, int]]  # role to process id, of roles that live as long as the system
    log: Callable[[], str]


def enter_namespace(arguments: Sequence[str]) -> None:
    """Return when inside; otherwise start this program again in there."""
    if os.environ.pop("SMARTHOST_BENCH_INSIDE", "") == "yes":
        return
    with tempfile.NamedTemporaryFile("w", prefix="smarthost-bench-resolv-") as resolver:
        resolver.write("nameserver 127.0.0.1\n")
        resolver.flush()
        os.chmod(resolver.name, 0o644)
        script = 'ip link set lo up && mount --bind "$0" /etc/resolv.conf && exec "$@"'
        argv = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script, resolver.name]
        argv += [sys.executable, "-m", "bench.side_by_side", *arguments]
        inside = subprocess.Popen(argv, env={**os.environ, "SMARTHOST_BENCH_INSIDE": "yes"})
        try:
            code = inside.wait()
        except BaseException:
            inside.terminate()
            inside.wait()
            raise
    sys.exit(code)


def start_smarthost(folder: Path, stack: ExitStack) -> System:
    settings = gateway_settings(gateway={"workers": 2}, delivery={"port": 25}, dns={"servers": ["127.0.0.1:53"]})
    gateway = stack.enter_context(Gateway(folder / "gateway", settings=settings))
    return System(
        "smarthost", gateway.ports["smtp"], gateway.pid, lambda: len(gateway.queue()), gateway.role_pids, gateway.log
    )


def start_postfix(folder: Path, stack: ExitStack, changes: dict[str, str]) -> System:
    postfix = stack.enter_context(Postfix(folder / "postfix", (SINK, 25), extra_main=MAIN_CF | changes))
    return System("postfix", postfix.port, postfix.pid, postfix.queue_length, dict, postfix.log)


def measure(system: System, load: Path, sink: Sink, messages: int, sessions: int, *, reuse: bool) -> dict[str, object]:
    """One measured run of one side."""
    before, machine, goal = tree_cpu(system.pid), busy_seconds(), sink.received + messages
    roles = {name: (pid, process_cpu([pid])) for name, pid in system.roles().items()}
    started = time.monotonic()
    found = run_load(load, system.port, messages, sessions, b=MESSAGE_SIZE, t=f"user%d@{DOMAIN}", r=reuse, T=120)
    missing_at_sink = 0
    try:
        seconds = sink.wait(goal - (messages - found.accepted), 120.0) - started
    except TimeoutError:
        seconds, missing_at_sink = time.monotonic() - started, goal - sink.received
    time.sleep(SETTLE_S)
    return {
        "system": system.name,
        "sessions": sessions,
        "accept": found.rate,
        "e2e": (messages - missing_at_sink) / seconds,
        "p50_ms": found.p50_ms,
        "p99_ms": found.p99_ms,
        "cpu_1000": (tree_cpu(system.pid) - before) / messages * 1000,
        "machine_1000": (busy_seconds() - machine) / messages * 1000,
        **{f"cpu_1000_{name}": (process_cpu([pid]) - was) / messages * 1000 for name, (pid, was) in roles.items()},
        "errors": found.errors,
        "first_error": found.first_error,
        "missing": missing_at_sink,
        "left": system.left(),
    }


def table(records: list[dict[str, object]], memory: dict[str, tuple[float, float]], sessions: list[int]) -> None:
    """Medians, and Smarthost's value divided by Postfix's in the same round."""
    print("\n| | sessions | Smarthost | Postfix | ratio (each round) |\n|---|---|---|---|---|")
    rows = (("accept", "accepted/s"), ("e2e", "relayed/s, end to end"), ("cpu_1000", "CPU s a 1000"))
    for key, title in (*rows, ("p50_ms", "latency p50, ms"), ("p99_ms", "latency p99, ms")):
        for count in sessions:
            ours, theirs = (
                [float(str(r[key])) for r in records if r["system"] == name and r["sessions"] == count]
                for name in ("smarthost", "postfix")
            )
            ratios = [a / b for a, b in zip(ours, theirs, strict=True) if b]
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"| {title} | {count} | {median(ours):.4g} | {median(theirs):.4g} | {median(ratios):.2f} ({each}) |")
    for number, title in enumerate(("memory when idle, MiB", "memory after the run, MiB")):
        ours, theirs = (memory[name][number] for name in ("smarthost", "postfix"))
        print(f"| {title} | | {ours:.0f} | {theirs:.0f} | {ours / theirs:.2f} |")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.side_by_side", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, choices=range(1, 21), metavar="1..20")
    parser.add_argument("--messages", type=int, default=2000, choices=range(10, 50_001), metavar="10..50000")
    parser.add_argument("--sessions", default="10,50", help="numbers of sessions, with commas")
    parser.add_argument("--reuse", action="store_true", help="keep connections instead of a new one a message")
    parser.add_argument("--main-cf", action="append", default=[], metavar="KEY=VALUE", help="a setting for Postfix")
    options = parser.parse_args(arguments)
    sessions = [int(word) for word in options.sessions.split(",")]
    reason = missing("unshare", "ip", "cc", root=True) or postfix_missing() or sink_missing()
    if reason is not None:
        parser.error(reason)
    enter_namespace(arguments)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything started is stopped and removed
    changes = dict(setting.split("=", 1) for setting in options.main_cf)
    records: list[dict[str, object]] = []
    with work_folder() as folder, ExitStack() as stack:
        load, names = build("load", folder), build("names", folder)
        stack.enter_context(Daemon([names, "53", DOMAIN, SINK], log=folder / "names.log"))
        sink = stack.enter_context(Sink(SINK, 25))
        systems = [start_smarthost(folder, stack), start_postfix(folder, stack, changes)]
        for system in systems:
            measure(system, load, sink, 20, 2, reuse=False)
        idle = {system.name: tree_memory(system.pid) for system in systems}
        for system in systems:
            measure(system, load, sink, 200, 10, reuse=options.reuse)
        for number in range(options.rounds):
            for count in sessions:
                for system in systems if number % 2 == 0 else systems[::-1]:
                    record = measure(system, load, sink, options.messages, count, reuse=options.reuse)
                    records.append({"round": number + 1, **record})
                    show(records[-1])
        after = {system.name: tree_memory(system.pid) for system in systems}
        for system in systems:
            deferred = sum("deferred" in line for line in system.log().splitlines())
            show({"system": system.name, "processes": len(tree(system.pid)), "deferrals_logged": deferred})
        table(records, {name: (idle[name], after[name]) for name in idle}, sessions)
    return 1 if any(record["errors"] or record["missing"] for record in records) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
