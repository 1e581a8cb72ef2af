"""What shows from outside that a mailbox has changed."""

import time
from pathlib import Path

from gateway.mailbox.store import MessageStore
from gateway.mailbox.traces import Traces
from gateway.servers.summarised import open_store

ANNE = "anne@example.org"


def opened(root: Path) -> tuple[MessageStore, Traces]:
    store = open_store(root)
    box = store.open_box(ANNE, "INBOX", takes_recent=False).box
    return store, store.traces(ANNE, box)


def rest(traces: Traces) -> tuple[int, ...]:
    """Once all is long enough ago."""
    time.sleep(0.05)
    found = traces.look()
    assert traces.look() == found
    return found


def test_a_delivery_by_anyone_is_seen(tmp_path: Path) -> None:
    store, traces = opened(tmp_path)
    before = rest(traces)
    other = open_store(tmp_path)
    other.deliver(ANNE, lambda: [b"A: b\r\n\r\n"], "1", time.time())
    assert rest(traces) != before
    before = rest(traces)
    store.expunge(ANNE, [1])
    assert traces.look() != before


def test_that_indexes_are_closed_and_opened_is_not_seen(tmp_path: Path) -> None:
    """Else who looks for news, and opens an index for that, would make news for others."""
    store, traces = opened(tmp_path)
    store.deliver(ANNE, lambda: [b"A: b\r\n\r\n"], "1", time.time())
    rest(traces)
    store.open_box(ANNE, "INBOX", takes_recent=False)  # notes that all in the folders is known
    store.close()
    before = rest(traces)
    for _ in range(2):
        store.open_box(ANNE, "INBOX", takes_recent=False)
        assert rest(traces) == before
        store.close()
        assert rest(traces) == before


def test_what_is_young_is_another_at_each_look(tmp_path: Path) -> None:
    """A second change in the same tick of the clock leaves the time as it is."""
    _, traces = opened(tmp_path)
    rest(traces)
    (tmp_path / "example.org" / "anne" / "Maildir" / "new" / "1.other").touch()
    assert traces.look() != traces.look()


def test_an_account_that_is_gone_is_seen(tmp_path: Path) -> None:
    store, traces = opened(tmp_path)
    before = rest(traces)
    store.close()
    (tmp_path / "example.org" / "anne").rename(tmp_path / "aside")
    assert rest(traces) != before
