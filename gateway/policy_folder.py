"""The policy that a configuration names, with what its tests are at home in, and the signatures beside it."""

from gateway.config import Config
from gateway.content.signatures import NO_SIGNATURES, Signatures, compile_signatures
from gateway.core.errors import ConfigError
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


def signatures_of(config: Config) -> Signatures:
    """The rules of the embedded antivirus engine, compiled. Raises ConfigError."""
    folder = config.signatures
    if folder is None:
        return NO_SIGNATURES
    if config.checks.antivirus.yara is not None and not folder.is_dir():
        raise ConfigError(f"checks.antivirus.yara: {folder}: no such folder")
    return compile_signatures(folder)


def engines_of(config: Config, signatures: Signatures) -> list[str]:
    """Which antivirus engines run, as people are told."""
    embedded = [f"yara ({signatures.count} rules)"] if signatures.count else []
    clamds = [f"clamd {address}" for address in config.checks.antivirus.clamd]
    return [*embedded, *clamds] or ["none"]


def ground_of(config: Config) -> Ground:
    ways = {name: OnUnknown(getattr(config.checks, name).on_error) for name in type(config.checks).model_fields}
    return Ground(ways, frozenset(config.routes))
