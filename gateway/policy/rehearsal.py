"""A policy run on paper: facts that are given, the rest computed or neutral, no mail and no network.

Tests, explain and replay are all rehearsals: the stages in order, as the driver runs them, on one envelope.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gateway.content.inspection import Findings, inspect
from gateway.core.address import Domain, Mailbox, covering, parse_mailbox, path_or_null
from gateway.core.transaction import Session, Tls
from gateway.core.verdict import DISPOSING, Action, Decision, Matched, Stage
from gateway.message.blob import MemoryBlob
from gateway.message.header import parse_header
from gateway.policy.catalogue import declared
from gateway.policy.context import ORDER, STAGES, Context, Layer, MessageFacts, Need, new_layers
from gateway.policy.engine import decide
from gateway.policy.lists import NetworkSet
from gateway.policy.rules import Policy
from gateway.policy.values import UNKNOWN, Found

STRANGER = "192.0.2.1"  # who connects unless a test says otherwise
SENDER = "sender@sender.example"
HELO = "mail.sender.example"
EMPTY_MESSAGE = b"From: <sender@sender.example>\r\nSubject: test\r\n\r\ntest\r\n"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the gateway is at home in; also the directory of a rehearsal, where every local mailbox exists."""

    hostname: str = "mail.example.org"
    domains: frozenset[str] = frozenset()
    relay_domains: frozenset[str] = frozenset()
    trusted: NetworkSet = field(default_factory=lambda: NetworkSet([]))
    delimiter: str = "+"

    def is_local(self, domain: Domain) -> bool:
        return domain.ascii in self.domains

    def is_relayed(self, domain: Domain) -> bool:
        return not self.is_local(domain) and any(entry in self.relay_domains for entry in covering(domain.ascii))

    def exists(self, mailbox: Mailbox) -> bool:
        return True

    def without_tag(self, mailbox: Mailbox) -> str:
        local, domain = mailbox.local_part.lower(), mailbox.domain.ascii
        base = local.partition(self.delimiter)[0] if self.delimiter and self.is_local(mailbox.domain) else local
        return f"{base or local}@{domain}"

    def is_probed(self, domain: Domain) -> bool:
        return False

    def choice(self, recipient: Mailbox, sender: str) -> bool | None:
        return None

    def owns(self, user: str, mailbox: Mailbox) -> bool:
        return str(mailbox).lower() == user.lower()


def _from_message(message: bytes | None) -> Callable[[Need], Found]:
    """What is in a sample is looked at once, when a rule asks."""
    found: list[Findings] = []

    def fetch(need: Need) -> Found:
        if message is None or need.provider != "content":
            return neutral(need)
        if not found:
            found.append(inspect(message))
        match need.name:
            case "attachments":
                return found[0].attachments
            case "message.faults":
                return found[0].faults
            case _:
                return found[0].is_ambiguous

    return fetch


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """decisions: one a stage that was run, a refusal last; action, rule: what it comes to for the mail."""

    decisions: tuple[Decision, ...]
    action: Action
    rule: str
    score: float
    marks: tuple[str, ...]

    def matched(self, rule: str) -> Matched | None:
        """What became of a rule, None where it was not tried or simply did not match."""
        steps = (step for decision in self.decisions for step in decision.trail if step.rule == rule)
        return next((step.matched for step in steps), None)


def neutral(need: Need) -> Found:
    """A fetched fact's value where nobody says otherwise."""
    found = declared(need.key)
    return UNKNOWN if found is None else found.neutral


def rehearse(
    policy: Policy,
    given: Mapping[str, Found],
    around: Surroundings,
    last: Stage,
    *,
    message: bytes | None = None,
    fetch: Callable[[Need], Found] | None = None,
    at: Callable[[Stage], Mapping[str, Found]] | None = None,
    full: bool = False,
) -> Rehearsal:
    """Stages up to `last`. given: facts by key; at: those of a stage, where they differ; message: a whole one; fetch:
    without it a fact is neutral, but for those that the message itself shows.
    """
    fetch = fetch or _from_message(message)
    layers = new_layers()
    score, marks = given.get("score"), given.get("marks")
    layers[0].score = score if isinstance(score, int | float) else 0.0
    layers[0].marks = tuple(mark for mark in marks if isinstance(mark, str)) if isinstance(marks, tuple) else ()
    context = rehearsed_context(given, around, message, layers)
    decisions: list[Decision] = []
    disposed: Decision | None = None
    for stage in STAGES[: ORDER[last] + 1]:
        own = context.anew() if at is None else context.anew(given=at(stage))
        decision = decide(policy, stage, own, fetch, full=full)
        decisions.append(decision)
        if decision.verdict.refuses:
            disposed = decision
            break
        if decision.verdict.action in DISPOSING:
            disposed = decision
    final = (disposed or decisions[-1]).verdict
    return Rehearsal(tuple(decisions), final.action, final.rule, context.score, context.marks)


def rehearsed_context(
    given: Mapping[str, Found],
    around: Surroundings,
    message: bytes | None = None,
    layers: tuple[Layer, ...] | None = None,
) -> Context:
    """What the first stage of a rehearsal looks at."""
    octets = EMPTY_MESSAGE if message is None else message
    recipient = _text(given, "recipient.address") or f"postmaster@{min(around.domains, default='example.org')}"
    sender = given.get("sender.address", "" if given.get("sender.is_null") is True else SENDER)
    return Context(
        _session(given, around),
        around,
        around.hostname,
        reverse_path=path_or_null(sender if isinstance(sender, str) else ""),
        recipient=parse_mailbox(recipient),
        message=MessageFacts(MemoryBlob(octets), not octets.isascii(), parse_header(octets)),
        layers=layers or new_layers(),
        given=given,
    )


def _session(given: Mapping[str, Found], around: Surroundings) -> Session:
    ip = _text(given, "client.ip") or STRANGER
    port = given.get("client.port", 40000)
    version = _text(given, "session.tls.version")
    user = _text(given, "auth.user")
    uses_tls = version is not None or given.get("session.tls.active") is True or user is not None
    return Session(
        "rehearsal",
        _text(given, "session.listener") or ("smtp" if user is None else "submission"),
        ip,
        port if isinstance(port, int) else 40000,
        given.get("client.trusted", ip in around.trusted) is True,
        client_name=_text(given, "client.name"),
        helo=_text(given, "helo.name") or HELO,
        is_esmtp=given.get("helo.esmtp") is not False,
        tls=Tls(version or "TLSv1.3", "TLS_AES_256_GCM_SHA384") if uses_tls else None,
        user=user,
        auth_method=_text(given, "auth.method") or ("" if user is None else "PLAIN"),
    )


def _text(given: Mapping[str, Found], key: str) -> str | None:
    value = given.get(key)
    return value if isinstance(value, str) else None
