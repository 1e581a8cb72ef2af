"""Nothing is imported once root is given away: Python and Smarthost may lie where only root may look."""

import os
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.support.process import free_port, wait_until
from tests.support.raw import RawClient, message, temporary_gateway

SUPPORT = Path(__file__).resolve().parents[1] / "support"
OPTIONAL = "sniffio"  # asked for, and not missed
COMMANDS = (
    ("check",), ("queue", "list"), ("quarantine", "list"), ("quarantine", "digest"), ("user", "list"),
    ("user", "senders", "alice@example.org"), ("trace", "nobody"), ("reload",),
    ("policy", "check"), ("policy", "coverage"), ("policy", "replay", "--candidate", "policies"),
)  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give away")
def test_roles_and_commands_import_nothing_as_the_services_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = tmp_path / "late"
    noted.touch(mode=0o666)
    noted.chmod(0o666)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    monkeypatch.setenv("LATE_IMPORTS", str(noted))
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT / "late_imports"))
    port = free_port()
    with temporary_gateway(settings={"listen": {"web": [f"127.0.0.1:{port}"]}, "web": {"tls": False}}) as gateway:
        for path in ("quarantine/none", "static/style.css", "elsewhere"):
            with suppress(HTTPError):
                urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10).close()
        for recipient in ("alice@example.org", "someone@elsewhere.example"):
            with RawClient(gateway.ports["smtp"]) as client:
                client.ehlo("client.test")
                client.line("MAIL FROM:<sender@example.net>")
                client.line(f"RCPT TO:<{recipient}>")
                assert client.line("DATA").code == 354
                client.send(message("late") + b".\r\n")
                assert client.reply().code == 250
        wait_until(lambda: gateway.metric("smarthost_dns_seconds_count") > 0, 15, "DNS was asked")
        for command in COMMANDS:
            gateway.cli(*command)
        assert gateway.cli("policy", "explain", "--to", "alice@example.org").code == 0
    assert {line for line in noted.read_text().splitlines() if not line.startswith(OPTIONAL)} == set()
