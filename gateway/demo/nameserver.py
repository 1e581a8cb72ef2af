"""A small authoritative DNS server on a loopback port, UDP and TCP, for the demo and the tests.

It runs in one thread of its own, takes its data as zone-file-like lines, claims authority over every name, and can
be told to misbehave for a name.  Seconds are floats, TTLs whole seconds, sizes octets.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import socket
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, Self, TypeAlias, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.SOA
import dns.rrset
import dns.ttl
from dns.name import Name
from dns.rdatatype import RdataType

DEFAULT_TTL = 60  # seconds, of a record line without a TTL
NEGATIVE_TTL = 5  # seconds, of the SOA made up for negative answers when no record line gives one
CHAIN = 8  # CNAME records in one answer
MAX_DELAY = 60.0  # seconds
TCP_IDLE = 5.0  # seconds for one whole query to arrive, and for one answer to leave
TCP_CONNECTIONS = 64  # at once; one more is closed unread
TCP_QUERIES = 1000  # on one connection
UDP_MAX = 65_000  # octets of a UDP answer, whatever EDNS size was given
UDP_PENDING = 1024  # delayed UDP answers waiting at once; one more is dropped
SEEN = 65_536  # queries remembered, newest kept
PORTS = range(10_240, 32_768)  # below the ephemeral range
FAULTS = frozenset(
    {"drop", "servfail", "refused", "truncate", "tcp_close", "garbage", "lie", "lie:id", "lie:question", "authentic"}
)  # and delay:SECONDS

Via: TypeAlias = Literal["udp", "tcp"]
RRset: TypeAlias = tuple[int, tuple[dns.rdata.Rdata, ...]]  # TTL in seconds, the rdatas in the order given
_STAR = Name((b"*",))
_OTHER = dns.name.from_text("not-asked.invalid")
_GARBAGE = b"\x80\x00" + b"\xff" * 20  # after a true id: a header of 65535 records each, then no label at all
_ROOT_SOA = dns.rdata.from_text("IN", "SOA", f"ns.invalid. hostmaster.invalid. 1 3600 600 86400 {NEGATIVE_TTL}")


class _Reply(NamedTuple):
    """What one query gets: the messages to send (octets, unframed) after `delay` seconds, then a TCP close or not."""

    messages: tuple[bytes, ...] = ()
    delay: float = 0.0
    close: bool = False


class NameServer:
    """An authoritative server in a thread; every public method may be called from any thread, before and after start.

    `records` are lines "name [TTL] [IN] TYPE rdata"; names are absolute with or without the last dot.  `host` is an
    IPv4 loopback address; `port` 0 picks one of PORTS that is free for UDP and TCP, and keeps it over stop and start.
    """

    def __init__(self, records: Iterable[str] = (), *, host: str = "127.0.0.1", port: int = 0) -> None:
        if not ipaddress.IPv4Address(host).is_loopback:
            raise ValueError(f"not a loopback address: {host}")
        self.host, self.port = host, port
        self._lock = threading.Lock()  # over the four below
        self._nodes: dict[Name, dict[RdataType, RRset]] = {}
        self._exists: set[Name] = {dns.name.root}  # names with records, and everything above them
        self._faults: dict[tuple[Name, RdataType | None], str] = {}
        self._seen: deque[tuple[str, str, Via]] = deque(maxlen=SEEN)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._halt = asyncio.Event()
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}  # the loop's thread only
        self._pending = 0  # delayed UDP answers; the loop's thread only
        self.add(*records)

    def add(self, *records: str) -> None:
        """Add record lines, all or (ValueError) none.  The last TTL is its RRset's; a new CNAME or SOA replaces."""
        parsed = [_parse(line) for line in records]
        with self._lock:
            touched = {name: dict(self._nodes.get(name, {})) for name, _, _, _ in parsed}
            for name, rdtype, ttl, rdata in parsed:
                old = () if dns.rdatatype.is_singleton(rdtype) else touched[name].get(rdtype, (ttl, ()))[1]
                touched[name][rdtype] = (ttl, old if rdata in old else (*old, rdata))
            for name, node in touched.items():
                if RdataType.CNAME in node and len(node) > 1:
                    raise ValueError(f"CNAME and other records at {name}")
            self._nodes |= touched
            self._exists.update(above for name in touched for above in _upwards(name))

    def remove(self, name: str, rdtype: str | None = None) -> None:
        """Remove the records of a name, of one type or all; nothing happens where there are none."""
        owner, kind = dns.name.from_text(name), _rdtype(rdtype)
        with self._lock:
            node = self._nodes.pop(owner, {})
            if kind is not None and (rest := {key: rrset for key, rrset in node.items() if key != kind}):
                self._nodes[owner] = rest
            self._exists = {above for each in self._nodes for above in _upwards(each)} | {dns.name.root}

    def clear(self) -> None:
        """Forget all records, all faults and all seen queries."""
        with self._lock:
            self._nodes, self._exists, self._faults = {}, {dns.name.root}, {}
            self._seen.clear()

    def fault(self, name: str, fault: str | None, *, rdtype: str | None = None) -> None:
        """Make queries for `name` (and type) go wrong; None ends it.  "*.x" is every name below x, "*" every query.

        drop: no answer.  delay:SECONDS: the true answer, late.  servfail, refused.  truncate: TC and no records over
        UDP, whole over TCP.  tcp_close: the same over UDP, then TCP closes unanswered.  garbage: the true id, then
        octets that are no message.  lie:id and lie:question: the true records under a wrong id or a wrong question;
        lie: both, one after the other.  authentic: no fault, the true answer with AD, as a validating resolver gives it
        of a signed zone.  The asked name counts, not CNAME targets; the nearest name wins, and there a
        fault for the type wins over one for all types.
        """
        if fault is not None and fault not in FAULTS:
            kind, _, seconds = fault.partition(":")
            if kind != "delay" or not 0 <= float(seconds) <= MAX_DELAY:
                raise ValueError(f"no such fault: {fault!r}")
        key = dns.name.from_text(name), _rdtype(rdtype)
        with self._lock:
            self._faults.pop(key, None)
            if fault is not None:
                self._faults[key] = fault

    @property
    def queries(self) -> list[tuple[str, str, Via]]:
        """A copy of the well-formed queries seen, oldest first: (lower-case name without last dot, TYPE, transport)."""
        with self._lock:
            return list(self._seen)

    def count(self, name: str, rdtype: str | None = None) -> int:
        """How many queries came for a name, of one type or all, over either transport."""
        text, kind = _text(dns.name.from_text(name)), rdtype and dns.rdatatype.to_text(dns.rdatatype.from_text(rdtype))
        return sum(seen[0] == text and kind in (None, seen[1]) for seen in self.queries)

    @property
    def address(self) -> str:
        """Host and port, "127.0.0.1:PORT" (RuntimeError while no port is chosen, that is before the first start)."""
        if not self.port:
            raise RuntimeError("the name server has not been started")
        return f"{self.host}:{self.port}"

    def start(self) -> Self:
        """Bind (OSError) and serve; queries are answered from here on."""
        if self._thread is not None:
            raise RuntimeError("the name server is running")
        udp, tcp = _bind(self.host, self.port)
        self.port = int(udp.getsockname()[1])
        ready = threading.Event()
        self._halt, self._pending = asyncio.Event(), 0
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(udp, tcp, ready)), name=f"nameserver-{self.port}", daemon=True
        )
        self._thread.start()
        if not ready.wait(10.0):
            raise RuntimeError("the name server did not start")
        return self

    def stop(self) -> None:
        """Close everything, answers still delayed included, and end the thread; nothing happens when not running."""
        thread, loop = self._thread, self._loop
        if thread is None or loop is None:
            return
        loop.call_soon_threadsafe(self._halt.set)
        thread.join(10.0)
        if thread.is_alive():
            raise RuntimeError("the name server did not stop")
        self._thread = self._loop = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    async def _serve(self, udp: socket.socket, tcp: socket.socket, ready: threading.Event) -> None:
        """The thread's whole life: both listeners, until `_halt`."""
        self._loop = asyncio.get_running_loop()
        udp.setblocking(False)
        self._loop.add_reader(udp, self._datagram, udp)
        server = await asyncio.start_server(self._accept, sock=tcp, backlog=TCP_CONNECTIONS)
        ready.set()
        await self._halt.wait()
        server.close()
        self._loop.remove_reader(udp)
        udp.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close their sockets in the loop's next round

    def _datagram(self, udp: socket.socket) -> None:
        """Read one datagram and answer it, at once or, within UDP_PENDING, late."""
        with contextlib.suppress(OSError):
            data, peer = udp.recvfrom(65_535)
            reply = self.respond(data, "udp")
            if not reply.delay:
                self._send(udp, reply, peer)
            elif self._pending < UDP_PENDING:
                self._pending += 1
                asyncio.get_running_loop().call_later(reply.delay, self._send, udp, reply, peer)

    def _send(self, udp: socket.socket, reply: _Reply, peer: tuple[str, int]) -> None:
        self._pending -= bool(reply.delay)
        with contextlib.suppress(OSError):
            for message in reply.messages:
                udp.sendto(message, peer)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one TCP connection, or close it when there are too many; its end always closes the socket."""
        if len(self._connections) >= TCP_CONNECTIONS or self._halt.is_set():
            writer.transport.abort()
            return
        writer.transport.set_write_buffer_limits(high=0)  # drain() then means sent, so that abort() loses nothing
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(lambda done: self._connections.pop(done).transport.abort())

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's queries in turn (RFC 1035 framing: two octets of length before each message)."""
        try:
            for _ in range(TCP_QUERIES):
                async with asyncio.timeout(TCP_IDLE):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    reply = self.respond(await reader.readexactly(size), "tcp")
                if reply.close:
                    return
                await asyncio.sleep(reply.delay)
                writer.write(b"".join(len(message).to_bytes(2, "big") + message for message in reply.messages))
                async with asyncio.timeout(TCP_IDLE):
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            return  # the client is gone, or too slow

    def respond(self, data: bytes, via: Via) -> _Reply:
        """The reply to one message as received (octets, unframed); never raises, whatever the octets."""
        if len(data) < 12 or data[2] & 0x80:
            return _Reply()  # no header, or itself an answer
        if (data[2] >> 3) & 15 != dns.opcode.QUERY:
            return _Reply((_bare(data, dns.rcode.NOTIMP),))
        try:
            query = dns.message.from_wire(data)
            (question,) = query.question
            response = dns.message.make_response(query, our_payload=UDP_MAX)
        except Exception:  # whatever the parser makes of hostile octets
            return _Reply((_bare(data, dns.rcode.FORMERR),))
        with self._lock:
            self._seen.append((_text(question.name), dns.rdatatype.to_text(question.rdtype), via))
            fault = self._fault(question.name, question.rdtype)
            if fault in ("servfail", "refused"):
                response.set_rcode(dns.rcode.from_text(fault))
            elif via == "udp" and fault in ("truncate", "tcp_close"):
                response.flags |= dns.flags.TC | dns.flags.AA
            else:
                self._resolve(response, question)
                response.flags |= dns.flags.AD if fault == "authentic" else 0
        limit = 65_535 if via == "tcp" else min(max(512, query.payload if query.edns >= 0 else 0), UDP_MAX)
        wire = _wire(response, limit)
        if fault == "drop" or (fault == "tcp_close" and via == "tcp"):
            return _Reply(close=fault == "tcp_close")
        if fault == "garbage":
            return _Reply((data[:2] + _GARBAGE,))
        if fault.startswith("lie"):
            wrong_id = bytes((wire[0] ^ 255, wire[1] ^ 255)) + wire[2:]
            response.question = [dns.rrset.RRset(_OTHER, question.rdclass, question.rdtype)]
            both = {"lie:id": wrong_id, "lie:question": _wire(response, limit)}
            return _Reply((both[fault],) if fault in both else tuple(both.values()))
        return _Reply((wire,), float(fault.removeprefix("delay:")) if fault.startswith("delay:") else 0.0)

    def _fault(self, name: Name, rdtype: RdataType) -> str:
        """The fault that holds for a query, "" for none (the lock is held)."""
        above = [_STAR.concatenate(each) for each in _upwards(name) if each != name or each == dns.name.root]
        keys = [(owner, kind) for owner in (name, *above) for kind in (rdtype, None)]
        return next((self._faults[key] for key in keys if key in self._faults), "")

    def _resolve(self, response: dns.message.Message, question: dns.rrset.RRset) -> None:
        """Fill in a response from the records (the lock is held)."""
        name, rdtype = question.name, question.rdtype
        if question.rdclass != dns.rdataclass.IN or (dns.rdatatype.is_metatype(rdtype) and rdtype != RdataType.ANY):
            response.set_rcode(dns.rcode.REFUSED)
            return
        response.flags |= dns.flags.AA
        passed: set[Name] = set()
        while name not in passed and len(passed) < CHAIN:
            node = self._find(name)
            here = node or {}
            chosen = list(here) if rdtype == RdataType.ANY else [rdtype] if rdtype in here else []
            if not chosen and RdataType.CNAME not in here:
                response.authority.append(self._soa(name))
                response.set_rcode(dns.rcode.NXDOMAIN if node is None else dns.rcode.NOERROR)
                return
            for kind in chosen or [RdataType.CNAME]:
                response.answer.append(dns.rrset.from_rdata_list(name, here[kind][0], here[kind][1]))
            if chosen:
                return
            passed.add(name)
            name = cast(dns.rdtypes.ANY.CNAME.CNAME, here[RdataType.CNAME][1][0]).target

    def _find(self, name: Name) -> dict[RdataType, RRset] | None:
        """The RRsets for a name, by wildcard too (RFC 4592); {} at an empty non-terminal, None for NXDOMAIN."""
        if name in self._exists:
            return self._nodes.get(name, {})
        encloser = next(above for above in _upwards(name) if above in self._exists)
        return self._nodes.get(_STAR.concatenate(encloser))

    def _soa(self, name: Name) -> dns.rrset.RRset:
        """The SOA of a negative answer: the nearest one given at or above the name, else one made up for the root."""
        for above in _upwards(name):
            if RdataType.SOA in self._nodes.get(above, {}):
                ttl, (soa,) = self._nodes[above][RdataType.SOA]
                return dns.rrset.from_rdata(above, min(ttl, cast(dns.rdtypes.ANY.SOA.SOA, soa).minimum), soa)
        return dns.rrset.from_rdata(dns.name.root, NEGATIVE_TTL, _ROOT_SOA)


def _parse(line: str) -> tuple[Name, RdataType, int, dns.rdata.Rdata]:
    """One record line as (owner, type, TTL in seconds, rdata); ValueError names the line."""
    try:
        name, kind, rest = line.split(None, 2)
        ttl = DEFAULT_TTL
        while kind.isdigit() or kind.upper() == "IN":
            ttl = dns.ttl.from_text(kind) if kind.isdigit() else ttl
            kind, rest = rest.split(None, 1)
        rdtype = dns.rdatatype.from_text(kind)
        rdata = dns.rdata.from_text(dns.rdataclass.IN, rdtype, rest, dns.name.root, False)
        return dns.name.from_text(name), rdtype, ttl, rdata
    except (dns.exception.DNSException, ValueError) as error:
        raise ValueError(f"bad record {line!r}: {error}") from error


def _rdtype(text: str | None) -> RdataType | None:
    return None if text is None else dns.rdatatype.from_text(text)


def _text(name: Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _upwards(name: Name) -> Iterator[Name]:
    """The name itself, then each name above it, the root last."""
    return (Name(name.labels[skip:]) for skip in range(len(name.labels)))


def _bare(data: bytes, rcode: int) -> bytes:
    """A twelve-octet answer of header only: the query's id, opcode and RD, QR set, and the rcode."""
    return data[:2] + bytes((0x80 | (data[2] & 0x79), rcode)) + bytes(8)


def _wire(message: dns.message.Message, limit: int) -> bytes:
    """The message in at most `limit` octets, records in order; one that does not fit loses them all and gets TC."""
    try:
        return message.to_wire(max_size=limit, want_shuffle=False)
    except dns.exception.TooBig:
        message.answer, message.authority, message.additional = [], [], []
        message.flags |= dns.flags.TC
        return message.to_wire(max_size=limit, want_shuffle=False)


def _bind(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A UDP socket and a listening TCP socket on one port, a free one for 0; OSError when there is none."""
    failure = OSError("no port to try")
    for candidate in [port] if port else random.SystemRandom().sample(PORTS, 200):
        udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((host, candidate))
            tcp.listen(TCP_CONNECTIONS)
            udp.bind((host, candidate))
            return udp, tcp
        except OSError as error:
            failure = error
            udp.close()
            tcp.close()
    raise failure
