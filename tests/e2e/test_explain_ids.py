"""`policy explain ID` of a refusal by no rule is about the transaction that it fell in, as of any other."""

from tests.support.process import wait_until
from tests.support.raw import RawClient, temporary_gateway


def test_the_id_of_any_refusal_names_its_transaction() -> None:
    with temporary_gateway() as gateway:
        with RawClient(gateway.ports["smtp"], source="127.9.0.1") as client:
            client.ehlo()
            for sender in ("first@x.test", "second@x.test"):
                client.envelope("alice@example.org", sender=sender)
                refusal = client.line("FOO")
                client.line("RSET")
        wait_until(lambda: gateway.cli("trace", "second@x.test").stdout, 10, "the record")
        told = gateway.cli("policy", "explain", refusal.id).stdout
        assert "<second@x.test>" in told
        assert "<first@x.test>" not in told
