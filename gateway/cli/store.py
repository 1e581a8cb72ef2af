"""`store`: users' mail looked over and its indexes made anew."""

from collections.abc import Callable
from pathlib import Path

import click

from gateway.cli.context import NO, config_option, fail, guarded, json_option, open_config, printable, show
from gateway.config import Config
from gateway.mailbox.maintenance import Maintenance
from gateway.servers.summarised import summarised


@click.group()
def store() -> None:
    """Users' mail: check, rebuild, export."""


def with_maintenance(path: Path, body: Callable[[Config, Maintenance], int | None]) -> None:
    def run() -> int | None:
        config = open_config(path)
        return body(config, Maintenance(config.data / "mail", summarised))

    guarded(run)


@store.command("check")
@click.argument("addresses", nargs=-1)
@click.option("--repair", is_flag=True, help="Mend what can be mended.")
@click.option("--deep", is_flag=True, help="Read every message, and compare what is kept of it.")
@config_option
@json_option
def store_check(addresses: tuple[str, ...], repair: bool, deep: bool, config_path: Path, as_json: bool) -> None:
    """Are the index and the files of each user one? Of ADDRESSES, or of all who have mail.

    The gateway may run meanwhile. Exit code 1 where something is wrong, mended or not.
    """

    def body(config: Config, maintenance: Maintenance) -> int:
        rows = [
            {"address": name, "fault": text}
            for name in map(str.lower, addresses or maintenance.accounts())
            for text in maintenance.check(name, mends=repair, is_deep=deep)
        ]
        if rows or as_json:
            show(rows, ("address", "fault"), as_json=as_json)
        return NO if rows else 0

    with_maintenance(config_path, body)


@store.command("rebuild")
@click.argument("address")
@config_option
def store_rebuild(address: str, config_path: Path) -> None:
    """Make a user's index anew from the files; clients will look at all mail again.

    The old index stays beside it. Messages keep their UIDs and flags; UIDVALIDITY changes.
    """

    def body(config: Config, maintenance: Maintenance) -> None:
        maintenance.rebuild(address.lower())
        click.echo(f"the index of {printable(address.lower())} is made anew")

    with_maintenance(config_path, body)


@store.command("export")
@click.argument("address")
@click.argument("folder", type=click.Path(path_type=Path))
@config_option
def store_export(address: str, folder: Path, config_path: Path) -> None:
    """Write a user's mail as a Maildir++ to FOLDER, which is made: Dovecot takes it over with its UIDs.

    FOLDER's parent has to be one that the service's user may write to.
    """

    def body(config: Config, maintenance: Maintenance) -> None:
        try:
            count = maintenance.export(address.lower(), folder)
        except OSError as error:
            fail(f"{error.filename or folder}: {error.strerror}")
        click.echo(f"exported {count} messages to {folder}")

    with_maintenance(config_path, body)
