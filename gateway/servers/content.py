"""The role that looks into messages: one request at a time, over a local socket, in a process whose end costs nothing.

What parses hostile octets (archives, documents, signatures) runs here and not where sessions live: a crash, a hang or a
flood of memory takes this process alone, its request ends without findings, and the supervisor starts it again.

A request is one packet: b"I" and the message, or b"F" with a descriptor of a file that holds it. The answer is one
packet of JSON, `checks.findings`. No answer: it could not be looked at.
"""

import errno
import os
import resource
import select
import signal
import socket
import struct
import time
from collections.abc import Callable

from gateway.checks.findings import to_json
from gateway.content.inspection import Scan, inspect_parts
from gateway.content.signatures import Signatures
from gateway.message.blob import INLINE_LIMIT
from gateway.message.mime import Part, walk
from gateway.spam.filter import SpamVerdict
from gateway.telemetry import log

Judge = Callable[[bytes, list[Part]], SpamVerdict]

INLINE, FILE = b"I", b"F"
MAX_REQUEST = INLINE_LIMIT + 1
MAX_MESSAGE = 512 * 1024 * 1024  # octets
MAX_ANSWER = 160 * 1024  # octets: what a packet surely carries
MAX_MEMORY = 1024 * 1024 * 1024  # octets of this process's data
MAX_SECONDS = 25  # for one message; what takes longer ends the process
BACKLOG = 1024
_SEND_S = 2.0
_COMPLAIN_EVERY_S = 60.0

_log = log.get("content")
_complained = float("-inf")


def listen() -> socket.socket:
    """Under a name of the kernel's choice, so that nothing lies about in the file system."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("")
    listener.listen(BACKLOG)
    listener.setblocking(False)  # several processes wait on it
    return listener


def serve(
    listener: socket.socket, alive: int, rules: Signatures, judge: Judge, is_outdated: Callable[[], bool]
) -> None:
    """Until the supervisor is gone, or until SIGHUP: then it ends, and is started again with the rules of then.

    is_outdated: has there been a reload since this process was forked?
    """
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hangup_read, hangup_write = os.pipe2(os.O_CLOEXEC)
    signal.signal(signal.SIGHUP, lambda number, frame: os.write(hangup_write, b"h"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who drain; this ends after them
    scan = rules.scanner()
    if is_outdated():
        return
    sources: list[socket.socket | int] = [listener, alive, hangup_read]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if alive in ready or hangup_read in ready:
            return
        try:
            peer, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            continue
        with peer:
            _answer(peer, scan, judge)


def _answer(peer: socket.socket, scan: Scan, judge: Judge) -> None:
    if not _is_ours(peer):
        return
    peer.settimeout(_SEND_S)
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)  # ends the process, whatever library it is in
    try:
        octets = _receive(peer)
        if octets is not None:
            peer.sendall(_packet(octets, scan, judge))
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ETIMEDOUT, None):
            raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _is_ours(peer: socket.socket) -> bool:
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return bool(uid == os.getuid())


def _receive(peer: socket.socket) -> bytes | None:
    request, descriptors, _, _ = socket.recv_fds(peer, MAX_REQUEST, 1)
    try:
        if request[:1] == INLINE:
            return request[1:]
        if request[:1] != FILE or not descriptors:
            return None
        with os.fdopen(os.dup(descriptors[0]), "rb") as file:
            return file.read(MAX_MESSAGE)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _packet(octets: bytes, scan: Scan, judge: Judge) -> bytes:
    """With so many names of members as fit. A spam filter that fails has no opinion; the rest is told all the same."""
    structure = walk(octets)
    findings = inspect_parts(octets, structure, scan)
    try:
        spam: SpamVerdict | None = judge(octets, structure.parts)
    except Exception as error:
        _complain(error)
        spam = None
    for told in (findings, findings.without_members(), findings.without_attachments()):
        packet = to_json(told, spam)
        if len(packet) <= MAX_ANSWER:
            break
    return packet


def _complain(error: Exception) -> None:
    """Now and then."""
    global _complained
    if time.monotonic() - _complained > _COMPLAIN_EVERY_S:
        _complained = time.monotonic()
        _log.warning("spam filter failed", exc_info=error)
