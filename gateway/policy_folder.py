"""The policy that a configuration names, with what its tests are at home in."""

from gateway.config import Config
from gateway.policy.cases import load_tested_policy
from gateway.policy.lists import network_set
from gateway.policy.rehearsal import Surroundings
from gateway.policy.rules import Ground, OnUnknown, Policy


def surroundings_of(config: Config) -> Surroundings:
    return Surroundings(
        config.gateway.hostname,
        frozenset(config.domains),
        frozenset(config.relay_domains),
        network_set(config.networks.trusted),
        config.gateway.recipient_delimiter,
    )


def applied_policy(config: Config) -> Policy:
    """Loaded and tested. Raises ConfigError."""
    return load_tested_policy(config.policies, surroundings_of(config), ground_of(config))


def shadow_policy(config: Config) -> Policy | None:
    """Loaded and tested, if there is one. Raises ConfigError."""
    if config.shadow is None:
        return None
    return load_tested_policy(config.shadow, surroundings_of(config), ground_of(config))


def ground_of(config: Config) -> Ground:
    ways = {name: OnUnknown(getattr(config.checks, name).on_error) for name in type(config.checks).model_fields}
    return Ground(ways, frozenset(config.routes))
