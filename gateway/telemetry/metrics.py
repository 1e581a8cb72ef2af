"""Every metric once, by the names of docs/metrics.md, over all processes.

prometheus-client's multi-process files hold the values, one set a process slot ("smtp-0", "queue-0") rather than a
process id: a restarted worker goes on counting where its predecessor was killed.
"""

import os
import shutil
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MultiProcessValue

from gateway import VERSION
from gateway.core.errors import ConfigError

_M = TypeVar("_M", Counter, Gauge, Histogram)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_SHORT = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 60.0)


def prepare(data: Path) -> Path:
    """Before any fork and under the data folder's lock: an empty folder for the values of this run.

    In memory where that can be had: the files are mapped, and a page that a full disk cannot hold kills the process
    (SIGBUS). The name goes by the data folder, so a killed gateway's values are cleared by the next.
    """
    name = f"smarthost-{sha256(str(data.resolve()).encode()).hexdigest()[:24]}"
    for folder in (Path("/dev/shm") / name, data / "run" / "metrics"):  # noqa: S108  # made anew, 0700, never followed
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=False, mode=0o700)
        except OSError:
            continue
        return folder
    raise ConfigError(f"{data}: no folder for metrics can be made")


def exposition(folder: Path) -> bytes:
    """All values of all processes in Prometheus's text format. Takes milliseconds: call it off the event loop."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


class Metrics:
    """One process's hands on the metrics. slot: its stable name. Made after fork, once a process."""

    def __init__(self, folder: Path, slot: str) -> None:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        # The library chooses its value class at import, from an environment that had no folder yet.
        values.ValueClass = MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]
        self.connections = _counter("connections", "Connections by what became of them", "listener", "result")
        self.sessions_open = _gauge("sessions_open", "Sessions open now", "listener")
        self.messages = _counter("messages", "Messages judged", "direction", "result")
        self.message_bytes = _counter("message_bytes", "Octets of accepted messages", "direction")
        self.stage_seconds = _histogram("stage_seconds", "Time a policy stage took", _SHORT, "stage")
        self.rule_hits = _counter("policy_rule_hits", "Rules that decided", "stage", "rule", "action", "mode")
        self.shadow_differences = _counter(
            "policy_shadow_differences", "Decisions that the shadow policy would have made otherwise",
            "stage", "live", "shadow",
        )  # fmt: skip
        self.policy_reloads = _counter("policy_reload", "Reloads of the policy", "result")
        self.auth_attempts = _counter("auth_attempts", "Sign-ins", "service", "result")
        self.dns_seconds = _histogram("dns_seconds", "DNS look-ups that went out", _SECONDS, "type", "result")
        self.check_seconds = _histogram("check_seconds", "Time a check took", _SECONDS, "check")
        self.check_results = _counter("check_results", "Facts asked of checks", "check", "result")
        self.dnsbl_up = _gauge("dnsbl_up", "1: the DNS list's test points are right", "zone", mode="mostrecent")
        self.queue_messages = _gauge("queue_messages", "Recipients in the queue by state", "state", mode="mostrecent")
        self.queue_oldest = _gauge("queue_oldest_seconds", "Age of the oldest message in the queue", mode="mostrecent")
        self.quarantine_messages = _gauge("quarantine_messages", "Recipients in quarantine", mode="mostrecent")
        self.quarantine_bytes = _gauge("quarantine_bytes", "Octets in quarantine", mode="mostrecent")
        self.quarantine_releases = _counter("quarantine_releases", "Releases asked for, by what came of them", "result")
        self.quarantine_digests = _counter("quarantine_digests", "Digests sent")
        self.deliveries = _counter("deliveries", "Delivery attempts by recipient", "transport", "result")
        self.delivery_seconds = _histogram("delivery_seconds", "Time of a delivery attempt", _SECONDS, "transport")
        self.tls = _counter("tls", "TLS sessions", "direction", "version", "policy")
        self.store_messages = _counter("store_messages", "Messages stored and fetched", "service", "operation")
        self.certificate_expiry = _gauge(
            "certificate_expiry_seconds", "Until the certificate ends", "domain", mode="mostrecent"
        )
        self.trace_dropped = _counter("trace_dropped", "Trace events lost because the disk was too slow")
        self.build_info = _gauge("build_info", "Constant 1", "version", mode="mostrecent")
        self.build_info.labels(VERSION).set(1)

    def reset_gauges(self, listeners: tuple[str, ...]) -> None:
        """At a process's start: its predecessor in the slot may have been killed with sessions open."""
        for listener in listeners:
            self.sessions_open.labels(listener).set(0)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return _remembering(Counter(f"smarthost_{name}", text, labels, registry=None))


def _gauge(name: str, text: str, *labels: str, mode: str = "sum") -> Gauge:
    return _remembering(
        Gauge(f"smarthost_{name}", text, labels, registry=None, multiprocess_mode=mode)  # type: ignore[arg-type]  # a Literal
    )


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return _remembering(Histogram(f"smarthost_{name}", text, labels, registry=None, buckets=buckets))


def _remembering(metric: _M) -> _M:
    """The library finds the child of some labels under a lock, from their texts, each time: a tenth of what receiving
    a message takes. Children are few, and live as long as their metric.
    """
    metric.labels = lru_cache(maxsize=1024)(metric.labels)  # type: ignore[method-assign]
    return metric
