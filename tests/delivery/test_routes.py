"""Where a recipient's domain leads."""

import pytest

from gateway.delivery.routes import ByMx, FixedHost, Local, Route, Routes

HOP = FixedHost("smtp", "10.0.0.7", 25)
DEFAULT = FixedHost("submission", "smtp.provider.example", 587, "user", "secret")


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
    routes = Routes(frozenset({"example.org"}), {"partner.example": HOP, "by-mx.example": None}, default)
    assert routes.route(domain) == route


def test_a_password_wants_a_verified_certificate_and_is_not_shown() -> None:
    assert DEFAULT.must_verify
    assert not HOP.must_verify
    assert "secret" not in repr(DEFAULT)
