"""Courier's IMAP server, unpacked by tests/install-peers: a session that is signed in already, over pipes; needs root,
and gives it away.
"""

import os
import pwd
import subprocess
from pathlib import Path

from tests.support.peers import peers_cache

OWNER = "nobody"


def _folder() -> Path:
    return peers_cache() / "courier"


def courier_missing() -> str | None:
    """Why it cannot run here."""
    if os.geteuid() != 0:
        return "needs root"
    if not (_folder() / "usr/bin/imapd").exists():
        return "not unpacked: courier-imap"
    return None


def said_by_courier(maildir: Path, *commands: str) -> str:
    """All that it answers to the commands, each of which it has to grant."""
    libraries = sorted({str(path.parent) for path in _folder().rglob("*.so*")})
    owner = pwd.getpwnam(OWNER)
    environment = {
        "LD_LIBRARY_PATH": ":".join(libraries), "IMAPLOGINTAG": "a", "AUTHENTICATED": OWNER, "PROTOCOL": "IMAP",
        "TCPREMOTEIP": "127.0.0.1", "TCPREMOTEPORT": "1", "TCPLOCALIP": "127.0.0.1",
    }  # fmt: skip
    lines = [f"t{number} {command}\r\n" for number, command in enumerate([*commands, "LOGOUT"])]
    done = subprocess.run(
        [_folder() / "usr/bin/imapd", "Maildir"], input="".join(lines), capture_output=True, text=True, timeout=30,
        cwd=maildir.parent, env=environment, user=owner.pw_uid, group=owner.pw_gid, extra_groups=[],
    )  # fmt: skip
    for number in range(len(lines)):
        assert f"t{number} OK" in done.stdout, done.stdout + done.stderr
    return done.stdout
