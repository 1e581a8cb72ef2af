"""`queue` and `trace` on a queue and a trace with something in them."""

import json
import time
from dataclasses import replace
from datetime import datetime

import pytest

from gateway.message.blob import FileBlob
from gateway.queue.store import Filter
from gateway.storage.spool import Spool
from gateway.storage.sqlite_queue import SqliteQueue
from gateway.storage.sqlite_trace import SqliteTrace
from gateway.telemetry.recorder import Event
from tests.queue.queue_contract import BODY, new, run
from tests.support.cli import Cli


@pytest.fixture
def queued(cli: Cli) -> Cli:
    data = cli.folder / "data"
    spool = Spool(data / "spool", threads=1)
    spool.prepare()
    store = SqliteQueue(data / "queue.db", spool, owner="queue-0")
    large = data / "large"
    large.write_bytes(BODY * 7000)
    run(
        store.enqueue(
            replace(new("AAAAAAAAAAAAAAAA", "a@x.example", "b@y.example", age=7200.0), info={"client": "192.0.2.1"})
        )
    )
    run(
        store.enqueue(
            replace(new("BBBBBBBBBBBBBBBB", "c@x.example", sender=""), blob=FileBlob(large, len(BODY) * 7000))
        )
    )
    store.close()
    spool.pool.shutdown()
    return cli


def rows(cli: Cli, *filters: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(cli("queue", "list", "--json", *filters).expect(0).stdout)
    return found


def test_the_list_in_a_table_and_in_json(queued: Cli) -> None:
    table = queued("queue", "list").expect(0).stdout.splitlines()
    assert table[0].split() == ["ID", "STATE", "ARRIVED", "NEXT", "SIZE", "SENDER", "RECIPIENT", "ATTEMPTS"]
    assert [line.split()[0][0] for line in table[1:]] == ["A", "A", "B"]
    found = rows(queued)
    assert [(row["recipient"], row["sender"], row["state"]) for row in found] == [
        ("a@x.example", "from@b.example", "ready"),
        ("b@y.example", "from@b.example", "ready"),
        ("c@x.example", "<>", "ready"),
    ]
    assert all(datetime.fromisoformat(str(row[key])).tzinfo is not None for row in found for key in ("arrived", "next"))


@pytest.mark.parametrize(
    ("filters", "recipients"),
    [
        (["--domain", "x.example"], "ac"),
        (["--sender", "<>"], "c"),
        (["--recipient", "B@y.example"], "b"),
        (["--older-than", "1h"], "ab"),
        (["--state", "held"], ""),
        (["--domain", "x.example", "--sender", "from@b.example"], "a"),
    ],
)
def test_filters(queued: Cli, filters: list[str], recipients: str) -> None:
    assert "".join(str(row["recipient"])[0] for row in rows(queued, *filters)) == recipients


def test_show_tells_the_recipients_and_the_header(queued: Cli) -> None:
    done = queued("queue", "show", "aaaaaaaaaaaaaaaa").expect(0)
    for text in (
        "AAAAAAAAAAAAAAAA  from <from@b.example>",
        "to <a@x.example>  ready",
        "client: 192.0.2.1",
        "Received: y\nA: b\n",
    ):
        assert text in done.stdout
    assert "\nx\n" not in done.stdout
    assert len(json.loads(queued("queue", "show", "AAAAAAAAAAAAAAAA", "--json").expect(0).stdout)) == 2
    assert "no message NOPE" in queued("queue", "show", "NOPE").expect(1).stderr


def test_show_works_for_a_message_whose_body_is_lost(queued: Cli) -> None:
    (body,) = (queued.folder / "data" / "spool" / "blob").glob("*/*")
    body.unlink()
    done = queued("queue", "show", "BBBBBBBBBBBBBBBB")
    assert "Traceback" not in done.stderr
    assert "to <c@x.example>" in done.expect(0).stdout


def test_hold_release_retry_and_delete(queued: Cli) -> None:
    assert "held 2 recipients" in queued("queue", "hold", "--domain", "x.example").expect(0).stdout
    assert [row["state"] for row in rows(queued)] == ["held", "ready", "held"]
    queued("queue", "retry", "BBBBBBBBBBBBBBBB").expect(1)
    assert "released 1 recipients" in queued("queue", "release", "BBBBBBBBBBBBBBBB").expect(0).stdout
    queued("queue", "retry", "--all").expect(0)
    assert "deleted 2 recipients" in queued("queue", "delete", "AAAAAAAAAAAAAAAA").expect(0).stdout
    queued("queue", "delete", "AAAAAAAAAAAAAAAA").expect(1)
    queued("queue", "delete", "--all").expect(0)
    assert rows(queued) == []
    assert list((queued.folder / "data" / "spool" / "blob").glob("*/*")) == []


@pytest.mark.parametrize("command", ["hold", "release", "retry", "delete"])
def test_nothing_is_changed_without_a_name_or_a_filter(queued: Cli, command: str) -> None:
    assert "--all" in queued("queue", command).expect(2).stderr
    queued("queue", command, "--older-than", "soon").expect(2)
    queued("queue", command, "--state", "nosuch").expect(2)
    assert len(rows(queued)) == 3


def test_a_lost_lease_is_no_obstacle_to_looking(queued: Cli) -> None:
    assert queued("queue", "list", "--state", "active", "--json").expect(0).stdout.strip() == "[]"


@pytest.fixture
def traced(cli: Cli) -> Cli:
    trace = SqliteTrace(cli.folder / "data" / "trace.db")
    transaction: dict[str, object] = {
        "result": "accepted",
        "session": "S1",
        "queue_id": "Q1",
        "listener": "smtp",
        "client": "192.0.2.1",
        "user": None,
        "tls": "",
        "helo": "mx\u001b[31m.example",
        "trusted": False,
        "sender": "from@b.example",
        "recipients": ["bob@x.example"],
        "message_id": "<m@b.example>",
        "size": 9,
        "refusals": [["RCPT", "550 no", 0]],
        "reply": "250 ok",
        "decisions": [
            {
                "stage": "recipient",
                "recipients": ["bob@x.example"],
                "action": "accept",
                "rule": "own",
                "reply": "",
                "trail": [["friends", "note", "yes"], ["own", "accept", "yes"]],
                "score": -1.5,
                "marks": ["friend"],
            }
        ],
        "facts": {"client.trusted": True, "spf.result": {"unknown": True}},
        "parts": [
            {
                "queue_id": "Q1",
                "recipients": ["bob@x.example"],
                "disposition": "hold",
                "rule": "look",
                "effects": ["tag_subject [X]"],
            }
        ],
    }
    delivery = {
        "queue_id": "Q1",
        "recipient": "bob@x.example",
        "result": "delivered",
        "transport": "smtp",
        "remote": "mx.x.example",
        "reply": "250 ok",
        "attempt": 1,
        "seconds": 0.5,
    }
    now = time.time()
    trace.append([Event(now, "transaction", ("S1", "Q1", "bob@x.example", "<m@b.example>"), transaction)])
    trace.append([Event(now + 1, "delivery", ("Q1", "bob@x.example"), delivery)])
    trace.close()
    return cli


@pytest.mark.parametrize(
    "wanted", ["Q1", "q1", "[S1]", "bob@x.example", "<Bob@x.example>", "<m@b.example>", "m@b.example"]
)
def test_trace_tells_the_whole_story_in_order(traced: Cli, wanted: str) -> None:
    text = traced("trace", wanted).expect(0).stdout
    assert text.index("accepted") < text.index("“own”") < text.index("delivered")
    for part in (
        "from <from@b.example> to <bob@x.example>",
        "client.trusted = true, spf.result = unknown",
        "matched: note “friends”",
        "gave score -1.5, mark friend",
        "Q1 for bob@x.example: hold by “look”: tag_subject [X]",
        "refused RCPT: 550 no",
        "by mx.x.example",
        "<m@b.example>, 9 octets",
    ):
        assert part in text
    assert "\x1b" not in text


def test_trace_in_json_and_nothing_found_and_forgotten(traced: Cli) -> None:
    events = json.loads(traced("trace", "Q1", "--json").expect(0).stdout)
    assert [event["kind"] for event in events] == ["transaction", "delivery"]
    assert datetime.fromisoformat(events[0]["at"]).tzinfo is not None
    assert "nothing is known of NOPE" in traced("trace", "NOPE").expect(1).stderr
    traced("trace", "show", "Q1").expect(2)
    assert "deleted 2 events" in traced("trace", "delete", "Bob@x.example").expect(0).stdout
    traced("trace", "Q1").expect(1)


def test_filters_are_those_of_the_store() -> None:
    assert Filter() == Filter(older_than=None, state=None)
