"""The shipped policy: whoever is refused can reach the postmaster that the refusal names, of relay domains too."""

from gateway.demo.nameserver import NameServer
from tests.e2e.test_default_policy import LISTED, answer, records
from tests.support.gateway import REPOSITORY
from tests.support.raw import temporary_gateway


def test_the_postmaster_whom_a_refusal_names_is_reached() -> None:
    shipped = REPOSITORY / "policies"
    files = {f"policies/{path.relative_to(shipped)}": path.read_text() for path in shipped.rglob("*") if path.is_file()}
    with NameServer(records()) as dns:
        settings = {"dns": {"servers": [dns.address]}, 'relay_domains."partner.test"': {}}
        with temporary_gateway(settings=settings, files=files) as gateway:
            assert "postmaster@partner.test can help" in answer(gateway, LISTED, recipient="x@partner.test")
            assert answer(gateway, LISTED, recipient="postmaster@partner.test").startswith("250 ")
