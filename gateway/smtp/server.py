"""The verbs of a transaction: MAIL, RCPT, DATA and BDAT (RFC 5321 3.3, 4.1.1; RFC 1870, 3030, 3461).

It decides nothing about mail: a Handler judges and stores. It neither logs nor counts.
"""

import re
from dataclasses import replace
from typing import cast

from gateway.core.reply import Reply, reply
from gateway.core.transaction import Envelope
from gateway.smtp import replies
from gateway.smtp.data import ContentFacts, DataDecoder, LineEndRepair
from gateway.smtp.grammar import parse_mail, parse_rcpt
from gateway.smtp.handler import Content
from gateway.smtp.session import SmtpSession

_SIZE = re.compile(r"[0-9]{1,20}")
DRAIN_FACTOR = 2  # an oversize message is read to its end up to so many times the limit


class SmtpServer(SmtpSession):
    """A whole SMTP connection."""

    # --- the transaction ------------------------------------------------------------------------------------------

    async def smtp_MAIL(self, argument: str) -> Reply:
        if not self.session.helo:
            return replies.HELO_FIRST
        if self.session.is_submission and self.session.user is None:
            return replies.AUTH_REQUIRED
        if self._envelope is not None:
            return replies.NESTED_MAIL
        if self._messages >= self.settings.messages:
            return replies.too_many_messages(self.settings.hostname)
        mail = parse_mail(argument, esmtp=self.session.is_esmtp)
        if mail.size is not None and mail.size > self.settings.size:
            return replies.too_big(self.settings.size)
        refusal = await self.handler.mail(self.session, mail)
        if refusal is not None:
            return refusal
        self._envelope = Envelope(
            mail.reverse_path, (), mail.body, mail.smtputf8, mail.ret, mail.envid, declared_size=mail.size
        )
        return replies.SENDER_OK

    async def smtp_RCPT(self, argument: str) -> Reply:
        if self._envelope is None:
            return replies.MAIL_FIRST
        rcpt = parse_rcpt(argument, esmtp=self.session.is_esmtp, smtputf8=self._envelope.smtputf8)
        if len(self._envelope.recipients) >= self.settings.recipients:
            return replies.TOO_MANY_RECIPIENTS
        result = await self.handler.rcpt(self.session, self._envelope, rcpt)
        if isinstance(result, Reply):
            return result
        self._envelope = replace(self._envelope, recipients=(*self._envelope.recipients, result))
        return replies.RECIPIENT_OK

    def _transaction_lacks(self) -> Reply | None:
        if self._envelope is None:
            return replies.MAIL_FIRST
        return None if self._envelope.recipients else replies.NO_RECIPIENTS

    async def smtp_DATA(self, argument: str) -> Reply | None:
        if argument:
            return replies.NO_ARGUMENT
        lack = self._transaction_lacks()
        if lack is not None:
            return lack
        self._content = self.handler.content()
        self._push(replies.START_DATA)
        self._set_data_deadline(self.settings.data_s)
        try:
            breach = await self._receive_data(self._content)
        finally:
            self._set_data_deadline(None)
        if breach is not None:
            self._reset_transaction()
            if self._must_close:
                self._refuse_and_close(breach)
                return None
            return breach
        return await self._finish_message()

    async def _receive_data(self, content: Content) -> Reply | None:
        """Stream up to the final dot. A breach of size or space is answered only there (RFC 5321 4.2.5)."""
        decoder, scanner = DataDecoder(), self._scanner
        repair = LineEndRepair() if self._repair else None
        breach: Reply | None = None
        chunk = self._input
        while True:
            if chunk:
                body = decoder.feed(repair.feed(chunk) if repair is not None else chunk)
                scanner.feed(body)
                facts = scanner.facts
                if (facts.bare_lf or facts.bare_cr) and decoder.has_lone_dot():
                    self._must_close = True  # nothing after it can be believed
                    return replies.SMUGGLING
                if breach is None:
                    breach = await self._store(content, body)
                elif facts.size > DRAIN_FACTOR * self.settings.size:
                    self._must_close = True
                    return breach
                if decoder.done:
                    self._input = decoder.rest
                    return breach
            chunk = await self._read()
            if not chunk:
                raise ConnectionResetError  # the client vanished: nothing is kept

    async def _store(self, content: Content, octets: bytes) -> Reply | None:
        if self._scanner.facts.size > self.settings.size:
            content.discard()
            return replies.too_big(self.settings.size)
        try:
            await content.write(octets)
        except Exception as error:
            content.discard()
            return self.handler.failed(self.session, self._verb, error)
        return None

    async def _finish_message(self) -> Reply:
        content, envelope = cast(Content, self._content), cast(Envelope, self._envelope)
        facts = self._scanner.finish()
        breach = self._breach_of(facts)
        if breach is not None:
            self._reset_transaction()
            return breach
        self._content = None  # the handler owns it now
        self._messages += 1
        self._commands = 0  # counted anew for each message, of which there is a limit
        try:
            return await self.handler.message(self.session, envelope, content, facts)
        finally:
            self._reset_transaction()

    def _breach_of(self, facts: ContentFacts) -> Reply | None:
        if facts.bare_lf or facts.bare_cr:
            return replies.BARE_LINE_END
        if facts.has_nul:
            return replies.NUL_OCTET
        if facts.has_long_line:
            return replies.long_line(self.settings.line)
        return None

    async def smtp_BDAT(self, argument: str) -> Reply | None:
        size_text, _, last_text = argument.partition(" ")
        if not _SIZE.fullmatch(size_text) or last_text.upper() not in ("", "LAST"):
            # How many octets follow is unknown, so no later octet can be taken for a command.
            self._refuse_and_close(replies.BDAT_SYNTAX)
            return None
        size, is_last = int(size_text), bool(last_text)
        breach = self._transaction_lacks()
        if breach is None and self._scanner.facts.size + size > self.settings.size:
            breach = replies.too_big(self.settings.size)
        if breach is None and self._content is None:
            self._content = self.handler.content()
            self._set_data_deadline(self.settings.data_s)
        if breach is not None and size > DRAIN_FACTOR * self.settings.size:
            self._reset_transaction()
            self._refuse_and_close(breach)  # too much to read only to throw it away
            return None
        breach = await self._receive_chunk(size, breach)
        if breach is not None:
            self._reset_transaction()
            return breach
        if not is_last:
            return reply(250, "2.0.0", f"{size} octets received")
        self._set_data_deadline(None)
        return await self._finish_message()

    async def _receive_chunk(self, size: int, breach: Reply | None) -> Reply | None:
        """Exactly `size` octets, stored unless there is a breach."""
        left = size
        chunk = self._input
        while left:
            if not chunk:
                chunk = await self._read()
                if not chunk:
                    raise ConnectionResetError
            octets, chunk = chunk[:left], chunk[left:]
            left -= len(octets)
            if breach is None and self._content is not None:
                self._scanner.feed(octets)
                breach = await self._store(self._content, octets)
        self._input = chunk
        return breach
