"""Having released what rules keep: asked of the running gateway, which looks at it once more and lets it go."""

import time
from collections.abc import Sequence

import click

from gateway.cli.context import NO, printable
from gateway.config import Config
from gateway.queue.store import Filter
from gateway.storage.spool import Spool
from gateway.storage.sqlite_quarantine import SqliteQuarantine
from gateway.supervisor import running_pid

despite_option = click.option(
    "--despite-virus", "is_despite", is_flag=True, help="Whatever the scan says that goes before."
)
WAIT_S = 60.0
_LOOK_S = 0.1
BY = "postmaster"


def release_kept(config: Config, wanted: Filter, *, is_despite: bool = False) -> tuple[int, int]:
    """Asks, and waits until all are settled, if a gateway runs. How many recipients were released, and how many were
    asked for; what became of the others is told.
    """
    store = SqliteQuarantine(config.data / "queue.db", Spool(config.data / "spool"))
    try:
        rows = store.ask(wanted, BY, is_despite=is_despite)
        if not rows:
            return 0, 0
        if running_pid(config.data) is None:
            click.echo(f"smarthost: no gateway is running: {len(rows)} will be released when one does", err=True)
            return 0, len(rows)
        _wait(store, rows)
        kept = store.kept_still(rows)
        for queue_id, recipient, said in kept:
            click.echo(f"smarthost: {queue_id} for <{printable(recipient)}>: {printable(said or 'not yet')}", err=True)
        return len(rows) - len(kept), len(rows)
    finally:
        store.close()


def _wait(store: SqliteQuarantine, rows: Sequence[int]) -> None:
    """Until nothing more is to be expected: those that no engine can scan now are told of and wait by themselves."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        waiting = store.waiting(rows)
        if not waiting or all(said for _, _, said in store.kept_still(waiting)):
            return
        time.sleep(_LOOK_S)


def exit_code(released: int, asked: int) -> int:
    return 0 if released and released == asked else NO
