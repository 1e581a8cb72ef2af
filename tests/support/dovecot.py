"""A private Dovecot in a temporary folder: IMAP over TLS, and LMTP on a socket in the file system; needs root."""

import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.defaults import write_certificate
from tests.support.process import Daemon, find_command, free_port, port_answers

PASSWORD = "dovecot secret"
OWNER = "nobody"
_CONFIG = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
protocols = imap lmtp
listen = 127.0.0.1
ssl = required
ssl_cert = <{folder}/tls/cert.pem
ssl_key = <{folder}/tls/key.pem
mail_location = maildir:~/Maildir
first_valid_uid = 1
default_vsz_limit = 4G
default_internal_user = {owner}
default_login_user = {owner}
recipient_delimiter = +
quota_full_tempfail = yes
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = passwd-file
  args = {folder}/users
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    port = {port}
    ssl = yes
  }}
}}
service lmtp {{
  unix_listener lmtp {{
    mode = 0666
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
plugin {{
  quota = maildir:User quota
  quota_rule = *:storage=1G
}}
protocol lmtp {{
  postmaster_address = postmaster@example.org
  mail_plugins = quota
}}
"""


def dovecot_missing() -> str | None:
    """Why it cannot run here."""
    if os.geteuid() != 0:
        return "needs root"
    if find_command("dovecot") is None or not Path("/usr/lib/dovecot/lmtp").exists():
        return "not installed: dovecot-imapd, dovecot-lmtpd"
    return None


class Dovecot:
    """homes: of its users, which have `Maildir`; quotas: of some of them, "1K"."""

    def __init__(self, folder: Path, homes: Mapping[str, Path], quotas: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.socket = folder / "run" / "lmtp"
        owner = pwd.getpwnam(OWNER)
        for name in ("run", "state"):
            (folder / name).mkdir(parents=True)
        write_certificate(folder / "tls", "localhost")
        for home in homes.values():
            home.mkdir(parents=True, exist_ok=True)
            os.chown(home, owner.pw_uid, owner.pw_gid)
        lines = []
        for user, home in homes.items():
            quota = (quotas or {}).get(user)
            extra = f"userdb_quota_rule=*:bytes={quota}" if quota else ""
            lines.append(f"{user}:{{PLAIN}}{PASSWORD}:{owner.pw_uid}:{owner.pw_gid}::{home}::{extra}\n")
        (folder / "users").write_text("".join(lines))
        config = folder / "dovecot.conf"
        config.write_text(_CONFIG.format(folder=folder, owner=OWNER, port=self.port))
        self._daemon = Daemon(
            [find_command("dovecot") or "dovecot", "-F", "-c", config],
            log=folder / "output.log",
            ready=lambda: port_answers("127.0.0.1", self.port) and self.socket.exists(),
        )

    def start(self) -> Self:
        self._daemon.start()
        return self

    def stop(self) -> None:
        self._daemon.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def log(self) -> str:
        path = self.folder / "dovecot.log"
        return path.read_text(errors="replace") if path.exists() else ""
