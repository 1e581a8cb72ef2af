"""What the work of the queue's role leaves in metrics, log and trace."""

from gateway.core.outcome import Deferred, Delivered, Failed, Outcome
from gateway.quarantine.store import Request
from gateway.queue.store import Claim, ClaimedRecipient
from gateway.telemetry import log
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recorder import Recorder

_WORDS: dict[type, str] = {Delivered: "delivered", Deferred: "deferred", Failed: "failed"}


class QueueObserver:
    """`queue.runner.Observer`."""

    def __init__(self, metrics: Metrics, recorder: Recorder) -> None:
        self._metrics = metrics
        self._recorder = recorder
        self._log = log.get("queue")

    def attempted(
        self, claim: Claim, transport: str, outcomes: list[tuple[ClaimedRecipient, Outcome]], seconds: float
    ) -> None:
        self._metrics.delivery_seconds.labels(transport).observe(seconds)
        for recipient, outcome in outcomes:
            word = _WORDS[type(outcome)]
            self._metrics.deliveries.labels(transport, word).inc()
            if transport == "local" and isinstance(outcome, Delivered):
                self._metrics.store_messages.labels("local", "deliver").inc()
            address = str(recipient.forward_path)
            fields = {
                "queue_id": claim.message.queue_id,
                "recipient": address,
                "result": word,
                "transport": transport,
                "remote": outcome.remote,
                "reply": str(outcome.reply),
                "attempt": recipient.attempts + 1,
                "seconds": round(seconds, 4),
            }
            self._recorder.record("delivery", (claim.message.queue_id, address.lower()), fields)
            self._log.info("delivery", **fields)

    def noticed(self, claim: Claim, action: str, notice_id: str) -> None:
        fields = {"queue_id": claim.message.queue_id, "notice": action, "notice_id": notice_id}
        self._recorder.record("notice", (claim.message.queue_id, notice_id), fields)
        self._log.info("notice", **fields)

    def failed(self, what: str, error: BaseException) -> None:
        self._log.error(f"{what} failed", exc_info=error)


class ReleaseObserver:
    """`quarantine.release.Observer`."""

    def __init__(self, metrics: Metrics, recorder: Recorder) -> None:
        self._metrics = metrics
        self._recorder = recorder
        self._log = log.get("quarantine")

    def settled(self, request: Request, result: str, queue_id: str, reason: str) -> None:
        self._metrics.quarantine_releases.labels(result).inc()
        recipients = list(request.recipients.values())
        fields = {
            "queue_id": request.queue_id,
            "result": result,
            "as": queue_id,
            "by": request.by,
            "recipients": recipients,
            "reason": reason,
        }
        keys = {request.queue_id, queue_id, request.info.get("session", ""), *(to.lower() for to in recipients)}
        self._recorder.record("release", tuple(keys - {""}), fields)
        self._log.info("release", **fields)

    def failed(self, what: str, error: BaseException) -> None:
        self._log.error(f"{what} failed", exc_info=error)
