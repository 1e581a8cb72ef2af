"""A real gateway in a temporary folder: two SMTP workers, every role, loopback high ports, stopped by pid."""

import atexit
import functools
import json
import os
import re
import shutil
import signal
import smtplib
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from gateway.accounts.credentials import hash_password
from gateway.defaults import write_certificate
from gateway.demo.nameserver import NameServer
from gateway.storage.sqlite_accounts import SqliteAccounts
from tests.support.process import Daemon, Finished, free_port, run, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery"
HASH = hash_password(PASSWORD)
LISTENERS = ("smtp", "submission", "submissions", "pop3", "pop3s", "imap", "imaps")
STRANGER = "127.0.0.9"  # a loopback address outside of what tests call trusted


def shipped_content_policy() -> dict[str, str]:
    """The message stage of the shipped policy with its lists and signatures; DNS of strangers is left alone."""
    names = ("50-message.yaml", "lists/programs.words", "lists/trusted_sealers.domains", "yara/smarthost.yar")
    return {name: (REPOSITORY / "policies" / name).read_text(encoding="utf-8") for name in names}


class Gateway:
    """settings: TOML sections to add or replace: {"limits": {"size": "1MB"}}; `policies` replaces files by name;
    `files` are others, by their path in the folder.

    trusted is 127.0.0.1 only, so that another loopback source address is a stranger (see `STRANGER`). As root the
    gateway drops to `nobody`, in a folder of its own below /tmp, since pytest's are closed to others.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, Mapping[str, object]] | None = None,
        domains: Sequence[str] = ("example.org",),
        users: Sequence[str] = ("alice@example.org", "bob@example.org"),
        policies: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        roles: str = "",
        env: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.config = folder / "smarthost.toml"
        self.data = folder / "data"
        self.hostname = "gateway.test"
        self.ports = {name: free_port() for name in (*LISTENERS, "metrics")}
        self._roles = roles
        self._wrapper = list(wrapper)
        self._env = {**os.environ, **(env or {})}
        folder.mkdir(parents=True, exist_ok=True)
        # The shipped policy asks DNS of strangers, which is not what most tests are about.
        shutil.copytree(Path(__file__).parent / "plain_policies", folder / "policies", dirs_exist_ok=True)
        for name, text in (policies or {}).items():
            (folder / "policies" / name).parent.mkdir(exist_ok=True)
            (folder / "policies" / name).write_text(text, encoding="utf-8")
        for name, text in (files or {}).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        write_certificate(folder / "tls", self.hostname)
        self.config.write_text(self._toml(settings or {}, domains), encoding="utf-8")
        self.data.mkdir(exist_ok=True, mode=0o700)
        accounts = SqliteAccounts(self.data / "accounts.db")
        for user in users:
            accounts.add(user, HASH)
        accounts.close()
        if os.geteuid() == 0:
            self._open_to_nobody()
        self._daemon: Daemon | None = None
        self.log_path = folder / "gateway.log"

    def _open_to_nobody(self) -> None:
        for parent in (self.folder, *self.folder.parents):
            if parent == Path("/tmp"):
                break
            parent.chmod(parent.stat().st_mode | 0o011)

    def _toml(self, settings: Mapping[str, Mapping[str, object]], domains: Sequence[str]) -> str:
        sections: dict[str, dict[str, object]] = {
            "gateway": {"hostname": self.hostname, "user": "nobody", "workers": 2},
            "listen": {name: [f"127.0.0.1:{self.ports[name]}"] for name in LISTENERS}
            | {"metrics": f"127.0.0.1:{self.ports['metrics']}"},
            "networks": {"trusted": ["127.0.0.1/32"]},
            "limits": {"free_space": 0},
            "delivery": {"allow_private": True},
            "dns": {"servers": [quick_dns()]},
        }
        sections |= {f'domains."{domain}"': {} for domain in domains}
        for name, values in settings.items():
            sections.setdefault(name, {}).update(values)
        out = []
        for name, values in sections.items():
            out.append(f"[{name}]")
            out += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        return "\n".join(out) + "\n"

    # --- running --------------------------------------------------------------------------------------------------

    def start(self) -> "Gateway":
        argv = [*self._wrapper, sys.executable, "-m", "gateway", "run", "-c", str(self.config)]
        if self._roles:
            argv += ["--role", self._roles]
        self._daemon = Daemon(
            argv,
            log=self.log_path,
            env=self._env,
            cwd=REPOSITORY,
            ready=self.is_up,
            start_timeout=30.0,
            stop_timeout=35.0,
        )
        self._daemon.start()
        return self

    def is_up(self) -> bool:
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def stop(self) -> int | None:
        if self._daemon is None:
            return None
        code = self._daemon.stop()
        self._daemon = None
        return code

    def kill(self) -> None:
        """SIGKILL to the supervisor and all roles, as a power cut would."""
        if self._daemon is not None:
            for pid in (self.pid, *self.role_pids().values()):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._daemon.kill()
            self._daemon = None

    def __enter__(self) -> "Gateway":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self._daemon is not None
        pid = self._daemon.pid
        assert pid is not None
        if self._wrapper:
            return _children(pid)[0]
        return pid

    def role_pids(self) -> dict[str, int]:
        """Role name ("smtp-0", "queue-0", "store-0", "admin-0") to process id, of those alive now."""
        found = {}
        for pid in _children(self.pid):
            try:
                comm = Path(f"/proc/{pid}/comm").read_text().strip()
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if comm.startswith("sh:") and state != "Z":
                found[comm.removeprefix("sh:")] = pid
        return found

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    # --- talking to it --------------------------------------------------------------------------------------------

    def get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.ports['metrics']}{path}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of that name whose labels include these."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            match = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line)
            if match is None or match[1] != name:
                continue
            found = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
            if all(found.get(key) == value for key, value in labels.items()):
                total += float(match[3])
        return total

    def smtp(
        self, listener: str = "smtp", *, source: str = "127.0.0.1", user: str = "", helo: str = "client.test"
    ) -> smtplib.SMTP:
        """A connected client; for submission ports in TLS; signed in when a user is given."""
        context = ssl._create_unverified_context()
        port, address = self.ports[listener], (source, 0)
        client: smtplib.SMTP
        if listener == "submissions":
            client = smtplib.SMTP_SSL("127.0.0.1", port, helo, timeout=15, source_address=address, context=context)
        else:
            client = smtplib.SMTP("127.0.0.1", port, helo, timeout=15, source_address=address)
        if listener == "submission" or (user and listener == "smtp"):
            client.starttls(context=context)
        client.ehlo_or_helo_if_needed()
        if user:
            client.login(user, PASSWORD)
        return client

    def send(
        self, recipients: Sequence[str] | str, message: bytes, *, sender: str = "sender@elsewhere.test", **how: str
    ) -> dict[str, tuple[int, bytes]]:
        """Hand a message over; returns refused recipients as smtplib does."""
        client = self.smtp(**how)
        try:
            return client.sendmail(sender, recipients, message)
        finally:
            client.close()

    def cli(self, *arguments: str, data: bytes = b"") -> Finished:
        """`smarthost ARGUMENTS -c CONFIG`, as the user who runs the tests."""
        argv = [sys.executable, "-m", "gateway", *arguments, "-c", str(self.config)]
        return run(argv, data=data, timeout=60, cwd=REPOSITORY)

    # --- looking at what it did -----------------------------------------------------------------------------------

    def queue(self) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = json.loads(self.cli("queue", "list", "--json").expect().stdout)
        return rows

    def mails(self, user: str) -> list[bytes]:
        """The stored messages of a user, oldest first, as the files have them."""
        local, _, domain = user.partition("@")
        folder = self.data / "mail" / domain / local / "Maildir" / "cur"
        if not folder.is_dir():
            return []
        uid = re.compile(r",U=(\d+):")
        return [path.read_bytes() for path in sorted(folder.iterdir(), key=lambda path: int(uid.search(path.name)[1]))]  # type: ignore[index]

    def wait_mails(self, user: str, count: int, timeout: float = 20.0) -> list[bytes]:
        wait_until(lambda: len(self.mails(user)) >= count, timeout, f"{count} messages for {user}")
        return self.mails(user)


@functools.cache
def quick_dns(fault: str | None = None) -> str:
    """Of a name server that knows no name, or answers all with a fault, for gateways whose test has none of its own:
    nothing is asked outside.
    """
    server = NameServer()
    server.fault("*", fault)
    server.start()
    atexit.register(server.stop)
    return server.address


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        text = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in text.split()]


MESSAGE = b"From: sender@elsewhere.test\r\nTo: alice@example.org\r\nSubject: hello\r\n\r\nA line.\r\n"
