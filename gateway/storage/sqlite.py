"""SQLite as every store here uses it: opening, schema versions, and one writer thread with group commit.

A writer gathers all jobs that wait and gives them one commit: one fsync serves fifty messages as it serves one. Writing
processes take an flock before BEGIN IMMEDIATE, since SQLite's busy handler sleeps where flock queues.
Jobs that share a commit run each in a savepoint, so a failed one costs its neighbours nothing. After a failed sync
nothing is retried: the writer is broken for good and the process must restart (what the kernel kept of the pages is not
known any more).
"""

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from gateway.core.errors import ConfigError, StorageBroken, StorageFull, StoreError

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]

MAX_BATCH = 256  # jobs in one commit
MAX_WAITING = 20_000  # jobs that may wait; more is a fault of the caller's flow control
BUSY_TIMEOUT_MS = 30_000


def connect(path: Path, *, durable: bool = True) -> sqlite3.Connection:
    """A connection in autocommit mode, WAL, with the pragmas all stores share. Only after fork, never across it."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute("PRAGMA journal_size_limit=67108864")
    return connection


def prepare(path: Path, migrations: Sequence[str]) -> None:
    """Create or migrate the database at `path`: migrations[n] leads from schema version n to n+1.

    Raises ConfigError for a database of a newer version: an older program must not touch it.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    is_new = not path.exists()
    try:
        # The lock before the first connection: while one process turns a new file to WAL, SQLite answers another's
        # wish for the same with "database is locked" at once, whatever the time-out.
        with _flock(path), closing(connect(path)) as connection:
            path.chmod(0o600)
            _migrate(connection, path.name, migrations)
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path.name}: {error}") from error
    if is_new:
        sync_directory(path.parent)


def _migrate(connection: sqlite3.Connection, name: str, migrations: Sequence[str]) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(migrations):
        raise ConfigError(
            f"{name} has schema version {version}, this program knows {len(migrations)}: "
            "it was written by a newer Smarthost"
        )
    for number in range(version, len(migrations)):
        connection.executescript(f"BEGIN IMMEDIATE; {migrations[number]}; PRAGMA user_version={number + 1}; COMMIT;")


def write_once(path: Path, job: Job[T]) -> T:
    """A writer for the moment: for the command line's changes."""
    writer = Writer(path)
    try:
        return writer.call(job)
    finally:
        writer.stop()


def change_once(path: Path, sql: str, values: Sequence[object]) -> bool:
    """Has the statement changed anything?"""
    return write_once(path, lambda connection: connection.execute(sql, values).rowcount) > 0


def sync_directory(path: Path) -> None:
    """Raises StorageBroken: after a failed sync nothing is known."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise StorageBroken(f"{path.name}: {error.strerror}") from error
    finally:
        os.close(descriptor)


class _flock:  # reads as the call it is
    """The lock among writing processes; the kernel frees it when its holder dies."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


class Writer:
    """One thread, one connection, many jobs a commit. Submit from any thread; await from asyncio."""

    def __init__(self, path: Path, *, durable: bool = True, on_broken: Callable[[], None] | None = None) -> None:
        self.path = path
        self._durable = durable
        self._on_broken = on_broken
        self._jobs: deque[tuple[Job[Any], Future[Any]]] = deque()
        self._ready = threading.Condition()
        self._stopping = False
        self._broken: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"writer {path.name}", daemon=True)
        self._thread.start()

    def submit(self, job: Job[T]) -> "Future[T]":
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # from here on it cannot be cancelled: the job will be done
        with self._ready:
            if self._broken is not None:
                raise StorageBroken(str(self._broken))
            if self._stopping or len(self._jobs) >= MAX_WAITING:
                raise StoreError(f"{self.path.name}: writer is {'stopping' if self._stopping else 'overrun'}")
            self._jobs.append((job, future))
            self._ready.notify()
        return future

    async def run(self, job: Job[T]) -> T:
        """The job's result once its commit is on disk. Cancelling the wait does not undo the job."""
        return await asyncio.wrap_future(self.submit(job))

    def call(self, job: Job[T]) -> T:
        return self.submit(job).result()

    def stop(self) -> None:
        """Finish what waits, then close."""
        with self._ready:
            self._stopping = True
            self._ready.notify()
        self._thread.join()

    def _run(self) -> None:
        connection = connect(self.path, durable=self._durable)
        lock_descriptor = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        batch: list[tuple[Job[Any], Future[Any]]] = []
        try:
            while self._wait_for_jobs() and self._broken is None:
                self._commit(connection, lock_descriptor, batch)
                batch.clear()
        except BaseException as error:
            self._give_up(StorageBroken(f"writer: {error}"), batch)
        finally:
            connection.close()
            os.close(lock_descriptor)

    def _wait_for_jobs(self) -> bool:
        with self._ready:
            while not self._jobs and not self._stopping and self._broken is None:
                self._ready.wait()
            return bool(self._jobs)

    def _commit(self, connection: sqlite3.Connection, lock: int, batch: list[tuple[Job[Any], Future[Any]]]) -> None:
        """All that waits once the lock is had: what came while another process held it joins this commit."""
        done: list[tuple[Future[Any], Any]] = []
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            while self._jobs and len(batch) < MAX_BATCH:
                batch.append(self._jobs.popleft())
            connection.execute("BEGIN IMMEDIATE")
            if len(batch) == 1:
                done.append((batch[0][1], batch[0][0](connection)))
            else:
                for job, future in batch:
                    self._run_job(connection, job, future, done)
            connection.execute("COMMIT")
        except Exception as error:
            self._failed(connection, error, batch)
            return
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
        for future, result in done:
            future.set_result(result)

    @staticmethod
    def _run_job(
        connection: sqlite3.Connection, job: Job[Any], future: "Future[Any]", done: list[tuple["Future[Any]", Any]]
    ) -> None:
        connection.execute("SAVEPOINT job")
        try:
            result = job(connection)
        except Exception as error:
            if not connection.in_transaction:
                raise  # SQLite gave up the whole transaction (a full disk)
            connection.execute("ROLLBACK TO job")
            future.set_exception(translate(error))
        else:
            done.append((future, result))
        connection.execute("RELEASE job")

    def _failed(
        self, connection: sqlite3.Connection, error: Exception, batch: list[tuple[Job[Any], Future[Any]]]
    ) -> None:
        """The commit (its begin, or the only job) did not succeed, so no job of the batch did."""
        translated = translate(error)
        if connection.in_transaction:
            connection.rollback()
        if isinstance(translated, StorageBroken):
            self._give_up(translated, batch)
        for _, future in batch:
            if not future.done():
                future.set_exception(translated)

    def _give_up(self, error: StorageBroken, batch: list[tuple[Job[Any], Future[Any]]]) -> None:
        with self._ready:
            self._broken = error
            waiting = [*batch, *self._jobs]
            self._jobs.clear()
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)
        if self._on_broken is not None:
            self._on_broken()


def translate(error: Exception) -> Exception:
    """SQLite's error as one of ours; any other as it is."""
    if not isinstance(error, sqlite3.Error):
        return error
    code = getattr(error, "sqlite_errorcode", None)
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE):
        return StorageFull(str(error))
    if code is not None and code & 0xFF == sqlite3.SQLITE_IOERR:
        # Linux gives ENOSPC of a write as SQLITE_FULL; a plain I/O error may be a sync that failed.
        return StorageBroken(str(error))
    return StoreError(str(error))


class Database:
    """A reader beside the writers and a writer, each opened when it is first needed. Any thread may ask."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Writer | None = None
        self._reader: sqlite3.Connection | None = None
        self._reading = threading.Lock()
        self._starting = threading.Lock()

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """One query at a time."""
        with self._reading:
            if self._reader is None:
                self._reader = connect(self._path)
            return query(self._reader)

    def change(self, job: Job[T]) -> T:
        with self._starting:
            if self._writer is None:
                self._writer = Writer(self._path)
        return self._writer.call(job)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.stop()
        with self._reading:
            if self._reader is not None:
                self._reader.close()
                self._reader = None
