"""state.db: what the greylist keeps, as two processes see it, and what is forgotten."""

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.checks.greylist import Seen
from gateway.core.errors import ConfigError, StoreError
from gateway.storage import sqlite_state
from gateway.storage.sqlite_state import KeepTimes, SqliteState

DAY = 86400.0
REPOSITORY = Path(__file__).resolve().parents[2]
FIRST, LATER = Seen(1000.25, 1000.25, False), Seen(1000.25, 2000.5, True)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], SqliteState]]:
    """`opened()` is one process's hands on the one file."""
    made: list[SqliteState] = []

    def open_one() -> SqliteState:
        made.append(SqliteState(tmp_path / "state.db"))
        return made[-1]

    yield open_one
    for each in made:
        each.close()


def put(state: SqliteState, key: str, seen: Seen) -> None:
    asyncio.run(state.put(key, seen))


def find(state: SqliteState, key: str) -> Seen | None:
    return asyncio.run(state.find(key))


def keys(folder: Path) -> set[str]:
    with closing(sqlite3.connect(folder / "state.db")) as connection:
        return {row[0] for row in connection.execute("SELECT key FROM greylist")}


def test_what_was_put_is_found_and_the_last_counts(opened: Callable[[], SqliteState]) -> None:
    state = opened()
    assert find(state, "k") is None
    put(state, "k", FIRST)
    assert find(state, "k") == FIRST
    put(state, "k", LATER)
    assert find(state, "k") == LATER
    assert find(state, "K") is None


def test_two_views_of_one_file_see_each_other(opened: Callable[[], SqliteState]) -> None:
    one, other = opened(), opened()
    put(one, "k", FIRST)
    assert find(other, "k") == FIRST
    put(other, "k", LATER)
    assert find(one, "k") == LATER


def test_another_process_sees_what_is_put_and_is_seen(opened: Callable[[], SqliteState], tmp_path: Path) -> None:
    state = opened()
    put(state, "ours", FIRST)
    program = """
import asyncio, sys
from pathlib import Path
from gateway.checks.greylist import Seen
from gateway.storage.sqlite_state import KeepTimes, SqliteState
async def main():
    state = SqliteState(Path(sys.argv[1]))
    print(await state.find("ours"))
    await state.put("theirs", Seen(5.5, 6.5, True))
    state.close()
asyncio.run(main())
"""
    argv = [sys.executable, "-c", program, str(tmp_path / "state.db")]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == str(FIRST)
    assert find(state, "theirs") == Seen(5.5, 6.5, True)


def test_two_views_that_write_at_once_lose_nothing(opened: Callable[[], SqliteState], tmp_path: Path) -> None:
    one, other = opened(), opened()

    async def story() -> None:
        both = [(state, f"{name}{number}") for number in range(300) for state, name in ((one, "a"), (other, "b"))]
        await asyncio.gather(*(state.put(key, FIRST) for state, key in both))
        assert await one.find("b299") == await other.find("a299") == FIRST

    asyncio.run(story())
    assert len(keys(tmp_path)) == 600


def test_it_is_kept_over_a_restart(opened: Callable[[], SqliteState], tmp_path: Path) -> None:
    state = SqliteState(tmp_path / "state.db")
    put(state, "k", LATER)
    state.close()
    assert find(opened(), "k") == LATER


def test_who_has_not_come_for_long_is_forgotten(opened: Callable[[], SqliteState], tmp_path: Path) -> None:
    state, now = opened(), time.time()
    rows = {"old": now - 10 * DAY - 60, "older": now - 90 * DAY, "young": now - 10 * DAY + 60, "now": now}
    for key, last in rows.items():
        put(state, key, Seen(now - 100 * DAY, last, True))  # the last visit counts, not the first
    assert state.prune(KeepTimes(10 * DAY, DAY, DAY, DAY, DAY)) == 2
    assert keys(tmp_path) == {"young", "now"}
    assert state.prune(KeepTimes(10 * DAY, DAY, DAY, DAY, DAY)) == 0
    assert find(state, "old") is None


def test_a_pruning_is_bounded_and_goes_on_at_the_next(
    opened: Callable[[], SqliteState], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_state, "_PRUNE", 3)
    state = opened()
    for number in range(7):
        put(state, f"k{number}", FIRST)
    assert [state.prune(KeepTimes(DAY, DAY, DAY, DAY, DAY)) for _ in range(4)] == [3, 3, 1, 0]


def test_what_one_view_prunes_the_other_has_forgotten(opened: Callable[[], SqliteState]) -> None:
    one, other = opened(), opened()
    put(one, "k", FIRST)
    assert find(one, "k") == FIRST
    assert other.prune(KeepTimes(DAY, DAY, DAY, DAY, DAY)) == 1
    assert find(one, "k") is None


def test_a_lost_file_is_begun_anew(opened: Callable[[], SqliteState], tmp_path: Path) -> None:
    state = SqliteState(tmp_path / "state.db")
    put(state, "k", FIRST)
    state.close()
    for path in tmp_path.glob("state.db*"):
        path.unlink()
    assert find(opened(), "k") is None


def test_the_file_is_for_its_owner_only(opened: Callable[[], SqliteState], tmp_path: Path) -> None:
    opened()
    assert (tmp_path / "state.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("what", "error"), [("newer", ConfigError), ("damaged", StoreError)])
def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path, what: str, error: type[Exception]) -> None:
    path = tmp_path / "state.db"
    if what == "newer":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version=99")
    else:
        path.write_bytes(b"no database at all, " * 300)
    with pytest.raises(error):
        SqliteState(path)
