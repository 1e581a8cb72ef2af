"""Password hashes and the checker's memory of successes."""

import asyncio

import pytest

from gateway.accounts.credentials import CredentialChecker, hash_password, verify_password

HASH = hash_password("secret")


def test_a_hash_is_argon2id_with_19_mib_and_two_passes_and_salted() -> None:
    assert HASH.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert hash_password("secret") != HASH


@pytest.mark.parametrize(
    ("stored", "password", "is_right"),
    [
        (HASH, "secret", True),
        (HASH, "Secret", False),
        (HASH, "", False),
        (None, "secret", False),
        ("no hash", "secret", False),
        ("", "secret", False),
    ],
    ids=[
        "right",
        "other case",
        "empty",
        "no account",
        "no hash",
        "empty hash",
    ],  # of its own: the hash has a new salt each time
)
def test_verification(stored: str | None, password: str, is_right: bool) -> None:
    assert verify_password(stored, password) is is_right


def test_a_success_is_remembered_for_that_user_hash_and_password_only() -> None:
    async def story() -> None:
        checker = CredentialChecker(1)
        assert await checker.verify("alice", HASH, "secret")
        assert not await checker.verify("alice", HASH, "wrong")
        assert not await checker.verify("nobody", None, "secret")
        checker._pool.shutdown()  # from here on only memory can answer
        assert await checker.verify("alice", HASH, "secret")
        for user, stored, password in (
            ("bob", HASH, "secret"),
            ("alice", HASH + "x", "secret"),
            ("alice", None, "secret"),
            ("alice", HASH, "wrong"),
            ("nobody", None, "secret"),
        ):
            with pytest.raises(RuntimeError):
                await checker.verify(user, stored, password)

    asyncio.run(story())
