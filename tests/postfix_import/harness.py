"""Ask real Postfix and an imported policy the same questions: one network namespace, one name server, both servers.

`prepare` copies a configuration of `configs/` to a folder of its own and lets its paths below /etc point there.
`import_policy` runs `smarthost policy import-postfix` on the copy. `compare` starts this module again in a network,
mount and process namespace, and returns what both servers answered to the same envelopes from the same addresses.
Nothing leaves the namespace, and when its first process ends the kernel ends all the others.

    python -m tests.postfix_import.harness NAME FOLDER     the inside of the namespace, in a prepared folder
"""

import contextlib
import ipaddress
import itertools
import json
import math
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gateway.demo.nameserver import NameServer
from gateway.storage.sqlite_accounts import SqliteAccounts
from tests.support import peers
from tests.support.gateway import REPOSITORY, Gateway
from tests.support.process import Daemon, Finished, missing, run

HERE = Path(__file__).resolve().parent
CONFIGS = HERE / "configs"
NAMES = tuple(sorted(folder.name for folder in CONFIGS.iterdir() if folder.is_dir()))
ENVELOPES = 200
POSTFIX_PORT, GATEWAY_PORT = 25, 2525
SENDERS = 16  # connections at once where a server lets newcomers wait before it greets
_NAMESPACE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_INDEXED = re.compile(r"\b(?:hash|lmdb|btree|cdb|dbm):(/[^\s,}]+)")
_FOLDERS = (
    "active",
    "bounce",
    "corrupt",
    "defer",
    "deferred",
    "flush",
    "hold",
    "incoming",
    "private",
    "saved",
    "trace",
)
_MASTER = """\
cleanup  unix n - n - 0 cleanup
rewrite  unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
anvil    unix - - n - 1 anvil
dnsblog  unix - - n - 0 dnsblog
tlsproxy unix - - n - 0 tlsproxy
tlsmgr   unix - - n 1000? 1 tlsmgr
postlog  unix-dgram n - n - 1 postlogd
"""
_SMTPD = "25 inet n - n - - smtpd\n"
_POSTSCREEN = "25 inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\n"


@dataclass(frozen=True, slots=True, order=True)
class Envelope:
    """What one client says; an empty helo is none at all, an empty sender is the null one."""

    client: str
    helo: str
    sender: str
    recipient: str

    def __str__(self) -> str:
        return f"{self.client} {self.helo or '(none)'} <{self.sender}> <{self.recipient}>"


@dataclass(frozen=True, slots=True)
class Answers:
    """The reply of both to RCPT, or the refusal before it that there was no way around."""

    envelope: Envelope
    postfix: str
    smarthost: str

    @property
    def differ(self) -> bool:
        """Is one a refusal, a deferral or an acceptance, and the other another?"""
        return self.postfix[:1] != self.smarthost[:1]

    def __str__(self) -> str:
        return f"{self.envelope}\n    postfix:   {self.postfix}\n    smarthost: {self.smarthost}"


def harness_missing() -> str | None:
    """Return why `compare` cannot run here, or None."""
    reason = peers.postfix_missing() or missing("unshare", "ip", "postmap", "postalias", "postconf")
    if reason is not None:
        return reason
    if "pcre" not in run(["postconf", "-m", "-c", CONFIGS / "08-satellite"]).stdout.split():
        return "Postfix has no PCRE maps (run tests/install-peers as root)"
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run([*_NAMESPACE, "true"], check=True, timeout=20, capture_output=True)
        return None
    return "no namespaces can be made here"


# --- envelopes --------------------------------------------------------------------------------------------------------


def envelopes(name: str, count: int = ENVELOPES) -> list[Envelope]:
    """The questions for a configuration, from its cases.toml; always the same ones.

    The first of each column is the ordinary case. First each other value stands alone among ordinary ones, then come
    the explicit ones, then pairs of columns that are both unordinary, spread evenly over all pairs.
    """
    cases = tomllib.loads((CONFIGS / name / "cases.toml").read_text(encoding="utf-8"))
    columns: list[list[str]] = [cases[key] for key in ("clients", "helos", "senders", "recipients")]
    ordinary = tuple(column[0] for column in columns)

    def variant(*changes: tuple[int, str]) -> Envelope:
        values = list(ordinary)
        for index, value in changes:
            values[index] = value
        return Envelope(*values)

    found = dict.fromkeys([Envelope(*ordinary)])
    found |= dict.fromkeys(variant((index, value)) for index in range(4) for value in columns[index][1:])
    found |= dict.fromkeys(Envelope(*row) for row in cases.get("explicit", []))
    kinds = []
    for left, right in ((0, 3), (2, 3), (0, 2), (0, 3), (1, 3), (0, 1), (1, 2)):
        pairs = [variant((left, a), (right, b)) for a in columns[left][1:] for b in columns[right][1:]]
        step = next(step for step in itertools.count(len(columns[right]) + 1) if math.gcd(step, len(pairs)) == 1)
        kinds.append([pairs[number * step % len(pairs)] for number in range(len(pairs))])
    for row in itertools.zip_longest(*kinds):
        found |= dict.fromkeys(envelope for envelope in row if envelope is not None)
    if len(found) < count:
        raise ValueError(f"{name}: cases.toml has only {len(found)} different envelopes")
    return list(found)[:count]


# --- outside of the namespace -----------------------------------------------------------------------------------------


def prepare(name: str, folder: Path) -> Path:
    """Copy a configuration to folder/etc, its paths changed to there; return its main.cf."""
    etc = folder / "etc"
    shutil.copytree(CONFIGS / name, etc, ignore=shutil.ignore_patterns("cases.toml"))
    for path in filter(Path.is_file, etc.rglob("*")):
        text = path.read_text(encoding="utf-8")
        for old in ("/etc/postfix", "/etc/aliases", "/etc/mailname"):
            new = etc if old == "/etc/postfix" else etc / Path(old).name
            text = re.sub(rf"{old}\b", str(new), text)
        path.write_text(text, encoding="utf-8")
    return etc / "main.cf"


def import_policy(main_cf: Path, into: Path) -> Finished:
    """Run the command under test."""
    return _gateway("policy", "import-postfix", main_cf, "--into", into)


def check_policy(folder: Path) -> Finished:
    """Run `smarthost policy check` on an imported policy, in the configuration that came with it."""
    return _gateway("policy", "check", folder / "policies", "-c", folder / "smarthost.toml")


def _gateway(*words: str | Path) -> Finished:
    return run([sys.executable, "-m", "gateway", *words], timeout=60, cwd=REPOSITORY)


def compare(name: str, folder: Path, *, postfix_only: bool = False) -> list[Answers]:
    """Import a configuration into folder/imported and ask both servers; `folder` must be open to other users."""
    prepare(name, folder)
    argv = [*_NAMESPACE, sys.executable, "-m", "tests.postfix_import.harness", name, str(folder)]
    if postfix_only:
        argv.append("postfix-only")
    run(argv, timeout=120, cwd=REPOSITORY).expect()
    rows = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    return [Answers(Envelope(**row["envelope"]), row["postfix"], row["smarthost"]) for row in rows]


# --- inside of it -----------------------------------------------------------------------------------------------------


def main() -> None:
    """Be the namespace's first process: lay out the world, start both servers, ask, and write answers.json."""
    name, folder, with_gateway = sys.argv[1], Path(sys.argv[2]), "postfix-only" not in sys.argv
    asked = envelopes(name)
    world = tomllib.loads((HERE / "world.toml").read_text(encoding="utf-8"))
    _lay_out_network({envelope.client for envelope in asked})
    _replace_file(Path("/etc/resolv.conf"), "nameserver 127.0.0.1\noptions timeout:2 attempts:2\n", folder)
    if (users := folder / "etc" / "passwd").exists():
        known = Path("/etc/passwd").read_text(encoding="utf-8")
        _replace_file(Path("/etc/passwd"), known + users.read_text(encoding="utf-8"), folder)
    with NameServer(zone(world), port=53) as server, ThreadPoolExecutor(2) as pool:
        for domain in world["zone"]["servfail"]:
            server.fault(domain, "servfail")
            server.fault(f"*.{domain}", "servfail")
        halves = [pool.submit(_ask_postfix, folder, asked)]
        if with_gateway:
            halves.append(pool.submit(_ask_gateway, folder, asked))
        replies = [half.result() for half in halves]
    rows = [
        {"envelope": asdict(envelope), "postfix": answers[0], "smarthost": answers[-1]}
        for envelope, *answers in zip(asked, *replies, strict=True)
    ]
    (folder / "answers.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _lay_out_network(clients: Iterable[str]) -> None:
    """Give the loopback interface every client's address."""
    run(["ip", "link", "set", "lo", "up"]).expect()
    for client in map(ipaddress.ip_address, sorted(clients)):
        if not client.is_loopback:
            run(["ip", "addr", "add", f"{client}/{client.max_prefixlen}", "dev", "lo"]).expect()


def _replace_file(path: Path, text: str, folder: Path) -> None:
    """Put a text in the place of a file of the system, in this mount namespace only."""
    own = folder / path.name
    own.write_text(text, encoding="utf-8")
    own.chmod(0o644)
    run(["mount", "--bind", own, path]).expect()


def zone(world: Mapping[str, Any]) -> Iterator[str]:
    """Yield the record lines that world.toml stands for."""
    yield from world["zone"]["records"]
    for text, (host, leads_back) in world["hosts"].items():
        address = ipaddress.ip_address(text)
        yield f"{address.reverse_pointer} PTR {host}."
        if leads_back:
            yield f"{host} {'A' if address.version == 4 else 'AAAA'} {address}"
    yield from (
        "localhost A 127.0.0.1",
        "localhost AAAA ::1",
        f"{ipaddress.ip_address('::1').reverse_pointer} PTR localhost.",
    )
    for listing, listed in world["lists"].items():
        for text, answers in (listed | {"127.0.0.2": ["127.0.0.2"], "::ffff:7f00:2": ["127.0.0.2"]}).items():
            reverse = ipaddress.ip_address(text).reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
            yield from (f"{reverse}.{listing} A {answer}" for answer in answers)
    for listing, domains in world["domain_lists"].items():
        yield from (f"{domain}.{listing} A {answer}" for domain, answer in (domains | {"test": "127.0.0.2"}).items())


def _ask_postfix(folder: Path, asked: Sequence[Envelope]) -> list[str]:
    """Start Postfix with the copied main.cf, which keeps its own word in all but its folders, and ask it."""
    etc, logs = folder / "etc", folder / "maillog"
    queue, data = folder / "queue", folder / "data-postfix"
    for path, owner, group, mode in (
        (queue, "root", "root", 0o755),
        (data, "postfix", "postfix", 0o700),
        (queue / "pid", "root", "root", 0o755),
        (queue / "maildrop", "postfix", "postdrop", 0o730),
        (queue / "public", "postfix", "postdrop", 0o710),
        *((queue / name, "postfix", "root", 0o700) for name in _FOLDERS),
    ):
        path.mkdir()
        shutil.chown(path, owner, group)
        path.chmod(mode)
    daemons = next(path for path in ("/usr/lib/postfix/sbin", "/usr/libexec/postfix") if Path(path, "master").exists())
    main_cf = etc / "main.cf"
    text = main_cf.read_text(encoding="utf-8")
    has_postscreen = "postscreen_dnsbl_sites" in text
    if "lmdb" not in run(["postconf", "-m", "-c", etc]).expect().stdout.split():
        text = re.sub(r"\blmdb:", "hash:", text)
    ours = {
        "queue_directory": queue,
        "data_directory": data,
        "daemon_directory": daemons,
        "maillog_file": logs,
        "maillog_file_prefixes": folder,
        "mail_owner": "postfix",
        "setgid_group": "postdrop",
        "inet_interfaces": "all",
        "smtpd_client_connection_count_limit": 0,
        "smtpd_error_sleep_time": 0,
        "in_flow_delay": 0,
        "postscreen_greet_wait": "4s",  # it judges by the DNS answers that are there by then
    }
    lines = [line for line in text.splitlines() if line.partition("=")[0].strip() not in ours]
    lines += [f"{key} = {value}" for key, value in ours.items()]
    # Beside the original, which the import must see as it was.
    own = folder / "etc-postfix"
    own.mkdir()
    (own / "main.cf").write_text("\n".join(lines).replace("$config_directory", str(etc)) + "\n", encoding="utf-8")
    (own / "master.cf").write_text(_MASTER + (_POSTSCREEN if has_postscreen else _SMTPD), encoding="utf-8")
    expanded = run(["postconf", "-n", "-x", "-c", own]).expect().stdout
    for table in sorted({table for table in _INDEXED.findall(expanded) if Path(table).is_relative_to(etc)}):
        kind = "lmdb" if f"lmdb:{table}" in expanded else "hash"
        program = "postalias" if Path(table).name.startswith("aliases") and "virtual" not in table else "postmap"
        run([program, "-c", own, f"{kind}:{table}"]).expect()
    for file in own.iterdir():
        os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 60))  # Postfix waits for files that are brand new
    master = Daemon(
        [Path(daemons, "master"), "-d", "-c", own],
        log=logs,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "MAIL_CONFIG": str(own)},
        ready_port=("127.0.0.1", POSTFIX_PORT),
    )
    with master, ThreadPoolExecutor(SENDERS if has_postscreen else 1) as pool:
        replies = list(pool.map(partial(ask, POSTFIX_PORT), asked))
    assert not re.search(r"\b(fatal|panic): ", logs.read_text()), "Postfix is not well: " + logs.read_text()
    return replies


def _ask_gateway(folder: Path, asked: Sequence[Envelope]) -> list[str]:
    """Import, start a gateway with what came out, and ask it."""
    imported = folder / "imported"
    import_policy(folder / "etc" / "main.cf", imported).expect()
    waits = any("client.early_talker" in file.read_text() for file in (imported / "policies").glob("*.yaml"))
    with imported_gateway(imported, folder / "gateway"), ThreadPoolExecutor(SENDERS if waits else 1) as pool:
        return list(pool.map(partial(ask, GATEWAY_PORT), asked))


def imported_gateway(imported: Path, folder: Path) -> Gateway:
    """A gateway that is not started, with the imported settings, policy, accounts and aliases, on `GATEWAY_PORT`."""
    settings: dict[str, dict[str, object]] = {}
    for section, values in tomllib.loads((imported / "smarthost.toml").read_text(encoding="utf-8")).items():
        for key, value in values.items():
            if isinstance(value, dict):
                settings[f"{section}.{json.dumps(key)}"] = value
            else:
                settings.setdefault(section, {})[key] = value
    for key in ("data", "policies"):
        settings.get("gateway", {}).pop(key, None)
    settings.setdefault("gateway", {}).update(user="nobody", workers=1)
    settings["listen"] = {"smtp": [f"0.0.0.0:{GATEWAY_PORT}", f"[::]:{GATEWAY_PORT}"]}
    settings["dns"] = {"servers": ["127.0.0.1"]}
    settings["checks.early_talker"] = {"delay": "0.5s"}
    settings.pop("tls", None)
    users, aliases = _addresses(imported / "addresses.sh")
    gateway = Gateway(folder, settings=settings, domains=(), users=users)
    store = SqliteAccounts(gateway.data / "accounts.db")
    for address, targets in aliases.items():
        store.set_alias(address, targets)
    store.close()
    shutil.rmtree(folder / "policies")
    shutil.copytree(imported / "policies", folder / "policies")
    return gateway


def _addresses(script: Path) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """The accounts and aliases that a script makes; any other command in it is an error."""
    users: list[str] = []
    aliases: dict[str, tuple[str, ...]] = {}
    for line in script.read_text(encoding="utf-8").splitlines() if script.exists() else ():
        match shlex.split(line, comments=True):
            case ["smarthost", "user", "add", "--", address]:
                users.append(address)
            case ["smarthost", "alias", "add", "--", address, *targets] if targets:
                aliases[address] = tuple(targets)
            case [] | ["set", *_]:
                continue
            case other:
                raise ValueError(f"{script}: {other}")
    return users, aliases


# --- the conversation -------------------------------------------------------------------------------------------------


def ask(port: int, envelope: Envelope) -> str:
    """Speak from the client's address up to RCPT; return the first refusal, or the reply to RCPT.

    No message is ever begun, so that there is nothing to deliver.
    """
    target = "::1" if ":" in envelope.client else "127.0.0.1"
    commands = [f"MAIL FROM:<{envelope.sender}>", f"RCPT TO:<{envelope.recipient}>"]
    if envelope.helo:
        commands.insert(0, f"EHLO {envelope.helo}")
    connection = socket.create_connection((target, port), timeout=30, source_address=(envelope.client, 0))
    with connection, connection.makefile("rb") as stream:
        reply = _reply(stream.readline)
        for command in commands:
            if reply[:1] != "2":
                return reply
            connection.sendall(f"{command}\r\n".encode())
            reply = _reply(stream.readline)
        with contextlib.suppress(OSError):
            connection.sendall(b"QUIT\r\n")
            stream.readline()
        return reply


def _reply(readline: Callable[[], bytes]) -> str:
    """The last line of a reply."""
    while True:
        line = readline().decode("utf-8", "replace").rstrip("\r\n")
        if line[3:4] != "-":
            return line


if __name__ == "__main__":
    main()
