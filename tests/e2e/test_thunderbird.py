"""IMAP with a real Thunderbird, once as it is and once with CONDSTORE.

Each test puts its own messages into the mailbox by Python's imaplib, and looks at what happens from both sides.
"""

import imaplib
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP, default
from pathlib import Path
from typing import Self

import pytest

from tests.support.gateway import PASSWORD, Gateway
from tests.support.imapmailbox import gateway_named_localhost
from tests.support.process import missing, wait_until
from tests.support.thunderbird import TIME, Thunderbird

ABSENT = missing("thunderbird", "Xvfb")
pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(ABSENT is not None, reason=f"{ABSENT} with SMARTHOST_DESKTOP=1"),
]


class Mailbox:
    """What is in the gateway, by Python's own client."""

    def __init__(self, gateway: Gateway, user: str) -> None:
        context = ssl._create_unverified_context()
        self.client = imaplib.IMAP4_SSL("127.0.0.1", gateway.ports["imaps"], ssl_context=context, timeout=30)
        self.client.login(user, PASSWORD)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.logout()

    def put(self, subject: str, body: str = "A line.\n", name: str = "INBOX") -> None:
        assert self.client.append(name, "", "", letter(subject, body))[0] == "OK"

    def mails(self, name: str) -> dict[str, frozenset[str]]:
        """The flags of each message, by its subject."""
        found = {}
        self.client.select(f'"{name}"')
        _, data = self.client.fetch("1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
        for part in data:
            if isinstance(part, tuple):
                subject = str(message_from_bytes(part[1], policy=default)["Subject"])
                assert subject not in found, "twice"
                found[subject] = frozenset(flag.decode() for flag in imaplib.ParseFlags(part[0])) - {"\\Recent"}
        return found

    def store(self, subject: str, how: str, flags: str) -> None:
        self.client.select("INBOX")
        _, found = self.client.search(None, "SUBJECT", f'"{subject}"')
        assert self.client.store(found[0].decode(), how, flags)[0] == "OK"

    def names(self) -> set[str]:
        _, lines = self.client.list()
        return {line.decode().partition(' "/" ')[2].strip('"') for line in lines if isinstance(line, bytes)}

    def wait(self, name: str, subject: str, flags: frozenset[str] | None, what: str = "") -> None:
        """Until the message has these flags; None: until it is not there."""
        wait_until(lambda: self.mails(name).get(subject) == flags, TIME, what or f"{subject} in {name} with {flags}")


def letter(subject: str, body: str) -> bytes:
    message = EmailMessage()
    message["From"] = "Jürgen Groß <juergen@elsewhere.test>"
    message["To"] = "alice@example.org"
    message["Subject"] = subject
    message["Date"] = "Mon, 30 Nov 2026 10:00:00 +0000"
    message["Message-ID"] = f"<{subject.encode().hex()}@elsewhere.test>"
    message.set_content(body)
    return message.as_bytes(policy=SMTP)


class Both:
    """One account, seen by Thunderbird and by imaplib."""

    def __init__(self, gateway: Gateway, user: str, thunderbird: Thunderbird, mailbox: Mailbox) -> None:
        self.gateway = gateway
        self.user = user
        self.client = thunderbird
        self.server = mailbox

    def put(self, subject: str, body: str = "A line.\n") -> None:
        """A new message in the INBOX, shown by Thunderbird when it is told to look."""
        self.server.put(subject, body)
        self.client.wait_shown(subject)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with gateway_named_localhost(("alice@example.org", "bob@example.org", "carol@example.org")) as running:
        yield running


@contextmanager
def signed_in(gateway: Gateway, user: str, *, condstore: bool) -> Iterator[Thunderbird]:
    folder = Path(tempfile.mkdtemp(prefix="smarthost-thunderbird-", dir="/tmp"))
    try:
        with Thunderbird(folder, gateway, user, condstore=condstore) as thunderbird:
            yield thunderbird
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", params=["plain", "condstore"])
def account(request: pytest.FixtureRequest, gateway: Gateway) -> Iterator[Both]:
    condstore = request.param == "condstore"
    user = "bob@example.org" if condstore else "alice@example.org"
    with Mailbox(gateway, user) as mailbox:
        mailbox.put("welcome")
        with signed_in(gateway, user, condstore=condstore) as thunderbird:
            yield Both(gateway, user, thunderbird, mailbox)


@pytest.fixture
def both(request: pytest.FixtureRequest, account: Both) -> Iterator[Both]:
    failed = request.session.testsfailed
    yield account
    if request.session.testsfailed > failed:
        print(account.client.trace())


# --- what a user does ---------------------------------------------------------------------------------------------


def test_folders_are_found_with_their_uses(both: Both) -> None:
    found = both.client.js("""
        const uses = ["Inbox", "SentMail", "Drafts", "Trash", "Junk", "Archive"];
        const used = each => uses.filter(use => each.getFlag(Ci.nsMsgFolderFlags[use]));
        return Object.fromEntries(folders().map(each => [each.onlineName, used(each).join()]));
    """)
    expected = {"INBOX": "Inbox", "Sent": "SentMail", "Drafts": "Drafts", "Trash": "Trash", "Junk": "Junk"}
    assert isinstance(found, dict)
    assert {name: use for name, use in found.items() if use} == expected | {"Archive": "Archive"}


@pytest.mark.shows("Thunderbird", "read")
def test_a_message_is_shown_and_seen(both: Both, shows: Callable[[str], None]) -> None:
    subject = "Grüße aus Köln, 你好"
    both.put(subject, "Guten Tag, Jürgen!\n.\nŽluťoučký kůň\n")
    both.server.wait("INBOX", subject, frozenset())
    assert both.client.js("return mail('INBOX', arguments[0]).mime2DecodedAuthor", subject) == (
        "Jürgen Groß <juergen@elsewhere.test>"
    )
    both.client.js("pane().selectMessage(mail('INBOX', arguments[0]));", subject)
    shown = "return pane().messageBrowser.contentWindow.getMessagePaneBrowser().contentDocument.body?.textContent || ''"
    wait_until(lambda: "Jürgen!\n.\nŽluťoučký kůň" in str(both.client.js(shown)), TIME, "the text on the screen")
    both.server.wait("INBOX", subject, frozenset({"\\Seen"}))
    shows("read")


def test_a_message_is_streamed_whole(both: Both) -> None:
    body = "".join(f"Line {number}, with more than a few words in it.\n" for number in range(3000))
    both.put("a long one", body)
    text = both.client.js("""
        const source = mail("INBOX", "a long one").folder.getUriForMsg(mail("INBOX", "a long one"));
        return new Promise((resolve, reject) => {
            let text = "";
            const input = Cc["@mozilla.org/scriptableinputstream;1"].createInstance(Ci.nsIScriptableInputStream);
            const listener = {
                QueryInterface: ChromeUtils.generateQI(["nsIStreamListener", "nsIRequestObserver"]),
                onStartRequest() {},
                onDataAvailable(_, stream, offset, count) { input.init(stream); text += input.readBytes(count); },
                onStopRequest(_, status) { status ? reject(status) : resolve(text); },
            };
            MailServices.messageServiceFromURI(source).streamMessage(source, listener, null, null, false, "", false);
        });
    """)
    assert isinstance(text, str)
    assert text.replace("\r\n", "\n").partition("\n\n")[2] == body


@pytest.mark.shows("Thunderbird", "flag")
def test_stars_tags_and_unread_are_kept(both: Both, shows: Callable[[str], None]) -> None:
    both.put("a flag")
    both.client.js("""
        const it = mail("INBOX", "a flag");
        it.folder.markMessagesFlagged([it], true);
        it.folder.addKeywordsToMessages([it], "$label1");
        it.folder.markMessagesRead([it], true);
    """)
    both.server.wait("INBOX", "a flag", frozenset({"\\Flagged", "\\Seen", "$label1"}))
    shows("flag")
    both.client.js("""
        const it = mail("INBOX", "a flag");
        it.folder.markMessagesFlagged([it], false);
        it.folder.removeKeywordsFromMessages([it], "$label1");
        it.folder.addKeywordsToMessages([it], "$label2");
        it.folder.markMessagesRead([it], false);
    """)
    both.server.wait("INBOX", "a flag", frozenset({"$label2"}))


@pytest.mark.shows("Thunderbird", "move")
def test_a_message_is_moved_and_another_copied(both: Both, shows: Callable[[str], None]) -> None:
    both.put("to move")
    both.put("to copy")
    both.client.js("""
        for (const [subject, move] of [["to move", true], ["to copy", false]])
            MailServices.copy.copyMessages(
                folder("INBOX"), [mail("INBOX", subject)], folder("Archive"), move, null, null, true);
    """)
    both.server.wait("INBOX", "to move", None)
    both.server.wait("Archive", "to move", frozenset())
    both.server.wait("Archive", "to copy", frozenset())
    both.server.wait("INBOX", "to copy", frozenset())
    both.client.wait_shown("to move", "Archive")
    both.client.wait_shown("to copy", "Archive")
    both.client.wait_gone("to move")
    shows("move")


@pytest.mark.shows("Thunderbird", "delete")
def test_a_message_goes_to_the_trash_and_the_trash_is_emptied(both: Both, shows: Callable[[str], None]) -> None:
    both.put("rubbish")
    both.client.js("""
        const it = mail("INBOX", "rubbish");
        it.folder.deleteMessages([it], null, false, false, null, true);
    """)
    both.client.wait_gone("rubbish")
    both.server.wait("INBOX", "rubbish", None)
    both.server.wait("Trash", "rubbish", frozenset())
    both.client.wait_shown("rubbish", "Trash")
    both.client.js('folder("Trash").emptyTrash(null);')
    wait_until(lambda: both.server.mails("Trash") == {}, TIME, "an empty trash")
    shows("delete")


def test_a_message_is_marked_as_deleted_then_compacted_away(both: Both) -> None:
    both.put("to strike out")
    both.client.js("""
        server.deleteModel = Ci.nsMsgImapDeleteModels.IMAPDelete;
        const it = mail("INBOX", "to strike out");
        it.folder.deleteMessages([it], null, false, false, null, true);
        server.deleteModel = Ci.nsMsgImapDeleteModels.MoveToTrash;
    """)
    both.server.wait("INBOX", "to strike out", frozenset({"\\Deleted", "\\Seen"}))
    both.client.js('folder("INBOX").compact(null, null);')
    both.server.wait("INBOX", "to strike out", None)
    both.client.wait_gone("to strike out")


@pytest.mark.shows("Thunderbird", "search")
def test_the_server_searches(both: Both, shows: Callable[[str], None]) -> None:
    both.put("Ein Suchwort: Straße", "nothing\n")
    both.put("another", "There is a Zauberwörtchen in here.\n")

    def search(what: str, text: str) -> object:
        return both.client.js(
            """
            const session = Cc["@mozilla.org/messenger/searchSession;1"].createInstance(Ci.nsIMsgSearchSession);
            const value = session.createTerm().value;
            value.attrib = Ci.nsMsgSearchAttrib[arguments[0]];
            value.str = arguments[1];
            session.addSearchTerm(value.attrib, Ci.nsMsgSearchOp.Contains, value, true, "");
            session.addScopeTerm(Ci.nsMsgSearchScope.onlineMail, folder("INBOX"));
            return new Promise((resolve, reject) => {
                const found = [];
                session.registerListener({
                    QueryInterface: ChromeUtils.generateQI(["nsIMsgSearchNotify"]),
                    onNewSearch() {},
                    onSearchHit(header) { found.push(header.mime2DecodedSubject); },
                    onSearchDone(status) { status ? reject(status) : resolve(found); },
                }, Ci.nsIMsgSearchSession.allNotifications);
                session.search(null);
            });
            """,
            what,
            text,
        )

    assert search("Subject", "suchwort") == ["Ein Suchwort: Straße"]
    assert search("Subject", "straße") == ["Ein Suchwort: Straße"]
    assert search("Body", "is a zauber") == ["another"]
    assert search("Body", "Zauberwörtchen") == ["another"]
    assert search("Body", "not there") == []
    shows("search")


@pytest.mark.shows("Thunderbird", "append")
def test_what_was_sent_and_drafts_are_stored(both: Both, shows: Callable[[str], None]) -> None:
    for name, subject in (("Sent", "was sent"), ("Drafts", "unfinished"), ("Drafts", "less unfinished")):
        path = both.client.folder / subject
        path.write_bytes(letter(subject, "Bis dann, Jürgen\n"))
        both.client.js(
            """
            const [path, name] = arguments;
            const file = Cc["@mozilla.org/file/local;1"].createInstance(Ci.nsIFile);
            file.initWithPath(path);
            const flags = name == "Sent" ? Ci.nsMsgMessageFlags.Read : 0;
            MailServices.copy.copyFileMessage(file, folder(name), null, name == "Drafts", flags, "", null, null);
            """,
            str(path),
            name,
        )
        wait_until(lambda: subject in both.server.mails(name), TIME, f"{subject} in {name} on the server")  # noqa: B023
        both.client.wait_shown(subject, name)
    both.server.wait("Sent", "was sent", frozenset({"\\Seen"}))
    shows("append")
    both.server.wait("Drafts", "less unfinished", frozenset({"\\Draft"}))
    both.client.js("""
        const it = mail("Drafts", "unfinished");  // the older version, as the window in which it was written does
        it.folder.deleteMessages([it], null, true, false, null, false);
    """)
    both.client.wait_gone("unfinished", "Drafts")
    both.server.wait("Drafts", "less unfinished", frozenset({"\\Draft"}))


@pytest.mark.shows("Thunderbird", "make mailbox")
def test_a_folder_is_made_renamed_and_deleted(both: Both, shows: Callable[[str], None]) -> None:
    """Thunderbird takes UTF8=ACCEPT, so its names are UTF-8; imaplib's are in modified UTF-7."""
    before = both.server.names()

    def wait_name(name: str, octets: str) -> None:
        wait_until(lambda: both.server.names() - before == {octets}, TIME, f"{name} on the server")
        wait_until(lambda: both.client.js("return !!folder(arguments[0])", name), TIME, f"{name} in Thunderbird")

    both.client.js('server.rootFolder.createSubfolder("Prjekté & Co", null);')
    wait_name("Prjekté & Co", "Prjekt&AOk- &- Co")
    shows("make mailbox")
    both.server.put("in there", name='"Prjekt&AOk- &- Co"')
    both.client.js('folder("Prjekté & Co").rename("Größer ✓", null);')
    wait_name("Größer ✓", "Gr&APYA3w-er &JxM-")
    both.client.wait_shown("in there", "Größer ✓")
    both.client.js("""
        Services.prefs.setBoolPref("mailnews.confirm.moveFoldersToTrash", false);
        folder("Größer ✓").deleteSelf(window.msgWindow);
    """)
    wait_name("Trash/Größer ✓", "Trash/Gr&APYA3w-er &JxM-")
    both.client.js('folder("Trash").emptyTrash(null);')
    wait_until(lambda: both.server.names() == before, TIME, "an empty trash")


@pytest.mark.shows("Thunderbird", "new mail")
def test_mail_that_arrives_and_what_others_do_is_shown_while_it_idles(both: Both, shows: Callable[[str], None]) -> None:
    both.put("before")
    wait_until(lambda: both.client.said("INBOX")[-1:] == ["IDLE"], TIME, "IDLE")
    both.gateway.send(both.user, letter("just in", "Hello\n"))
    both.client.wait_told("just in")
    shows("new mail")
    both.server.store("just in", "+FLAGS", "(\\Flagged \\Seen $label3)")
    state = """
        const it = mail("INBOX", "just in");
        return [it.isFlagged, it.isRead, it.getStringProperty("keywords").includes("$label3")];
    """
    wait_until(lambda: both.client.js(state) == [True, True, True], TIME, "the other's flags")
    both.server.store("just in", "-FLAGS", "(\\Flagged $label3)")
    wait_until(lambda: both.client.js(state) == [False, True, False], TIME, "the other's change of mind")
    both.server.store("just in", "+FLAGS", "(\\Deleted)")
    both.server.client.expunge()
    both.client.wait_gone("just in")
    assert any("CHANGEDSINCE" in line for line in both.client.said("INBOX")) == both.client.condstore


def test_the_first_mail_of_an_empty_mailbox_is_shown(gateway: Gateway) -> None:
    with signed_in(gateway, "carol@example.org", condstore=False) as thunderbird:
        last = wait_until(lambda: {"IDLE", "logout"} & set(thunderbird.said("INBOX")), TIME, "IDLE")
        assert last == {"IDLE"}
        gateway.send("carol@example.org", letter("the first", "Hello\n"))
        thunderbird.wait_told("the first")
