"""Facts that are fetched, in a running gateway of two workers: DNS lists, names in DNS, rates, the greylist, the trace.

Clients are told apart by loopback networks: each kind of rule looks at one of them only.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.demo.nameserver import NameServer
from tests.support.gateway import Gateway
from tests.support.process import wait_until
from tests.support.raw import WORKERS, RawClient, RawReply, message, only_worker, trace_command, traced

PROXY = "127.0.0.30"  # may XCLIENT
RATE, MANY = 10, 50
DELAY_S = 2.5
CHECK_TIMEOUT_S = 1.5

# Zones, each asked for clients of a network of its own.
GOOD = ["127.20.0.0/16", "203.0.113.0/24", "2001:db8::/32"]
TURNCOAT, FILTERED = "127.21.0.0/16", "127.22.0.0/16"
BROKEN = {"dead": "127.23.0.1", "everybody": "127.23.0.2", "refusing": "127.23.0.3", "outside": "127.23.0.4"} | {
    "servfail": "127.23.0.5"
}

CONNECT = f"""\
stage: connect
rules:
  - reject: listed by good
    when: client.ip in {json.dumps(GOOD)} and dnsbl("good.test")
    reply: 554 5.7.1 {{client.ip}} is listed
  - reject: listed by turncoat
    when: client.ip in ["{TURNCOAT}"] and dnsbl("turncoat.test")
    reply: 554 5.7.1 {{client.ip}} is listed
  - reject: wanted answers of good
    when: client.ip in ["{FILTERED}"] and dnsbl("good.test", "127.0.0.4-9")
"""
CONNECT += "".join(
    f'  - reject: listed by {name}\n    when: client.ip == "{ip}" and dnsbl("{name}.test")\n'
    for name, ip in BROKEN.items()
)


def reverse_rule(action: str, ip: str, condition: str, on_unknown: str = "") -> str:
    lines = [f"  - {action}: {action} by reverse name of {ip}", f'    when: client.ip == "{ip}" and {condition}']
    return "\n".join([*lines, *([f"    on_unknown: {on_unknown}"] if on_unknown else [])]) + "\n"


# [checks.reverse_dns] on_error is match, [checks.names] on_error is defer, that of the others is skip.
REVERSE = {
    "127.24.0.1": ("skip", 250),
    "127.24.0.2": ("defer", 451),
    "127.24.0.3": ("match", 550),
    "127.24.0.4": ("", 550),
}
ACCEPTS = {"127.24.1.1": ("", 550), "127.24.1.2": ("match", 250)}  # an accept and a reject behind it
for _ip, (_way, _) in REVERSE.items():
    CONNECT += reverse_rule("reject", _ip, 'client.reverse_dns != "pass"', _way)
for _ip, (_way, _) in ACCEPTS.items():
    CONNECT += reverse_rule("accept", _ip, "client.name", _way) + reverse_rule("reject", _ip, "client.port > 0")
CONNECT += reverse_rule("reject", "127.24.2.1", 'client.reverse_dns == "fail"')

SENDER = """\
stage: sender
rules:
  - reject: no such domain, skip
    when: sender.local == "skip" and not sender.domain_exists
    on_unknown: skip
  - reject: no such domain, defer
    when: sender.local == "defer" and not sender.domain_exists
    on_unknown: defer
  - reject: no such domain, match
    when: sender.local == "match" and not sender.domain_exists
    on_unknown: match
  - reject: no such domain, as configured
    when: sender.local == "config" and not sender.domain_exists
  - defer: deferred and refused
    when: sender.local == "both" and not sender.domain_exists
    on_unknown: defer
  - reject: refused behind it
    when: sender.local == "both"
"""
RECIPIENT = f"""\
stage: recipient
rules:
  - defer: too many messages
    when: client.ip in ["127.25.0.0/16"] and rate("client", "1h", "messages") >= {RATE}
    reply: 450 4.7.1 Too many messages
  - defer: greylisted
    when: client.ip in ["127.26.0.0/16"] and greylist.state != "passed"
    reply: 450 4.7.1 Come back later
"""
POLICIES = {"10-connect.yaml": CONNECT, "30-sender.yaml": SENDER, "40-recipient.yaml": RECIPIENT}


def in_zone(ip: str, zone: str) -> str:
    return ip_address(ip).reverse_pointer.replace("in-addr.arpa", zone).replace("ip6.arpa", zone)


RECORDS = (
    "2.0.0.127.good.test A 127.0.0.2",
    *(f"{in_zone(ip, 'good.test')} A 127.0.0.2" for ip in ("127.20.0.9", "127.22.0.9", "203.0.113.9", "2001:db8::9")),
    f"{in_zone('127.22.0.10', 'good.test')} A 127.0.0.4",
    "2.0.0.127.turncoat.test 1 A 127.0.0.2",
    *(f"{in_zone(f'127.21.0.{number}', 'turncoat.test')} 1 A 127.0.0.2" for number in range(9, 9 + MANY + 2)),
    f"{in_zone(BROKEN['dead'], 'dead.test')} A 127.0.0.2",
    "*.everybody.test A 127.0.0.2",
    "*.refusing.test A 127.255.255.254",
    "2.0.0.127.outside.test A 127.0.0.2", f"{in_zone(BROKEN['outside'], 'outside.test')} A 198.51.100.1",
    "*.servfail.test A 127.0.0.2",
    "1.2.24.127.in-addr.arpa PTR liar.test.", "liar.test A 192.0.2.1",
    "fine.test MX 10 mx.fine.test.", "null.test MX 0 .",
)  # fmt: skip


@pytest.fixture(scope="module")
def dns() -> Iterator[NameServer]:
    with NameServer(RECORDS) as server:
        server.fault("*.servfail.test", "servfail")
        server.fault("*.24.127.in-addr.arpa", "servfail")
        server.fault("1.2.24.127.in-addr.arpa", "delay:0.2")
        server.fault("broken.test", "servfail")
        server.fault("silent.test", "drop")
        server.fault("late.test", "truncate")
        yield server


def settings(dns: NameServer) -> dict[str, dict[str, object]]:
    return {
        "dns": {"servers": [dns.address]},
        "listen": {"xclient_from": [f"{PROXY}/32"]},
        "checks.reverse_dns": {"on_error": "match"},
        "checks.names": {"on_error": "defer", "timeout": f"{int(CHECK_TIMEOUT_S * 1000)}ms"},
        "checks.greylist": {"delay": f"{int(DELAY_S * 1000)}ms"},
    }


@pytest.fixture(scope="module")
def gateway(module_folder: Path, dns: NameServer) -> Iterator[Gateway]:
    with Gateway(module_folder / "gateway", settings=settings(dns), policies=POLICIES) as running:
        yield running


def connected(gateway: Gateway, source: str, worker: str = "") -> RawClient:
    """A client that has greeted, on this worker or on any."""
    if worker:
        with only_worker(gateway, worker):
            client = RawClient(gateway.ports["smtp"], source=source)
    else:
        client = RawClient(gateway.ports["smtp"], source=source)
    client.ehlo()
    return client


def rcpt(client: RawClient, sender: str = "bob@elsewhere.test") -> RawReply:
    """The answer to RCPT, which is that of connect, helo and sender too."""
    assert client.line(f"MAIL FROM:<{sender}>").code == 250
    return client.line("RCPT TO:<alice@example.org>")


def answer_to(gateway: Gateway, source: str, worker: str = "", sender: str = "bob@elsewhere.test") -> RawReply:
    with connected(gateway, source, worker) as client:
        return rcpt(client, sender)


def deliver(client: RawClient, marker: str) -> RawReply:
    """A whole message; where its RCPT is refused, the answer to that, with the transaction ended."""
    answer = rcpt(client)
    if answer.code != 250:
        assert client.line("RSET").code == 250
        return answer
    assert client.line("DATA").code == 354
    client.send(message(marker) + b".\r\n")
    return client.reply()


def warnings(gateway: Gateway, zone: str) -> list[dict[str, object]]:
    """What the log says of a list, over both workers."""
    lines = [json.loads(line) for line in gateway.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line["level"] == "warning" and line.get("zone") == zone]


def facts(gateway: Gateway, answer: RawReply) -> dict[str, object]:
    found = traced(gateway, answer)["facts"]
    assert isinstance(found, dict)
    return found


# --- DNS lists --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worker", WORKERS)
def test_a_listed_client_is_rejected_and_an_unlisted_one_is_not(gateway: Gateway, worker: str) -> None:
    answer = answer_to(gateway, "127.20.0.9", worker)
    assert (answer.code, answer.lines[0].partition(" [")[0]) == (554, "5.7.1 127.20.0.9 is listed")
    with connected(gateway, "127.20.0.10", worker) as client:
        assert deliver(client, f"unlisted-{worker}").code == 250
    assert gateway.metric("smarthost_dnsbl_up", zone="good.test") == 1
    assert 'dnsbl("good.test") = ["127.0.0.2"]' in trace_command(gateway, answer)
    assert warnings(gateway, "good.test") == []


def test_only_wanted_answers_reject(gateway: Gateway) -> None:
    assert answer_to(gateway, "127.22.0.9").code == 250
    answer = answer_to(gateway, "127.22.0.10")
    assert answer.code == 550
    assert facts(gateway, answer)['dnsbl("good.test", "127.0.0.4-9")'] == ["127.0.0.4"]


@pytest.mark.parametrize(
    ("address", "code"),
    [("203.0.113.9", 554), ("203.0.113.10", 250), ("IPv6:2001:db8::9", 554), ("IPv6:2001:db8::a", 250)],
)
def test_the_client_that_a_proxy_names_is_looked_up(gateway: Gateway, address: str, code: int) -> None:
    with connected(gateway, PROXY) as client:
        assert client.line(f"XCLIENT ADDR={address} NAME=told.test").code == 220
        client.ehlo()
        assert rcpt(client).code == code


@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize(
    ("zone", "reason"),
    [
        ("dead", "does not list"),
        ("everybody", "would list everybody"),
        ("refusing", "refuses us"),
        ("outside", "none of a list"),
        ("servfail", "cannot be looked up"),
    ],
)
def test_nobody_is_rejected_on_the_word_of_a_broken_list(gateway: Gateway, zone: str, reason: str, worker: str) -> None:
    for _ in range(3):
        assert answer_to(gateway, BROKEN[zone], worker).code == 250
    assert gateway.metric("smarthost_dnsbl_up", zone=f"{zone}.test") == 0
    found = warnings(gateway, f"{zone}.test")
    assert 1 <= len(found) <= len(WORKERS)
    assert all(reason in str(warning["reason"]) for warning in found)


def test_a_list_that_begins_to_refuse_us_rejects_nobody(gateway: Gateway, dns: NameServer) -> None:
    """Before, it lists the first client and all whose fifty messages come when it answers everything with a refusal."""
    for worker in WORKERS:
        assert answer_to(gateway, "127.21.0.9", worker).code == 554
        assert answer_to(gateway, "127.21.9.9", worker).code == 250
    assert gateway.metric("smarthost_dnsbl_up", zone="turncoat.test") == 1
    assert warnings(gateway, "turncoat.test") == []
    for name in ["2.0.0.127.turncoat.test", *(in_zone(f"127.21.0.{n}", "turncoat.test") for n in range(9, 11 + MANY))]:
        dns.remove(name)
    dns.add("*.turncoat.test 1 A 127.255.255.254")
    codes = []
    for worker in WORKERS:
        with only_worker(gateway, worker):
            for number in range(10 + len(codes), 10 + len(codes) + MANY // 2):
                with RawClient(gateway.ports["smtp"], source=f"127.21.0.{number}") as client:
                    client.ehlo()
                    codes.append(deliver(client, f"fifty-{number}").code)
    assert codes == [250] * MANY
    assert gateway.metric("smarthost_dnsbl_up", zone="turncoat.test") == 0
    found = warnings(gateway, "turncoat.test")
    assert [warning["event"] for warning in found] == ["DNS list is off"] * len(WORKERS)
    assert all("127.255.255.254" in str(warning["reason"]) for warning in found)
    for worker in WORKERS:
        assert answer_to(gateway, "127.21.0.9", worker).code == 250  # whom it had listed


# --- names in DNS that does not answer --------------------------------------------------------------------------------


@pytest.mark.parametrize(("ip", "code"), [(ip, code) for ip, (_, code) in (REVERSE | ACCEPTS).items()])
def test_a_reverse_name_that_cannot_be_learnt_is_what_its_rule_says(gateway: Gateway, ip: str, code: int) -> None:
    """A rule without `on_unknown` goes by [checks.reverse_dns] on_error, which is match: not for an accept."""
    answer = answer_to(gateway, ip)
    assert answer.code == code
    if code != 250:
        name = "client.name" if ip in ACCEPTS else "client.reverse_dns"
        assert facts(gateway, answer)[name] == {"unknown": True}
        assert f"{name} = unknown" in trace_command(gateway, answer)


def test_a_reverse_name_that_does_not_lead_back_fails(gateway: Gateway) -> None:
    answer = answer_to(gateway, "127.24.2.1")
    assert answer.code == 550
    assert 'client.reverse_dns = "fail"' in trace_command(gateway, answer)


@pytest.mark.parametrize(
    ("local", "domain", "code"),
    [
        ("skip", "broken.test", 250), ("defer", "broken.test", 451), ("match", "broken.test", 550),
        ("config", "broken.test", 451), ("both", "broken.test", 550),
        *((local, domain, code) for local in ("skip", "defer", "match", "config")
          for domain, code in (("fine.test", 250), ("gone.test", 550), ("null.test", 550))),
    ],
)  # fmt: skip
def test_a_sender_domain_that_cannot_be_learnt_is_what_its_rule_says(
    gateway: Gateway, local: str, domain: str, code: int
) -> None:
    """A rule without `on_unknown` goes by [checks.names] on_error, which is defer."""
    answer = answer_to(gateway, "127.0.0.9", sender=f"{local}@{domain}")
    assert answer.code == code
    if code != 250:
        value = {"unknown": True} if domain == "broken.test" else False
        assert facts(gateway, answer)["sender.domain_exists"] == value
        shown = "unknown" if domain == "broken.test" else "false"
        assert f"sender.domain_exists = {shown}" in trace_command(gateway, answer)


def test_a_name_server_that_is_silent_holds_nobody_longer_than_the_checks_deadline(gateway: Gateway) -> None:
    before = gateway.metric("smarthost_check_results_total", check="names", result="unknown")
    started = time.monotonic()
    answer = answer_to(gateway, "127.0.0.9", sender="defer@silent.test")
    assert CHECK_TIMEOUT_S - 0.1 < time.monotonic() - started < CHECK_TIMEOUT_S + 3
    assert answer.code == 451
    assert facts(gateway, answer)["sender.domain_exists"] == {"unknown": True}
    assert gateway.metric("smarthost_check_results_total", check="names", result="unknown") == before + 1


def test_a_fact_that_no_answer_hangs_on_is_not_fetched(gateway: Gateway, dns: NameServer) -> None:
    assert answer_to(gateway, "127.0.0.9", sender="other@late.test").code == 250
    assert dns.count("late.test") == 0
    assert answer_to(gateway, "127.0.0.9", sender="config@late.test").code == 550
    assert dns.count("late.test", "MX") == 2  # truncated, then over TCP


# --- rates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "shares"),
    [("127.25.0.1", [("smtp-0", 10)]), ("127.25.0.2", [("smtp-0", 1), ("smtp-1", 9)]),
     ("127.25.0.3", [(worker, 1) for worker in WORKERS * 5])],
    ids=["one worker", "both", "in turn"],
)  # fmt: skip
def test_a_client_has_its_ten_messages_however_they_fall(
    gateway: Gateway, source: str, shares: list[tuple[str, int]]
) -> None:
    for worker, share in shares:
        with connected(gateway, source, worker) as client:
            assert [deliver(client, f"{source}-{worker}").code for _ in range(share)] == [250] * share
    for worker in WORKERS:
        with connected(gateway, source, worker) as client:
            answers = [deliver(client, "one-too-many") for _ in range(2)]
        assert [answer.code for answer in answers] == [450, 450]
        assert 'rate("client", "1h", "messages") = 10' in trace_command(gateway, answers[1])
    assert answer_to(gateway, source + "9").code == 250


def test_messages_of_one_connection_are_counted_one_by_one(gateway: Gateway) -> None:
    """What was learnt for one transaction is not taken for the next."""
    with connected(gateway, "127.25.1.1") as client:
        assert [deliver(client, "one-by-one").code for _ in range(RATE + 2)] == [250] * RATE + [450] * 2


# --- the greylist -----------------------------------------------------------------------------------------------------


def kept_of(gateway: Gateway) -> set[tuple[str, bool]]:
    """Who is in state.db, and whether it has passed."""
    with closing(sqlite3.connect(f"file:{gateway.data / 'state.db'}?mode=ro", uri=True)) as state:
        return {(key, bool(passed)) for key, passed in state.execute("SELECT key, passed FROM greylist")}


def test_a_newcomer_waits_and_is_known_from_then_on(make_gateway: Callable[..., Gateway], dns: NameServer) -> None:
    """Network and sender domain are known to both workers, and after a restart."""
    gateway = make_gateway(settings=settings(dns), policies=POLICIES).start()
    first = answer_to(gateway, "127.26.1.1", "smtp-0")
    started = time.monotonic()
    assert first.code == 450
    second = answer_to(gateway, "127.26.1.2", "smtp-1")
    assert second.code == 450
    assert [facts(gateway, answer)["greylist.state"] for answer in (first, second)] == ["new", "waiting"]
    assert 'greylist.state = "new"' in trace_command(gateway, first)
    passed = lambda: answer_to(gateway, "127.26.1.77", "smtp-1").code == 250  # noqa: E731
    wait_until(passed, DELAY_S + 10, "the delay to be over", interval=0.2)
    assert time.monotonic() - started > DELAY_S - 0.5
    for worker in WORKERS:
        assert answer_to(gateway, "127.26.1.200", worker, "somebody.else@elsewhere.test").code == 250
    strangers = [("127.26.2.1", "bob@elsewhere.test"), ("127.26.1.1", "bob@other.test"), ("127.26.1.1", "")]
    for source, sender in strangers:
        assert answer_to(gateway, source, sender=sender).code == 450
    assert kept_of(gateway) == {
        ("127.26.1.0|elsewhere.test", True),
        ("127.26.2.0|elsewhere.test", False),
        ("127.26.1.0|other.test", False),
        ("127.26.1.0|", False),
    }
    assert gateway.stop() == 0
    gateway.start()
    for worker in WORKERS:
        assert answer_to(gateway, "127.26.1.3", worker).code == 250
        assert answer_to(gateway, "127.26.3.3", worker, f"bob@{worker}.test").code == 450
