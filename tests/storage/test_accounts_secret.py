"""A secret of accounts.db is made once, whoever asks first, and is the same for all and ever after."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway.storage.sqlite_accounts import SECRET_OCTETS, SqliteAccounts


def asked(path: Path, name: str) -> bytes:
    accounts = SqliteAccounts(path)
    try:
        return accounts.secret(name)
    finally:
        accounts.close()


def test_all_who_ask_at_once_get_the_same(tmp_path: Path) -> None:
    for again in range(20):  # the file is new each time: SQLite lets only one at a time turn it to WAL
        path = tmp_path / str(again) / "accounts.db"
        with ThreadPoolExecutor(12) as threads:
            (found,) = set(threads.map(lambda _, path=path: asked(path, "srs"), range(12)))
        assert len(found) == SECRET_OCTETS
    assert asked(path, "srs") == found
    assert asked(path, "other") != found
