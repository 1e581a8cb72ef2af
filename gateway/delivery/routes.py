"""Where a recipient goes: the local store, a fixed next hop, or the hosts that MX look-up finds. Pure over settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Local:
    """Into our own store."""


@dataclass(frozen=True, slots=True)
class ByMx:
    """To whoever the domain's MX records name."""


@dataclass(frozen=True, slots=True)
class FixedHost:
    """scheme: "smtp", "submission" (both STARTTLS) or "submissions" (implicit TLS).

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


Route = Local | ByMx | FixedHost


class Routes:
    """local: domains of the store; relayed: next hops of relay domains; default: for all others, None: MX look-up."""

    def __init__(
        self, local: frozenset[str], relayed: Mapping[str, FixedHost | None], default: FixedHost | None
    ) -> None:
        self._local = local
        self._relayed = relayed
        self._default = default

    def route(self, domain: str) -> Route:
        if domain in self._local:
            return Local()
        if domain in self._relayed:
            # Without a host of its own a relay domain goes to its MX hosts behind us, never to the default route.
            return self._relayed[domain] or ByMx()
        return self._default or ByMx()
