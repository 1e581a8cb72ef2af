"""Starting, watching and ending other programs in tests: ports, deadlines, daemons and one-shot commands.

Nothing here sleeps for a fixed time: whatever is waited for is polled against a deadline, and a deadline that
passes says what was waited for. Programs are ended by the process id (or the session) that this module started.
"""

import contextlib
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
_FIRST_PORT, _LAST_PORT = 10_000, 32_000
_SHARES = (
    4  # processes of one test run have ports of their own: between the choice and the bind nobody else may have it
)
_SHARE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
_SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")

_handed_out: set[int] = set()
_random = random.SystemRandom()  # tests that seed `random` must not make two runs choose the same ports


class DeadlineError(AssertionError):
    """Something that a test waited for did not happen in time."""


class StartError(AssertionError):
    """A program did not start, or ended before it was ready."""


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """One that an unprivileged process can reach (pytest's own is closed to others), removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="smarthost-test-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has run to its end."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    def expect(self, code: int = 0) -> Self:
        """Return itself when the command ended with this code, else fail and show what it printed."""
        if self.code != code:
            raise AssertionError(
                f"{self.argv[0]} ended with {self.code}, expected {code}\n"
                f"--- stdout\n{self.stdout[-4000:]}\n--- stderr\n{self.stderr[-4000:]}"
            )
        return self


def free_port() -> int:
    """Return a port of the loopback address that is free for TCP and UDP and was not returned before."""
    for _ in range(1000):
        port = _random.randrange(_FIRST_PORT + _SHARE, _LAST_PORT, _SHARES)
        if port not in _handed_out and _is_free(port):
            _handed_out.add(port)
            return port
    raise RuntimeError("no free port found in a thousand tries")


def _is_free(port: int) -> bool:
    """Tell whether both a TCP and a UDP socket can be bound to the port."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
    ):
        try:
            stream.bind((LOOPBACK, port))
            datagram.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def wait_until(predicate: Callable[[], T], timeout: float, what: str, *, interval: float = 0.02) -> T:
    """Call the predicate until its answer is true and return that answer; fail when the time is over.

    The predicate is always asked once more after the deadline, so a busy machine does not fail by a hair.
    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= deadline
        answer = predicate()
        if answer:
            return answer
        if late:
            raise DeadlineError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(interval)


def port_answers(host: str, port: int) -> bool:
    """Tell whether a TCP connection to the port is accepted now."""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def wait_port(host: str, port: int, timeout: float = 10.0) -> None:
    """Wait until a TCP connection to the port is accepted."""
    wait_until(lambda: port_answers(host, port), timeout, f"a listener on {host}:{port}")


def find_command(name: str) -> str | None:
    """Return the path of a command, looking also where system commands live, or None."""
    places = [*os.environ.get("PATH", os.defpath).split(os.pathsep), *_SYSTEM_FOLDERS]
    return shutil.which(name, path=os.pathsep.join(places))


def missing(*commands: str, root: bool = False) -> str | None:
    """Return why a test that needs these commands (and perhaps root) must be skipped, or None when it can run."""
    if root and os.geteuid() != 0:
        return "needs root"
    absent = [name for name in commands if find_command(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (run tests/install-peers as root)"
    return None


def tail(path: Path, lines: int = 40) -> str:
    """Return the last lines of a log file; an empty text when there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    data: bytes = b"",
    timeout: float = 30.0,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Finished:
    """Run a command with this standard input to its end, and end its whole session when the time is over."""
    words = tuple(os.fspath(word) for word in argv)
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=None if env is None else dict(env),
        cwd=cwd,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(data, timeout=timeout)
        except BaseException as error:
            _kill_session(process.pid)
            out, err = process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                shown = (out + err).decode("utf-8", "replace")[-4000:]
                raise DeadlineError(f"{words[0]} did not end within {timeout:g} s; it printed:\n{shown}") from None
            raise
    return Finished(words, process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


class Daemon:
    """A program that runs beside a test, in a session of its own, with its output appended to a log file.

    `ready` (or `ready_port`) says when it is up. `stop` asks it to end by SIGTERM and uses SIGKILL after a
    deadline. A stopped daemon can be started again. As a context manager it starts and stops itself.
    """

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        ready: Callable[[], object] | None = None,
        ready_port: tuple[str, int] | None = None,
        start_timeout: float = 20.0,
        stop_timeout: float = 10.0,
    ) -> None:
        """Note how to start the program; `env` replaces the whole environment, `user` needs root."""
        self.argv = tuple(os.fspath(word) for word in argv)
        self.log = log
        self._env = None if env is None else dict(env)
        self._cwd = cwd
        self._user = user
        self._ready = ready
        self._ready_port = ready_port
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running (or last) program."""
        if self._process is None:
            raise RuntimeError(f"{self.argv[0]} was never started")
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The code it ended with (minus the signal's number when a signal ended it); None while it runs."""
        return None if self._process is None else self._process.poll()

    def running(self) -> bool:
        """Tell whether the program was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the program and wait until it is ready; on failure end it and show the tail of its log."""
        if self.running():
            raise RuntimeError(f"{self.argv[0]} runs already")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        account = pwd.getpwnam(self._user) if self._user is not None else None
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
                user=None if account is None else account.pw_uid,
                group=None if account is None else account.pw_gid,
                extra_groups=None if account is None else [],
            )
        try:
            wait_until(self._up_or_over, self._start_timeout, "it to be ready")
            if not self.running():
                raise StartError(f"it ended with {self.returncode}")
        except BaseException as error:
            self.kill()
            if isinstance(error, AssertionError):
                raise StartError(f"{' '.join(self.argv)}: {error}; its log ends with:\n{tail(self.log)}") from None
            raise
        return self

    def _up_or_over(self) -> bool:
        """Tell whether there is nothing more to wait for: the program has ended, or it is ready."""
        if not self.running():
            return True
        if self._ready_port is not None and not port_answers(*self._ready_port):
            return False
        return self._ready is None or bool(self._ready())

    def signal(self, number: int) -> None:
        """Send a signal to the program."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, timeout: float = 10.0) -> int:
        """Wait until the program has ended by itself and return its code."""
        if self._process is None:
            raise RuntimeError(f"{self.argv[0]} was never started")
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise DeadlineError(f"{self.argv[0]} did not end within {timeout:g} s") from None

    def stop(self, timeout: float | None = None) -> int | None:
        """End the program by SIGTERM, after the deadline by SIGKILL; return its code, None if never started."""
        if self._process is None:
            return None
        if self.running():
            self._process.terminate()
            try:
                self._process.wait(self._stop_timeout if timeout is None else timeout)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.returncode

    def kill(self) -> int | None:
        """End the program and its whole session at once by SIGKILL, as a crash would."""
        if self._process is None:
            return None
        if self.running():
            _kill_session(self._process.pid)
        return self._process.wait()

    def session_is_empty(self) -> bool:
        """Tell whether no process of the program's session is alive, its children included.

        A dead one that nobody has waited for yet does not count: its adoptive parent may take seconds for that.
        """
        if self._process is None:
            return True
        if self.running():
            return False
        session = str(self._process.pid).encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    # The fields after the name, which may hold anything: state, parent, group, session.
                    fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                    if fields[0] not in (b"Z", b"X") and session in (fields[2], fields[3]):
                        return False
        return True

    def log_text(self) -> str:
        """Return all that the program has printed so far."""
        return tail(self.log, lines=10**9)

    def __enter__(self) -> Self:
        """Start the program."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the program."""
        self.stop()


def _kill_session(pid: int) -> None:
    """Send SIGKILL to the process group that a process started here leads."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
