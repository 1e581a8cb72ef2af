"""What the benchmark of IMAP measures: steps of one session, each leaving the mailbox as it found it in the end."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.imap_client import ImapClient
from bench.messages import RARE, TOPIC, message

THUNDERBIRD = (
    "UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS (From To Cc Bcc Subject Date Message-ID Priority X-Priority"
    " References Newsgroups In-Reply-To Content-Type Reply-To Received)]"
)
ENVELOPE = "ENVELOPE INTERNALDATE RFC822.SIZE"
BOXES = ("INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash")
APPENDED = 500


@dataclass(slots=True)
class Side:
    """One server. deliver: one message into INBOX; make_cold: forget what can be forgotten, nobody being connected."""

    name: str
    connect: Callable[[], ImapClient]
    deliver: Callable[[], None]
    make_cold: Callable[[], None]
    count: int  # messages in INBOX before the steps
    _client: ImapClient | None = None
    octets: dict[str, int] = field(default_factory=dict)  # of each step's last answer

    @property
    def client(self) -> ImapClient:
        if self._client is None:
            self._client = self.connect()
        return self._client

    def leave(self) -> None:
        if self._client is not None:
            self._client.run("LOGOUT")
            self._client.close()
            self._client = None

    def run(self, command: str) -> float:
        return self.client.run(command)

    def some(self) -> int:
        """How many messages are copied, moved, flagged."""
        return min(1000, self.count)


Step = Callable[[Side], float]


def _command(text: str) -> Step:
    return lambda side: side.run(text.format(some=side.some()))


def _select_first(side: Side) -> float:
    side.leave()
    side.client.run("NOOP")  # the session's process is there
    return side.run("SELECT INBOX")


def _select_again(side: Side) -> float:
    side.run("UNSELECT")
    return side.run("SELECT INBOX")


def _select_after_delivery(side: Side) -> float:
    side.run("UNSELECT")
    side.deliver()
    seconds = side.run("SELECT INBOX")
    side.run("UID STORE * +FLAGS.SILENT (\\Deleted)")
    side.run("EXPUNGE")
    return seconds


def _move_back(side: Side) -> float:
    side.run("SELECT Archive")
    seconds = side.run(f"MOVE 1:{side.some()} INBOX")
    side.run("SELECT INBOX")
    return seconds


def _expunge(side: Side) -> float:
    side.run(f"STORE {side.count + 1}:* +FLAGS.SILENT (\\Deleted)")
    return side.run("EXPUNGE")


def _append(side: Side) -> float:
    made = [message(number) for number in range(APPENDED)]
    client = side.client
    started = time.perf_counter()
    for octets in made:
        client.run("APPEND Drafts (\\Seen)", octets)
    seconds = time.perf_counter() - started
    side.run("SELECT Drafts")
    side.run("STORE 1:* +FLAGS.SILENT (\\Deleted)")
    side.run("EXPUNGE")
    side.run("SELECT INBOX")
    return seconds


def _status(side: Side) -> float:
    side.run("UNSELECT")
    seconds = sum(side.run(f"STATUS {name} (MESSAGES UIDNEXT UNSEEN RECENT)") for name in BOXES)
    side.run("SELECT INBOX")
    return seconds


STEPS: dict[str, Step] = {
    "SELECT, first of a session": _select_first,
    "SELECT again": _select_again,
    "SELECT after one delivery": _select_after_delivery,
    "FETCH 1:* (UID FLAGS)": _command("FETCH 1:* (UID FLAGS)"),
    "Thunderbird's header fields, 1:*": _command(f"UID FETCH 1:* ({THUNDERBIRD})"),
    "ENVELOPE INTERNALDATE RFC822.SIZE, 1:*": _command(f"FETCH 1:* ({ENVELOPE})"),
    "BODYSTRUCTURE, 1:*": _command("FETCH 1:* (BODYSTRUCTURE)"),
    "BODY.PEEK[] of 1,000": _command("FETCH 1:{some} (UID BODY.PEEK[])"),
    "SEARCH SUBJECT": _command(f"SEARCH SUBJECT {TOPIC}"),
    "SEARCH UNSEEN": _command("SEARCH UNSEEN"),
    "SEARCH BODY in 1,000": _command(f"SEARCH 1:{{some}} BODY {RARE}"),
    "SEARCH TEXT in 1,000": _command(f"SEARCH 1:{{some}} TEXT {RARE}"),
    "STORE +FLAGS on 1,000": _command("STORE 1:{some} +FLAGS (\\Flagged)"),
    "the same again, nothing to do": _command("STORE 1:{some} +FLAGS (\\Flagged)"),
    "STORE -FLAGS on 1,000": _command("STORE 1:{some} -FLAGS (\\Flagged)"),
    "COPY 1,000": _command("COPY 1:{some} Archive"),
    "MOVE 1,000 back": _move_back,
    "EXPUNGE 1,000": _expunge,
    f"APPEND {APPENDED}, one after another": _append,
    "STATUS of 6 mailboxes": _status,
}


def _cold(text: str) -> tuple[Step, Step]:
    def select(side: Side) -> float:
        side.leave()
        side.make_cold()
        side.client.run("NOOP")
        return side.run("SELECT INBOX")

    return select, _command(text)


def cold_steps() -> dict[str, Step]:
    first, envelope = _cold(f"FETCH 1:* ({ENVELOPE})")
    second, fields = _cold(f"UID FETCH 1:* ({THUNDERBIRD})")
    return {
        "cold: SELECT": first,
        "cold: ENVELOPE INTERNALDATE RFC822.SIZE, 1:*": envelope,
        "cold: SELECT, once more": second,
        "cold: Thunderbird's header fields, 1:*": fields,
    }


def run_round(sides: list[Side], steps: dict[str, Step]) -> dict[str, dict[str, float]]:
    """Milliseconds by step and side; the sides take turns within each step."""
    found: dict[str, dict[str, float]] = {}
    for name, step in steps.items():
        found[name] = {}
        for side in sides:
            found[name][side.name] = step(side) * 1000
            side.octets[name] = side.client.octets
    return found


def least(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The best round of each step and side."""
    return {step: {side: min(each[step][side] for each in rounds) for side in rounds[0][step]} for step in rounds[0]}
