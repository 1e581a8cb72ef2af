"""`quarantine`: what policies kept back: list, show, release, delete, digest."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from gateway.cli.context import NO, USAGE, config_option, fail, iso, json_option, opened, printable, show
from gateway.cli.queue import change, filter_of, filters, show_message, with_config, with_queue
from gateway.cli.release import despite_option, exit_code, release_kept
from gateway.config import Config
from gateway.process import digest_sender_of
from gateway.quarantine.rendering import Shown, show_fields
from gateway.quarantine.rendering import show as show_whole
from gateway.queue.store import Filter, QueuedMessage, QueueEntry, State
from gateway.storage.queue_desk import QueueDesk
from gateway.storage.spool import Spool
from gateway.storage.sqlite_accounts import SqliteAccounts
from gateway.storage.sqlite_quarantine import SqliteQuarantine


@click.group()
def quarantine() -> None:
    """Mail that policies keep back: list, show, release, delete, digest."""


def _row(desk: QueueDesk, entry: QueueEntry) -> dict[str, object]:
    message = _message(desk, entry.queue_id)
    shown = None if message is None else show_fields(message)
    return {
        "id": entry.queue_id,
        "arrived": iso(entry.created),
        "size": entry.size,
        "sender": entry.reverse_path or "<>",
        "recipient": entry.forward_path,
        "kept_by": entry.info.get("kept_by", ""),
        "author": "" if shown is None else shown.author,
        "subject": "" if shown is None else shown.subject,
        "session": entry.info.get("session", ""),
        "note": entry.last_reply,
    }


def _message(desk: QueueDesk, queue_id: str) -> QueuedMessage | None:
    try:
        return desk.message(queue_id)
    except (OSError, ValueError, TypeError):
        return None  # damaged: what the row says is shown all the same


@quarantine.command("list")
@config_option
@json_option
@filters
def quarantine_list(config_path: Path, as_json: bool, **options: Any) -> None:
    """List what is kept, a line a recipient, oldest first."""

    def body(desk: QueueDesk) -> int:
        rows = [_row(desk, entry) for entry in desk.entries(filter_of("", options, State.QUARANTINED))]
        columns = ("id", "arrived", "size", "sender", "recipient", "kept_by", "subject", "note")
        show(rows, columns, as_json=as_json)
        return 0

    with_queue(config_path, body)


@quarantine.command("show")
@click.argument("queue_id")
@config_option
@json_option
def quarantine_show(queue_id: str, config_path: Path, as_json: bool) -> None:
    """Show one message: who it is for, which rule kept it, its header, its text without anything that acts.

    `smarthost trace ID` tells how it came to be kept.
    """
    wanted = Filter(queue_id=queue_id.upper(), state=State.QUARANTINED)

    def body(desk: QueueDesk) -> int:
        message = _message(desk, wanted.queue_id)
        shown = None if message is None else show_whole(message)
        if as_json:
            rows = [_row(desk, entry) | _told(shown) for entry in desk.entries(wanted)]
            click.echo(json.dumps(rows, indent=2))
            return 0 if rows else NO
        code = show_message(desk, wanted, as_json=False)
        if not code and shown is not None:
            for line in _text(shown):
                click.echo(printable(line))
        return code

    with_queue(config_path, body)


def _told(shown: Shown | None) -> dict[str, object]:
    return {} if shown is None else {"text": shown.text, "files": list(shown.files), "is_cut": shown.is_cut}


def _text(shown: Shown) -> Iterator[str]:
    yield ""
    yield "--- its text" + (", cut" if shown.is_cut else "")
    yield from shown.text.split("\n")
    if shown.files:
        yield f"--- its files: {', '.join(shown.files)}"


def _wanted(queue_id: str, options: dict[str, Any], everything: bool) -> Filter:
    wanted = filter_of(queue_id, options, State.QUARANTINED)
    if wanted == Filter(state=State.QUARANTINED) and not everything:
        fail("name an id, a filter, or --all", USAGE)
    return wanted


@quarantine.command("release")
@click.argument("queue_id", default="")
@click.option("--all", "everything", is_flag=True, help="All that is kept.")
@despite_option
@config_option
@filters
def quarantine_release(queue_id: str, config_path: Path, everything: bool, is_despite: bool, **options: Any) -> None:
    """Deliver what was kept after all. The running gateway scans it once more and marks it as released."""
    wanted = _wanted(queue_id, options, everything)

    def body(desk: QueueDesk, config: Config) -> int:
        released, asked = release_kept(config, wanted, is_despite=is_despite)
        click.echo(f"released {released} recipients")
        return exit_code(released, asked)

    with_config(config_path, body)


@quarantine.command("delete")
@click.argument("queue_id", default="")
@click.option("--all", "everything", is_flag=True, help="All that is kept.")
@config_option
@filters
def quarantine_delete(queue_id: str, config_path: Path, everything: bool, **options: Any) -> None:
    """Delete without telling the sender."""
    wanted = _wanted(queue_id, options, everything)
    with_queue(config_path, lambda desk: 0 if change(desk, wanted, "delete", "deleted") else NO)


@quarantine.command("digest")
@click.option("--recipient", default="", help="This recipient alone.")
@config_option
def quarantine_digest(recipient: str, config_path: Path) -> None:
    """Send now the digests of what was kept since the last; every day that happens by itself."""

    def body(desk: QueueDesk, config: Config) -> int:
        spool = Spool(config.data / "spool")
        with (
            opened(config, SqliteAccounts) as accounts,
            closing(SqliteQuarantine(config.data / "queue.db", spool)) as store,
        ):
            count = digest_sender_of(config, accounts, store).send(recipient)
        click.echo(f"sent {count} digests")
        return 0

    with_config(config_path, body)
