"""The message store with what IMAP asks of a message worked out at delivery."""

from pathlib import Path

from gateway.imap.summary import places_to_json, summarise
from gateway.mailbox.index import Summarised
from gateway.mailbox.store import MessageStore


def open_store(folder: Path) -> MessageStore:
    return MessageStore(folder, summarised)


def summarised(octets: bytes) -> Summarised:
    """octets: of a whole message, with CRLF."""
    found = summarise(octets)
    return Summarised(found.envelope, found.structure, found.body, found.header, places_to_json(found.places))
