"""The verbs of a session: HELO and EHLO, STARTTLS (RFC 3207), AUTH (RFC 4954), XCLIENT, and the small ones."""

import asyncio
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import replace

from gateway.core.reply import Reply, reply
from gateway.smtp import replies
from gateway.smtp.connection import MAX_AUTH_LINE, LineTooLong, SmtpConnection, tls_of
from gateway.smtp.grammar import parse_helo
from gateway.smtp.sasl import MECHANISMS, Credentials, SaslError
from gateway.smtp.xclient import XclientError, parse_xclient


class SmtpSession(SmtpConnection):
    """All that comes before and beside mail."""

    # --- greeting, state ------------------------------------------------------------------------------------------

    async def smtp_HELO(self, argument: str) -> Reply:
        return await self._hello(argument, is_esmtp=False)

    async def smtp_EHLO(self, argument: str) -> Reply:
        return await self._hello(argument, is_esmtp=True)

    async def _hello(self, argument: str, *, is_esmtp: bool) -> Reply:
        name = parse_helo(argument)
        self._reset_transaction()
        self.session = replace(self.session, helo=name, is_esmtp=is_esmtp)
        refusal = await self.handler.helo(self.session)
        if refusal is not None:
            self.session = replace(self.session, helo="")
            return refusal
        if not is_esmtp:
            return Reply(250, "", (self.settings.hostname,))
        return Reply(250, "", (self.settings.hostname, *self._extensions()))

    def _extensions(self) -> list[str]:
        out = ["PIPELINING", f"SIZE {self.settings.size}"]
        if self._new_tls_context is not None and self.session.tls is None:
            out.append("STARTTLS")
        if self._offer_auth and self.session.tls is not None and self.session.user is None:
            out.append("AUTH " + " ".join(MECHANISMS))
        if self._xclient:
            out.append("XCLIENT NAME ADDR PORT PROTO HELO")
        return [*out, "ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN"]

    async def smtp_NOOP(self, argument: str) -> Reply:
        return replies.OK

    async def smtp_RSET(self, argument: str) -> Reply:
        if argument:
            return replies.NO_ARGUMENT
        self._reset_transaction()
        return replies.OK

    async def smtp_QUIT(self, argument: str) -> Reply:
        if argument:
            return replies.NO_ARGUMENT
        self._closing = True
        return reply(221, "2.0.0", f"{self.settings.hostname} bye")

    async def smtp_VRFY(self, argument: str) -> Reply:
        return replies.VRFY if argument else replies.VRFY_SYNTAX

    async def smtp_EXPN(self, argument: str) -> Reply:
        return replies.NOT_OFFERED

    async def smtp_HELP(self, argument: str) -> Reply:
        return replies.HELP

    # --- STARTTLS, AUTH, XCLIENT ----------------------------------------------------------------------------------

    async def smtp_STARTTLS(self, argument: str) -> Reply | None:
        if argument:
            return replies.NO_ARGUMENT
        if self.session.tls is not None:
            return replies.TLS_ALREADY
        if self._new_tls_context is None:
            return replies.NOT_OFFERED
        if self._input:
            # RFC 3207 6 and CVE-2011-0411: octets behind STARTTLS came in clear and must not be taken for TLS's.
            return replies.TLS_INJECTION
        context = self._new_tls_context()
        self._push(replies.TLS_READY)
        await self._flush()
        if self.transport is None:
            return None
        transport = await self.loop.start_tls(
            self.transport, self, context, server_side=True, ssl_handshake_timeout=30.0
        )
        if transport is None:
            raise ConnectionResetError
        self._adopt(transport)
        self._reset_transaction()
        tls = tls_of(transport.get_extra_info("ssl_object"))
        # RFC 3207 4.2: what the client said before is forgotten; EHLO comes again.
        self.session = replace(self.session, tls=tls, helo="", is_esmtp=False)
        return None

    def _adopt(self, transport: asyncio.Transport) -> None:
        """Make reader and writer speak through the TLS transport; drop what was read in clear."""
        self.transport = transport
        self._transport = transport
        self._over_ssl = True
        self._reader._transport = transport  # type: ignore[attr-defined]  # bpo-45384: only start_tls of 3.12 does it
        self._writer._transport = transport  # type: ignore[attr-defined]
        self._reader._buffer.clear()  # type: ignore[attr-defined]
        self._input = b""

    async def smtp_AUTH(self, argument: str) -> Reply:
        name, _, initial = argument.partition(" ")
        if not self._offer_auth:
            return replies.NOT_OFFERED
        if not self.session.is_esmtp:
            return replies.HELO_FIRST
        if self.session.tls is None:
            return replies.AUTH_NEEDS_TLS
        if self.session.user is not None or self._envelope is not None:
            return replies.BAD_SEQUENCE
        mechanism = MECHANISMS.get(name.upper())
        if mechanism is None:
            return replies.AUTH_UNKNOWN
        exchange = mechanism()
        challenge = next(exchange)
        try:
            response = await self._initial_response(initial, challenge)
            while True:
                challenge = exchange.send(response)
                response = await self._challenge(challenge)
        except StopIteration as done:
            credentials: Credentials = done.value
        except (SaslError, Base64Error, ValueError):
            return replies.AUTH_MALFORMED
        except EOFError:
            return replies.AUTH_CANCELLED
        except LineTooLong:
            return replies.AUTH_TOO_LONG
        result = await self.handler.authenticate(self.session, name.upper(), credentials)
        if isinstance(result, Reply):
            return result
        self.session = result
        return replies.AUTH_DONE

    async def _initial_response(self, initial: str, challenge: bytes) -> bytes:
        if initial == "":
            return await self._challenge(challenge)
        return b"" if initial == "=" else b64decode(initial.encode("ascii", "replace"), validate=True)

    async def _challenge(self, challenge: bytes) -> bytes:
        self._push(Reply(334, "", (b64encode(challenge).decode(),)))
        line = await self._read_line(MAX_AUTH_LINE)
        if line is None:
            raise ConnectionResetError
        if line == b"*":
            raise EOFError
        return b64decode(line, validate=True)

    async def smtp_XCLIENT(self, argument: str) -> Reply:
        if not self._xclient:
            return replies.NOT_OFFERED
        if self._envelope is not None:
            return replies.BAD_SEQUENCE
        try:
            client = parse_xclient(argument)
        except XclientError as error:
            return reply(501, "5.5.4", str(error))
        self.session = await self.handler.impersonate(self.session, client.ip, client.port, client.name)
        self.session = replace(self.session, helo="", is_esmtp=False)
        self._reset_transaction()
        refusal = await self.handler.connected(self.session, self._early_talk)
        if refusal is not None:
            return refusal
        return Reply(220, "", (f"{self.settings.hostname} ESMTP Smarthost",))
