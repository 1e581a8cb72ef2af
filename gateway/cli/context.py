"""What commands share: finding the configuration, becoming the service's user, output, exit codes."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

import click

from gateway.config import Config, load_config
from gateway.core.errors import SmarthostError
from gateway.dns.resolver import DnsResolver, ResolverSettings
from gateway.supervisor import become, find_identity, own_data


class Closable(Protocol):
    def close(self) -> None: ...


S = TypeVar("S", bound=Closable)
NO, USAGE, UNREACHABLE = 1, 2, 3

config_option = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("smarthost.toml"),
    envvar="SMARTHOST_CONFIG",
    show_default=True,
    help="The configuration file.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")


def fail(message: str, code: int = NO) -> NoReturn:
    click.echo(f"smarthost: {message}", err=True)
    sys.exit(code)


def guarded(call: Callable[[], int | None]) -> None:
    """Run a command's body; an expected error becomes a line and exit code 1."""
    try:
        code = call()
    except SmarthostError as error:
        fail(str(error))
    sys.exit(code or 0)


def open_config(path: Path, *, as_service: bool = True) -> Config:
    """as_service: root becomes `[gateway] user` now, before any data is touched."""
    config = load_config(path)
    if as_service:
        identity = find_identity(config.gateway.user)
        own_data(config.data, identity)
        become(identity)
    return config


def with_store(path: Path, store: Callable[[Path], S], body: Callable[[Config, S], int | None]) -> None:
    """A command's body over a store of accounts.db, as the service's user."""

    def run() -> int | None:
        config = open_config(path)
        with opened(config, store) as found:
            return body(config, found)

    guarded(run)


def opened(config: Config, store: Callable[[Path], S]) -> closing[S]:
    """A store of accounts.db, in a data folder that is made if need be."""
    config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    return closing(store(config.data / "accounts.db"))


def asking_resolver(config: Config) -> DnsResolver:
    """For a command's own questions."""
    return DnsResolver(
        ResolverSettings(config.dns.servers, config.dns.validating), lambda rdtype, result, seconds: None
    )


def show(rows: Sequence[Mapping[str, object]], columns: Iterable[str], *, as_json: bool) -> None:
    """A table, or JSON with all that a row has."""
    if as_json:
        click.echo(json.dumps(list(rows), indent=2, default=str))
        return
    names = list(columns)
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max([len(name), *(len(row[n]) for row in cells)]) for n, name in enumerate(names)]
    for line in [[name.upper() for name in names], *cells]:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def printable(value: object) -> str:
    """Foreign text for a terminal: no control character, no escape sequence, one line."""
    return "".join(char if char.isprintable() else "?" for char in str(value))


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone().isoformat(timespec="seconds")


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(printable, value))
    return "" if value is None else printable(value)


@dataclass(frozen=True, slots=True)
class Commands:
    """Shown together in `smarthost --help`."""

    title: str
    names: tuple[str, ...]


class GroupedCommands(click.Group):
    """A group whose help lists commands under titles, in the order given."""

    sections: tuple[Commands, ...] = ()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in self.sections:
            rows = []
            for name in section.names:
                command = self.get_command(ctx, name)
                if command is not None:
                    rows.append((name, command.get_short_help_str(80)))
            if rows:
                with formatter.section(section.title):
                    formatter.write_dl(rows)
