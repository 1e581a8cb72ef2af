"""Programs that ask whatever name server /etc/resolv.conf names, and only at port 53: here they ask that of a test.

The server listens at port 53 of a loopback address drawn by lot, and the program sees a resolv.conf of its own, in a
mount namespace that ends with it. The system's own file stays as it is, for everybody else and at every moment.
"""

import os
import random
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from gateway.demo.nameserver import NameServer
from tests.support.process import find_command, missing, run

_random = random.SystemRandom()


@cache
def resolving_missing() -> str | None:
    """Why a program cannot be given a resolv.conf here, or None."""
    reason = missing("unshare", "mount", root=True)
    if reason is None and run([find_command("unshare") or "", "--mount", "true"]).code:
        reason = "no mount namespaces here"
    return reason


def name_server(records: Iterable[str]) -> NameServer:
    """Not started yet."""
    host = f"127.{_random.randint(1, 254)}.{_random.randint(0, 255)}.{_random.randint(1, 254)}"
    return NameServer(records, host=host, port=53)


def asking(dns: NameServer, folder: Path, argv: Sequence[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """The command that runs `argv` so. folder: for its resolv.conf. The process stays the same all the way."""
    own = folder / "resolv.conf"
    own.write_text(f"nameserver {dns.host}\noptions timeout:2 attempts:2\n")
    own.chmod(0o644)  # the program may have given up root when it reads it
    mount = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    return [find_command("unshare") or "", "--mount", "sh", "-c", mount, own, *argv]
