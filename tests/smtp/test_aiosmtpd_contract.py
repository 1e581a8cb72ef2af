"""What gateway.smtp relies on inside aiosmtpd 1.4.6 and asyncio: an upgrade that changes it breaks here first."""

import asyncio
import inspect
import socket
from importlib.metadata import version
from ipaddress import IPv4Address

import aiosmtpd.smtp
import uvloop
from aiosmtpd.proxy_protocol import get_proxy
from aiosmtpd.smtp import SMTP

from gateway.core.ports import EarlyTalk
from gateway.core.reply import Reply, reply
from gateway.core.transaction import Envelope, Recipient, Session
from gateway.net.listener import bind
from gateway.smtp.data import ContentFacts
from gateway.smtp.grammar import MailArguments, RcptArguments
from gateway.smtp.handler import Content, ServerSettings
from gateway.smtp.sasl import Credentials
from gateway.smtp.server import SmtpServer

OURS = SmtpServer.__mro__[: SmtpServer.__mro__.index(SMTP)]


class NoContent:
    async def write(self, octets: bytes) -> None:
        raise AssertionError("no message is expected")

    def discard(self) -> None:
        raise AssertionError("no message is expected")


class SilentHandler:
    """Objects to nothing, and notes what ended."""

    def __init__(self) -> None:
        self.closed_sessions: list[Session] = []

    async def connected(self, session: Session, early_talk: EarlyTalk) -> Reply | None:
        return None

    async def helo(self, session: Session) -> Reply | None:
        return None

    async def authenticate(self, session: Session, method: str, credentials: Credentials) -> Session | Reply:
        return reply(535, "5.7.8", "no")

    async def impersonate(self, session: Session, ip: str | None, port: int | None, name: str | None) -> Session:
        return session

    async def mail(self, session: Session, arguments: MailArguments) -> Reply | None:
        return None

    async def rcpt(self, session: Session, envelope: Envelope, arguments: RcptArguments) -> Recipient | Reply:
        return reply(550, "5.1.1", "no")

    def reset(self) -> None:
        return None

    def content(self) -> Content:
        return NoContent()

    async def message(self, session: Session, envelope: Envelope, content: Content, facts: ContentFacts) -> Reply:
        raise AssertionError("no message is expected")

    def failed(self, session: Session, verb: str, error: Exception) -> Reply:
        raise error

    def refused(self, session: Session, verb: str, answer: Reply) -> Reply:
        return answer

    def closed(self, session: Session) -> None:
        self.closed_sessions.append(session)


def new_server(handler: SilentHandler) -> SmtpServer:
    session = Session("0" * 16, "smtp", "192.0.2.1", 4711, 25, False)
    return SmtpServer(handler, session, ServerSettings(hostname="contract.test"))


def test_the_release_is_the_one_that_was_read() -> None:
    assert version("aiosmtpd") == "1.4.6"
    assert aiosmtpd.smtp.SMTP is SMTP


def test_smtp_stands_right_above_asyncios_stream_protocol() -> None:
    assert SMTP.__mro__[1] is asyncio.StreamReaderProtocol
    assert all(found.__module__.startswith("gateway.smtp.") for found in OURS)


def redefined() -> set[str]:
    """All names that our classes define in front of aiosmtpd's."""
    return {name for found in OURS for name in vars(found)}


def test_the_stream_protocol_takes_the_arguments_that_are_passed() -> None:
    parameters = inspect.signature(asyncio.StreamReaderProtocol.__init__).parameters
    assert {"stream_reader", "client_connected_cb", "loop"} <= set(parameters)
    assert {"limit", "loop"} <= set(inspect.signature(asyncio.StreamReader.__init__).parameters)


def test_every_verb_of_aiosmtpd_is_replaced_by_ours() -> None:
    theirs = {name for name in dir(SMTP) if name.startswith("smtp_")}
    assert "smtp_DATA" in theirs
    assert {name for name in theirs if name not in redefined()} == set()
    ours = {name for name in dir(SmtpServer) if name.startswith("smtp_")}
    assert ours - theirs == {"smtp_BDAT", "smtp_XCLIENT"}


def test_every_callback_of_asyncio_that_aiosmtpd_overrides_is_overridden_again() -> None:
    callbacks = {"connection_made", "connection_lost", "eof_received"}
    assert callbacks <= set(vars(SMTP))
    assert callbacks <= redefined()
    untouched = {"data_received", "pause_writing", "resume_writing"} & set(vars(SMTP))
    assert untouched == set()


def test_the_table_of_limits_that_all_connections_share_is_never_filled() -> None:
    async def use() -> None:
        new_server(SilentHandler())

    before = dict(SMTP.command_size_limits)
    asyncio.run(use())
    assert dict(SMTP.command_size_limits) == before


def test_a_connection_sets_reader_and_writer_and_a_server_speaks_through_them() -> None:
    async def speak() -> tuple[bytes, SilentHandler]:
        handler = SilentHandler()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        server = new_server(handler)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            await loop.connect_accepted_socket(lambda: server, ours)
            assert isinstance(server._reader, asyncio.StreamReader)
            assert isinstance(server._writer, asyncio.StreamWriter)
            assert server._reader._transport is server.transport  # type: ignore[attr-defined]
            assert server._writer._transport is server.transport  # type: ignore[attr-defined]
            assert isinstance(server._reader._buffer, bytearray)  # type: ignore[attr-defined]
            assert server._over_ssl is False
            assert server._transport is server.transport
            reader, writer = await asyncio.open_connection(sock=theirs)
            writer.write(b"EHLO a.test\r\nQUIT\r\n")
            said = await reader.read()
            writer.close()
            await writer.wait_closed()
            while not handler.closed_sessions:
                await asyncio.sleep(0)
        return said, handler

    for run in (asyncio.run, uvloop.run):
        said, handler = run(speak())
        assert said.startswith(b"220 contract.test")
        assert said.endswith(b"221 2.0.0 contract.test bye\r\n")
        assert [session.helo for session in handler.closed_sessions] == ["a.test"]


def test_a_listening_socket_names_its_protocol_so_that_asyncio_sets_nodelay() -> None:
    """Without it a session stalls 40 ms a reply (asyncio.base_events._set_nodelay asks for IPPROTO_TCP)."""
    with bind("127.0.0.1:0") as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_half_close_keeps_a_plain_connection_open_and_not_one_in_tls() -> None:
    """asyncio.StreamReaderProtocol.eof_received, which asks `_over_ssl`."""

    async def ask() -> tuple[bool | None, bool | None]:
        server = new_server(SilentHandler())
        plain = server.eof_received()
        server._reader = asyncio.StreamReader()
        server._over_ssl = True
        return plain, server.eof_received()

    assert asyncio.run(ask()) == (True, False)


def test_aiosmtpds_parser_of_the_proxy_header_answers_as_read_header_expects() -> None:
    async def parse(octets: bytes) -> tuple[bool, int | None, object, object, object]:
        reader = asyncio.StreamReader()
        reader.feed_data(octets)
        reader.feed_eof()
        data = await get_proxy(reader)
        return data.valid, data.version, data.command, data.src_addr, data.src_port

    v2 = b"\r\n\r\n\0\r\nQUIT\n"
    v4 = bytes([192, 0, 2, 7, 192, 0, 2, 1, 0x12, 0x67, 0, 25])
    client = IPv4Address("192.0.2.7")
    assert asyncio.run(parse(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n")) == (True, 1, None, client, 4711)
    assert asyncio.run(parse(v2 + b"\x21\x11\x00\x0c" + v4)) == (True, 2, 1, client, 4711)
    assert asyncio.run(parse(v2 + b"\x20\x00\x00\x00"))[:4] == (True, 2, 0, None)
    assert asyncio.run(parse(b"PROXY UNKNOWN\r\n"))[:4] == (True, 1, None, None)
    for malformed in (b"PROXY TCP4\r\n", b"PROXY TCP4 1.2.3.4\r\n", v2 + b"\x21\x11\x00\x04\0\0\0\0", b"EHLO a\r\n"):
        assert asyncio.run(parse(malformed))[0] is False
