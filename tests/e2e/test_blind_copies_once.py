"""A blind copy is for who does not get the message anyway, by whatever name."""

import json

import pytest

from tests.support.process import wait_until
from tests.support.raw import RawClient, message, temporary_gateway

RULES = """\
stage: message
rules:
  - note: redirected
    when: message.subject == "redirect"
    do: {redirect: bob@example.org, bcc: bob@example.org}
  - note: by an alias
    when: message.subject == "alias"
    do: {bcc: boss@example.org}
"""


@pytest.mark.parametrize(("subject", "user"), [("redirect", "bob@example.org"), ("alias", "alice@example.org")])
def test_nobody_gets_the_message_twice(subject: str, user: str) -> None:
    with temporary_gateway(policies={"45-message.yaml": RULES}) as gateway:
        gateway.cli("alias", "add", "boss@example.org", "alice@example.org").expect(0)
        with RawClient(gateway.ports["smtp"]) as client:
            client.ehlo()
            client.begin_data("alice@example.org")
            client.send(message(subject) + b".\r\n")
            assert client.reply().code == 250
        wait_until(lambda: gateway.mails(user), 10, "the message")
        wait_until(lambda: json.loads(gateway.cli("queue", "list", "--json").stdout or "[]") == [], 10, "the queue")
        assert len(gateway.mails(user)) == 1
