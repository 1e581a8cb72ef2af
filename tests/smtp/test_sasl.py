"""SASL exchanges: what is credentials, what breaks the form, and that no password is shown."""

import pytest

from gateway.smtp.sasl import MAX_CREDENTIAL, MECHANISMS, Credentials, SaslError


def run(mechanism: str, *responses: bytes) -> tuple[list[bytes], Credentials]:
    exchange = MECHANISMS[mechanism]()
    challenges = [next(exchange)]
    for response in responses:
        try:
            challenges.append(exchange.send(response))
        except StopIteration as end:
            return challenges, end.value
    raise AssertionError("the exchange goes on")


def test_the_mechanisms_are_plain_and_login() -> None:
    assert set(MECHANISMS) == {"PLAIN", "LOGIN"}


@pytest.mark.parametrize(
    ("mechanism", "responses", "challenges", "user", "password"),
    [
        ("PLAIN", [b"\0alice\0secret"], [b""], "alice", "secret"),
        ("PLAIN", [b"Alice\0alice\0secret"], [b""], "alice", "secret"),
        ("PLAIN", ["\0ü\0pässwörd ".encode()], [b""], "ü", "pässwörd "),
        ("LOGIN", [b"alice", b" secret "], [b"Username:", b"Password:"], "alice", " secret "),
        ("PLAIN", [b"\0a\0" + b"x" * MAX_CREDENTIAL], [b""], "a", "x" * MAX_CREDENTIAL),
    ],
)
def test_credentials(mechanism: str, responses: list[bytes], challenges: list[bytes], user: str, password: str) -> None:
    assert run(mechanism, *responses) == (challenges, Credentials(user, password))


@pytest.mark.parametrize(
    ("mechanism", "responses"),
    [
        ("PLAIN", [b""]),
        ("PLAIN", [b"alice\0secret"]),
        ("PLAIN", [b"\0a\0b\0c"]),
        ("PLAIN", [b"bob\0alice\0secret"]),
        ("PLAIN", [b"\0\0secret"]),
        ("PLAIN", [b"\0alice\0"]),
        ("PLAIN", [b"\0\xff\0secret"]),
        ("PLAIN", [b"\0a\0" + b"x" * (MAX_CREDENTIAL + 1)]),
        ("LOGIN", [b"", b"secret"]),
        ("LOGIN", [b"alice", b""]),
        ("LOGIN", [b"a\0b", b"secret"]),
        ("LOGIN", [b"alice", b"\xff"]),
    ],
)
def test_a_response_that_breaks_the_form_is_an_error(mechanism: str, responses: list[bytes]) -> None:
    with pytest.raises(SaslError) as caught:
        run(mechanism, *responses)
    assert "secret" not in str(caught.value)


def test_the_password_is_not_in_the_representation() -> None:
    assert "secret" not in repr(Credentials("alice", "secret"))
    assert "secret" not in f"{Credentials('alice', 'secret')}"
