"""The supervisor: starts the roles as child processes, restarts those that die, passes signals on.

It parses no network input. Started as root it keeps root only for itself; children drop to `[gateway] user` before
anything else. Children see the supervisor's death by the end of a pipe, so none outlives it.
"""

import errno
import fcntl
import gc
import grp
import os
import pwd
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.core.errors import ConfigError
from gateway.telemetry import log

DRAIN_S = 30.0
BACKOFF_S = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
HELPER_BACKOFF_S = 0.5
STEADY_S = 10.0  # a child that lived so long starts the backoff anew
TICK_S = 1.0
STOPPED_S = 10.0  # a child stopped by a signal so long is ended: it may hold a lock that the others wait for
LOCK_WAIT_S = 3.0  # children of a killed supervisor need a moment to let go

_SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_log = log.get("supervisor")


@dataclass(frozen=True, slots=True)
class Role:
    """name: "smtp-0"; slot: its column in shared counters; main: runs in the child until it should end; is_helper: the
    others need it while they drain, so it ends after them.
    """

    name: str
    slot: int
    main: Callable[[int], None]  # is given the descriptor whose end means: the supervisor is gone
    is_helper: bool = False


@dataclass(slots=True)
class _Child:
    role: Role
    pid: int = 0
    started: float = 0.0
    failures: int = 0
    due: float = 0.0  # when to start it again
    stopped_since: float | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the children are. None: whoever started us."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def find_identity(user: str) -> Identity | None:
    """Root drops to `user`; anybody else stays who they are. Raises ConfigError for an unknown user."""
    if os.geteuid() != 0:
        return None
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise ConfigError(
            f"gateway.user: there is no user {user!r}; make one: adduser --system --group --no-create-home {user}"
        ) from None
    groups = tuple(group.gr_gid for group in grp.getgrall() if user in group.gr_mem)
    return Identity(found.pw_uid, found.pw_gid, (found.pw_gid, *groups))


def become(identity: Identity | None) -> None:
    if identity is not None:
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    os.umask(0o077)


def own_data(folder: Path, identity: Identity | None) -> None:
    """Make the data folder; what root made in it before (`init`) becomes the service's own."""
    for path in (folder, folder / "run", folder / "mail"):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if identity is None:
        return
    for path in (folder, *folder.iterdir()):
        if path.lstat().st_uid == 0:
            os.chown(path, identity.uid, identity.gid, follow_symlinks=False)


def lock_data(folder: Path, identity: Identity | None, *, wait_s: float = LOCK_WAIT_S) -> int:
    """Hold the data folder; children share the hold. Raises ConfigError when another gateway has it."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if identity is not None:
        os.fchown(descriptor, identity.uid, identity.gid)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            return descriptor
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise ConfigError(f"gateway.data: {folder} is in use by another running gateway") from None
            time.sleep(0.1)


def running_pid(folder: Path) -> int | None:
    """The supervisor that holds the data folder, or None."""
    try:
        with (folder / "lock").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read(20))
    except (OSError, ValueError):
        pass
    return None


class Supervisor:
    """on_death: told the slot of a child that ended; on_tick: called about once a second, True: reload; on_reload: at
    SIGHUP, before the children are told.
    """

    def __init__(
        self,
        roles: list[Role],
        identity: Identity | None,
        *,
        on_death: Callable[[int], None],
        on_tick: Callable[[], bool],
        on_reload: Callable[[], None],
    ) -> None:
        self._children = [_Child(role) for role in roles]
        self._identity = identity
        self._on_death = on_death
        self._on_tick = on_tick
        self._on_reload = on_reload
        self._alive_read, self._alive_write = os.pipe2(os.O_CLOEXEC)

    def run_once(self, main: Callable[[], None]) -> None:
        """Do something as the service's user in a child and wait for it. Raises ConfigError when it fails."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                become(self._identity)
                main()
                code = 0
            except ConfigError as error:
                print(f"smarthost: {error}", file=sys.stderr)
                code = 2
            except BaseException as error:
                print(f"smarthost: {type(error).__name__}: {error}", file=sys.stderr)
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        if status != 0:
            raise ConfigError("the gateway's data could not be written")

    def run(self) -> int:
        """Until SIGTERM or SIGINT; returns the exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        gc.collect()
        gc.freeze()  # what all children share stays shared: their collectors leave it alone
        for child in self._children:
            self._start(child)
        while True:
            received = signal.sigtimedwait(_SIGNALS, TICK_S if not self._next_start() else self._next_start())
            number = received.si_signo if received is not None else 0
            if number in (signal.SIGTERM, signal.SIGINT):
                return self._stop()
            if number == signal.SIGHUP or self._on_tick():
                self._on_reload()
                self._signal(signal.SIGHUP)
            self._reap()
            now = time.monotonic()
            for child in self._children:
                if not child.pid and child.due <= now:
                    self._start(child)
                self._end_stopped(child, now)

    def _next_start(self) -> float:
        waiting = [child.due for child in self._children if not child.pid]
        return min(TICK_S, max(0.01, min(waiting) - time.monotonic())) if waiting else 0.0

    def _start(self, child: _Child) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._be(child.role)
        child.pid, child.started = pid, time.monotonic()

    def _be(self, role: Role) -> None:
        """In the child: never returns."""
        code = 1
        try:
            os.close(self._alive_write)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            Path("/proc/self/comm").write_text(f"sh:{role.name}"[:15])  # before /proc closes to us with setuid
            become(self._identity)
            role.main(self._alive_read)
            code = 0
        except KeyboardInterrupt:
            code = 0
        except BaseException as error:
            _log.critical("role failed", role=role.name, exc_info=error)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _end_stopped(self, child: _Child, now: float) -> None:
        try:
            stat = Path(f"/proc/{child.pid}/stat").read_bytes() if child.pid else b""
        except OSError:
            stat = b""
        if stat.rpartition(b")")[2].split()[:1] != [b"T"]:
            child.stopped_since = None
        elif child.stopped_since is None:
            child.stopped_since = now
        elif now - child.stopped_since >= STOPPED_S:
            _log.error("role was stopped by a signal and is ended", role=child.role.name, after_s=STOPPED_S)
            os.kill(child.pid, signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._children:
                if child.pid == pid:
                    self._ended(child, status)

    def _ended(self, child: _Child, status: int) -> None:
        now = time.monotonic()
        code = os.waitstatus_to_exitcode(status)
        child.failures = 0 if code == 0 or now - child.started > STEADY_S else child.failures + 1
        backoff = BACKOFF_S[min(child.failures, len(BACKOFF_S)) - 1 if child.failures else 0]
        # What looks into messages dies of them, and is made anew in no time: a stranger must not keep it away for long.
        child.due = now + (min(backoff, HELPER_BACKOFF_S) if child.role.is_helper else backoff)
        child.pid, child.stopped_since = 0, None
        self._on_death(child.role.slot)
        tell = _log.info if code == 0 else _log.error
        tell("role ended", role=child.role.name, status=code, again_in=child.due - now)

    def _signal(self, number: int, helpers: tuple[bool, ...] = (False, True)) -> None:
        for child in self._children:
            if child.pid and child.role.is_helper in helpers:
                os.kill(child.pid, number)

    def _stop(self) -> int:
        """SIGTERM to all, helpers last, and SIGKILL to those that do not end in time."""
        deadline = time.monotonic() + DRAIN_S
        for is_helper in (False, True):
            self._signal(signal.SIGTERM, (is_helper,))
            while any(child.pid for child in self._children if child.role.is_helper is is_helper):
                left = deadline - time.monotonic()
                if left <= 0:
                    self._signal(signal.SIGKILL)
                    left = 1.0
                signal.sigtimedwait(_SIGNALS, min(left, TICK_S))
                self._forget_ended()
        return 0

    def _forget_ended(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pid = 0
                for child in self._children:
                    child.pid = 0
            if pid == 0:
                return
            for child in self._children:
                if child.pid == pid:
                    child.pid = 0
