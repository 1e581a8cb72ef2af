"""Under strace: what a 250 promises is synced before the 250 leaves, and a delivery before its row goes."""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.crash.load import LARGE, RawClient, make_message, queued
from tests.support.gateway import Gateway
from tests.support.process import find_command, wait_until

CALLS = (
    "fsync,fdatasync,sync_file_range,sendto,sendmsg,write,writev,pwrite64,openat,mkdir,rename,renameat,renameat2,link,"
    "linkat"
)
SESSIONS, EACH = 4, 4

pytestmark = pytest.mark.skipif(find_command("strace") is None, reason="strace is not installed")

_LINE = re.compile(r"(\d+) +[\d.]+ (.*)")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)")
_RESULT = re.compile(r"\) += (-?\d+)")


@dataclass(slots=True)
class Call:
    """One system call; begun and ended: the numbers of the lines where strace saw it enter and leave."""

    tid: int
    name: str
    text: str
    begun: int
    ended: int
    result: int

    def is_sync_of(self, path: str) -> bool:
        """path: the end of the file's name, as -y shows it."""
        return self.name in ("fsync", "fdatasync") and f"{path}>" in self.text and self.result == 0


def _parse(path: Path) -> list[Call]:
    """The calls that have returned, in the order of their entry."""
    found: list[Call] = []
    entered: dict[int, Call] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        tid, text = int(match[1]), match[2]
        resumed = _RESUMED.match(text)
        if resumed is not None:
            call = entered.pop(tid, None)
            if call is None:
                continue
            call.text += resumed[2]
        else:
            name = text.partition("(")[0]
            if not name.isidentifier() and not name.isalnum():
                continue  # a signal, an exit
            call = Call(tid, name, text, number, number, -1)
            found.append(call)
            if text.endswith("<unfinished ...>"):
                entered[tid] = call
                continue
        call.ended = number
        result = list(_RESULT.finditer(call.text))
        call.result = int(result[-1][1]) if result else -1
    return [call for call in found if call.tid not in entered or entered[call.tid] is not call]


@contextmanager
def _traced(make_gateway: Callable[..., Gateway], folder: Path, **options: object) -> Iterator[tuple[Gateway, Path]]:
    trace = folder / "strace.txt"
    wrapper = ["strace", "-f", "-ttt", "-y", "-s", "6000", "--seccomp-bpf", "-e", f"trace={CALLS}", "-o", str(trace)]
    gateway = make_gateway(wrapper=wrapper, **options).start()
    try:
        yield gateway, trace
        # strace itself is not asked to end: it would let go of the gateway in mid-drain.
        os.kill(gateway.pid, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{gateway.pid}").exists() if _has_child(gateway) else True, 35, "its end")
    finally:
        if _has_child(gateway):
            gateway.kill()
        gateway.stop()


def _has_child(gateway: Gateway) -> bool:
    try:
        return gateway.pid > 0
    except IndexError:
        return False


def _send_all(gateway: Gateway) -> dict[str, tuple[str, int]]:
    """Messages small and large from concurrent sessions; queue id to (message id, size)."""
    accepted: dict[str, tuple[str, int]] = {}
    faults: list[str] = []
    together = threading.Barrier(SESSIONS)

    def session(number: int) -> None:
        with RawClient(gateway.ports["smtp"], timeout=30) as client:
            for count in range(EACH):
                ident, size = f"s{number}-{count}", LARGE * 2 if count % 2 else 0
                client.begin("alice@example.org")
                together.wait(30)  # so that commits are shared
                client.send(make_message(ident, size) + b".\r\n")
                answer = re.fullmatch(r"250 2\.0\.0 Queued as (\S+)", client.reply())
                if answer is None:
                    faults.append(ident)
                    together.abort()
                    return
                accepted[answer[1]] = (ident, size)

    threads = [threading.Thread(target=session, args=(number,)) for number in range(SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    assert len(accepted) == SESSIONS * EACH
    return accepted


def _first(calls: list[Call], what: str, wanted: Callable[[Call], bool]) -> Call:
    found = next((call for call in calls if wanted(call)), None)
    assert found is not None, f"strace saw no {what}"
    return found


def _check_commit(calls: list[Call], queue_id: str) -> tuple[Call, Call]:
    """The log's sync returned before the reply was written; returns the first write to the log and the reply."""
    answer = _first(
        calls,
        f"reply for {queue_id}",
        lambda call: f"Queued as {queue_id}" in call.text and call.name in ("write", "writev", "sendto", "sendmsg"),
    )
    written = _first(
        calls,
        f"write of {queue_id} to the log",
        lambda call: call.name == "pwrite64" and "queue.db-wal>" in call.text and queue_id in call.text,
    )
    synced = [
        call
        for call in calls
        if call.is_sync_of("/queue.db-wal") and call.tid == written.tid and call.begun > written.ended
    ]
    assert synced, f"{queue_id}: the log was not synced"
    assert synced[0].ended < answer.begun, f"{queue_id}: the 250 left before the log's sync returned"
    return written, answer


def _check_blob(calls: list[Call], ident: str, before: Call) -> None:
    """The large body's file was synced whole, renamed, and its folder synced, before the row was written."""
    opening = _first(
        calls,
        f"write of {ident} to the spool",
        lambda call: call.name == "write" and "/spool/tmp/" in call.text and f'"X-Id: {ident}\\r' in call.text,
    )
    match = re.search(r"/spool/tmp/([0-9a-f]+)>", opening.text)
    assert match is not None
    name = match[1]
    writes = [call for call in calls if call.name == "write" and f"/spool/tmp/{name}>" in call.text]
    synced = _first(calls, f"sync of {name}", lambda call: call.is_sync_of(f"/spool/tmp/{name}"))
    assert max(call.ended for call in writes) < synced.begun, f"{ident}: octets were written after the sync"
    moved = _first(calls, f"rename of {name}", lambda call: call.name.startswith("rename") and name in call.text)
    assert synced.ended < moved.begun
    target = re.search(r'"[^"]*/spool/blob/(\w\w)/(\w+)"', moved.text)
    assert target is not None, moved.text
    folder_synced = [call for call in calls if call.is_sync_of(f"/spool/blob/{target[1]}") and call.begun > moved.ended]
    assert folder_synced, f"{ident}: the blob's folder was not synced"
    assert folder_synced[0].ended < before.begun, f"{ident}: the row was written before the blob's folder was synced"
    made = [call for call in calls if call.name == "mkdir" and f'/spool/blob/{target[1]}"' in call.text]
    if any(call.result == 0 for call in made):
        parent = _first(calls, "sync of spool/blob", lambda call: call.is_sync_of("/spool/blob"))
        assert parent.ended < before.begun, f"{ident}: the new folder's own entry was not synced"


def test_log_and_blobs_are_synced_before_the_250_leaves(
    make_gateway: Callable[..., Gateway], open_folder: Path
) -> None:
    with _traced(make_gateway, open_folder) as (gateway, trace):
        accepted = _send_all(gateway)
    calls = _parse(trace)
    for queue_id, (ident, size) in accepted.items():
        written, answer = _check_commit(calls, queue_id)
        if size:
            _check_blob(calls, ident, written)
        assert written.ended < answer.begun


def test_a_delivery_is_synced_before_its_row_leaves_the_queue(
    make_gateway: Callable[..., Gateway], open_folder: Path
) -> None:
    with _traced(make_gateway, open_folder) as (gateway, trace):
        queue_pid = gateway.role_pids()["queue-0"]
        threads = _threads(queue_pid)
        gateway.send("alice@example.org", make_message("lone"))
        gateway.wait_mails("alice@example.org", 1)
        wait_until(lambda: queued(gateway) == 0, 20, "an empty queue")
        threads |= _threads(queue_pid)
    calls = [call for call in _parse(trace) if call.tid in threads]
    body = _first(calls, "write to the mailbox", lambda call: call.name == "write" and "/Maildir/tmp/" in call.text)
    match = re.search(r"/Maildir/tmp/([^>]+)>", body.text)
    assert match is not None
    name = match[1]
    file_synced = _first(calls, "sync of the message", lambda call: call.is_sync_of(f"/Maildir/tmp/{name}"))
    moved = _first(calls, "link", lambda call: call.name.startswith("link") and f"/cur/{name}" in call.text)
    folder_synced = _first(calls, "sync of cur", lambda call: call.is_sync_of("/Maildir/cur"))
    row = _first(
        calls,
        "index row",
        lambda call: call.name == "pwrite64" and "index.db-wal>" in call.text and call.begun > folder_synced.ended,
    )
    index_synced = _first(
        calls, "sync of the index", lambda call: call.is_sync_of("/index.db-wal") and call.begun > row.ended
    )
    assert body.ended < file_synced.begun
    assert file_synced.ended < moved.begun
    assert moved.ended < folder_synced.begun
    # With one message and nothing else to do, this process writes to the queue twice: the claim, then the settlement.
    writes = [call for call in calls if call.name == "pwrite64" and "queue.db-wal>" in call.text]
    early = [call for call in writes if body.begun < call.ended and call.begun < index_synced.ended]
    assert early == [], "the queue was changed while the delivery was not yet on disk"
    assert any(call.ended < body.begun for call in writes), "no claim was seen"
    assert any(call.begun > index_synced.ended for call in writes), "no settlement was seen"


def test_folders_made_for_a_new_mailbox_are_synced_before_its_first_row_leaves_the_queue(
    make_gateway: Callable[..., Gateway], open_folder: Path
) -> None:
    with _traced(make_gateway, open_folder) as (gateway, trace):
        gateway.send("alice@example.org", make_message("first"))
        gateway.wait_mails("alice@example.org", 1)
        wait_until(lambda: queued(gateway) == 0, 20, "an empty queue")
    calls = _parse(trace)
    made = [
        match[1]
        for call in calls
        if call.name == "mkdir" and call.result == 0 and (match := re.search(r'"([^"]*/data/mail/[^"]*)"', call.text))
    ]
    assert any(path.endswith("/Maildir/cur") for path in made), made
    settled = max(call.begun for call in calls if call.name == "pwrite64" and "queue.db-wal>" in call.text)
    unsynced = sorted(
        {
            parent
            for parent in (str(Path(path).parent) for path in made)
            if not any(call.is_sync_of(parent) and call.ended < settled for call in calls)
        }
    )
    assert unsynced == [], "folders that got a new entry and were not synced"


def _threads(pid: int) -> set[int]:
    return {int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()}


@contextmanager
def _failing(pid: int, inject: str, trace: Path) -> Iterator[None]:
    """Make system calls of a running process fail: strace's way to say which."""
    name = inject.partition(":")[0]
    argv = ["strace", "-f", "-y", "-e", f"trace={name}", "-e", f"inject={inject}", "-o", str(trace), "-p", str(pid)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as strace:
        try:
            tasks = Path(f"/proc/{pid}/task")
            wait_until(lambda: all(_tracer(task) == strace.pid for task in tasks.iterdir()), 10, "strace to attach")
            yield
            strace.wait(20)  # it ends with the process
        finally:
            if strace.poll() is None:
                strace.terminate()


def _tracer(task: Path) -> int:
    lines = (task / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("TracerPid:"))


@pytest.mark.parametrize(
    ("inject", "size"),
    [
        ("fdatasync:error=EIO", 0),
        ("fsync:error=EIO:when=1", LARGE),
        ("fsync:error=EIO:when=2", LARGE),  # counted by thread: the blob, then its folder
    ],
    ids=["of the log", "of a blob", "of a blob's folder"],
)
def test_a_failed_sync_is_answered_with_421_and_ends_the_worker_and_is_not_tried_again(
    make_gateway: Callable[..., Gateway], open_folder: Path, inject: str, size: int
) -> None:
    trace = open_folder / "failing.txt"
    with make_gateway(settings={"gateway": {"workers": 1}}) as gateway:
        old = wait_until(lambda: gateway.role_pids().get("smtp-0"), 10, "the worker")
        with RawClient(gateway.ports["smtp"]) as client, _failing(old, inject, trace):
            client.begin("alice@example.org")
            client.send(make_message("refused", size) + b".\r\n")
            assert client.reply().startswith("421 ")
            assert client.reply() == ""
        wait_until(lambda: gateway.role_pids().get("smtp-0", old) != old, 10, "a new worker")
        failed = [line for line in trace.read_text().splitlines() if "(INJECTED)" in line]
        # The trace is no promise to anybody: its database may fail as well.
        assert len([line for line in failed if "/trace.db" not in line]) == 1, failed
        with RawClient(gateway.ports["smtp"]) as client:
            client.begin("alice@example.org")
            client.send(make_message("taken", size) + b".\r\n")
            assert client.reply().startswith("250 2.0.0 ")
        (received,) = gateway.wait_mails("alice@example.org", 1)
        assert received.endswith(make_message("taken", size))
        wait_until(lambda: queued(gateway) == 0, 10, "an empty queue")
