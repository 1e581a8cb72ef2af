"""`queue`: list, show, retry, hold, release, delete. It works on the database itself, whether the gateway runs or
not; but what a rule holds is released by the running one.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from gateway.cli.context import NO, USAGE, config_option, fail, guarded, iso, json_option, open_config, printable, show
from gateway.cli.release import despite_option, exit_code, release_kept
from gateway.config import Config, parse_duration
from gateway.queue.store import Filter, QueuedMessage, QueueEntry, State
from gateway.storage.queue_desk import QueueDesk
from gateway.storage.spool import Spool

Command = TypeVar("Command", bound=Callable[..., Any])
MAX_SHOWN_HEADER = 64 * 1024


@click.group()
def queue() -> None:
    """Messages on their way: list, show, retry, hold, release, delete."""


def filters(command: Command) -> Command:
    for option in (
        click.option("--domain", default="", help="Recipients of this domain."),
        click.option("--sender", default="", help="This reverse-path; <> is the null one."),
        click.option("--recipient", default="", help="This recipient."),
        click.option("--user", default="", help="Sent by this user, who signed in."),
        click.option("--older-than", default="", help="Came longer ago than this: 90s, 30m, 2h, 3d."),
    ):
        command = option(command)
    return command


_STATES = [state.value for state in State if state is not State.QUARANTINED]
_state_option = click.option("--state", type=click.Choice(_STATES), help="In this state.")


def filter_of(queue_id: str, options: dict[str, Any], state: State | None = None) -> Filter:
    older: str = options["older_than"]
    try:
        seconds = parse_duration(older) if older else None
    except ValueError as error:
        fail(f"--older-than: {error}", USAGE)
    return Filter(
        queue_id=queue_id.upper(),
        domain=options["domain"],
        sender=options["sender"],
        recipient=options["recipient"],
        user=options["user"],
        older_than=seconds,
        state=State(options["state"]) if options.get("state") else state,
    )


def with_queue(path: Path, body: Callable[[QueueDesk], int | None]) -> None:
    with_config(path, lambda opened, config: body(opened))


def with_config(path: Path, body: Callable[[QueueDesk, Config], int | None]) -> None:
    def run() -> int | None:
        config = open_config(path)
        if not (config.data / "queue.db").exists():
            fail(f"{config.data}: there is no queue yet; has the gateway run?")
        opened = QueueDesk(config.data / "queue.db", Spool(config.data / "spool"))
        try:
            return body(opened, config)
        finally:
            opened.close()

    guarded(run)


def _row(entry: QueueEntry) -> dict[str, object]:
    return {
        "id": entry.queue_id,
        "state": entry.state.value,
        "arrived": iso(entry.created),
        "next": iso(entry.due),
        "size": entry.size,
        "sender": entry.reverse_path or "<>",
        "recipient": entry.forward_path,
        "attempts": entry.attempts,
        "last_reply": entry.last_reply,
        **({"info": dict(entry.info)} if entry.info else {}),
    }


@queue.command("list")
@config_option
@json_option
@filters
@_state_option
def queue_list(config_path: Path, as_json: bool, **options: Any) -> None:
    """List what waits, a line a recipient, oldest first."""

    def body(opened: QueueDesk) -> int:
        rows = [_row(entry) for entry in opened.entries(filter_of("", options))]
        show(rows, ("id", "state", "arrived", "next", "size", "sender", "recipient", "attempts"), as_json=as_json)
        return 0

    with_queue(config_path, body)


@queue.command("show")
@click.argument("queue_id")
@config_option
@json_option
def queue_show(queue_id: str, config_path: Path, as_json: bool) -> None:
    """Show one message: its recipients, their last replies, its header."""

    wanted = Filter(queue_id=queue_id)
    with_queue(config_path, lambda opened: show_message(opened, wanted, as_json=as_json))


def show_message(opened: QueueDesk, wanted: Filter, *, as_json: bool) -> int:
    """wanted: names one queue id."""
    entries = opened.entries(wanted)
    if not entries:
        click.echo(f"smarthost: no message {wanted.queue_id} here", err=True)
        return NO
    if as_json:
        click.echo(json.dumps([_row(entry) for entry in entries], indent=2))
        return 0
    try:
        message = opened.message(wanted.queue_id)
    except (OSError, ValueError, TypeError) as error:
        click.echo(f"smarthost: its octets cannot be read: {error}", err=True)
        message = None
    for line in _describe(entries, message):
        click.echo(printable(line))
    return 0


def _describe(entries: list[QueueEntry], message: QueuedMessage | None) -> Iterator[str]:
    first = entries[0]
    yield f"{first.queue_id}  from <{first.reverse_path}>  {first.size} octets  arrived {iso(first.created)}"
    yield from (f"  {key}: {value}" for key, value in first.info.items() if value)
    for entry in entries:
        yield f"to <{entry.forward_path}>  {entry.state}  attempts {entry.attempts}  next {iso(entry.due)}"
        if entry.last_reply:
            yield f"   {entry.last_reply}"
    if message is not None:
        yield ""
        head = message.header + message.blob.head(MAX_SHOWN_HEADER)
        yield from head.partition(b"\r\n\r\n")[0].decode("utf-8", "replace").replace("\t", " ").split("\r\n")


def change(opened: QueueDesk, wanted: Filter, action: str, done: str) -> int:
    """Does it, says so, and returns to how many recipients. action: "delete", or one of `QueueDesk.set_state`."""
    count = opened.delete(wanted) if action == "delete" else opened.set_state(wanted, action)
    click.echo(f"{done} {count} recipients")
    return count


def _change(
    action: str, done: str, queue_id: str, config_path: Path, everything: bool, options: dict[str, Any]
) -> None:
    wanted = filter_of(queue_id, options)
    if wanted == Filter() and not everything:
        fail("name a queue id, a filter, or --all", USAGE)

    def body(opened: QueueDesk) -> int:
        count = change(opened, wanted, action, done)
        if not count:
            busy = opened.entries(replace(wanted, state=State.ACTIVE), limit=1)
            if busy:
                click.echo("smarthost: some are being delivered right now; try again", err=True)
        return 0 if count else NO

    with_queue(config_path, body)


def _command(action: str, done: str, text: str) -> None:
    @queue.command(action, help=text, short_help=text)
    @click.argument("queue_id", default="")
    @click.option("--all", "everything", is_flag=True, help="All that wait.")
    @config_option
    @filters
    @_state_option
    def command(queue_id: str, config_path: Path, everything: bool, **options: Any) -> None:
        _change(action, done, queue_id, config_path, everything, options)


_command("retry", "will try again now:", "Try again now, whatever the plan says.")
_command("hold", "held", "Keep back until released.")


@queue.command("release")
@click.argument("queue_id", default="")
@click.option("--all", "everything", is_flag=True, help="All that is held.")
@despite_option
@config_option
@filters
@_state_option
def queue_release(queue_id: str, config_path: Path, everything: bool, is_despite: bool, **options: Any) -> None:
    """Let held mail go. What a rule holds is looked at once more, by the running gateway."""
    wanted = filter_of(queue_id, options)
    if wanted == Filter() and not everything:
        fail("name a queue id, a filter, or --all", USAGE)

    def body(opened: QueueDesk, config: Config) -> int:
        count = opened.set_state(wanted, "release")
        released, asked = release_kept(config, wanted, is_despite=is_despite)
        click.echo(f"released {count + released} recipients")
        return exit_code(count + released, count + asked)

    with_config(config_path, body)


_command("delete", "deleted", "Delete without telling the sender.")
