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
    path = tmp_path / "accounts.db"
    with ThreadPoolExecutor(6) as threads:
        (found,) = set(threads.map(lambda _: asked(path, "srs"), range(6)))
    assert len(found) == SECRET_OCTETS
    assert asked(path, "srs") == found
    assert asked(path, "other") != found
