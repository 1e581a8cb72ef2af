"""What others say of the same messages under the same DNS: opendkim of signatures, rspamd of SPF, DKIM, DMARC, ARC."""

import json
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.process import Daemon, find_command, free_port, missing, run

_USER = "_rspamd"
_MODULES = (
    *("rbl", "surbl", "fuzzy_check", "asn", "greylist", "ratelimit", "history_redis", "phishing", "mx_check", "neural"),
    *("reputation", "bimi", "antivirus", "url_redirector", "once_received", "replies", "chartable"),
)
_SIGNATURE = re.compile(r"dkim=(\w+)(?:(?!dkim=).)*?header\.b=\"?([A-Za-z0-9+/]+)", re.DOTALL)
_DKIM = {"ALLOW": "pass", "REJECT": "fail", "PERMFAIL": "permerror", "TEMPFAIL": "temperror"}
_DMARC = {
    "DMARC_POLICY_ALLOW": ("pass", ""), "DMARC_POLICY_REJECT": ("fail", "reject"),
    "DMARC_POLICY_QUARANTINE": ("fail", "quarantine"), "DMARC_POLICY_SOFTFAIL": ("fail", "none"),
    "DMARC_NA": ("none", ""), "DMARC_BAD_POLICY": ("none", ""), "DMARC_DNSFAIL": ("temperror", ""),
}  # fmt: skip
_ARC = {"ARC_ALLOW": "pass", "ARC_REJECT": "fail", "ARC_INVALID": "fail", "ARC_DNSFAIL": "temperror"}


def opinions_missing() -> str | None:
    """Why there are none to be had, or None."""
    return missing("opendkim", "rspamd", root=True)


# --- opendkim ---------------------------------------------------------------------------------------------------------


def opendkim_results(messages: Sequence[bytes], dns: str) -> list[dict[str, str]]:
    """For each message: its result word by the first octets of b=."""
    found: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="smarthost-opendkim-") as name:
        folder = Path(name)
        host, _, port = dns.rpartition(":")
        (folder / "unbound.conf").write_text(
            'server:\n  do-not-query-localhost: no\n  module-config: "iterator"\n'
            f'forward-zone:\n  name: "."\n  forward-addr: {host}@{port}\n'
        )
        (folder / "opendkim.conf").write_text(f"Mode v\nSyslog no\nResolverConfiguration {folder}/unbound.conf\n")
        for number, message in enumerate(messages):
            path = folder / f"m{number}.eml"
            path.write_bytes(message)
            argv = [find_command("opendkim") or "", "-vv", "-t", str(path), "-x", str(folder / "opendkim.conf")]
            out = run(argv, timeout=60).stdout
            field = "".join(re.findall(r"hname='Authentication-Results' hvalue='(.*?)'\n", out, re.DOTALL))
            found.append({first: word for word, first in _SIGNATURE.findall(field)})
    return found


# --- rspamd -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opinion:
    """dkim: words by `domain:selector`; dmarc: result, and the policy of a fail; arc: of the chain."""

    spf: str
    dkim: dict[str, str]
    dmarc: tuple[str, str]
    arc: str = "none"


class Rspamd:
    def __init__(self, port: int) -> None:
        self.port = port
        self._url = f"http://127.0.0.1:{port}/checkv2"

    def ask(self, message: bytes, ip: str, helo: str, sender: str) -> Opinion:
        headers = {"IP": ip, "Helo": helo, "From": sender, "Rcpt": "alice@example.org"}
        request = urllib.request.Request(self._url, data=message, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            symbols: dict[str, dict[str, list[str]]] = json.load(answer)["symbols"]
        dkim: dict[str, str] = {}
        for symbol, word in _DKIM.items():
            for option in symbols.get(f"R_DKIM_{symbol}", {}).get("options", []):
                dkim[option.replace(":s=", ":")] = word
        spf = next((name.removeprefix("R_SPF_").lower() for name in symbols if name.startswith("R_SPF_")), "")
        dmarc = next((_DMARC[name] for name in symbols if name in _DMARC), ("none", ""))
        return Opinion(spf, dkim, dmarc, next((_ARC[name] for name in symbols if name in _ARC), "none"))


@contextmanager
def rspamd(dns: str) -> Iterator[Rspamd]:
    """With the modules of authentication, in folders of its own. It takes ten seconds to come up."""
    folder = Path(tempfile.mkdtemp(prefix="smarthost-rspamd-", dir="/tmp"))
    port = free_port()
    try:
        overrides = folder / "local" / "override.d"
        overrides.mkdir(parents=True)
        for name in ("run", "log", "db"):
            (folder / name).mkdir()
        (folder / "suffixes").write_text("example\n")  # its own list has no domain of documents
        (overrides / "options.inc").write_text(
            f'dns {{ nameserver = ["{dns}"]; timeout = 1s; retransmits = 2; sockets = 4; enable_dnssec = false; }}\n'
            f'local_addrs = [];\nlocal_networks = [];\nfilters = "dkim,spf";\nurl_tld = "{folder}/suffixes";\n'
        )
        (overrides / "worker-normal.inc").write_text(f'bind_socket = "127.0.0.1:{port}"; count = 1;\n')
        for name in ("controller", "proxy", "fuzzy"):
            (overrides / f"worker-{name}.inc").write_text(f'bind_socket = "127.0.0.1:{free_port()}"; count = -1;\n')
        (overrides / "logging.inc").write_text('type = "console"; level = "warning";\n')
        for name in _MODULES:
            (overrides / f"{name}.conf").write_text("enabled = false;\n")
        subprocess.run(["chown", "-R", _USER, folder], check=True)
        folder.chmod(0o755)
        variables = {"LOCAL_CONFDIR": "local", "RUNDIR": "run", "LOGDIR": "log", "DBDIR": "db"}
        argv = [find_command("rspamd") or "", "-f", "-u", _USER, "-g", _USER, "-c", "/etc/rspamd/rspamd.conf"]
        argv += [f"--var={name}={folder}/{place}" for name, place in variables.items()]
        with Daemon(argv, cwd=folder, log=folder / "rspamd.out", ready_port=("127.0.0.1", port), start_timeout=60.0):
            yield Rspamd(port)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
