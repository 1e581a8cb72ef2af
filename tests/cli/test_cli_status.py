"""What `status` tells of a gateway that runs, and of one that does not; and what `check` says of pages."""

import json

import pytest

from tests.support.cli import Cli
from tests.support.gateway import shipped_content_policy
from tests.support.process import wait_until
from tests.support.raw import temporary_gateway


def test_what_runs_is_told_engines_among_it() -> None:
    settings = {"checks.antivirus": {"clamd": "unix:/nonexistent/clamd"}}
    with temporary_gateway(policies=shipped_content_policy(), settings=settings) as gateway:
        found = json.loads(gateway.cli("status", "--json").expect().stdout)
        assert found["roles"] == [
            "admin-0",
            "content-0",
            "content-1",
            "lessons-0",
            "queue-0",
            "smtp-0",
            "smtp-1",
            "store-0",
        ]
        assert found["antivirus"][0] == "yara (7 rules)"
        assert found["antivirus"][1].startswith("clamd unix:/nonexistent/clamd (does not answer: ")
        assert found["spam"] == ["bayes"]
        assert found["queue"] == {"ready": 0, "active": 0, "held": 0, "corrupt": 0, "oldest_seconds": 0}
        assert found["quarantine"] == {"recipients": 0, "octets": 0}
        lines = gateway.cli("status").expect().stdout.splitlines()
        assert lines[0] == f"gateway    running as process {gateway.pid}"
        gateway.stop()
        wait_until(lambda: "not running" in gateway.cli("status").expect(3).stdout, 5, "it to be told")


@pytest.mark.parametrize(
    ("listen", "url", "told"),
    [
        ("127.0.0.1:8080", "", "web.url is not set"),
        ("", "https://mail.example.org", "listen.web is not set"),
        ("127.0.0.1:8080", "http://mail.example.org", "is in clear"),
        ("127.0.0.1:8080", "http://mail.example.org:8080/pages", "is in clear"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080", ""),
        ("127.0.0.1:8080", "http://[::1]:8080", ""),
        ("127.0.0.1:8080", "https://mail.example.org/", ""),
    ],
)
def test_check_says_what_is_wrong_with_pages(cli: Cli, listen: str, url: str, told: str) -> None:
    env = {"SMARTHOST_LISTEN__WEB": listen, "SMARTHOST_WEB__URL": url}
    lines = [line for line in cli("check", env=env).stderr.splitlines() if line.startswith("warning: web: ")]
    assert [told in line for line in lines] == ([True] if told else [])
