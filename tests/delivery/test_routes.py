"""Where a recipient's domain leads."""

import pytest

from gateway.core.address import Domain
from gateway.delivery.routes import ByMx, FixedHost, Local, NoRoute, Route, Routes, destination_of

HOP = FixedHost("smtp", "10.0.0.7", 25)
DEFAULT = FixedHost("submission", "smtp.provider.example", 587, "user", "secret")


def _named(default: FixedHost | None) -> dict[str, FixedHost]:
    return {} if default is None else {"default": default}


@pytest.mark.parametrize(
    ("domain", "default", "route"),
    [
        ("example.org", DEFAULT, Local()),
        ("partner.example", DEFAULT, HOP),
        ("by-mx.example", DEFAULT, ByMx()),
        ("else.example", DEFAULT, DEFAULT),
        ("else.example", None, ByMx()),
        ("sub.example.org", None, ByMx()),
        ("example.org", None, Local()),
    ],
)
def test_routes(domain: str, default: FixedHost | None, route: Route) -> None:
    routes = Routes(frozenset({"example.org"}), {"partner.example": HOP, "by-mx.example": None}, _named(default))
    assert routes.route(domain) == route


def test_a_policys_choice_is_a_destination_of_its_own_for_any_domain() -> None:
    routes = Routes(frozenset({"example.org"}), {}, {"lists": HOP})
    assert routes.route(destination_of("lists", Domain("example.org"))) == HOP
    assert routes.route(destination_of("", Domain("example.org"))) == Local()


def test_mail_for_a_route_that_is_configured_no_more_goes_nowhere_else() -> None:
    routes = Routes(frozenset(), {}, {"default": DEFAULT})
    assert routes.route(destination_of("lists", Domain("else.example"))) == NoRoute("lists")


def test_a_password_wants_a_verified_certificate_and_is_not_shown() -> None:
    assert DEFAULT.must_verify
    assert not HOP.must_verify
    assert "secret" not in repr(DEFAULT)
