"""Applying a changed policy while the gateway runs: all or nothing; the running one stays when the new one is wrong.

The supervisor loads and tests the policy, puts a copy of its files where workers may read them, and tells all roles.
A session keeps the policy it began with. The outcome stands in `run/reload.json`, for `smarthost reload` to read.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gateway.config import Config
from gateway.core.errors import ConfigError
from gateway.policy.loader import load_policy, sources_of, version_of
from gateway.policy.rules import Policy
from gateway.policy_folder import applied_policy, ground_of, shadow_policy, signatures_of
from gateway.process import Shared
from gateway.telemetry import log

KEPT_COPIES = 6
_log = log.get("reload")


@dataclass(frozen=True, slots=True)
class Outcome:
    """number: counts the reloads of this run; version: what runs now; message: what is wrong, if anything."""

    number: int
    ok: bool
    version: str
    message: str
    shadow: str = ""  # the version of the shadow policy, if there is one
    at: float = field(default_factory=time.time)


def outcome_path(data: Path) -> Path:
    return data / "run" / "reload.json"


def read_outcome(data: Path) -> Outcome | None:
    try:
        found = json.loads(outcome_path(data).read_text(encoding="utf-8"))
        return Outcome(found["number"], found["ok"], found["version"], found["message"], found["shadow"], found["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def copied_policy(config: Config, version: str) -> Policy:
    """In a worker: the policy, or the shadow policy, of an outcome."""
    return load_policy(_copies(config.data) / version / "policies", ground_of(config))


def forget(data: Path) -> None:
    """At the start of a run: what an earlier one applied says nothing of this one."""
    outcome_path(data).unlink(missing_ok=True)
    shutil.rmtree(_copies(data), ignore_errors=True)


class Reloader:
    """as_service(call): runs it in a process of the service's user and waits (`Supervisor.run_once`)."""

    def __init__(self, shared: Shared, as_service: Callable[[Callable[[], None]], None]) -> None:
        self._shared = shared
        self._as_service = as_service
        self._number = 0
        self._applied = self._state()
        self._noticed = self._applied

    def reload(self) -> None:
        """Never raises."""
        config = self._shared.config
        self._number += 1
        self._applied = self._noticed = self._state()
        try:
            policy, signatures = applied_policy(config), signatures_of(config)
            copies = {policy.version: _sources(config.policies, policy)}
            shadow, trouble = self._next_shadow(copies)
            outcome = Outcome(self._number, True, policy.version, trouble, "" if shadow is None else shadow.version)
            self._as_service(lambda: _write(config.data, outcome, copies))
        except (ConfigError, OSError) as error:
            _log.error("policy refused, the running one stays", reason=str(error))
            outcome = Outcome(self._number, False, self._shared.policy.version, str(error))
            with suppress(ConfigError):
                self._as_service(lambda: _write(config.data, outcome, {}))
            return
        for warning in policy.warnings:
            _log.warning("policy", lint=warning)
        self._shared.policy, self._shared.shadow = policy, shadow
        self._shared.signatures, self._shared.reloads = signatures, self._number
        _log.info("policy applied", version=policy.version, signatures=signatures.count)

    def _next_shadow(self, copies: dict[str, dict[str, bytes]]) -> tuple[Policy | None, str]:
        """What is wrong with a new shadow policy is told, and the old one stays: it must not keep the live one back."""
        config = self._shared.config
        try:
            shadow = shadow_policy(config)
            if shadow is not None and config.shadow is not None:
                copies[shadow.version] = _sources(config.shadow, shadow)
        except ConfigError as error:
            _log.error("shadow policy refused, the old one stays", reason=str(error))
            return self._shared.shadow, f"the shadow policy stays as it was: {error}"
        return shadow, ""

    def _state(self) -> tuple[tuple[str, int, int], ...]:
        config = self._shared.config
        folders = (config.policies, config.shadow, config.signatures)
        return tuple(dict.fromkeys(state for folder in folders if folder is not None for state in _state_of(folder)))

    def is_due(self) -> bool:
        """For `[policy] watch`: has the folder changed, and been at rest since the last look?"""
        state = self._state()
        is_at_rest, self._noticed = state == self._noticed, state
        return is_at_rest and state != self._applied


def _sources(folder: Path, policy: Policy) -> dict[str, bytes]:
    sources = sources_of(folder)
    if version_of(sources) != policy.version:
        raise ConfigError("the policy changed while it was read; reload again")
    return sources


def _write(data: Path, outcome: Outcome, copies: dict[str, dict[str, bytes]]) -> None:
    """copies: the files of each version that workers will want."""
    for version, sources in copies.items():
        _copy(_copies(data) / version, sources)
    path = outcome_path(data)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
    temporary.rename(path)


def _copy(folder: Path, sources: dict[str, bytes]) -> None:
    if folder.exists():
        os.utime(folder)
        return
    temporary = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    for name, octets in sources.items():
        path = temporary / "policies" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(octets)
    (temporary / "policies").mkdir(parents=True, exist_ok=True)
    temporary.rename(folder)
    copies = sorted(folder.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in copies[KEPT_COPIES:]:
        shutil.rmtree(old, ignore_errors=True)


def _copies(data: Path) -> Path:
    return data / "run" / "policy"


def _state_of(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of all files below: what a look once a second can afford."""
    found = []
    for path in sorted(folder.rglob("*")):
        with suppress(OSError):
            stat = path.stat()
            found.append((str(path), stat.st_size, stat.st_mtime_ns))
    return tuple(found)
