"""`make run`: start the demo, send the tour, show what became of each message and where to look, stay until Ctrl-C."""

import argparse
import poplib
import re
import signal
import smtplib
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from email.utils import formatdate, make_msgid

from gateway.core.errors import SmarthostError
from gateway.demo import samples
from gateway.demo.site import MAILING_LIST, SIZE_LIMIT, Internet, Site
from gateway.queue.seals import signatures_of
from gateway.queue.store import Filter, State
from gateway.senderauth.signing import SigningKey
from gateway.storage.queue_desk import QueueDesk
from gateway.storage.spool import Spool

ARRIVAL_S = 20.0
STRANGER = "127.0.0.9"  # a loopback address that the demo's [networks] trusted leaves out


@dataclass(frozen=True, slots=True)
class Stop:
    """One stop of the tour. run: does it; returns the reply, what became of the message, and whether that is right."""

    title: str
    run: Callable[[], tuple[str, str, bool]]


class Tour:
    def __init__(self, internet: Internet) -> None:
        self._home, self._remote, self._bank = internet.home, internet.remote, internet.bank
        self._seen: dict[str, int] = {}

    def stops(self) -> list[Stop]:
        return [
            Stop("clean mail from outside to alice", self._clean_in),
            Stop("alice, signed in on 587, writes to the remote side", self._relay_out),
            Stop("an MTA that uses us as relayhost sends out by MX", self._relayhost),
            Stop("a stranger tries to relay through us", self._strangers_relay),
            Stop("mail to somebody who does not exist here", self._unknown_user),
            Stop("a stranger writes as the bank, whose domain wants that rejected", self._forged),
            Stop("the bank's mail over a list, which breaks its signature and seals what it found", self._over_a_list),
            Stop("a virus, in a zip, from outside", self._virus_in),
            Stop("the same from alice, who signed in", self._virus_out),
            Stop("spam", self._spam),
            Stop("alice is told of it in a digest, follows its link, and presses the button", self._digest),
            Stop("an archive under a password", self._locked),
            Stop("a document with macros", self._macros),
            Stop(f"a message over the size limit of {SIZE_LIMIT}", self._oversize),
            Stop("a smuggled second message behind a bare LF dot", self._smuggling),
            Stop("bob writes to nobody@remote.example and gets a bounce", self._bounce),
        ]

    # --- stops ----------------------------------------------------------------------------------------------------

    def _clean_in(self) -> tuple[str, str, bool]:
        reply = self._send("dave@elsewhere.example", "alice@example.org", "Lunch?", source=STRANGER)
        return self._arrival(reply, self._home, "alice@example.org")

    def _relay_out(self) -> tuple[str, str, bool]:
        reply = self._send("alice@example.org", "carol@remote.example", "Minutes", user="alice@example.org")
        return self._arrival(reply, self._remote, "carol@remote.example")

    def _relayhost(self) -> tuple[str, str, bool]:
        reply = self._send("cron@app.example.org", "carol@remote.example", "Nightly report")
        return self._arrival(reply, self._remote, "carol@remote.example")

    def _strangers_relay(self) -> tuple[str, str, bool]:
        reply = self._send("dave@elsewhere.example", "carol@remote.example", "Cheap pills", source=STRANGER)
        return reply, "refused at RCPT", reply.startswith("554 5.7.1")

    def _unknown_user(self) -> tuple[str, str, bool]:
        reply = self._send("dave@elsewhere.example", "zoe@example.org", "Hello", source=STRANGER)
        return reply, "refused at RCPT", reply.startswith("550 5.1.1")

    def _forged(self) -> tuple[str, str, bool]:
        reply = self._send(
            "dave@elsewhere.example", "alice@example.org", "Your account", source=STRANGER, author="help@bank.example"
        )
        return reply, "refused: nobody vouches for it (SPF, DKIM, DMARC)", reply.startswith("550 5.7.26")

    def _over_a_list(self) -> tuple[str, str, bool]:
        """Sent to the remote side, whose list bob is on."""
        reply = self._send(
            "help@bank.example", MAILING_LIST, "Opening hours", source=STRANGER, site=self._remote, key=self._bank
        )
        return self._arrival(reply, self._home, "bob@example.org", what="DKIM fails, ARC vouches: is in")

    def _virus_in(self) -> tuple[str, str, bool]:
        reply = self._send(
            "dave@elsewhere.example", "alice@example.org", "The file", source=STRANGER,
            attachment=("file.zip", samples.zipped(file__com=samples.EICAR)),
        )  # fmt: skip
        return reply, "refused: the embedded scanner knows it", reply.startswith("554 5.7.1")

    def _virus_out(self) -> tuple[str, str, bool]:
        reply = self._send(
            "alice@example.org", "carol@remote.example", "The file", user="alice@example.org",
            attachment=("file.zip", samples.zipped(file__com=samples.EICAR)),
        )  # fmt: skip
        return reply, "refused: it does not leave either", reply.startswith("554 5.7.1")

    def _spam(self) -> tuple[str, str, bool]:
        reply = self._send(
            "dave@elsewhere.example", "alice@example.org", "You have won", source=STRANGER, text=samples.GTUBE
        )
        return self._kept(reply, "spam")

    def _digest(self) -> tuple[str, str, bool]:
        site, user = self._home, "alice@example.org"
        command = [sys.executable, "-m", "gateway", "quarantine", "digest", "-c", str(site.config)]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603  # our own
        _, told, arrived = self._arrival("250", site, user)
        link = re.search(r"^Release:\s+(\S+)$", read_newest(site, user), re.MULTILINE) if arrived else None
        if link is None:
            return said, f"no link: {told}", False
        with urllib.request.urlopen(link[1], timeout=10) as page:  # noqa: S310  # our own page
            shows = b"<form" in page.read() and len(read_subjects(site, user)) == self._seen[user]
        with urllib.request.urlopen(link[1], data=b"", timeout=20) as page:  # noqa: S310
            page.read()
        _, became, good = self._arrival("250", site, user, what="the link shows, the button acts: released,")
        return said, became, good and shows

    def _locked(self) -> tuple[str, str, bool]:
        reply = self._send(
            "dave@elsewhere.example", "alice@example.org", "Invoice", source=STRANGER,
            attachment=("invoice.zip", samples.locked_zip()),
        )  # fmt: skip
        return self._kept(reply, "something under a password")

    def _macros(self) -> tuple[str, str, bool]:
        reply = self._send(
            "dave@elsewhere.example", "alice@example.org", "Order form", source=STRANGER,
            attachment=("order.docm", samples.document_with_macros()),
        )  # fmt: skip
        return self._kept(reply, "macros")

    def _oversize(self) -> tuple[str, str, bool]:
        reply = self._send("dave@elsewhere.example", "alice@example.org", "Video", source=STRANGER, octets=1_200_000)
        return reply, "refused", reply.startswith("552 5.3.4")

    def _smuggling(self) -> tuple[str, str, bool]:
        with self._connect(STRANGER, "", self._home) as client:
            client.docmd("MAIL FROM:<dave@elsewhere.example>")
            client.docmd("RCPT TO:<alice@example.org>")
            client.docmd("DATA")
            smuggled = (
                b"MAIL FROM:<ceo@example.org>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\nSubject: pay\r\n\r\nx\r\n.\r\n"
            )
            client.send(b"Subject: hi\r\n\r\ntext\n.\r\n" + smuggled)
            code, text = client.getreply()
        return f"{code} {text.decode()}", "refused, nothing queued", code == 550

    def _bounce(self) -> tuple[str, str, bool]:
        reply = self._send("bob@example.org", "nobody@remote.example", "Are you there?", user="bob@example.org")
        return self._arrival(reply, self._home, "bob@example.org", what="the DSN is in")

    # --- means ----------------------------------------------------------------------------------------------------

    def _connect(self, source: str, user: str, site: Site) -> smtplib.SMTP:
        port = site.ports["submission" if user else "smtp"]
        client = smtplib.SMTP("127.0.0.1", port, "client.elsewhere.example", timeout=20, source_address=(source, 0))
        client.ehlo()
        if user:
            client.starttls(context=_any_certificate())
            client.ehlo()
            client.login(user, site.users[user])
        return client

    def _send(
        self,
        sender: str,
        recipient: str,
        subject: str,
        *,
        source: str = "127.0.0.1",
        user: str = "",
        octets: int = 0,
        author: str = "",
        site: Site | None = None,
        key: SigningKey | None = None,
        text: str = "",
        attachment: tuple[str, bytes] | None = None,
    ) -> str:
        """The last reply of the dialogue, as text. author: what From names, where that is not the sender; attachment:
        name and octets.
        """
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = author or sender, recipient, subject
        message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain=sender.rpartition("@")[2])
        message.set_content(
            text + "\n"
            if text
            else f"{subject}\n" + "0123456789abcdef" * 4 * (octets // 64)
            if not octets
            else "x" * 70 + "\n"
        )
        if attachment is not None:
            name, file = attachment
            message.add_attachment(file, maintype="application", subtype="octet-stream", filename=name)
        octets_out = message.as_bytes().replace(b"\n", b"\r\n")
        if octets:
            octets_out += (b"x" * 70 + b"\r\n") * (octets // 72)
        octets_out = octets_out if key is None else signatures_of(octets_out, (key,), int(time.time())) + octets_out
        with self._connect(source, user, site or self._home) as client:
            for verb in (f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>"):
                code, said = client.docmd(verb)
                if code >= 400:
                    return f"{code} {said.decode()}"
            code, said = client.data(octets_out)
            return f"{code} {said.decode()}"

    def _kept(self, reply: str, rule: str) -> tuple[str, str, bool]:
        """It is in quarantine, by this rule."""
        queue_id = reply.rpartition(" ")[2]
        desk = QueueDesk(self._home.folder / "data" / "queue.db", Spool(self._home.folder / "data" / "spool"))
        try:
            found = desk.entries(Filter(queue_id=queue_id, state=State.QUARANTINED))
            is_kept = any(entry.info.get("kept_by") == rule for entry in found)
        finally:
            desk.close()
        return reply, f"kept in quarantine: {rule}" if is_kept else "not in quarantine", is_kept

    def _arrival(self, reply: str, site: Site, user: str, what: str = "is in") -> tuple[str, str, bool]:
        """Wait until one more message is in the user's mailbox, read over POP3 as a mail program would."""
        if not reply.startswith("250"):
            return reply, "not accepted", False
        expected = self._seen.get(user, 0) + 1
        deadline = time.monotonic() + ARRIVAL_S
        while time.monotonic() < deadline:
            subjects = read_subjects(site, user)
            if len(subjects) >= expected:
                self._seen[user] = len(subjects)
                return reply, f"{what} {user}'s mailbox: “{subjects[-1]}”", True
            time.sleep(0.1)
        return reply, f"did not reach {user} in {ARRIVAL_S:.0f} s", False


def read_subjects(site: Site, user: str) -> list[str]:
    """Subjects of a user's messages, oldest first, over POP3 with implicit TLS."""
    box = poplib.POP3_SSL("127.0.0.1", site.ports["pop3s"], timeout=10, context=_any_certificate())
    try:
        box.user(user)
        box.pass_(site.users[user])
        found = []
        for number in range(1, box.stat()[0] + 1):
            lines = box.top(number, 0)[1]
            subject = next((line for line in lines if line.lower().startswith(b"subject:")), b"Subject: (none)")
            found.append(subject[8:].decode("utf-8", "replace").strip())
        return found
    finally:
        box.quit()


def read_newest(site: Site, user: str) -> str:
    """The plain text of a user's newest message."""
    box = poplib.POP3_SSL("127.0.0.1", site.ports["pop3s"], timeout=10, context=_any_certificate())
    try:
        box.user(user)
        box.pass_(site.users[user])
        octets = b"\r\n".join(box.retr(box.stat()[0])[1])
    finally:
        box.quit()
    part = message_from_bytes(octets, policy=default).get_body(("plain",))
    return "" if part is None else str(part.get_content()).replace("\r\n", "\n")


def _any_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the demo's certificate is self-signed
    return context


def _where_to_look(home: Site) -> str:
    command = f"{sys.executable.rpartition('/')[0]}/smarthost"
    user, password = next(iter(home.users.items()))
    ports = home.ports
    return "\n".join(
        [
            "",
            "Where to look:",
            f"  trace     {command} trace ID-or-address -c {home.config}",
            f"  queue     {command} queue list -c {home.config}",
            f"  kept      {command} quarantine list -c {home.config}",
            f"  mailbox   IMAP with TLS on 127.0.0.1:{ports['imaps']}, POP3 with TLS on {ports['pop3s']};"
            f" user {user}, password {password}",
            f"  send      SMTP on {ports['smtp']}, submission on {ports['submission']} and {ports['submissions']}",
            f"  metrics   http://127.0.0.1:{ports['metrics']}/metrics",
            f"  policies  {home.folder / 'policies'}",
            f"  log       {home.folder / 'gateway.log'}",
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the tour; exit code 1 if a stop went wrong")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("== starting two gateways and a name server on loopback high ports", flush=True)
    try:
        with Internet() as internet:
            bad = _show(Tour(internet))
            print(_where_to_look(internet.home), flush=True)
            if not arguments.once:
                print("Running until Ctrl-C.", flush=True)
                signal.pause()
            return 1 if bad else 0
    except KeyboardInterrupt:
        print("\n== stopped, everything was removed", flush=True)
        return 0
    except SmarthostError as error:
        print(f"smarthost: {error}", file=sys.stderr)
        return 1


def _show(tour: Tour) -> int:
    """Print each stop as it happens; returns how many went wrong."""
    bad = 0
    for number, stop in enumerate(tour.stops(), 1):
        try:
            reply, became, good = stop.run()
        except (OSError, smtplib.SMTPException, poplib.error_proto) as error:
            reply, became, good = f"({type(error).__name__}: {error})", "failed", False
        bad += not good
        print(
            f"\n{number}. {stop.title}\n   answer   {reply}\n   {'ok' if good else 'WRONG'}       {became}", flush=True
        )
    return bad


if __name__ == "__main__":
    sys.exit(main())
