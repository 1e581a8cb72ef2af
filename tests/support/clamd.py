"""A real clamd with a signature file of one entry, and servers that answer as a broken one would."""

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from .process import LOOPBACK, Daemon, free_port, missing

EICAR = ("X5O!P%@AP[4\\PZX54(P^)7CC)7}" + "$EICAR-" + "STANDARD-ANTIVIRUS-TEST-FILE!" + "$H+H*").encode()
STREAM_LIMIT = 5 * 1024 * 1024  # octets


def clamd_missing() -> str | None:
    """Why a test with `Clamd` must be skipped, or None."""
    return missing("clamd")


class Clamd:
    """On a unix socket and a TCP port. As root it stays root: the folder is the test's own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="smarthost-clamd-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.port = free_port()
        self.socket = self.folder / "clamd.sock"
        database = self.folder / "db"
        database.mkdir()
        (database / "test.ndb").write_text(f"Eicar-Test-Signature:0:*:{EICAR.hex()}\n")
        (self.folder / "clamd.conf").write_text(
            f"DatabaseDirectory {database}\nLocalSocket {self.socket}\nLocalSocketMode 666\n"
            f"TCPSocket {self.port}\nTCPAddr {LOOPBACK}\nForeground yes\nStreamMaxLength {STREAM_LIMIT}\n"
            f"TemporaryDirectory {self.folder}\nMaxThreads 4\nAlertExceedsMax yes\nMaxScanSize {STREAM_LIMIT}\n"
        )
        self.daemon = Daemon(
            ["clamd", "--config-file", str(self.folder / "clamd.conf")],
            log=self.folder / "clamd.log",
            ready_port=(LOOPBACK, self.port),
            start_timeout=30.0,
        )

    @property
    def addresses(self) -> list[str]:
        return [f"unix:{self.socket}", f"tcp:{LOOPBACK}:{self.port}"]

    def __enter__(self) -> "Clamd":
        self.daemon.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that does this with each connection, in a thread of its own."""
    with socket.create_server((LOOPBACK, 0)) as server:
        server.settimeout(0.2)
        is_over = threading.Event()
        threads: list[threading.Thread] = []

        def serve() -> None:
            while not is_over.is_set():
                try:
                    peer, _ = server.accept()
                except TimeoutError:
                    continue
                thread = threading.Thread(target=one, args=(peer,))
                thread.start()
                threads.append(thread)

        def one(peer: socket.socket) -> None:
            with peer, contextlib.suppress(OSError):
                peer.settimeout(20)
                answer(peer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"tcp:{LOOPBACK}:{server.getsockname()[1]}"
        finally:
            is_over.set()
            for each in (thread, *threads):
                each.join()


def read_stream(peer: socket.socket) -> bytes:
    """A whole INSTREAM request: the octets of its stream."""
    file = peer.makefile("rb")
    command = b""
    while not command.endswith(b"\0"):
        command += file.read(1)
    assert command == b"zINSTREAM\0", command
    out = b""
    while size := int.from_bytes(file.read(4), "big"):
        out += file.read(size)
    return out
