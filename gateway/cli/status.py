"""`status`: what runs now: roles, policy, the engines that look for viruses and spam, what waits and what is kept."""

import json
import time
from contextlib import closing
from pathlib import Path

import click

from gateway.checks.clamd import ClamdError, connection, parse_clamd
from gateway.cli.context import UNREACHABLE, config_option, guarded, json_option, open_config, printable
from gateway.config import Config
from gateway.core.errors import ConfigError
from gateway.policy_folder import signatures_of
from gateway.queue.store import State
from gateway.reload import read_outcome
from gateway.storage.queue_desk import QueueDesk
from gateway.storage.spool import Spool
from gateway.storage.sqlite_quarantine import SqliteQuarantine
from gateway.supervisor import running_pid

CLAMD_S = 3.0
_ROLE = "sh:"  # begins the names of the roles' processes


@click.command()
@config_option
@json_option
def status(config_path: Path, as_json: bool) -> None:
    """What runs now. Exit code 3: no gateway does."""

    def body() -> int:
        config = open_config(config_path)
        pid = running_pid(config.data)
        found = _told(config, pid)
        if as_json:
            click.echo(json.dumps(found, indent=2))
        else:
            for name, value in found.items():
                click.echo(f"{name:11}{printable(_line(value))}")
        return UNREACHABLE if pid is None else 0

    guarded(body)


def _line(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _told(config: Config, pid: int | None) -> dict[str, object]:
    found: dict[str, object] = {"gateway": f"running as process {pid}" if pid is not None else "not running"}
    if pid is not None:
        found["roles"] = _roles(pid)
    outcome = read_outcome(config.data)
    if outcome is not None:
        refused = "" if outcome.ok else f"; the last reload was refused: {outcome.message}"
        found["policy"] = f"version {outcome.version}{refused}"
    return found | {"antivirus": _antivirus(config), "spam": list(config.checks.spam.engines), **_waiting(config)}


def _roles(pid: int) -> list[str]:
    names = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            names.append(Path(f"/proc/{child}/comm").read_text().strip())
        except OSError:
            continue  # it has just ended
    return sorted(name.removeprefix(_ROLE) for name in names if name.startswith(_ROLE))


def _antivirus(config: Config) -> list[str]:
    """Each engine, and whether it answers."""
    try:
        count = signatures_of(config).count
        found = [f"yara ({count} rules)"] if count else []
    except ConfigError as error:
        found = [f"yara (broken: {error})"]
    return found + [f"clamd {text} ({_answer(text)})" for text in config.checks.antivirus.clamd]


def _answer(text: str) -> str:
    try:
        with connection(parse_clamd(text), time.monotonic() + CLAMD_S) as clamd:
            clamd.ping()
    except (ClamdError, OSError) as error:
        return f"does not answer: {error}"
    return "answers"


def _waiting(config: Config) -> dict[str, object]:
    path, spool = config.data / "queue.db", Spool(config.data / "spool")
    if not path.exists():
        return {}
    with closing(QueueDesk(path, spool)) as desk, closing(SqliteQuarantine(path, spool)) as quarantine:
        counts, oldest = desk.counts()
        kept = counts.pop(State.QUARANTINED)
        return {
            "queue": {state.value: count for state, count in counts.items()} | {"oldest_seconds": round(oldest)},
            "quarantine": {"recipients": kept, "octets": quarantine.size()},
        }
