"""A private Dovecot 2.3 in a temporary folder, on loopback ports, started and stopped by process id; needs root.

As Debian ships it (one process for each sign-in and each session, Maildir, mmap indexes) but for the limits on
connections and memory, which would end the benchmark. Every name with the password signs in; mail belongs to `nobody`.
"""

import contextlib
import os
import pwd
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.messages import date_of, is_seen, message
from tests.support.process import Daemon, find_command, free_port, port_answers

PASSWORD = "secret"
USER = "nobody"

_CONFIG = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
protocols = imap lmtp
listen = 127.0.0.1
ssl = required
ssl_cert = <{tls}/cert.pem
ssl_key = <{tls}/key.pem
auth_mechanisms = plain
mail_location = maildir:~/Maildir
mail_fsync = {fsync}
first_valid_uid = 1
mail_max_userip_connections = 5000
default_vsz_limit = 4G
default_process_limit = 3000
default_client_limit = 6000
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/mail/%u allow_all_users=yes
}}
namespace inbox {{
  inbox = yes
  separator = /
{mailboxes}
}}
service imap-login {{
  service_count = {service_count}
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
protocol lmtp {{
  postmaster_address = postmaster@example.org
}}
"""


class Dovecot:
    """tls: the folder of cert.pem and key.pem; fsync: `mail_fsync`; shares_logins: one process signs in many."""

    def __init__(self, folder: Path, tls: Path, *, fsync: str = "optimized", shares_logins: bool = False) -> None:
        self.folder = folder
        self.imaps, self.lmtp = free_port(), free_port()
        self._tls = tls
        self.fsync = fsync
        self.shares_logins = shares_logins
        self._owner = pwd.getpwnam(USER)
        self._daemon: Daemon | None = None
        for name in ("run", "state", "mail"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._give(folder / "mail")

    def start(self) -> "Dovecot":
        uses = ("Archive", "Drafts", "Junk", "Sent", "Trash")
        boxes = [f"  mailbox {name} {{\n    auto = create\n    special_use = \\{name}\n  }}" for name in uses]
        config = self.folder / "dovecot.conf"
        config.write_text(
            _CONFIG.format(
                folder=self.folder,
                tls=self._tls,
                fsync=self.fsync,
                password=PASSWORD,
                uid=self._owner.pw_uid,
                gid=self._owner.pw_gid,
                mailboxes="\n".join(boxes),
                service_count=0 if self.shares_logins else 1,
                imaps=self.imaps,
                lmtp=self.lmtp,
            )
        )
        self._daemon = Daemon(
            [find_command("dovecot") or "dovecot", "-F", "-c", config],
            log=self.folder / "output.log",
            ready=lambda: port_answers("127.0.0.1", self.imaps) and port_answers("127.0.0.1", self.lmtp),
        )
        self._daemon.start()
        return self

    def stop(self) -> None:
        if self._daemon is not None:
            self._daemon.stop()
            self._daemon = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The master's."""
        assert self._daemon is not None
        assert self._daemon.pid is not None
        return self._daemon.pid

    def maildir(self, account: str) -> Path:
        return self.folder / "mail" / account / "Maildir"

    def fill(self, account: str, first: int, end: int) -> None:
        """Files as its own delivery writes them: LF line ends, sizes in the names, the internal date as their time."""
        folder = self.maildir(account)
        for name in ("tmp", "new", "cur"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        host = socket.gethostname()
        for number in range(first, end):
            octets, at = message(number), int(date_of(number).timestamp())
            short = octets.replace(b"\r\n", b"\n")
            flags = "S" if is_seen(number) else ""
            path = folder / "cur" / f"{at}.M{number % 1_000_000}P1.{host},S={len(short)},W={len(octets)}:2,{flags}"
            path.write_bytes(short)
            os.utime(path, (at, at))
            os.chown(path, self._owner.pw_uid, self._owner.pw_gid)
        for path in (folder.parent, folder, *(folder / name for name in ("tmp", "new", "cur"))):
            self._give(path)

    def forget_index(self, account: str) -> None:
        """No index, no cache of headers: what there is are files and their UIDs. Nobody may have the mailbox open."""
        time.sleep(0.2)  # the last session's process ends
        for path in self.maildir(account).glob("dovecot.index*"):
            path.unlink(missing_ok=True)

    def log(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "dovecot.log").read_text(errors="replace")
        return ""

    def _give(self, path: Path) -> None:
        os.chown(path, self._owner.pw_uid, self._owner.pw_gid)
