"""`quarantine`: what policies kept back: list, show, release, delete."""

from pathlib import Path
from typing import Any

import click

from gateway.cli.context import NO, USAGE, config_option, fail, iso, json_option, show
from gateway.cli.queue import change, filter_of, filters, show_message, with_queue
from gateway.queue.store import Filter, QueueEntry, State
from gateway.storage.queue_desk import QueueDesk


@click.group()
def quarantine() -> None:
    """Mail that policies keep back: list, show, release, delete."""


def _row(entry: QueueEntry) -> dict[str, object]:
    return {
        "id": entry.queue_id,
        "arrived": iso(entry.created),
        "size": entry.size,
        "sender": entry.reverse_path or "<>",
        "recipient": entry.forward_path,
        "kept_by": entry.info.get("kept_by", ""),
    }


@quarantine.command("list")
@config_option
@json_option
@filters
def quarantine_list(config_path: Path, as_json: bool, **options: Any) -> None:
    """List what is kept, a line a recipient, oldest first."""

    def body(desk: QueueDesk) -> int:
        rows = [_row(entry) for entry in desk.entries(filter_of("", options, State.QUARANTINED))]
        show(rows, ("id", "arrived", "size", "sender", "recipient", "kept_by"), as_json=as_json)
        return 0

    with_queue(config_path, body)


@quarantine.command("show")
@click.argument("queue_id")
@config_option
@json_option
def quarantine_show(queue_id: str, config_path: Path, as_json: bool) -> None:
    """Show one message: who it is for, which rule kept it, its header."""
    wanted = Filter(queue_id=queue_id.upper(), state=State.QUARANTINED)
    with_queue(config_path, lambda desk: show_message(desk, wanted, as_json=as_json))


def _command(action: str, done: str, text: str) -> None:
    @quarantine.command(action, help=text, short_help=text)
    @click.argument("queue_id", default="")
    @click.option("--all", "everything", is_flag=True, help="All that is kept.")
    @config_option
    @filters
    def command(queue_id: str, config_path: Path, everything: bool, **options: Any) -> None:
        wanted = filter_of(queue_id, options, State.QUARANTINED)
        if wanted == Filter(state=State.QUARANTINED) and not everything:
            fail("name an id, a filter, or --all", USAGE)

        with_queue(config_path, lambda desk: 0 if change(desk, wanted, action, done) else NO)


_command("release", "released", "Deliver what was kept after all.")
_command("delete", "deleted", "Delete without telling the sender.")
