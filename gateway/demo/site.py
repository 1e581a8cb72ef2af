"""The demo's little internet: a gateway for example.org, another that plays remote.example, and their DNS."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from gateway.accounts.credentials import hash_password
from gateway.core.errors import SmarthostError
from gateway.defaults import default_policies, write_certificate
from gateway.demo.nameserver import NameServer
from gateway.dns.zone import quoted
from gateway.senderauth.signing import SigningKey, new_private_key
from gateway.storage.sqlite_accounts import SqliteAccounts
from gateway.storage.sqlite_dkim import KeyState, SqliteDkimKeys

LISTENERS = ("smtp", "submission", "submissions", "pop3", "pop3s", "imaps", "web", "metrics")
START_S = 30.0
MAILING_LIST = "friends@remote.example"
_LIST_POLICY = f"""\
stage: message
rules:
  - note: the list tags what it hands on
    when: recipient.address == "{MAILING_LIST}"
    do: {{tag_subject: "[friends]"}}
"""
SIZE_LIMIT = "1MB"


@dataclass
class Site:
    """One gateway in a folder of its own. Ports are loopback and below 32768."""

    name: str
    domain: str
    users: dict[str, str]  # address to password
    folder: Path
    source: str  # the loopback address that it sends from
    aliases: dict[str, str] = field(default_factory=dict)
    policies: dict[str, str] = field(default_factory=dict)  # files to add to the shipped ones
    ports: dict[str, int] = field(default_factory=dict)
    key: SigningKey = field(init=False)
    process: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        self.key = SigningKey(self.domain, "demo", new_private_key("rsa"))

    @property
    def config(self) -> Path:
        return self.folder / "smarthost.toml"

    @property
    def hostname(self) -> str:
        return f"mail.{self.domain}"

    def prepare(self, dns: str, remote_port: int) -> None:
        self.folder.mkdir(mode=0o755)
        shutil.copytree(default_policies(), self.folder / "policies")
        for name, text in self.policies.items():
            (self.folder / "policies" / name).write_text(text, encoding="utf-8")
        write_certificate(self.folder / "tls", self.hostname)
        listen = "\n".join(
            f'{name} = "127.0.0.1:{port}"' if name == "metrics" else f'{name} = ["127.0.0.1:{port}"]'
            for name, port in self.ports.items()
        )
        self.config.write_text(
            f'[gateway]\nhostname = "{self.hostname}"\nuser = "{_service_user()}"\nworkers = 2\n'
            f"[listen]\n{listen}\n"
            '[networks]\ntrusted = ["127.0.0.1/32"]\n'
            f'[limits]\nsize = "{SIZE_LIMIT}"\n'
            f'[delivery]\nport = {remote_port}\nallow_private = true\nsource = ["{self.source}"]\n'
            f'[web]\nurl = "http://127.0.0.1:{self.ports["web"]}"\ntls = false\n'
            # What is kept is told at once where `smarthost quarantine digest` asks for it.
            '[quarantine]\ndigest = ""\n'
            f'[dns]\nservers = ["{dns}"]\n'
            f'[domains."{self.domain}"]\n',
            encoding="utf-8",
        )
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        accounts = SqliteAccounts(data / "accounts.db")
        for address, password in self.users.items():
            accounts.add(address, hash_password(password))
        for address, target in self.aliases.items():
            accounts.set_alias(address, (target,))
        accounts.close()
        keys = SqliteDkimKeys(data / "accounts.db")
        keys.add(self.key)
        keys.set_states([(self.key, KeyState.ACTIVE)])
        keys.close()

    def start(self) -> None:
        with (self.folder / "gateway.log").open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603  # our own program
                [sys.executable, "-m", "gateway", "run", "-c", str(self.config)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SmarthostError(f"{self.name} did not start:\n{(self.folder / 'gateway.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}/readyz", timeout=5):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=40)
            self.process = None


class Internet:
    """Both sites and their name server; a context manager that leaves nothing behind."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="smarthost-demo-"))
        self._folder.chmod(0o755)
        ports = iter(free_ports(2 * len(LISTENERS)))
        password = secrets.token_urlsafe(9)
        here = {"alice@example.org": password, "bob@example.org": password}
        self.home = Site(
            "the gateway", "example.org", here, self._folder / "gateway", "127.0.0.1",
            policies={"lists/trusted_sealers.domains": "remote.example\n"},
        )  # fmt: skip
        self.remote = Site(
            "the remote side", "remote.example", {"carol@remote.example": password}, self._folder / "remote",
            "127.0.0.8", {MAILING_LIST: "bob@example.org"}, {"55-list.yaml": _LIST_POLICY},
        )  # fmt: skip
        self.bank = SigningKey("bank.example", "demo", new_private_key("rsa"))
        for site in (self.home, self.remote):
            site.ports = {name: next(ports) for name in LISTENERS}
        self.dns = NameServer(
            [
                "remote.example MX 10 mail.remote.example.",
                'remote.example TXT "v=spf1 ip4:127.0.0.8 -all"',
                "mail.remote.example A 127.0.0.1",
                "out.remote.example A 127.0.0.8",
                "8.0.0.127.in-addr.arpa PTR out.remote.example.",
                *(_key_record(key) for key in (self.home.key, self.remote.key, self.bank)),
                "bank.example MX 10 client.elsewhere.example.",
                '_dmarc.bank.example TXT "v=DMARC1; p=reject"',
                "example.org MX 10 mail.example.org.",
                "mail.example.org A 127.0.0.1",
                "elsewhere.example MX 10 client.elsewhere.example.",
                "client.elsewhere.example A 127.0.0.9",
                "9.0.0.127.in-addr.arpa PTR client.elsewhere.example.",
                # The DNS lists of the shipped policy, with nothing but the points that say that they work.
                "2.0.0.127.zen.spamhaus.org A 127.0.0.2",
                "2.0.0.127.bl.spamcop.net A 127.0.0.2",
                "2.0.0.127.list.dnswl.org A 127.0.10.0",
            ]
        )

    def __enter__(self) -> "Internet":
        self.dns.start()
        try:
            self.home.prepare(self.dns.address, self.remote.ports["smtp"])
            self.remote.prepare(self.dns.address, self.home.ports["smtp"])
            self.home.start()
            self.remote.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for site in (self.home, self.remote):
            site.stop()
        self.dns.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _key_record(key: SigningKey) -> str:
    return f"{key.name} TXT {quoted(key.record)}"


def free_ports(count: int) -> list[int]:
    """Loopback ports below the ephemeral range that nobody listens on."""
    found: set[int] = set()
    while len(found) < count:
        port = 10_000 + secrets.randbelow(22_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.add(port)
    return sorted(found)


def _service_user() -> str:
    """As root the demo drops to nobody, where nobody can read this installation."""
    if os.geteuid() != 0:
        return "unused"
    folders = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).resolve()]
    readable = all(parent.stat().st_mode & 0o001 for path in folders for parent in path.parents)
    return "nobody" if readable else "root"
