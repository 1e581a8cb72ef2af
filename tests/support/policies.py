"""What tests of the policy rooms share: sessions, contexts, policy folders of texts."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gateway.core.address import parse_mailbox, path_or_null
from gateway.core.transaction import Session, Tls
from gateway.message.blob import MemoryBlob
from gateway.message.header import parse_header
from gateway.policy.context import Context, MessageFacts
from gateway.policy.loader import load_policy
from gateway.policy.rules import Policy
from tests.support.fakes import FakeDirectory

STRANGER = Session("S1", "smtp", "203.0.113.7", 40000, False, helo="mx.sender.example", is_esmtp=True)
OWN = replace(STRANGER, client_ip="127.0.0.1", is_trusted=True)
USER = replace(
    STRANGER, listener="submission", tls=Tls("TLSv1.3", "AES"), user="alice@example.org", auth_method="PLAIN"
)
DIRECTORY = FakeDirectory(["example.org"], ["partner.example"], ["alice@example.org"])


def context(
    session: Session = STRANGER,
    *,
    sender: str | None = None,
    recipient: str | None = None,
    message: bytes | None = None,
    count: int = 0,
    errors: int = 0,
) -> Context:
    """What a stage looks at; message: octets with their header."""
    facts = None
    if message is not None:
        facts = MessageFacts(MemoryBlob(message), not message.isascii(), parse_header(message))
    return Context(
        session,
        DIRECTORY,
        "mail.example.org",
        errors=errors,
        reverse_path=None if sender is None else path_or_null(sender),
        recipient=None if recipient is None else parse_mailbox(recipient),
        recipient_count=count,
        message=facts,
    )


def write_policy(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """A policy folder `policies` below `folder` with these files (`lists/NAME.KIND` too)."""
    root = folder / "policies"
    root.mkdir(exist_ok=True)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def policy_of(folder: Path, files: Mapping[str, str | bytes]) -> Policy:
    return load_policy(write_policy(folder, files))
