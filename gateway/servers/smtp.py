"""The driver of one SMTP session: asks the policy, holds the fixed guards, hands accepted mail to intake.

Refusals at connect, helo and sender are kept and answer each RCPT (docs/policy.md, delayed refusals), so that the
trace has sender and recipient. The relay guard stands here, after whatever the rules say.
"""

import asyncio
import time
from dataclasses import replace
from typing import cast

from gateway.accounts.directory import ROLES
from gateway.core.address import Domain, Mailbox
from gateway.core.errors import StorageBroken, StorageFull
from gateway.core.ident import LENGTH, new_id
from gateway.core.ports import EarlyTalk
from gateway.core.reply import Reply, reply
from gateway.core.transaction import Envelope, Recipient, Session
from gateway.core.verdict import Action, Decision, Guard, Stage, Verdict
from gateway.dns.budget import lookup_budget
from gateway.message.header import MAX_HEADER, parse_header
from gateway.policy.context import Context, MessageFacts
from gateway.policy.readers import owns_author
from gateway.queue.handling import Part
from gateway.senderauth.results import Authentication
from gateway.servers.login import LockedOut, SignedIn, WrongPassword
from gateway.servers.smtp_guards import UNREADABLE_HOP, header_guard, hop_guard, relay_guard
from gateway.servers.smtp_judge import Judged, SessionJudge
from gateway.servers.smtp_notice import tell_of_held
from gateway.servers.smtp_record import TransactionRecord, plain_message_id, result_of, told_part
from gateway.servers.smtp_service import SmtpService, SpooledContent
from gateway.servers.smtp_shadow import Shadow
from gateway.servers.smtp_upstream import Before, client_behind, judge_before
from gateway.smtp import replies
from gateway.smtp.data import ContentFacts
from gateway.smtp.grammar import MailArguments, RcptArguments
from gateway.smtp.handler import Content
from gateway.smtp.sasl import Credentials
from gateway.telemetry import log

MAX_LOOKUPS = 250  # that a message may cost: SPF's 110, fifty seals, twenty domains in a few lists
MAX_SESSION_LOGINS = 5  # failures in one session


class SmtpDriver:
    """`smtp.server.Handler` for one connection. gauges: keys to release when it closes."""

    def __init__(self, service: SmtpService, gauges: tuple[str, ...]) -> None:
        self._service = service
        shadow = None
        if service.shadow is not None:
            shadow = Shadow(
                service.shadow, service.policy.facts, service.source, service.settings.shadow_lookups, service.metrics
            )
        self._judge = SessionJudge(service.policy, service.source, service.metrics, shadow)
        self._gauges = gauges
        self._log = log.get("smtp")
        self._kept: Decision | None = None  # a refusal at connect or helo that waits for RCPT
        self._kept_sender: Decision | None = None
        self._early = TransactionRecord()  # decisions of the connection, repeated in each transaction's record
        self._record = TransactionRecord()
        self._errors = self._transactions = self._login_failures = 0
        self._last_session: Session | None = None
        self._early_talk: EarlyTalk | None = None

    # --- connection -----------------------------------------------------------------------------------------------

    async def connected(self, session: Session, early_talk: EarlyTalk) -> Reply | None:
        self._last_session = session
        self._early_talk = None if session.is_upstream else early_talk
        self._kept = None
        if session.tls is not None:
            self._count_tls(session)
        self._judge.begin(Stage.CONNECT)
        if session.is_upstream or (session.is_submission and session.user is None):
            return None  # both early stages run once it is known who this is
        answer = await self._early_stage(Stage.CONNECT, session)
        self._service.memory.connected(self._judge.policy, self._context(session))
        return answer

    async def helo(self, session: Session) -> Reply | None:
        self._last_session = session
        if session.tls is not None and not session.is_submission:
            self._count_tls(session)
        self._judge.begin(Stage.HELO)
        if session.is_upstream or (session.is_submission and session.user is None):
            return None
        return await self._early_stage(Stage.HELO, session)

    def _count_tls(self, session: Session) -> None:
        if session.tls is not None and not self._transactions:
            self._service.metrics.tls.labels("in", session.tls.version, "none").inc()

    async def _early_stage(self, stage: Stage, session: Session, *, may_answer: bool = True) -> Reply | None:
        """may_answer False: there is no command that a refusal could answer, so it waits for RCPT."""
        if self._kept is not None and self._kept.stage is stage:
            self._kept = None  # a new HELO is judged anew
        if self._kept is not None:
            return None
        if stage is Stage.HELO and not session.may_relay and session.helo.lower() == self._service.settings.hostname:
            answer = reply(550, "5.7.1", "HELO with our own name")
            decision, context = self._guard(stage, Guard.OWN_NAME, answer), None
        else:
            context = self._context(session)
            decision = await self._judge.decide(stage, context)
        self._early.replace_decision(decision, context)
        if not decision.verdict.refuses:
            return None
        if self._service.settings.answer_early and may_answer:
            self._record.add_decision(decision)
            return decision.verdict.reply
        self._kept = decision
        return None

    async def authenticate(self, session: Session, method: str, credentials: Credentials) -> Session | Reply:
        service = self._service
        result = await service.login.check(credentials.user, credentials.password, session.client_ip)
        match result:
            case SignedIn(account=account):
                service.metrics.auth_attempts.labels("smtp", "success").inc()
                signed_in = replace(session, user=account, auth_method=method, is_upstream=False)
                self._last_session = signed_in
                # Who signs in is judged anew: a blocked network does not shut out its owner's travelling users.
                self._kept = None
                self._early = TransactionRecord()
                self._judge.begin_again()
                await self._early_stage(Stage.CONNECT, signed_in, may_answer=False)
                await self._early_stage(Stage.HELO, signed_in, may_answer=False)
                if session.is_submission:  # elsewhere it was counted when it came
                    service.memory.connected(self._judge.policy, self._context(signed_in))
                return signed_in
            case WrongPassword():
                service.metrics.auth_attempts.labels("smtp", "failure").inc()
                self._log.warning("sign-in failed", session=session.id, client=session.client_ip, user=credentials.user)
                self._login_failures += 1
                service.memory.sign_in_failed(self._judge.policy, self._context(session))
                too_many = self._login_failures >= MAX_SESSION_LOGINS
                return replace(replies.WRONG_PASSWORD, code=421, status="4.7.0") if too_many else replies.WRONG_PASSWORD
            case LockedOut():
                service.metrics.auth_attempts.labels("smtp", "locked").inc()
                self._log.warning("sign-in locked", session=session.id, client=session.client_ip, user=credentials.user)
                return replies.LOCKED_OUT

    async def impersonate(self, session: Session, ip: str | None, port: int | None, name: str | None) -> Session:
        self._early = TransactionRecord()
        is_upstream = ip is not None and ip in self._service.upstream
        is_trusted = ip is not None and ip in self._service.trusted and not is_upstream
        address = ip or session.client_ip
        client = replace(session, client_ip=address, client_port=port or 0, client_name=name, is_trusted=is_trusted)
        return replace(client, user=None, auth_method="", is_upstream=is_upstream)

    def closed(self, session: Session) -> None:
        self._finish("closed", None)
        self._service.counters.release(*self._gauges)
        self._service.metrics.sessions_open.labels(session.listener).dec()

    # --- transaction ----------------------------------------------------------------------------------------------

    async def mail(self, session: Session, arguments: MailArguments) -> Reply | None:
        self._finish("abandoned", None)
        self._last_session = session
        self._transactions += 1
        self._record = TransactionRecord(sender=str(arguments.reverse_path), decisions=list(self._early.decisions))
        if not self._service.has_room():
            return replies.FULL
        self._kept_sender = None
        self._judge.begin(Stage.SENDER)
        if self._kept is None and not session.is_upstream:
            context = self._context(session)
            context.reverse_path = arguments.reverse_path
            decision = await self._judge.decide(Stage.SENDER, context)
            self._record.add_decision(decision, (), context)
            if decision.verdict.refuses:
                if self._service.settings.answer_early:
                    return decision.verdict.reply
                self._kept_sender = decision
        return None

    async def rcpt(self, session: Session, envelope: Envelope, arguments: RcptArguments) -> Recipient | Reply:
        path = arguments.forward_path or self._postmaster()
        if path is None:
            return replies.NO_POSTMASTER
        orcpt = arguments.orcpt
        if session.may_relay:
            # Before anything is judged, so that what is judged is what gets the mail.
            routed = self._service.directory.where_routed(path)
            orcpt = orcpt or ("" if routed == path else f"rfc822;{path}")
            path = routed
        self._record.recipients.append(str(path))
        kept = self._kept or self._kept_sender
        if kept is not None and kept.verdict.reply is not None and not self._is_role(path):
            return kept.verdict.reply
        context = self._context(session)
        context.reverse_path = envelope.reverse_path
        context.recipient = path
        context.recipient_count = len(envelope.recipients)
        if session.is_upstream:
            guarded = hop_guard(session, envelope, path, self._service.directory)
            if guarded is not None:
                decision = self._guard(Stage.RECIPIENT, *guarded)
                self._record.add_decision(decision, (str(path),))
            return Recipient(path, orcpt, arguments.notify) if guarded is None else guarded[1].with_id(decision.id)
        decision = await self._judge.recipient(context)
        guarded = None if decision.verdict.refuses else relay_guard(session, envelope, path, self._service.directory)
        if guarded is not None:
            # The guard's word, on what the rules have seen.
            word = self._guard(Stage.RECIPIENT, *guarded)
            decision = replace(decision, id=word.id, verdict=word.verdict)
        self._record.add_decision(decision, (str(path),), context)
        is_accepted = decision.verdict.reply is None
        await self._service.memory.tried_recipient(self._judge.policy, context, is_accepted=is_accepted)
        if decision.verdict.reply is not None:
            return decision.verdict.reply
        self._judge.keep_recipient(context)
        return Recipient(path, orcpt, arguments.notify)

    def _postmaster(self) -> Mailbox | None:
        domains = sorted(self._service.directory.local_domains)
        return Mailbox("postmaster", Domain(domains[0])) if domains else None

    def _is_role(self, path: Mailbox) -> bool:
        return path.local_part.lower() in ROLES and self._service.directory.is_local(path.domain)

    def reset(self) -> None:
        self._finish("reset", None)

    def content(self) -> SpooledContent:
        return self._service.new_content()

    async def message(self, session: Session, envelope: Envelope, content: Content, facts: ContentFacts) -> Reply:
        spooled = cast(SpooledContent, content)  # made by `content` above
        started = time.perf_counter()
        with lookup_budget(MAX_LOOKUPS):
            return await self._message(session, envelope, spooled, facts, started)

    async def _message(
        self, session: Session, envelope: Envelope, content: SpooledContent, facts: ContentFacts, started: float
    ) -> Reply:
        try:
            try:
                async with asyncio.timeout(self._service.settings.message_stage_s):
                    judged, context = await self._judge_message(session, envelope, content, facts)
            except TimeoutError:
                judged, context = Judged([], replies.MESSAGE_TIMEOUT, ()), None
            await self._judge.beside(judged, envelope.recipients)
            for decision, numbers, seen in judged.decisions:
                names = tuple(str(envelope.recipients[number].forward_path) for number in numbers)
                self._record.add_decision(decision, names, seen)
            message = None if context is None else context.message
            if judged.refusal is not None or context is None or message is None:
                content.discard()
                self._record.authentication = self._service.authentication.known(message) if message else None
                refusal = judged.refusal or replies.LOCAL_ERROR
                self._finish("deferred" if refusal.is_temporary else "rejected", refusal)
                if context is not None and judged.is_rejected:
                    await self._service.memory.refused_message(self._judge.policy, context)
                return refusal
            found = self._record.authentication = await self._authentication(context, message, started)
            stored = await self._service.intake.accept(
                session,
                envelope,
                message.blob,
                message.header,
                self._info(context.session),
                judged.parts,
                self._service.wake_runner,
                found,
                # No user gets another's name vouched for, whatever the policy lets them write.
                is_signed=session.may_relay and (session.user is None or owns_author(context)),
            )
        except BaseException:
            content.discard()
            raise
        await self._remember(context.session, envelope, judged.parts)
        if all(part.handling.disposition is Action.DISCARD for part in judged.parts):
            content.discard()  # where a blind copy keeps it, its file has another name by now
        answer = reply(250, "2.0.0", f"Queued as {stored[0][0]}")
        direction = self._direction(session, envelope)
        self._service.metrics.message_bytes.labels(direction).inc(facts.size)
        self._record.parts = [told_part(queue_id, part) for queue_id, part in stored]
        ids = tuple(queue_id for queue_id, _ in stored)
        self._finish(result_of(judged.parts), answer, queue_ids=ids, direction=direction, started=started)
        return answer

    async def _remember(self, session: Session, envelope: Envelope, parts: tuple[Part, ...]) -> None:
        """The message is on disk: what fails here must not change the answer."""
        context = self._context(session)
        context.reverse_path, context.recipient_count = envelope.reverse_path, len(envelope.recipients)
        is_welcome = any(part.handling.disposition is None for part in parts)
        try:
            await self._service.memory.accepted_message(
                self._judge.policy, context, envelope.recipients, is_welcome=is_welcome
            )
            await tell_of_held(self._service, session, parts)
        except Exception as error:
            self._log.error("not remembered", session=session.id, exc_info=error)

    async def _judge_message(
        self, session: Session, envelope: Envelope, content: SpooledContent, facts: ContentFacts
    ) -> tuple[Judged, Context]:
        """The context has the message."""
        missing = content.end_line()
        if missing:
            await content.write(missing)
        blob = content.blob()
        header = parse_header(blob.head(MAX_HEADER))
        self._record.size = blob.size
        self._record.message_id = plain_message_id(header)
        guarded = header_guard(header, blob, self._service.settings.hops)
        before = Before()
        if session.is_upstream:
            self._record.through = session.client_ip
            client = client_behind(session, header, self._service.upstream)
            guarded = guarded or (None if client else UNREADABLE_HOP)
            session = self._last_session = client or session
            before = Before() if guarded else await self._judge_before(session, envelope)
        context = self._context(session)
        context.reverse_path = envelope.reverse_path
        context.recipient_count = len(envelope.recipients)
        context.message = MessageFacts(blob, facts.has_8bit, header)
        if guarded is not None:
            decision = self._guard(Stage.MESSAGE, *guarded)
            everybody = tuple(range(len(envelope.recipients)))
            return Judged([(decision, everybody, None)], decision.verdict.reply, ()), context
        if before.refusal is not None:
            return Judged([], before.refusal, ()), context
        return await self._judge.message(context, envelope.recipients, before.refused), context

    async def _judge_before(self, session: Session, envelope: Envelope) -> Before:
        """What a client behind a hop of ours would have heard before the message."""
        memory, policy = self._service.memory, self._judge.policy
        found = await judge_before(
            self._judge, lambda: self._context(session), envelope, lambda to: self._is_role(to.forward_path)
        )
        memory.connected(policy, self._context(session))
        for decision, numbers, seen in found.decisions:
            names = tuple(str(envelope.recipients[number].forward_path) for number in numbers)
            self._record.add_decision(decision, names, seen)
            if numbers:
                await memory.tried_recipient(policy, seen, is_accepted=not decision.verdict.refuses)
        return found

    async def _authentication(self, context: Context, message: MessageFacts, started: float) -> Authentication | None:
        """Of strangers' mail, in what is left of the message stage's time, which began with `started`. That of own
        networks and users has nobody to authenticate yet.
        """
        if context.session.may_relay:
            return None
        left = started + self._service.settings.message_stage_s - time.perf_counter()
        return await self._service.authentication.all(context, message, left)

    def _info(self, session: Session) -> dict[str, str]:
        return {
            "session": session.id,
            "client": session.client_ip,
            "helo": session.helo,
            "user": session.user or "",
            "message_id": self._record.message_id,
        }

    # --- judgement and record -------------------------------------------------------------------------------------

    def _context(self, session: Session) -> Context:
        service = self._service
        return Context(
            session,
            service.directory,
            service.settings.hostname,
            self._errors,
            self._transactions,
            early_talk=self._early_talk,
            layers=self._judge.layers,
        )

    def _guard(self, stage: Stage, guard: Guard, answer: Reply) -> Decision:
        decision_id = new_id()
        action = Action.DEFER if answer.is_temporary else Action.REJECT
        return Decision(decision_id, stage, Verdict(action, guard.value, answer.with_id(decision_id)))

    def failed(self, session: Session, verb: str, error: Exception) -> Reply:
        if isinstance(error, StorageFull):
            self._log.error("no space", session=session.id, reason=str(error))
            return replies.FULL
        if isinstance(error, StorageBroken):
            self._log.critical("storage is broken", session=session.id, reason=str(error))
            self._service.on_broken()
            return replies.GOING_AWAY
        self._log.error("command failed", session=session.id, verb=verb, exc_info=error)
        return replies.LOCAL_ERROR

    def refused(self, session: Session, verb: str, answer: Reply) -> Reply:
        self._errors += 1
        last = answer.lines[-1]
        if last.endswith("]") and last[-LENGTH - 3 : -LENGTH - 1] == " [":
            return answer  # a rule or guard gave it, with its id
        decision_id = new_id()
        numbered = answer.with_id(decision_id)
        self._record.add_refusal(verb, numbered, decision_id)
        return numbered

    def _direction(self, session: Session, envelope: Envelope) -> str:
        if not session.may_relay:
            return "inbound"
        directory = self._service.directory
        ours = all(
            directory.is_local(to.forward_path.domain) or directory.is_relayed(to.forward_path.domain)
            for to in envelope.recipients
        )
        return "internal" if ours else "outbound"

    def _finish(
        self,
        result: str,
        answer: Reply | None,
        *,
        queue_ids: tuple[str, ...] = (),
        direction: str = "",
        started: float | None = None,
    ) -> None:
        """Write the record of what went on and begin a new one."""
        record, self._record = self._record, TransactionRecord()
        if record.sender is None and record.decisions:
            record.begin_with(self._early)
        self._kept_sender = None
        session = self._last_session
        if session is None or not record.is_worth_keeping:
            return
        if not direction:
            direction = "outbound" if session.may_relay else "inbound"
        if record.sender is not None:
            self._service.metrics.messages.labels(direction, result).inc()
        try:
            record.write(self._service.recorder, session, result, answer, queue_ids, self._judge.policy.version)
        except Exception as error:  # the message is on disk: what cannot be told of it must not change the answer
            self._log.error("not recorded", session=session.id, queue_id=" ".join(queue_ids), exc_info=error)
        refusals = len(record.refusals) + sum(each.decision.verdict.refuses for each in record.decisions)
        self._log.info(
            "transaction",
            session=session.id,
            queue_id=" ".join(queue_ids),
            result=result,
            direction=direction,
            client=session.client_ip,
            sender=record.sender,
            recipients=len(record.recipients),
            size=record.size,
            refusals=refusals,
            seconds=round(time.perf_counter() - started, 4) if started is not None else 0.0,
        )
