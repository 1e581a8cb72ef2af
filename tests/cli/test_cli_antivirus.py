"""What `check` and `doctor` say of the antivirus engines."""

from collections.abc import Iterator

import pytest

from gateway.cli.doctor import _clamd
from tests.support.clamd import STREAM_LIMIT, Clamd, clamd_missing
from tests.support.cli import Cli


@pytest.fixture(scope="module")
def clamd() -> Iterator[Clamd]:
    reason = clamd_missing()
    if reason is not None:
        pytest.skip(reason)
    with Clamd() as found:
        yield found


@pytest.mark.peers
def test_a_clamd_that_takes_our_messages_is_well(clamd: Clamd) -> None:
    assert [_clamd(address, STREAM_LIMIT - 1000) for address in clamd.addresses] == [[], []]


@pytest.mark.peers
def test_one_that_takes_smaller_ones_only_is_told(clamd: Clamd) -> None:
    (found,) = _clamd(clamd.addresses[0], STREAM_LIMIT + 1)
    assert "does not take messages of" in found.text
    assert "StreamMaxLength" in found.mend


def test_one_that_is_not_there_is_told() -> None:
    (found,) = _clamd("unix:/nonexistent/clamd.ctl", 1000)
    assert (found.level, found.about) == ("error", "antivirus")
    assert "does not answer" in found.text


def configured(cli: Cli, more: str) -> None:
    config = cli.folder / "smarthost.toml"
    config.write_text(config.read_text() + more)


def test_a_gateway_without_engines_is_warned_of(cli: Cli) -> None:
    assert "antivirus" not in cli("check").stderr
    configured(cli, '\n[checks.antivirus]\nyara = ""\n')
    assert "warning: antivirus: no engine runs" in cli("check").stderr


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('clamd = "127.0.0.1:3310"', "a clamd is unix:/PATH or tcp:HOST:PORT"),
        ('yara = "nowhere"', "no such folder"),
    ],
)
def test_wrong_settings_are_named(cli: Cli, setting: str, said: str) -> None:
    configured(cli, f"\n[checks.antivirus]\n{setting}\n")
    done = cli("check").expect(1)
    assert said in done.stdout + done.stderr


def test_a_broken_signature_is_named_with_its_place(cli: Cli) -> None:
    (cli.folder / "policies" / "yara" / "own.yar").write_text("rule Own {\n  condition:\n    nonsense\n}\n")
    done = cli("check").expect(1)
    assert "own.yar" in done.stderr
    assert "nonsense" in done.stderr
