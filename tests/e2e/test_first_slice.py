"""The main job in one breath: mail in to a mailbox, mail out to an MX, and the trace of both."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.demo.nameserver import NameServer
from tests.support.gateway import MESSAGE, Gateway
from tests.support.peers import SmtpSink, sink_missing


def test_mail_for_a_local_user_is_stored(make_gateway: Callable[..., Gateway]) -> None:
    with make_gateway() as gateway:
        assert gateway.send("alice@example.org", MESSAGE) == {}
        (stored,) = gateway.wait_mails("alice@example.org", 1)
        assert stored.startswith(
            b"Return-Path: <sender@elsewhere.test>\r\nDelivered-To: alice@example.org\r\nReceived: "
        )
        assert stored.endswith(MESSAGE)


@pytest.mark.peers
@pytest.mark.skipif(sink_missing() is not None, reason=str(sink_missing()))
def test_mail_for_others_leaves_by_mx(make_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    with (
        SmtpSink(tmp_path) as sink,
        NameServer(["remote.test MX 10 mx.remote.test.", "mx.remote.test A 127.0.0.1"]) as dns,
    ):
        settings = {"dns": {"servers": [dns.address]}, "delivery": {"port": sink.port}}
        with make_gateway(settings=settings) as gateway:
            gateway.send("someone@remote.test", MESSAGE)
            (message,) = sink.wait_messages(1)
            assert message.forward_paths == ("someone@remote.test",)
            assert message.data.endswith(MESSAGE)
