"""`[policy] answer = "early"`: a refusal of who signed in, which no command could be answered with, holds at RCPT."""

from collections.abc import Callable

import pytest

from tests.support.gateway import Gateway
from tests.support.raw import RawClient

CONNECT = "stage: connect\nrules:\n  - reject: blocked network\n    when: client.ip == '127.0.0.50'\n"
HELO = "stage: helo\nrules:\n  - reject: bad name\n    when: helo.name == 'bad.test'\n"
OPEN = {f"{name}.yaml": f"stage: {name[3:]}\nrules: []\n" for name in ("30-sender", "40-recipient", "50-message")}


@pytest.mark.parametrize("answer", ["early", "late"])
def test_a_refusal_of_who_signed_in_holds_at_rcpt(make_gateway: Callable[..., Gateway], answer: str) -> None:
    policies = {"10-connect.yaml": CONNECT, "20-helo.yaml": HELO, **OPEN}
    with make_gateway(settings={"policy": {"answer": answer}}, policies=policies) as gateway:
        for source, name, code in (
            ("127.0.0.50", "good.test", 550),
            ("127.0.0.51", "bad.test", 550),
            ("127.0.0.51", "good.test", 250),
        ):
            with RawClient(gateway.ports["submissions"], tls=True, source=source) as client:
                client.ehlo(name)
                assert client.login().code == 235
                assert client.line("MAIL FROM:<alice@example.org>").code == 250
                assert client.line("RCPT TO:<bob@example.org>").code == code
