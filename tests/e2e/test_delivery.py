"""Delivery to hosts of all kinds, what senders are told, and what the postmaster can do about waiting mail."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.gateway import Gateway
from tests.support.peers import added_trace
from tests.support.process import wait_until
from tests.support.remote import (
    USERS,
    Remote,
    make_certificate,
    rows,
    send,
    try_rcpt,
    wait_gone,
    wait_reports,
    wait_row,
)
from tests.support.tlssink import TlsSink

SOFT, HARD = "450 4.2.0 not now", "550 5.1.1 nobody of that name"
MESSAGE = (
    b"From: Sender <sender@elsewhere.test>\r\nTo: undisclosed-recipients:;\r\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n"
    b"Message-ID: <1@elsewhere.test>\r\n\r\n.\r\n..two\r\n.three\r\nlast line\r\n\r\n"
)
EIGHT_BIT = b"From: a@elsewhere.test\r\nSubject: 8 bits\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
SENDER = "alice@example.org"


@pytest.fixture(scope="module")
def gateway(remote: Remote) -> Iterator[Gateway]:
    """One gateway with the usual retry plan: what is deferred stays until it is asked for."""
    with Gateway(remote.folder / "gateway", settings=remote.settings, users=USERS) as running:
        yield running


@pytest.fixture(scope="module")
def hasty(remote: Remote) -> Iterator[Gateway]:
    """One gateway that retries after a second, warns after a second, and gives up after four."""
    queue: dict[str, object] = {"retry": ["1s"], "expire": "4s", "warn_after": "1s"}
    with Gateway(remote.folder / "hasty", settings=remote.settings | {"queue": queue}, users=USERS) as running:
        yield running


# --- TLS --------------------------------------------------------------------------------------------------------------


def test_tls_is_used_where_it_is_offered_whatever_the_certificate(gateway: Gateway, remote: Remote) -> None:
    domain, address = remote.place()
    with remote.sink(address) as sink:
        send(gateway, "a@elsewhere.test", [f"x@{domain}"], MESSAGE)
        (taken,) = sink.wait_messages(1)
        assert taken.tls in ("TLSv1.2", "TLSv1.3")
        assert taken.helo == "gateway.test"
        assert sink.verbs()[:3] == ["EHLO", "STARTTLS", "EHLO"]
        assert added_trace(MESSAGE, taken.data)


@pytest.mark.parametrize("refusal", ["handshake", "454 4.7.0 no TLS now", "501 5.5.4 what"])
def test_a_broken_offer_of_tls_does_not_stop_mail(gateway: Gateway, remote: Remote, refusal: str) -> None:
    domain, address = remote.place()
    replies = {} if refusal == "handshake" else {"STARTTLS": refusal}
    with remote.sink(address, broken_handshake=refusal == "handshake", replies=replies) as sink:
        send(gateway, "a@elsewhere.test", [f"x@{domain}"], MESSAGE)
        (taken,) = sink.wait_messages(1)
        assert taken.tls == ""
        assert "STARTTLS" in sink.verbs()
        added_trace(MESSAGE, taken.data)


def fixed_route(
    remote: Remote, make_gateway: Callable[..., Gateway], folder: Path, scheme: str, sink: TlsSink, **more: object
) -> Gateway:
    """A gateway that sends all mail through provider.test, with a password."""
    remote.dns.add("provider.test A 127.0.0.1")
    (folder / "password").write_text("open sesame\n")
    (folder / "password").chmod(0o600)
    route: dict[str, object] = {
        "host": f"{scheme}:provider.test:{sink.port}",
        "username": "customer",
        "password_file": str(folder / "password"),
        **more,
    }
    return make_gateway(settings=remote.settings | {"routes.default": route})


@pytest.mark.parametrize("scheme", ["submission", "submissions"])
@pytest.mark.parametrize("mechanism", ["plain", "login"])
def test_the_default_route_gets_the_password_over_verified_tls(
    remote: Remote, make_gateway: Callable[..., Gateway], open_folder: Path, scheme: str, mechanism: str
) -> None:
    certificate, key = make_certificate(open_folder / "tls", "provider.test")
    with TlsSink(
        certificate=certificate, key=key, implicit=scheme == "submissions", mechanisms=["PLAIN", "LOGIN"],
        users={"customer": "open sesame"},
    ) as sink:  # fmt: skip
        gateway = fixed_route(remote, make_gateway, open_folder, scheme, sink, auth=mechanism, ca_file=str(certificate))
        with gateway:
            send(gateway, "a@elsewhere.test", ["x@one.test", "y@two.test", "z@[192.0.2.1]"], MESSAGE)
            taken = sink.wait_messages(3)
    assert sorted(path for message in taken for path in message.forward_paths) == [
        "x@one.test",
        "y@two.test",
        "z@[192.0.2.1]",
    ]
    assert {message.user for message in taken} == {"customer"}
    assert all(message.tls for message in taken)
    assert f"AUTH {mechanism.upper()}" in {" ".join(command.split()[:2]) for command in sink.commands}


@pytest.mark.parametrize(
    ("scheme", "fault"),
    [
        ("submission", "unknown"),
        ("submission", "other name"),
        ("submission", "no tls"),
        ("submissions", "unknown"),
        ("submissions", "other name"),
    ],
)
def test_the_password_is_never_given_without_verified_tls(
    remote: Remote, make_gateway: Callable[..., Gateway], open_folder: Path, scheme: str, fault: str
) -> None:
    name = "other.test" if fault == "other name" else "provider.test"
    certificate, key = make_certificate(open_folder / "tls", name)
    trusted = certificate
    if fault == "unknown":
        trusted, _ = make_certificate(open_folder / "trusted", name)
    sink = TlsSink(
        certificate=certificate, key=key, implicit=scheme == "submissions", starttls=fault != "no tls",
        mechanisms=["PLAIN", "LOGIN"], users={"customer": "open sesame"},
    )  # fmt: skip
    with sink, fixed_route(remote, make_gateway, open_folder, scheme, sink, ca_file=str(trusted)) as gateway:
        send(gateway, SENDER, ["x@one.test"], MESSAGE)
        row = wait_row(gateway, "x@one.test")
        assert "TLS" in str(row["last_reply"])
        assert str(row["last_reply"]).startswith("451 4.7.")
        assert gateway.mails(SENDER) == []
    assert not {"AUTH", "MAIL"} & set(sink.verbs())
    assert sink.messages == []


@pytest.mark.parametrize("fault", ["wrong password", "no auth"])
def test_mail_waits_while_the_provider_lets_us_not_in(
    remote: Remote, make_gateway: Callable[..., Gateway], open_folder: Path, fault: str
) -> None:
    certificate, key = make_certificate(open_folder / "tls", "provider.test")
    mechanisms = [] if fault == "no auth" else ["PLAIN"]
    with (
        TlsSink(certificate=certificate, key=key, mechanisms=mechanisms, users={"customer": "changed"}) as sink,
        fixed_route(remote, make_gateway, open_folder, "submission", sink, ca_file=str(certificate)) as gateway,
    ):
        send(gateway, SENDER, ["x@one.test"], MESSAGE)
        assert str(wait_row(gateway, "x@one.test")["last_reply"]).startswith("451 4.7.")
        assert gateway.mails(SENDER) == []
        assert "open sesame" not in gateway.log()
    assert "MAIL" not in sink.verbs()


# --- extensions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("esmtp", [True, False], ids=["esmtp", "helo only"])
@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelining", "one by one"])
@pytest.mark.parametrize("chunking", [True, False], ids=["bdat", "data"])
def test_mail_is_unchanged_by_whatever_the_host_offers(
    gateway: Gateway, remote: Remote, esmtp: bool, pipelining: bool, chunking: bool
) -> None:
    domain, address = remote.place()
    big = MESSAGE + b".dots and text\r\n" * 60_000
    with remote.sink(address, esmtp=esmtp, pipelining=pipelining, chunking=chunking) as sink:
        for message in (MESSAGE, EIGHT_BIT, big):
            send(gateway, "a@elsewhere.test", [f"x@{domain}", f"y@{domain}"], message)
        taken = sink.wait_messages(3)
        for message in (MESSAGE, EIGHT_BIT, big):
            (one,) = (each for each in taken if each.data.endswith(message))
            added_trace(message, one.data)
            assert one.forward_paths == (f"x@{domain}", f"y@{domain}")
        assert ("BDAT" in sink.verbs()) == (chunking and esmtp)
        assert ("DATA" in sink.verbs()) == (not (chunking and esmtp))


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelining", "one by one"])
def test_declared_8bit_mail_is_returned_when_the_host_takes_7_bits(
    gateway: Gateway, remote: Remote, pipelining: bool
) -> None:
    domain, address = remote.place()
    user = remote.user()
    with remote.sink(address, eightbit=False, pipelining=pipelining) as sink:
        send(gateway, user, [f"x@{domain}"], EIGHT_BIT, ["BODY=8BITMIME"])
        (report,) = wait_reports(gateway, user, 1)
        assert report.action == "failed"
        assert report.recipients[f"x@{domain}"]["Status"] == "5.6.3"
        assert "DATA" not in sink.verbs()
        send(gateway, user, [f"x@{domain}"], MESSAGE, ["BODY=8BITMIME"])  # says so, and is not
        (taken,) = sink.wait_messages(1)
        added_trace(MESSAGE, taken.data)
        assert "BODY=" not in taken.mail


def test_8bitmime_is_declared_onward(gateway: Gateway, remote: Remote) -> None:
    domain, address = remote.place()
    with remote.sink(address) as sink:
        send(gateway, "a@elsewhere.test", [f"x@{domain}"], EIGHT_BIT, ["BODY=8BITMIME"])
        (taken,) = sink.wait_messages(1)
        assert "BODY=8BITMIME" in taken.mail.split()


def test_mail_over_the_hosts_limit_is_returned_without_being_sent(gateway: Gateway, remote: Remote) -> None:
    domain, address = remote.place()
    user = remote.user()
    with remote.sink(address, size=10_000) as sink:
        send(gateway, user, [f"x@{domain}"], MESSAGE + b"line\r\n" * 5000)
        (report,) = wait_reports(gateway, user, 1)
        assert report.recipients[f"x@{domain}"]["Status"] == "5.3.4"
        assert "MAIL" not in sink.verbs()


def test_mail_with_a_utf8_address_is_returned_where_smtputf8_is_not_offered(gateway: Gateway, remote: Remote) -> None:
    domain, address = remote.place()
    user = remote.user()
    with remote.sink(address) as sink, gateway.smtp() as client:
        client.command_encoding = "utf-8"
        assert client.mail(user, ["SMTPUTF8"])[0] == 250
        assert client.docmd("RCPT", f"TO:<jörg@{domain}>")[0] == 250
        assert client.data(EIGHT_BIT)[0] == 250
        wait_until(lambda: gateway.mails(user), 15.0, "a notification")
        (stored,) = gateway.mails(user)
        assert b"message/global-delivery-status" in stored
        assert b"Status: 5.6.7\r\n" in stored
        assert f"Final-Recipient: utf-8; jörg@{domain}\r\n".encode() in stored
        assert sink.messages == []


# --- refusals in the transaction --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunking", [True, False], ids=["bdat", "data"])
@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelining", "one by one"])
def test_each_recipient_has_a_fate_of_its_own(
    gateway: Gateway, remote: Remote, pipelining: bool, chunking: bool
) -> None:
    domain, address = remote.place()
    user = remote.user()
    good, later, never = (f"{name}@{domain}" for name in ("good", "later", "never"))
    with remote.sink(address, pipelining=pipelining, chunking=chunking, replies={later: SOFT, never: HARD}) as sink:
        queue_id = send(gateway, user, [never, good, later], MESSAGE)
        (taken,) = sink.wait_messages(1)
        assert taken.forward_paths == (good,)
        (report,) = wait_reports(gateway, user, 1)
        assert list(report.recipients) == [never]
        (row,) = rows(gateway, "--domain", domain)
        assert (row["id"], row["recipient"], row["attempts"], row["last_reply"]) == (queue_id, later, 1, SOFT)
        del sink.replies[later]
        gateway.cli("queue", "retry", queue_id).expect()
        taken = sink.wait_messages(2)[1]
        assert taken.forward_paths == (later,)
        wait_gone(gateway, queue_id)
    assert len(sink.messages) == 2
    assert len(gateway.mails(user)) == 1


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelining", "one by one"])
@pytest.mark.parametrize(
    ("verb", "reply", "status"),
    [
        ("MAIL", "553 5.1.8 bad sender", "5.1.8"),
        ("RCPT", HARD, "5.1.1"),
        ("DATA", "554 5.7.1 not from you", "5.7.1"),
        (".", "554 5.6.0 not that", "5.6.0"),
        (".", "552 no enhanced code", "5.0.0"),
    ],
)
def test_a_refusal_for_good_comes_back_in_the_hosts_words(
    gateway: Gateway, remote: Remote, pipelining: bool, verb: str, reply: str, status: str
) -> None:
    domain, address = remote.place()
    user = remote.user()
    with remote.sink(address, pipelining=pipelining, replies={verb: reply}) as sink:
        queue_id = send(gateway, user, [f"x@{domain}", f"y@{domain}"], MESSAGE)
        (report,) = wait_reports(gateway, user, 1)
        assert set(report.recipients) == {f"x@{domain}", f"y@{domain}"}
        for block in report.recipients.values():
            assert block["Action"] == "failed"
            assert block["Status"] == status
            assert reply in str(block["Diagnostic-Code"])
            assert f"mx.{domain}" in str(block["Remote-MTA"])
        wait_gone(gateway, queue_id)
        assert sink.messages == []


@pytest.mark.parametrize(
    ("verb", "chunking"),
    [("MAIL", False), ("RCPT", False), ("DATA", False), (".", False), ("MAIL", True), ("RCPT", True), (".", True)],
)
@pytest.mark.parametrize("how", ["drop", "421 4.3.2 going away", "451 4.3.0 try later"])
def test_mail_waits_when_the_host_leaves_or_defers(
    gateway: Gateway, remote: Remote, verb: str, how: str, chunking: bool
) -> None:
    domain, address = remote.place()
    user = remote.user()
    with remote.sink(address, chunking=chunking) as sink:
        if how == "drop":
            sink.drop_at = verb
        else:
            sink.replies[verb] = how
        queue_id = send(gateway, user, [f"x@{domain}", f"y@{domain}"], MESSAGE)
        row = wait_row(gateway, f"x@{domain}")
        assert str(row["last_reply"]).startswith("4" if how == "drop" else how)
        assert sink.messages == []
        sink.drop_at = ""
        sink.replies.clear()
        gateway.cli("queue", "retry", queue_id).expect()
        (taken,) = sink.wait_messages(1)
        added_trace(MESSAGE, taken.data)
        assert taken.forward_paths == (f"x@{domain}", f"y@{domain}")
        wait_gone(gateway, queue_id)
    assert len(sink.messages) == 1
    assert gateway.mails(user) == []


# --- notifications ----------------------------------------------------------------------------------------------------


def test_a_notification_has_all_that_rfc_3464_asks_for(gateway: Gateway, remote: Remote) -> None:
    domain, address = remote.place()
    user = remote.user()
    with remote.sink(address, replies={"RCPT": HARD}):
        recipients = {f"x@{domain}": ["ORCPT=rfc822;old+2Bx@first.test"], f"y@{domain}": []}
        queue_id = send(gateway, user, recipients, MESSAGE, ["RET=FULL", "ENVID=QQ+2B314159"])
        (report,) = wait_reports(gateway, user, 1)
    assert report.about["Reporting-MTA"] == "dns; gateway.test"
    assert report.about["Original-Envelope-Id"] == "QQ+314159"
    assert report.about["Arrival-Date"]
    first, second = report.recipients[f"x@{domain}"], report.recipients[f"y@{domain}"]
    assert first["Original-Recipient"].replace(" ", "") == "rfc822;old+x@first.test"
    assert second["Original-Recipient"] is None
    for block in (first, second):
        assert block["Action"] == "failed"
        assert block["Status"] == "5.1.1"
        assert block["Diagnostic-Code"] == f"smtp; {HARD}"
        assert block["Remote-MTA"].startswith("dns; ")
    assert report.whole["From"].endswith("@gateway.test>")
    assert report.whole["To"].strip("<>") == user
    assert report.whole["Auto-Submitted"] == "auto-replied"
    assert report.whole["Message-ID"]
    assert report.whole["Date"]
    assert report.whole["Return-Path"] == "<>"
    assert f"x@{domain}" in report.text
    assert HARD in " ".join(report.text.split())
    assert queue_id in report.about["X-Smarthost-Queue-ID"]


@pytest.mark.parametrize(
    ("options", "size", "is_whole"),
    [(["RET=HDRS"], 0, False), (["RET=FULL"], 200_000, True), ([], 0, True), ([], 200_000, False)],
    ids=["hdrs", "full", "small", "large"],
)
def test_a_notification_returns_the_message_or_its_header(
    gateway: Gateway, remote: Remote, options: list[str], size: int, is_whole: bool
) -> None:
    domain, address = remote.place()
    user = remote.user()
    message = MESSAGE + b"x" * 998 + b"\r\n" + b"more text\r\n" * (size // 11)
    with remote.sink(address, replies={"RCPT": HARD}):
        send(gateway, user, [f"x@{domain}"], message, options)
        (report,) = wait_reports(gateway, user, 1)
    (stored,) = gateway.mails(user)
    if is_whole:
        assert report.returned.get_content_type() == "message/rfc822"
        assert message in stored
    else:
        assert report.returned.get_content_type() == "text/rfc822-headers"
        assert b"Message-ID: <1@elsewhere.test>\r\n" in stored
        assert b"last line" not in stored


@pytest.mark.parametrize("path", ["local", "relayed", "passed on"])
def test_success_is_told_to_those_who_ask(gateway: Gateway, remote: Remote, path: str) -> None:
    domain, address = remote.place()
    user, other, third = remote.user(), remote.user(), remote.user()
    with remote.sink(address, dsn=path == "passed on") as sink:
        asked, unasked = (other, third) if path == "local" else (f"x@{domain}", f"y@{domain}")
        recipients = {asked: ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;first@old.test"], unasked: ["NOTIFY=FAILURE"]}
        queue_id = send(gateway, user, recipients, MESSAGE, ["ENVID=abc", "RET=HDRS"])
        wait_gone(gateway, queue_id)
        if path == "passed on":
            (taken,) = sink.wait_messages(1)
            assert set(taken.mail.split()) >= {"ENVID=abc", "RET=HDRS"}
            assert taken.recipients[0].split()[-2:] == ["NOTIFY=FAILURE,SUCCESS", "ORCPT=rfc822;first@old.test"]
            assert "NOTIFY=FAILURE" in taken.recipients[1].split()
            assert gateway.mails(user) == []
            return
        (report,) = wait_reports(gateway, user, 1)
        assert report.action == ("delivered" if path == "local" else "relayed")
        assert list(report.recipients) == [asked]
        assert report.recipients[asked]["Status"].startswith("2.")
        assert report.recipients[asked]["Original-Recipient"].replace(" ", "") == "rfc822;first@old.test"
        assert report.about["Original-Envelope-Id"] == "abc"
        assert report.returned.get_content_type() == "text/rfc822-headers"


def test_dsn_parameters_are_not_sent_to_hosts_that_do_not_know_them(gateway: Gateway, remote: Remote) -> None:
    domain, address = remote.place()
    with remote.sink(address) as sink:
        recipients = {f"x@{domain}": ["NOTIFY=FAILURE", "ORCPT=rfc822;a@b.test"]}
        send(gateway, "a@elsewhere.test", recipients, MESSAGE, ["ENVID=abc", "RET=HDRS"])
        (taken,) = sink.wait_messages(1)
        assert not any(word in taken.mail + taken.recipients[0] for word in ("ENVID", "RET=", "NOTIFY", "ORCPT"))


@pytest.mark.parametrize("notify", ["NEVER", "SUCCESS", "DELAY"])
def test_failure_is_not_told_to_those_who_did_not_ask(gateway: Gateway, remote: Remote, notify: str) -> None:
    domain, address = remote.place()
    user = remote.user()
    with remote.sink(address, replies={"RCPT": HARD}) as sink:
        silent = send(gateway, user, {f"x@{domain}": [f"NOTIFY={notify}"]}, MESSAGE)
        wait_gone(gateway, silent)
        assert rows(gateway, "--recipient", user) == []
        assert gateway.mails(user) == []
        # The same with NOTIFY=FAILURE, which is answered: the silence above was no accident.
        send(gateway, user, {f"x@{domain}": ["NOTIFY=FAILURE"]}, MESSAGE)
        wait_reports(gateway, user, 1)
        assert len(gateway.mails(user)) == 1
        assert sink.verbs().count("RCPT") == 2


def test_nobody_is_told_of_a_failed_notification(gateway: Gateway, remote: Remote) -> None:
    domain, address = remote.place()
    with remote.sink(address, replies={"RCPT": HARD}) as sink:
        before = gateway.metric("smarthost_queue_messages")
        queue_id = send(gateway, "", {f"x@{domain}": ["NOTIFY=SUCCESS,FAILURE,DELAY"]}, MESSAGE)
        wait_gone(gateway, queue_id)
        assert sink.verbs().count("RCPT") == 1
        assert gateway.metric("smarthost_queue_messages") <= before
        assert rows(gateway, "--sender", "<>") == []


def test_a_remote_sender_gets_its_notification_by_mx_with_the_null_path(gateway: Gateway, remote: Remote) -> None:
    there, there_address = remote.place()
    home, home_address = remote.place()
    with remote.sink(there_address, replies={"RCPT": HARD}), remote.sink(home_address, dsn=True) as sink:
        send(gateway, f"sender@{home}", [f"x@{there}"], MESSAGE)
        (taken,) = sink.wait_messages(1)
        assert taken.mail.startswith("FROM:<>")
        assert taken.forward_paths == (f"sender@{home}",)
        assert b"Status: 5.1.1\r\n" in taken.data


def test_delay_and_expiry_are_told_to_those_who_ask(hasty: Gateway, remote: Remote) -> None:
    domain, address = remote.place()
    user = remote.user()
    usual, failure, delay, never = (f"{name}@{domain}" for name in ("usual", "failure", "delay", "never"))
    recipients = {
        usual: [],
        failure: ["NOTIFY=FAILURE"],
        delay: ["NOTIFY=DELAY"],
        never: ["NOTIFY=NEVER"],
    }
    with remote.sink(address, replies={"RCPT": SOFT}) as sink:
        queue_id = send(hasty, user, recipients, MESSAGE)
        first, *_ = wait_reports(hasty, user, 1)
        assert first.action == "delayed"
        assert set(first.recipients) == {usual, delay}
        for block in first.recipients.values():
            assert block["Status"].startswith("4.")
            assert block["Will-Retry-Until"]
        wait_gone(hasty, queue_id)
        reports = wait_reports(hasty, user, 2)
        assert len(reports) == 2
        assert reports[1].action == "failed"
        assert set(reports[1].recipients) == {usual, failure}
        for block in reports[1].recipients.values():
            assert block["Status"].startswith("5.") or block["Status"] == "4.4.7"
            assert SOFT in block["Diagnostic-Code"]
        assert sink.verbs().count("MAIL") >= 3


def test_mail_for_a_host_that_is_down_is_warned_about_and_expires(hasty: Gateway, remote: Remote) -> None:
    domain, _ = remote.place()  # nobody listens there
    user = remote.user()
    queue_id = send(hasty, user, [f"x@{domain}"], MESSAGE)
    wait_gone(hasty, queue_id)
    delayed, failed = wait_reports(hasty, user, 2)
    assert (delayed.action, failed.action) == ("delayed", "failed")
    assert failed.recipients[f"x@{domain}"]["Status"].startswith("5.4.")


# --- the postmaster and waiting mail ----------------------------------------------------------------------------------


def test_waiting_mail_is_listed_shown_held_released_and_deleted(gateway: Gateway, remote: Remote) -> None:
    domain, address = remote.place()
    other, other_address = remote.place()
    user = remote.user()
    with (
        remote.sink(address, replies={"RCPT": SOFT}) as sink,
        remote.sink(other_address, replies={"RCPT": SOFT}) as other_sink,
    ):
        first = send(gateway, user, [f"x@{domain}", f"y@{domain}"], MESSAGE)
        second = send(gateway, f"boss@{domain}", [f"x@{domain}", f"z@{other}"], MESSAGE)
        for recipient in (f"x@{domain}", f"y@{domain}", f"z@{other}"):
            wait_row(gateway, recipient)
        wait_until(lambda: sink.verbs().count("RCPT") >= 3, 15.0, "an attempt for each")
        wait_until(
            lambda: all(row["last_reply"] for row in rows(gateway, "--domain", domain)), 15.0, "replies in the queue"
        )

        def listed(*filters: str) -> set[tuple[object, object]]:
            return {(row["id"], row["recipient"]) for row in rows(gateway, *filters)}

        assert listed("--domain", domain) == {
            (first, f"x@{domain}"), (first, f"y@{domain}"), (second, f"x@{domain}")
        }  # fmt: skip
        assert listed("--domain", other.upper()) == {(second, f"z@{other}")}
        assert listed("--sender", user) == {(first, f"x@{domain}"), (first, f"y@{domain}")}
        assert listed("--recipient", f"x@{domain}") == {(first, f"x@{domain}"), (second, f"x@{domain}")}
        assert listed("--recipient", f"x@{domain}", "--sender", user) == {(first, f"x@{domain}")}
        assert listed("--domain", domain, "--older-than", "1h") == set()
        assert len(listed("--domain", domain, "--older-than", "1ms")) == 3
        assert listed("--domain", domain, "--state", "held") == set()
        assert gateway.cli("queue", "list", "--older-than", "soon").code == 2
        table = gateway.cli("queue", "list", "--domain", other).expect().stdout
        assert second in table
        assert f"z@{other}" in table

        shown = gateway.cli("queue", "show", first.lower()).expect().stdout
        for text in (first, user, f"x@{domain}", f"y@{domain}", SOFT, "Message-ID: <1@elsewhere.test>"):
            assert text in shown
        assert "last line" not in shown
        assert gateway.cli("queue", "show", "NOSUCHID").code == 1

        assert gateway.cli("queue", "hold").code == 2  # of all mail only with --all
        assert "1 " in gateway.cli("queue", "hold", "--recipient", f"y@{domain}").expect().stdout
        assert listed("--domain", domain, "--state", "held") == {(first, f"y@{domain}")}
        sink.replies.clear()
        gateway.cli("queue", "retry", "--domain", domain).expect()
        taken = sink.wait_messages(2)
        assert sorted(path for message in taken for path in message.forward_paths) == [f"x@{domain}"] * 2
        wait_until(lambda: len(listed("--domain", domain)) == 1, 10.0, "the others to be gone")
        assert gateway.cli("queue", "retry", "--recipient", f"y@{domain}").code == 1  # held is held
        gateway.cli("queue", "release", first).expect()
        assert sink.wait_messages(3)[2].forward_paths == (f"y@{domain}",)
        wait_gone(gateway, first)

        assert "1 " in gateway.cli("queue", "delete", second, "--domain", other).expect().stdout
        assert gateway.cli("queue", "show", second).code == 1
        assert gateway.cli("queue", "delete", second).code == 1
        assert other_sink.messages == []
        assert gateway.mails(user) == []
        assert not list((gateway.data / "spool").glob(f"**/*{second}*"))


def test_held_mail_does_not_leave_when_it_is_due(hasty: Gateway, remote: Remote) -> None:
    domain, address = remote.place()
    with remote.sink(address, replies={f"x@{domain}": SOFT}) as sink:
        queue_id = send(hasty, f"a@{domain}", [f"x@{domain}"], MESSAGE)
        wait_until(lambda: hasty.cli("queue", "hold", queue_id).code == 0, 3.0, "a moment when no attempt is under way")
        sink.replies.clear()
        marker = send(hasty, f"a@{domain}", [f"marker@{domain}"], MESSAGE)
        sink.wait_messages(1)
        wait_gone(hasty, marker)
        attempts = sink.commands.count(f"RCPT TO:<x@{domain}>")
        (row,) = rows(hasty, "--recipient", f"x@{domain}")
        assert row["state"] == "held"
        # It outlives its expiry, and at least two turns of the plan.
        created = wait_row_age(hasty, queue_id, 5.0)
        assert created
        assert sink.commands.count(f"RCPT TO:<x@{domain}>") == attempts
        hasty.cli("queue", "delete", queue_id).expect()


def wait_row_age(gateway: Gateway, queue_id: str, seconds: float) -> bool:
    """Until a message is so old and still there."""
    return wait_until(
        lambda: any(row["id"] == queue_id for row in rows(gateway, "--older-than", f"{seconds}s")),
        seconds + 5.0,
        f"{queue_id} to be {seconds:g} s old",
    )


def test_retry_reaches_a_host_that_has_come_back(gateway: Gateway, remote: Remote) -> None:
    """`queue retry` is a person's word that it will go now: what the pool remembers of the host must not hinder it."""
    domain, address = remote.place()
    queue_id = send(gateway, remote.user(), [f"x@{domain}"], MESSAGE)
    wait_row(gateway, f"x@{domain}")
    with remote.sink(address) as sink:
        gateway.cli("queue", "retry", queue_id).expect()
        sink.wait_messages(1, 10.0)


# --- aliases ----------------------------------------------------------------------------------------------------------


def test_an_alias_reaches_everybody_behind_it_once(gateway: Gateway, remote: Remote) -> None:
    domain, address = remote.place()
    first, second = remote.user(), remote.user()
    gateway.cli("alias", "add", "team@example.org", first, "rest@example.org", f"x@{domain}").expect()
    gateway.cli("alias", "add", "rest@example.org", second, first).expect()
    with remote.sink(address, dsn=True) as sink:
        send(gateway, "a@elsewhere.test", ["Team@Example.org", first], MESSAGE)
        (taken,) = sink.wait_messages(1)
        assert taken.forward_paths == (f"x@{domain}",)
        assert "ORCPT=rfc822;Team@example.org" in taken.recipients[0]
        for user in (first, second):
            (stored,) = gateway.wait_mails(user, 1)
            added_trace(MESSAGE, stored)
    listed = gateway.cli("alias", "list").expect().stdout
    assert "team@example.org" in listed
    gateway.cli("alias", "delete", "team@example.org").expect()
    assert try_rcpt(gateway, "team@example.org")[0] == 550
    assert gateway.cli("alias", "delete", "team@example.org").code == 1


def test_an_alias_that_would_loop_is_refused(gateway: Gateway, remote: Remote) -> None:
    user = remote.user()
    gateway.cli("alias", "add", "one@example.org", "two@example.org").expect()
    gateway.cli("alias", "add", "two@example.org", "three@example.org").expect()
    refused = gateway.cli("alias", "add", "three@example.org", user, "one@example.org").expect(1)
    assert "loop" in refused.stderr
    assert gateway.cli("alias", "add", "self@example.org", "self@example.org").code == 1
    # A copy in the account of the same name is none.
    other = remote.user()
    gateway.cli("alias", "add", user, user, other).expect()
    send(gateway, "a@elsewhere.test", [user], MESSAGE)
    assert len(gateway.wait_mails(user, 1)) == len(gateway.wait_mails(other, 1)) == 1


def test_a_plus_address_belongs_to_its_user(gateway: Gateway, remote: Remote) -> None:
    user = remote.user()
    tagged = user.replace("@", "+Shop.2026@")
    send(gateway, "a@elsewhere.test", [tagged], MESSAGE)
    (stored,) = gateway.wait_mails(user, 1)
    assert f"Delivered-To: {tagged}\r\n".encode() in stored
    assert try_rcpt(gateway, "nobody+tag@example.org")[0] == 550
    assert try_rcpt(gateway, "+tag@example.org")[0] == 550


def test_postmaster_and_abuse_always_reach_somebody(make_gateway: Callable[..., Gateway]) -> None:
    with make_gateway(
        domains=("example.org", "second.test"), users=("first@example.org", "late@example.org")
    ) as gateway:
        send(gateway, "a@elsewhere.test", ["postmaster"], MESSAGE)
        for count, address in enumerate(["POSTMASTER@example.org", "abuse@second.test", "Postmaster@Second.Test"], 2):
            send(gateway, "", [address], MESSAGE)
            gateway.wait_mails("first@example.org", count)
        gateway.cli("alias", "add", "postmaster@example.org", "late@example.org").expect()
        send(gateway, "a@elsewhere.test", ["postmaster@example.org"], MESSAGE)
        gateway.wait_mails("late@example.org", 1)
        assert len(gateway.mails("first@example.org")) == 4


# --- size -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunking", [True, False], ids=["bdat", "data"])
def test_thirty_megabytes_arrive_unchanged(gateway: Gateway, remote: Remote, chunking: bool) -> None:
    domain, address = remote.place()
    user = remote.user()
    line = b".%07d " + b"0123456789" * 6 + b"\r\n"
    big = MESSAGE + b"".join(line % number for number in range(30 * 1024 * 1024 // 71))
    assert len(big) > 30_000_000
    with remote.sink(address, chunking=chunking) as sink:
        queue_id = send(gateway, "a@elsewhere.test", [f"x@{domain}", user], big)
        (taken,) = sink.wait_messages(1, 40.0)
        (stored,) = gateway.wait_mails(user, 1, 40.0)
        added_trace(big, taken.data)
        added_trace(big, stored)
        wait_gone(gateway, queue_id)
