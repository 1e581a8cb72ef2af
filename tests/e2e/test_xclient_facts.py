"""What was learnt of one client never holds for another that a proxy names on the same connection."""

import pytest

from gateway.demo.nameserver import NameServer
from tests.support.raw import RawClient, temporary_gateway

CONNECT = "stage: connect\nrules:\n  - reject: listed\n    when: dnsbl('bl.test')\n"
CLEAN, LISTED = "192.0.2.8", "192.0.2.7"


@pytest.mark.parametrize("order", [(CLEAN, LISTED), (LISTED, CLEAN)], ids=["a clean one first", "a listed one first"])
def test_each_client_on_submission_is_looked_up(order: tuple[str, str]) -> None:
    with NameServer() as dns:
        dns.add("2.0.0.127.bl.test A 127.0.0.2", "7.2.0.192.bl.test A 127.0.0.3")
        settings = {"dns": {"servers": [dns.address]}, "listen": {"xclient_from": ["127.0.0.1"]}}
        with (
            temporary_gateway(policies={"10-connect.yaml": CONNECT}, settings=settings) as gateway,
            RawClient(gateway.ports["submission"]) as client,
        ):
            client.ehlo()
            client.starttls()
            codes = {}
            for ip in order:
                client.ehlo()
                assert client.line(f"XCLIENT ADDR={ip} PORT=1111").code == 220
                client.ehlo()
                assert client.login().code == 235
                client.line("MAIL FROM:<alice@example.org>")
                codes[ip] = client.line("RCPT TO:<alice@example.org>").code
                client.line("RSET")
    assert codes == {CLEAN: 250, LISTED: 550}
