"""A message that a hop of ours hands on: judged as if its client stood here, at the end of data, where its Received
field tells who that was. Until then only the fixed guards answer: the hop asked in the client's name, and is no client.
"""

from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace

from gateway.core.reply import Reply
from gateway.core.transaction import Envelope, Recipient, Session
from gateway.core.verdict import Decision, Stage
from gateway.message.header import Header
from gateway.message.received import brought_by, names_client
from gateway.policy.context import Context
from gateway.servers.smtp_judge import SessionJudge, merged

_ITSELF = ("127.0.0.1", "::1")


def client_behind(session: Session, header: Header, upstream: Container[str]) -> Session | None:
    """The session that the first hop that is none of ours had. Of a message that a hop made itself, its own; None: a
    hop's field cannot be read, so nobody can be judged.
    """
    found = session
    for each in header.fields:
        if each.name.lower() != "received":
            continue
        brought = brought_by(each.value)
        if brought is None and names_client(each.value):
            return None
        if brought is None or brought.ip in _ITSELF:
            continue  # from one program of the hop to another
        found = replace(session, client_ip=brought.ip, client_port=0, client_name=None, helo=brought.helo)
        if brought.ip not in upstream:
            break
    return found


@dataclass(slots=True)
class Before:
    """What the stages before the message came to. decisions: with the numbers of their recipients; refused: of those
    whose mail is kept aside, for others get theirs.
    """

    decisions: list[tuple[Decision, tuple[int, ...], Context]] = field(default_factory=list)
    refusal: Reply | None = None
    refused: dict[int, Decision] = field(default_factory=dict)


async def judge_before(
    judge: SessionJudge, new_context: Callable[[], Context], envelope: Envelope, is_role: Callable[[Recipient], bool]
) -> Before:
    """All stages from connect to recipient; no delay, for it is our own hop that would wait. is_role: early refusals do
    not hold for it.
    """
    found = Before()
    judge.begin(Stage.CONNECT)
    for stage in (Stage.CONNECT, Stage.HELO, Stage.SENDER):
        context = new_context()
        context.reverse_path = envelope.reverse_path if stage is Stage.SENDER else None
        context.layers = judge.layers
        decision = await judge.decide(stage, context, waits=False)
        found.decisions.append((decision, (), context))
        if decision.verdict.refuses and not all(map(is_role, envelope.recipients)):
            found.refusal = decision.verdict.reply
            return found
    for number, recipient in enumerate(envelope.recipients):
        context = new_context()
        context.reverse_path = envelope.reverse_path
        context.recipient = recipient.forward_path
        context.recipient_count = number
        decision = await judge.recipient(context, waits=False)
        judge.keep_recipient(context)
        found.decisions.append((decision, (number,), context))
        if decision.verdict.refuses:
            found.refused[number] = decision
    if found.refused:
        found.refusal = merged([decision.verdict for decision, numbers, _ in found.decisions if numbers])
    return found
