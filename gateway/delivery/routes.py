"""Where a recipient goes: the local store, a fixed next hop, or the hosts that MX look-up finds. Pure over settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.core.address import Domain, covering

_PREFIX = "route:"  # no domain has a colon, but in brackets


@dataclass(frozen=True, slots=True)
class Local:
    """Into our own store."""


@dataclass(frozen=True, slots=True)
class ByMx:
    """To whoever the domain's MX records name."""


@dataclass(frozen=True, slots=True)
class FixedHost:
    """scheme: "smtp", "submission" (both STARTTLS), "submissions" (implicit TLS) or "lmtp" (RFC 2033; host may be
    `unix:/path`).

    A password is sent only over TLS with a verified certificate and name.
    """

    scheme: str
    host: str
    port: int
    username: str = ""
    password: str = field(default="", repr=False)
    auth: str = "plain"
    ca_file: str | None = None

    @property
    def must_verify(self) -> bool:
        return bool(self.username)

    @property
    def is_lmtp(self) -> bool:
        return self.scheme == "lmtp"


@dataclass(frozen=True, slots=True)
class NoRoute:
    """Mail waits for a route that the configuration has no more."""

    name: str


Route = Local | ByMx | FixedHost | NoRoute


def destination_of(route: str, domain: Domain) -> str:
    """What recipients that go the same way have in common. route: the name that a policy has chosen, or none."""
    return f"{_PREFIX}{route}" if route else domain.ascii


class Routes:
    """local: domains of the store; store: who keeps their mail, None: we do; relayed: next hops of relay domains;
    named: those that policies choose; `default` takes all others, who else go by MX look-up.
    """

    def __init__(
        self,
        local: frozenset[str],
        relayed: Mapping[str, FixedHost | None],
        named: Mapping[str, FixedHost],
        store: FixedHost | None = None,
    ) -> None:
        self._store = store
        self._local = local
        self._relayed = relayed
        self._named = named

    def route(self, domain: str) -> Route:
        """domain: or what else `destination_of` gives."""
        if domain.startswith(_PREFIX):
            name = domain.removeprefix(_PREFIX)
            return self._named.get(name) or NoRoute(name)
        if domain in self._local:
            return self._store or Local()
        entry = next((entry for entry in covering(domain) if entry in self._relayed), None)
        if entry is not None:
            # Without a host of its own a relay domain goes to its MX hosts behind us, never to the default route.
            return self._relayed[entry] or ByMx()
        return self._named.get("default") or ByMx()
