"""What both benchmarks share: building the C helpers, measuring processes, the sink, and the gateway's settings."""

import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.support.process import find_command, wait_until

HERE = Path(__file__).resolve().parent
TICK = 1 / os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024
MESSAGE_SIZE = 10_240  # octets on the wire


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """A temporary folder that the gateway's own user can enter; removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="smarthost-bench-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build(name: str, folder: Path) -> Path:
    """Compile bench/NAME.c."""
    program = folder / name
    subprocess.run(
        [os.environ.get("CC", "cc"), "-O2", "-Wall", "-Wextra", "-pthread", "-o", program, HERE / f"{name}.c"],
        check=True,
    )
    return program


@dataclass(frozen=True, slots=True)
class Load:
    """What the generator printed."""

    accepted: int
    errors: int
    connections: int
    octets: int
    seconds: float
    rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    first_error: str


def run_load(program: Path, port: int, messages: int, sessions: int, **options: object) -> Load:
    """Options: the generator's, by letter; True for one without a value."""
    argv = [str(program), "-p", str(port), "-n", str(messages), "-s", str(sessions)]
    for letter, value in options.items():
        argv += [f"-{letter}"] if value is True else [f"-{letter}", str(value)] if value is not False else []
    done = subprocess.run(argv, capture_output=True, text=True, timeout=700, check=False)
    if not done.stdout:
        raise RuntimeError(f"load ended with {done.returncode}: {done.stderr}")
    return Load(**json.loads(done.stdout))


# --- processes ----------------------------------------------------------------------------------------------------


def tree(root: int) -> list[int]:
    """A process and all its descendants that are there now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int(_stat(int(entry.name))[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, pending = [], [root]
    while pending:
        pid = pending.pop()
        found.append(pid)
        pending += children.get(pid, [])
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, group, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree_cpu(root: int) -> float:
    """CPU seconds of a process tree so far: of the living, and of all dead that some living one has waited for."""
    total = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            total += sum(int(value) for value in _stat(pid)[11:15])  # utime stime cutime cstime
    return total * TICK


def process_cpu(pids: Iterable[int]) -> float:
    """CPU seconds of these processes alone, exact to the nanosecond where the kernel tells it."""
    total = 0.0
    for pid in pids:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        try:
            total += sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
        except FileNotFoundError:
            total += sum(int(value) for value in _stat(pid)[11:13]) * TICK
    return total


def tree_memory(root: int) -> float:
    """MiB of proportional memory (PSS) of a process tree."""
    total = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            match = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
            total += int(match[1]) if match else 0
    return total / 1024


def reset_peaks(pids: Iterable[int]) -> dict[int, int]:
    """Forget the processes' highest resident memory; returns the present one in octets."""
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return {pid: _status_octets(pid, "VmRSS") for pid in pids}


def peaks(pids: Iterable[int]) -> dict[int, int]:
    """The highest resident memory since `reset_peaks`, in octets."""
    return {pid: _status_octets(pid, "VmHWM") for pid in pids}


def _status_octets(pid: int, name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def busy_seconds() -> float:
    """CPU seconds that the whole machine has spent on work, whoever's."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _, _, irq, soft, steal = (int(word) for word in words)
    return (user + nice + system + irq + soft + steal) * TICK


# --- the remote side ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Sink:
    """Postfix's smtp-sink, whose running count of messages (-c) tells when the last one has come."""

    host: str
    port: int
    user: str = "nobody" if os.geteuid() == 0 else ""
    received: int = 0
    changed: float = 0.0  # when `received` last grew, by time.monotonic()
    _process: subprocess.Popen[bytes] | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        words = [find_command("smtp-sink") or "smtp-sink", "-c", *(["-u", self.user] if self.user else [])]
        self._process = subprocess.Popen(
            [*words, f"{self.host}:{self.port}", "512"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        threading.Thread(target=self._watch, daemon=True).start()
        wait_until(lambda: self._listens() or self._ended.is_set(), 10.0, "smtp-sink to listen")
        if self._ended.is_set():
            raise RuntimeError("smtp-sink ended")
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10.0)

    def _listens(self) -> bool:
        octets = bytes(int(part) for part in self.host.split("."))
        place = f"{int.from_bytes(octets, 'little'):08X}:{self.port:04X}"
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        return any(row[1] == place and row[3] == "0A" for row in rows)

    def _watch(self) -> None:
        """The count is read every 5 ms only, so that reading it takes no time from what is measured."""
        assert self._process is not None
        assert self._process.stdout is not None
        kept = b""
        while octets := os.read(self._process.stdout.fileno(), 65_536):
            now = time.monotonic()
            found = re.findall(rb"mesg=(\d+)\D", kept + octets)
            kept = (kept + octets)[-64:]
            if found and int(found[-1]) > self.received:
                self.received, self.changed = int(found[-1]), now
            time.sleep(0.005)
        self._ended.set()

    def wait(self, count: int, timeout: float) -> float:
        """When the count-th message in all had come; TimeoutError says how many are missing."""
        deadline = time.monotonic() + timeout
        while self.received < count:
            if time.monotonic() > deadline or self._ended.is_set():
                raise TimeoutError(f"{count - self.received} messages did not reach the sink")
            time.sleep(0.005)
        return self.changed


# --- settings and results -----------------------------------------------------------------------------------------


def gateway_settings(**sections: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Trusted loopback and no limit in the way; everything else as it comes."""
    found: dict[str, dict[str, object]] = {
        "networks": {"trusted": ["127.0.0.0/8"]},
        "limits": {"connections_by_address": 1000, "commands": 1_000_000, "messages": 1_000_000},
    }
    for name, values in sections.items():
        found.setdefault(name, {}).update(values)
    return found


def median(values: Iterable[float]) -> float:
    return statistics.median(list(values))


def show(record: Mapping[str, object]) -> None:
    """One line of JSON, numbers in three decimals."""
    rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in record.items()}
    print(json.dumps(rounded), flush=True)
