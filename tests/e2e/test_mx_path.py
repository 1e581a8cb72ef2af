"""From a domain to the host that takes its mail, through all that DNS may answer or fail to answer."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.support.gateway import Gateway
from tests.support.peers import added_trace
from tests.support.process import wait_until
from tests.support.remote import USERS, Remote, send, wait_gone, wait_reports, wait_row
from tests.support.tlssink import TlsSink

MESSAGE = b"From: a@elsewhere.test\r\nSubject: by MX\r\n\r\nA line.\r\n"


@pytest.fixture(scope="module")
def gateway(remote: Remote) -> Iterator[Gateway]:
    """One gateway; what is deferred stays until it is asked for."""
    with Gateway(remote.folder / "gateway", settings=remote.settings, users=USERS) as running:
        yield running


def failed_status(gateway: Gateway, user: str, recipient: str) -> str:
    """The status of the one recipient that the user's only notification is about."""
    (report,) = wait_reports(gateway, user, 1)
    assert report.action == "failed"
    assert list(report.recipients) == [recipient]
    return str(report.recipients[recipient]["Status"])


# --- which host -------------------------------------------------------------------------------------------------------


def three_hosts(remote: Remote) -> tuple[str, list[str]]:
    """A domain with MX hosts of preference 10, 20 and 30, named in another order, and their addresses."""
    places = [remote.place() for _ in range(3)]
    domain = places[0][0].replace(".test", "-three.test")
    for preference, (name, _) in sorted(zip((30, 10, 20), places, strict=True), key=lambda pair: -pair[0]):
        remote.dns.add(f"{domain} MX {preference} mx.{name}.")
    return domain, [places[1][1], places[2][1], places[0][1]]


def test_the_host_of_lowest_preference_gets_all_mail(gateway: Gateway, remote: Remote) -> None:
    domain, addresses = three_hosts(remote)
    with remote.sink(addresses[0]) as first, remote.sink(addresses[1]) as second, remote.sink(addresses[2]) as third:
        for number in range(5):
            send(gateway, "a@elsewhere.test", [f"x{number}@{domain}"], MESSAGE)
        taken = first.wait_messages(5)
        assert {path for message in taken for path in message.forward_paths} == {f"x{n}@{domain}" for n in range(5)}
        assert (second.connections, third.connections) == (0, 0)


@pytest.mark.parametrize(
    "trouble",
    [
        {}, {"replies": {"CONNECT": "421 4.3.2 full"}}, {"replies": {"CONNECT": "450 4.3.2 busy"}},
        {"replies": {"CONNECT": "554 5.3.2 no mail here"}}, {"drop_at": "CONNECT"}, {"drop_at": "EHLO"},
        {"replies": {"EHLO": "421 4.3.2 not now"}}, {"replies": {"MAIL": "421 4.3.2 not now"}},
        {"replies": {"CONNECT": "HTTP/1.1 400 what"}},
    ],
    ids=["refused", "421", "450", "554", "drop", "drop at EHLO", "421 at EHLO", "421 at MAIL", "no SMTP"],
)  # fmt: skip
def test_the_next_host_is_tried_when_the_first_is_in_trouble(
    gateway: Gateway, remote: Remote, trouble: dict[str, object]
) -> None:
    domain, addresses = three_hosts(remote)
    user = remote.user()
    first = remote.sink(addresses[0], **trouble) if trouble else contextlib.nullcontext()
    with first as broken, remote.sink(addresses[1]) as second, remote.sink(addresses[2]) as third:
        send(gateway, user, [f"x@{domain}"], MESSAGE)
        (taken,) = second.wait_messages(1)
        added_trace(MESSAGE, taken.data)
        assert third.connections == 0
        if isinstance(broken, TlsSink):
            assert broken.connections >= 1
            assert broken.messages == []
    assert gateway.mails(user) == []


def test_a_refusal_for_good_is_not_carried_to_the_next_host(gateway: Gateway, remote: Remote) -> None:
    domain, addresses = three_hosts(remote)
    user = remote.user()
    with remote.sink(addresses[0], replies={"RCPT": "550 5.1.1 nobody"}), remote.sink(addresses[1]) as second:
        send(gateway, user, [f"x@{domain}"], MESSAGE)
        assert failed_status(gateway, user, f"x@{domain}") == "5.1.1"
        assert second.connections == 0


def test_mail_waits_when_no_host_answers(gateway: Gateway, remote: Remote) -> None:
    domain, _ = three_hosts(remote)
    user = remote.user()
    send(gateway, user, [f"x@{domain}"], MESSAGE)
    assert str(wait_row(gateway, f"x@{domain}")["last_reply"])[0] == "4"
    assert gateway.mails(user) == []


def test_a_domain_without_mx_is_its_own_host(gateway: Gateway, remote: Remote) -> None:
    name, address = remote.place()
    with remote.sink(address) as sink:
        send(gateway, "a@elsewhere.test", [f"x@mx.{name}"], MESSAGE)
        (taken,) = sink.wait_messages(1)
        assert taken.forward_paths == (f"x@mx.{name}",)


def test_mail_goes_by_ipv4_when_ipv6_does_not_answer(gateway: Gateway, remote: Remote) -> None:
    name, address = remote.place()
    remote.dns.add(f"mx.{name} AAAA ::1", f"both.{name} AAAA ::1", f"both.{name} A {address}")
    with remote.sink(address) as sink:
        send(gateway, "a@elsewhere.test", [f"x@{name}"], MESSAGE)
        send(gateway, "a@elsewhere.test", [f"x@both.{name}"], MESSAGE)
        assert len(sink.wait_messages(2)) == 2


def test_mail_goes_by_ipv6_where_there_is_nothing_else(gateway: Gateway, remote: Remote) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("no IPv6 loopback address here")
    remote.dns.add("six.test AAAA ::1")
    with remote.sink("::1") as sink:
        send(gateway, "a@elsewhere.test", ["x@six.test"], MESSAGE)
        assert sink.wait_messages(1)[0].forward_paths == ("x@six.test",)


def test_an_address_literal_is_its_own_host(gateway: Gateway, remote: Remote) -> None:
    _, address = remote.place()
    with remote.sink(address) as sink:
        send(gateway, "a@elsewhere.test", [f"x@[{address}]"], MESSAGE)
        assert sink.wait_messages(1)[0].forward_paths == (f"x@[{address}]",)


@pytest.mark.parametrize("where", ["domain", "host"])
def test_cnames_are_followed(gateway: Gateway, remote: Remote, where: str) -> None:
    name, address = remote.place()
    if where == "domain":
        remote.dns.add(f"alias.{name} CNAME second.{name}.", f"second.{name} CNAME {name}.")
    else:
        remote.dns.add(f"alias.{name} MX 10 mail.{name}.", f"mail.{name} CNAME mx.{name}.")
    with remote.sink(address) as sink:
        send(gateway, "a@elsewhere.test", [f"x@alias.{name}"], MESSAGE)
        assert sink.wait_messages(1)[0].forward_paths == (f"x@alias.{name}",)


# --- no host ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("records", "status"),
    [
        (["{0} MX 0 .", "{0} A 127.0.0.1"], "5.1.10"),
        ([], "5.1.2"),
        (["{0} TXT nothing"], "5.4.4"),
        (["{0} MX 10 none.{0}.", "none.{0} TXT nothing"], "5.4.4"),
        (["{0} MX 10 gone.invalid."], "5.4.4"),
        (["{0} MX 10 gateway.test.", "gateway.test A 127.0.0.1"], "5.4.6"),
        (["{0} MX 10 gateway.test.", "{0} MX 20 other.{0}.", "other.{0} A 127.0.1.250"], "5.4.6"),
    ],
    ids=["null mx", "nxdomain", "no address", "mx without address", "mx does not exist", "own mx", "own mx is best"],
)
def test_mail_is_returned_when_there_can_be_no_host(
    gateway: Gateway, remote: Remote, records: list[str], status: str
) -> None:
    user = remote.user()
    domain = user.partition("@")[0] + ".nohost.test"
    remote.dns.add(*(record.format(domain) for record in records))
    queue_id = send(gateway, user, [f"x@{domain}"], MESSAGE)
    assert failed_status(gateway, user, f"x@{domain}") == status
    wait_gone(gateway, queue_id)


def test_mail_never_goes_to_hosts_behind_our_own(gateway: Gateway, remote: Remote) -> None:
    """We are the backup MX: mail goes to better hosts only, and waits while they are down."""
    (best, best_address), (_, worse_address) = remote.place(), remote.place()
    domain = f"backup.{best}"
    remote.dns.add(f"{domain} MX 5 mx.{best}.", f"{domain} MX 10 gateway.test.", f"{domain} MX 20 worse.{best}.")
    remote.dns.add(f"worse.{best} A {worse_address}", "gateway.test A 127.0.0.1")
    with remote.sink(worse_address) as worse:
        with remote.sink(best_address, replies={"RCPT": "450 4.2.0 later"}) as sink:
            send(gateway, "a@elsewhere.test", [f"x@{domain}"], MESSAGE)
            wait_row(gateway, f"x@{domain}")
            sink.replies.clear()
            gateway.cli("queue", "retry", "--domain", domain).expect()
            sink.wait_messages(1)
        assert worse.connections == 0


def test_mail_for_our_own_address_does_not_come_back_to_us(
    make_gateway: Callable[..., Gateway], remote: Remote
) -> None:
    """The MX has another name than ours, and our address and port."""
    remote.dns.add("loop.test MX 10 not-us.test.", "not-us.test A 127.0.0.1")
    gateway = make_gateway(settings={"dns": {"servers": [remote.dns.address]}, "delivery": {"port": 9}})
    text = gateway.config.read_text()
    gateway.config.write_text(text.replace("\nport = 9\n", f"\nport = {gateway.ports['smtp']}\n"))
    with gateway:
        send(gateway, "alice@example.org", ["x@loop.test"], MESSAGE)
        assert failed_status(gateway, "alice@example.org", "x@loop.test") == "5.4.6"
        assert gateway.metric("smarthost_connections_total", listener="smtp", result="accepted") < 20


def test_private_addresses_are_refused_unless_allowed(make_gateway: Callable[..., Gateway], remote: Remote) -> None:
    domain, address = remote.place()
    records = {
        f"a.{domain}": f"A {address}",
        f"b.{domain}": "A 10.0.0.1",
        f"c.{domain}": "A 192.168.1.1",
        f"d.{domain}": "A 169.254.169.254",
        f"e.{domain}": "AAAA ::1",
        f"f.{domain}": f"AAAA ::ffff:{address}",
        f"g.{domain}": "AAAA fd00::1",
        f"h.{domain}": "A 0.0.0.0",
        f"i.{domain}": f"MX 10 mx.{domain}.",
    }
    remote.dns.add(*(f"{name} {record}" for name, record in records.items()))
    domains = [*records, f"[{address}]", "[IPv6:::1]", f"[IPv6:::ffff:{address}]"]
    settings = remote.settings | {"delivery": {"port": remote.port, "allow_private": False}}
    with remote.sink(address) as sink, make_gateway(settings=settings) as gateway:
        for name in domains:
            send(gateway, "alice@example.org", [f"x@{name}"], MESSAGE)
        reports = wait_reports(gateway, "alice@example.org", len(domains))
        recipients = {recipient for report in reports for recipient in report.recipients}
        assert len(recipients) == len(domains)
        assert recipients >= {f"x@{name}" for name in records}
        assert {report.action for report in reports} == {"failed"}
        assert {str(block["Status"]) for report in reports for block in report.recipients.values()} == {"5.4.4"}
        assert sink.connections == 0


# --- DNS in trouble ---------------------------------------------------------------------------------------------------

FAULTS = ("drop", "servfail", "refused", "garbage", "lie", "tcp_close")
WHERE = ("MX", "A")


@dataclass(slots=True)
class Faulty:
    """Mail for a domain whose look-up goes wrong for a while, and what became of it."""

    domain: str
    user: str
    queue_id: str
    sink: TlsSink
    reply: str = ""  # while the fault lasted
    connections: int = 0


@pytest.fixture(scope="module")
def faulty(gateway: Gateway, remote: Remote) -> Iterator[dict[tuple[str, str], Faulty]]:
    """All faults at once, since a look-up without an answer takes many seconds; then none, and `queue retry --all`."""
    found: dict[tuple[str, str], Faulty] = {}
    names = []
    with contextlib.ExitStack() as stack:
        for fault in FAULTS:
            for where in WHERE:
                domain, address = remote.place()
                sink = stack.enter_context(remote.sink(address))
                names.append(domain if where == "MX" else f"mx.{domain}")
                remote.dns.fault(names[-1], fault)
                user = remote.user()
                found[fault, where] = Faulty(domain, user, send(gateway, user, [f"x@{domain}"], MESSAGE), sink)
        for place in found.values():
            with contextlib.suppress(AssertionError):
                place.reply = str(wait_row(gateway, f"x@{place.domain}", 40.0)["last_reply"])
            place.connections = place.sink.connections
        for name in names:
            remote.dns.fault(name, None)

        def retried() -> bool:
            gateway.cli("queue", "retry", "--all")
            return all(place.sink.messages for place in found.values())

        with contextlib.suppress(AssertionError):
            wait_until(retried, 40.0, "all mail to leave", interval=1.0)
        yield found


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("fault", FAULTS)
def test_mail_waits_for_the_end_of_a_dns_fault_and_then_leaves(
    gateway: Gateway, faulty: dict[tuple[str, str], Faulty], fault: str, where: str
) -> None:
    place = faulty[fault, where]
    assert place.reply.startswith("451 4.4.3 ")
    assert place.connections == 0
    (taken,) = place.sink.messages
    added_trace(MESSAGE, taken.data)
    wait_gone(gateway, place.queue_id)
    assert gateway.mails(place.user) == []


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("fault", ["delay:1", "truncate"])
def test_a_dns_fault_that_can_be_borne_delays_nothing(gateway: Gateway, remote: Remote, fault: str, where: str) -> None:
    domain, address = remote.place()
    name = domain if where == "MX" else f"mx.{domain}"
    remote.dns.fault(name, fault)
    with remote.sink(address) as sink:
        queue_id = send(gateway, "a@elsewhere.test", [f"x@{domain}"], MESSAGE)
        sink.wait_messages(1)
        wait_gone(gateway, queue_id)
    if fault == "truncate":
        assert (name, where, "tcp") in remote.dns.queries


def test_one_host_with_broken_dns_does_not_hide_the_others(gateway: Gateway, remote: Remote) -> None:
    domain, addresses = three_hosts(remote)
    first = domain.replace("-three", "")  # of preference 30
    remote.dns.fault(f"mx.{first}", "servfail")
    with remote.sink(addresses[0]) as sink:
        send(gateway, "a@elsewhere.test", [f"x@{domain}"], MESSAGE)
        sink.wait_messages(1)


def test_one_address_family_with_broken_dns_does_not_hide_the_other(gateway: Gateway, remote: Remote) -> None:
    domain, address = remote.place()
    remote.dns.fault(f"mx.{domain}", "servfail", rdtype="AAAA")
    with remote.sink(address) as sink:
        send(gateway, "a@elsewhere.test", [f"x@{domain}"], MESSAGE)
        sink.wait_messages(1)


@pytest.mark.parametrize("where", ["domain", "host"])
def test_mail_waits_while_cnames_lead_in_a_circle(gateway: Gateway, remote: Remote, where: str) -> None:
    user = remote.user()
    domain = user.partition("@")[0] + f"-{where}.circle.test"
    if where == "host":
        remote.dns.add(f"{domain} MX 10 one.{domain}.", f"one.{domain} CNAME two.{domain}.")
        remote.dns.add(f"two.{domain} CNAME one.{domain}.")
    else:
        remote.dns.add(f"{domain} CNAME two.{domain}.", f"two.{domain} CNAME {domain}.")
    send(gateway, user, [f"x@{domain}"], MESSAGE)
    assert str(wait_row(gateway, f"x@{domain}", 30.0)["last_reply"]).startswith("451 4.4.3 ")
    assert gateway.mails(user) == []
