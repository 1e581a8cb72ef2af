"""The message store with what IMAP asks of a message worked out at delivery."""

from pathlib import Path

from gateway.imap.summary import places_to_json, summarise
from gateway.mailbox.quota import NoQuotas, Quotas
from gateway.mailbox.store import MessageStore
from gateway.mailbox.values import Summarised
from gateway.telemetry import log

_log = log.get("store")


def open_store(folder: Path, quotas: Quotas | None = None) -> MessageStore:
    return MessageStore(folder, summarised, NoQuotas() if quotas is None else quotas, _rebuilt)


def _rebuilt(account: str, is_here: bool) -> None:
    _log.error("an index was damaged", account=account, rebuilt="here" if is_here else "by another process")


def summarised(octets: bytes) -> Summarised:
    """octets: of a whole message, with CRLF."""
    found = summarise(octets)
    return Summarised(found.envelope, found.structure, found.body, found.header, places_to_json(found.places))
