"""The demo name server, asked by dnspython over its real sockets."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import pytest

from gateway.demo import nameserver
from gateway.demo.nameserver import NameServer

RECORDS = (
    "example.org MX 10 mx.example.org.",
    "example.org 300 IN MX 20 mx2.example.org.",
    'example.org TXT "v=spf1 mx -all"',
    "mx.example.org A 127.0.0.1",
    "deep.down.example.org. A 127.0.0.2",
    "chain1.test CNAME chain2.test.",
    "chain2.test CNAME chain3.test.",
    "chain3.test A 127.0.0.3",
    "dangling.test CNAME nowhere.test.",
    "loop1.test CNAME loop2.test.",
    "loop2.test CNAME loop1.test.",
    "*.wild.test A 127.0.0.4",
    "there.wild.test TXT here",
    "*.sub.wild.test CNAME chain3.test.",
)
Ask: TypeAlias = Callable[..., dns.message.Message]
WAIT = 5.0  # seconds: for answers that must come
BRIEF = 0.2  # seconds: for answers that must not come


@pytest.fixture(scope="module")
def running() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


@pytest.fixture
def server(running: NameServer) -> NameServer:
    running.clear()
    running.add(*RECORDS)
    return running


def query(name: str, rdtype: str = "A") -> dns.message.QueryMessage:
    return dns.message.make_query(name, rdtype)


def udp(server: NameServer, name: str, rdtype: str = "A", timeout: float = WAIT) -> dns.message.Message:
    return dns.query.udp(query(name, rdtype), server.host, timeout, server.port)


def tcp(server: NameServer, name: str, rdtype: str = "A", timeout: float = WAIT) -> dns.message.Message:
    return dns.query.tcp(query(name, rdtype), server.host, timeout, server.port)


def answers(message: dns.message.Message) -> list[str]:
    return [line for rrset in message.answer for line in rrset.to_text().splitlines()]


def exchange(server: NameServer, data: bytes, count: int = 1) -> list[bytes]:
    """Send one datagram of any octets, and receive `count` datagrams."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(WAIT)
        sock.connect((server.host, server.port))
        sock.send(data)
        return [sock.recv(65_535) for _ in range(count)]


def connect(server: NameServer) -> socket.socket:
    return socket.create_connection((server.host, server.port), WAIT)


# Answers


@pytest.mark.parametrize("ask", [udp, tcp])
def test_positive_answer(server: NameServer, ask: Ask) -> None:
    message = ask(server, "example.org", "MX")
    assert message.rcode() == dns.rcode.NOERROR
    assert message.flags & dns.flags.AA
    assert answers(message) == [
        "example.org. 300 IN MX 10 mx.example.org.",
        "example.org. 300 IN MX 20 mx2.example.org.",
    ]
    assert not message.authority


def test_names_are_case_insensitive_and_the_question_keeps_its_case(server: NameServer) -> None:
    message = udp(server, "mX.eXample.ORG")
    assert answers(message) == ["mX.eXample.ORG. 60 IN A 127.0.0.1"]
    assert server.queries == [("mx.example.org", "A", "udp")]


def test_any_answers_every_type(server: NameServer) -> None:
    assert {rrset.rdtype for rrset in udp(server, "example.org", "ANY").answer} == {
        dns.rdatatype.MX,
        dns.rdatatype.TXT,
    }


@pytest.mark.parametrize("name", ["nothing.test", "below.mx.example.org", "test.example"])
def test_nxdomain_has_a_soa(server: NameServer, name: str) -> None:
    message = udp(server, name)
    assert message.rcode() == dns.rcode.NXDOMAIN
    assert [rrset.rdtype for rrset in message.authority] == [dns.rdatatype.SOA]
    assert not message.answer


@pytest.mark.parametrize("name", ["example.org", "down.example.org", "org", "wild.test", "."])
def test_nodata_for_other_types_and_for_empty_non_terminals(server: NameServer, name: str) -> None:
    message = udp(server, name, "AAAA")
    assert message.rcode() == dns.rcode.NOERROR
    assert [rrset.rdtype for rrset in message.authority] == [dns.rdatatype.SOA]
    assert not message.answer


def test_own_soa_is_used_for_negative_answers(server: NameServer) -> None:
    server.add("example.org 900 SOA ns.example.org. root.example.org. 7 3600 600 86400 30")
    (soa,) = udp(server, "none.example.org").authority
    assert soa.to_text() == "example.org. 30 IN SOA ns.example.org. root.example.org. 7 3600 600 86400 30"


def test_cname_chain_is_followed(server: NameServer) -> None:
    assert answers(udp(server, "chain1.test")) == [
        "chain1.test. 60 IN CNAME chain2.test.",
        "chain2.test. 60 IN CNAME chain3.test.",
        "chain3.test. 60 IN A 127.0.0.3",
    ]
    assert answers(udp(server, "chain1.test", "CNAME")) == ["chain1.test. 60 IN CNAME chain2.test."]


def test_cname_chain_to_no_data_and_to_no_name(server: NameServer) -> None:
    nodata, nothing = udp(server, "chain1.test", "MX"), udp(server, "dangling.test")
    assert (nodata.rcode(), len(nodata.answer), len(nodata.authority)) == (dns.rcode.NOERROR, 2, 1)
    assert (nothing.rcode(), len(nothing.answer), len(nothing.authority)) == (dns.rcode.NXDOMAIN, 1, 1)


def test_cname_loop_answers_the_loop_once(server: NameServer) -> None:
    message = udp(server, "loop1.test")
    assert message.rcode() == dns.rcode.NOERROR
    assert answers(message) == ["loop1.test. 60 IN CNAME loop2.test.", "loop2.test. 60 IN CNAME loop1.test."]
    server.add("self.test CNAME self.test.")
    assert answers(udp(server, "self.test")) == ["self.test. 60 IN CNAME self.test."]


def test_cname_chain_is_bounded(server: NameServer) -> None:
    server.add(*(f"n{number}.long.test CNAME n{number + 1}.long.test." for number in range(20)))
    message = udp(server, "n0.long.test")
    assert message.rcode() == dns.rcode.NOERROR
    assert len(message.answer) == nameserver.CHAIN == 8


def test_wildcard(server: NameServer) -> None:
    assert answers(udp(server, "a.b.wild.test")) == ["a.b.wild.test. 60 IN A 127.0.0.4"]
    assert udp(server, "a.wild.test", "MX").rcode() == dns.rcode.NOERROR
    assert udp(server, "there.wild.test").answer == []  # a name of its own, without an A record
    assert udp(server, "below.there.wild.test").rcode() == dns.rcode.NXDOMAIN  # which hides the wildcard below it
    assert answers(udp(server, "x.sub.wild.test")) == [
        "x.sub.wild.test. 60 IN CNAME chain3.test.",
        "chain3.test. 60 IN A 127.0.0.3",
    ]


def test_stub_resolver_of_dnspython(server: NameServer) -> None:
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [server.host], server.port
    assert [rdata.to_text() for rdata in resolver.resolve("chain1.test", "A")] == ["127.0.0.3"]
    with pytest.raises(dns.resolver.NXDOMAIN):
        resolver.resolve("nothing.test", "A")
    with pytest.raises(dns.resolver.NoAnswer):
        resolver.resolve("org", "A")


# Size


def test_large_answer_is_truncated_over_udp_and_whole_over_tcp(server: NameServer) -> None:
    server.add(*(f"many.test A 127.1.0.{number}" for number in range(100)))
    short = udp(server, "many.test")
    assert short.flags & dns.flags.TC
    assert not short.answer
    whole, over_tcp = dns.query.udp_with_fallback(query("many.test"), server.host, WAIT, server.port)
    assert over_tcp
    assert not whole.flags & dns.flags.TC
    assert len(whole.answer[0]) == 100
    assert server.queries == [("many.test", "A", "udp"), ("many.test", "A", "udp"), ("many.test", "A", "tcp")]


@pytest.mark.parametrize(("payload", "fits"), [(256, False), (512, False), (1232, False), (4096, True)])
def test_edns_size_is_the_limit(server: NameServer, payload: int, fits: bool) -> None:
    server.add(*(f"many.test A 127.1.0.{number}" for number in range(100)))
    asked = dns.message.make_query("many.test", "A", use_edns=0, payload=payload)
    message = dns.query.udp(asked, server.host, WAIT, server.port)
    assert message.edns == 0
    assert bool(message.flags & dns.flags.TC) is not fits
    assert bool(message.answer) is fits


def test_an_answer_too_large_for_tcp_is_truncated(server: NameServer) -> None:
    server.add(*(f'huge.test TXT "{number:03}{"x" * 250}"' for number in range(300)))
    message = tcp(server, "huge.test", "TXT")
    assert message.flags & dns.flags.TC
    assert not message.answer


# Faults


@pytest.mark.parametrize("ask", [udp, tcp])
def test_fault_drop(server: NameServer, ask: Ask) -> None:
    server.fault("mx.example.org", "drop")
    with pytest.raises(dns.exception.Timeout):
        ask(server, "mx.example.org", timeout=BRIEF)
    assert ask(server, "chain3.test").answer
    assert server.count("MX.example.org.") == 1


@pytest.mark.parametrize("ask", [udp, tcp])
def test_fault_delay(server: NameServer, ask: Ask) -> None:
    server.fault("mx.example.org", "delay:0.2")
    begin = time.monotonic()
    assert ask(server, "mx.example.org").answer
    assert time.monotonic() - begin >= 0.19
    server.fault("mx.example.org", "delay:30")
    with pytest.raises(dns.exception.Timeout):
        ask(server, "mx.example.org", timeout=BRIEF)
    assert ask(server, "chain3.test").answer  # others do not wait behind it


def test_delayed_udp_answers_are_bounded(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nameserver, "UDP_PENDING", 0)
    server.fault("mx.example.org", "delay:0.001")
    with pytest.raises(dns.exception.Timeout):
        udp(server, "mx.example.org", timeout=BRIEF)


@pytest.mark.parametrize("ask", [udp, tcp])
@pytest.mark.parametrize("fault", ["servfail", "refused"])
def test_fault_rcodes(server: NameServer, ask: Ask, fault: str) -> None:
    server.fault("mx.example.org", fault)
    message = ask(server, "mx.example.org")
    assert dns.rcode.to_text(message.rcode()) == fault.upper()
    assert not message.answer


def test_fault_truncate(server: NameServer) -> None:
    server.fault("mx.example.org", "truncate")
    message = udp(server, "mx.example.org")
    assert message.flags & dns.flags.TC
    assert not message.answer
    assert answers(tcp(server, "mx.example.org")) == ["mx.example.org. 60 IN A 127.0.0.1"]


def test_fault_tcp_close(server: NameServer) -> None:
    server.fault("mx.example.org", "tcp_close")
    assert udp(server, "mx.example.org").flags & dns.flags.TC
    with pytest.raises(EOFError):
        tcp(server, "mx.example.org")
    assert server.queries == [("mx.example.org", "A", "udp"), ("mx.example.org", "A", "tcp")]


@pytest.mark.parametrize("ask", [udp, tcp])
@pytest.mark.parametrize("fault", ["lie", "lie:id", "lie:question"])
def test_fault_lie_is_no_response(server: NameServer, ask: Ask, fault: str) -> None:
    server.fault("mx.example.org", fault)
    with pytest.raises(dns.query.BadResponse):
        ask(server, "mx.example.org")


def test_fault_lie_octets(server: NameServer) -> None:
    server.fault("mx.example.org", "lie")
    asked = query("mx.example.org")
    first, second = (dns.message.from_wire(data) for data in exchange(server, asked.to_wire(), 2))
    assert (first.id != asked.id, first.question == asked.question) == (True, True)
    assert (second.id == asked.id, second.question == asked.question) == (True, False)
    assert answers(first) == answers(second) == ["mx.example.org. 60 IN A 127.0.0.1"]


@pytest.mark.parametrize("ask", [udp, tcp])
def test_fault_garbage(server: NameServer, ask: Ask) -> None:
    server.fault("mx.example.org", "garbage")
    with pytest.raises(dns.exception.FormError):
        ask(server, "mx.example.org")
    asked = query("mx.example.org").to_wire()
    assert exchange(server, asked)[0][:2] == asked[:2]


def test_fault_by_type_by_wildcard_and_ended(server: NameServer) -> None:
    server.fault("*", "servfail")
    server.fault("*.example.org", "refused")
    server.fault("mx.example.org", "truncate", rdtype="txt")

    def seen(name: str, rdtype: str = "A") -> tuple[str, bool]:
        message = udp(server, name, rdtype)
        return dns.rcode.to_text(message.rcode()), bool(message.flags & dns.flags.TC)

    assert seen("mx.example.org", "TXT") == ("NOERROR", True)
    assert seen("mx.example.org") == ("REFUSED", False)
    assert seen("example.org", "MX") == seen("nothing.test") == seen(".") == ("SERVFAIL", False)
    server.fault("*.example.org", None)
    assert seen("mx.example.org") == ("SERVFAIL", False)
    server.fault("*", None)
    assert seen("mx.example.org") == ("NOERROR", False)


@pytest.mark.parametrize("fault", ["", "nonsense", "delay", "delay:", "delay:x", "delay:-1", "delay:61", "delay:nan"])
def test_unknown_faults_are_refused(server: NameServer, fault: str) -> None:
    with pytest.raises(ValueError):
        server.fault("mx.example.org", fault)


# Changes and the log


def test_records_change_while_running(server: NameServer) -> None:
    assert udp(server, "new.test").rcode() == dns.rcode.NXDOMAIN
    server.add("new.test A 127.0.0.9", "new.test A 127.0.0.9", "new.test 5 A 127.0.0.8", "new.test TXT hello")
    assert answers(udp(server, "new.test")) == ["new.test. 5 IN A 127.0.0.9", "new.test. 5 IN A 127.0.0.8"]
    server.remove("NEW.test.", "a")
    assert udp(server, "new.test").rcode() == dns.rcode.NOERROR
    assert udp(server, "new.test", "TXT").answer
    server.remove("new.test")
    assert udp(server, "new.test").rcode() == dns.rcode.NXDOMAIN
    server.remove("new.test", "MX")
    server.add("chain1.test CNAME loop1.test.")
    assert answers(udp(server, "chain1.test", "CNAME")) == ["chain1.test. 60 IN CNAME loop1.test."]
    server.clear()
    assert udp(server, "example.org", "MX").rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x.test",
        "x.test A",
        "x.test 60 A",
        "x.test A 1.2.3",
        "x.test 4294967296 A 127.0.0.1",
        "x.test NOSUCH y",
        "chain1.test A 127.0.0.1",
        f"{'x' * 64}.test A 127.0.0.1",
    ],
)
def test_bad_records_are_refused_whole(server: NameServer, line: str) -> None:
    with pytest.raises(ValueError):
        server.add("good.test A 127.0.0.1", line)
    assert udp(server, "good.test").rcode() == dns.rcode.NXDOMAIN


def test_queries_and_count(server: NameServer) -> None:
    udp(server, "Example.ORG", "MX")
    udp(server, "example.org", "TXT")
    tcp(server, "example.org", "MX")
    assert server.queries == [("example.org", "MX", "udp"), ("example.org", "TXT", "udp"), ("example.org", "MX", "tcp")]
    assert (server.count("example.org"), server.count("example.org.", "mx"), server.count("org")) == (3, 2, 0)
    server.clear()
    assert server.queries == []


def test_changes_from_many_threads(server: NameServer) -> None:
    def work(number: int) -> None:
        for step in range(20):
            server.add(f"t{number}-{step}.threads.test A 127.0.0.{number + 1}")
            server.fault(f"t{number}-{step}.threads.test", "drop")
            server.fault(f"t{number}-{step}.threads.test", None)
            if step % 2:
                server.remove(f"t{number}-{step}.threads.test")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        assert udp(server, "chain3.test").answer
    for thread in threads:
        thread.join(WAIT)
    assert answers(udp(server, "t3-18.threads.test")) == ["t3-18.threads.test. 60 IN A 127.0.0.4"]
    assert udp(server, "t3-19.threads.test").rcode() == dns.rcode.NXDOMAIN


# Hostile and odd queries


def test_other_classes_and_transfers_are_refused(server: NameServer) -> None:
    chaos = dns.message.make_query("example.org", "TXT", dns.rdataclass.CH)
    assert dns.query.udp(chaos, server.host, WAIT, server.port).rcode() == dns.rcode.REFUSED
    assert udp(server, "example.org", "AXFR").rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize("opcode", [dns.opcode.STATUS, dns.opcode.NOTIFY, dns.opcode.UPDATE, 15])
def test_other_opcodes_are_not_implemented(server: NameServer, opcode: int) -> None:
    data = bytearray(query("example.org", "MX").to_wire())
    data[2] = opcode << 3
    (reply,) = exchange(server, bytes(data))
    assert reply == bytes(data[:2]) + bytes((0x80 | opcode << 3, dns.rcode.NOTIMP)) + bytes(8)
    assert server.queries == []


def test_malformed_queries_get_formerr_and_do_no_harm(server: NameServer) -> None:
    asked = query("example.org", "MX").to_wire()
    no_question = asked[:4] + bytes(8)
    pointer_loop = asked[:12] + b"\xc0\x0c\x00\x01\x00\x01"
    for data in (asked[:-1], no_question, pointer_loop, asked[:5] + b"\x02" + asked[6:] + asked[12:]):
        assert exchange(server, data)[0][3] & 15 == dns.rcode.FORMERR
    for data in (b"", b"\x00", asked[:11], asked[:2] + b"\x80" + asked[3:]):  # no header; an answer: unanswered
        assert server.respond(data, "udp").messages == ()
    assert udp(server, "mx.example.org").answer


def test_random_octets_do_no_harm(server: NameServer) -> None:
    source = random.Random(1035)
    asked = dns.message.make_query("a.b.wild.test", "A", use_edns=0).to_wire()
    for round_number in range(3000):
        data = bytearray(asked if round_number % 3 else source.randbytes(source.randrange(80)))
        for _ in range(source.randrange(1, 4)):
            if data:
                data[source.randrange(len(data))] = source.randrange(256)
        for message in server.respond(bytes(data), "tcp" if round_number % 2 else "udp").messages:
            dns.message.from_wire(message)
    assert udp(server, "mx.example.org").answer


def test_longest_name(server: NameServer) -> None:
    name = ".".join(["x" * 63] * 3 + ["y" * 61])
    assert udp(server, name).rcode() == dns.rcode.NXDOMAIN
    server.add("*. A 127.0.0.7")
    assert len(udp(server, name).answer) == 1


# TCP


def test_tcp_takes_many_queries_in_any_pieces(server: NameServer) -> None:
    with connect(server) as sock:
        for name in ("mx.example.org", "chain3.test"):
            asked = query(name)
            data = asked.to_wire(prepend_length=True)
            for octet in range(len(data)):
                sock.sendall(data[octet : octet + 1])
            reply, _ = dns.query.receive_tcp(sock, time.time() + WAIT)
            assert asked.is_response(reply)
            assert len(reply.answer) == 1
        first, second = query("mx.example.org"), query("chain3.test")
        sock.sendall(first.to_wire(prepend_length=True) + second.to_wire(prepend_length=True))
        for asked in (first, second):
            assert asked.is_response(dns.query.receive_tcp(sock, time.time() + WAIT)[0])


def test_tcp_idle_connection_is_closed(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert nameserver.TCP_IDLE == 5.0
    monkeypatch.setattr(nameserver, "TCP_IDLE", 0.05)
    with connect(server) as silent, connect(server) as slow:
        slow.sendall(b"\x00\x20half")
        assert silent.recv(1) == b""
        assert slow.recv(1) == b""


def test_tcp_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert nameserver.TCP_CONNECTIONS == 64
    monkeypatch.setattr(nameserver, "TCP_CONNECTIONS", 2)
    with NameServer(RECORDS) as own, connect(own) as first, connect(own) as second:
        for sock in (first, second):
            sock.sendall(query("mx.example.org").to_wire(prepend_length=True))
            assert dns.query.receive_tcp(sock, time.time() + WAIT)[0].answer
        with connect(own) as third:
            assert third.recv(1) == b""
        assert udp(own, "mx.example.org").answer


def test_tcp_queries_of_one_connection_are_bounded(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nameserver, "TCP_QUERIES", 1)
    with connect(server) as sock:
        sock.sendall(query("mx.example.org").to_wire(prepend_length=True))
        assert dns.query.receive_tcp(sock, time.time() + WAIT)[0].answer
        assert sock.recv(1) == b""


# Life


def test_stop_leaves_no_thread_and_no_port(server: NameServer) -> None:
    before = set(threading.enumerate())
    with NameServer(RECORDS) as own:
        assert own.address == f"127.0.0.1:{own.port}"
        assert 1024 <= own.port < 32768
        own.fault("mx.example.org", "delay:30")
        with pytest.raises(dns.exception.Timeout):
            udp(own, "mx.example.org", timeout=BRIEF)
        sock = connect(own)
        sock.sendall(query("chain3.test").to_wire(prepend_length=True))
        assert dns.query.receive_tcp(sock, time.time() + WAIT)[0].answer
        assert len(set(threading.enumerate()) - before) == 1
    assert set(threading.enumerate()) == before
    with sock:
        assert sock.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(own)


def test_stop_and_start_keep_the_port_and_the_records() -> None:
    own = NameServer(["x.test A 127.0.0.1"])
    with pytest.raises(RuntimeError):
        _ = own.address
    own.stop()
    own.start()
    address = own.address
    with pytest.raises(RuntimeError):
        own.start()
    assert tcp(own, "x.test").answer
    own.stop()
    own.stop()
    with own:
        assert own.address == address
        assert udp(own, "x.test").answer
        assert tcp(own, "x.test").answer


def test_a_port_in_use_is_an_error(server: NameServer) -> None:
    with pytest.raises(OSError):
        NameServer(port=server.port).start()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "localhost", "::1"])
def test_only_ipv4_loopback_addresses(host: str) -> None:
    with pytest.raises(ValueError):
        NameServer(host=host)
