"""`policy explain`: one envelope on paper, or recorded mail by its id: each rule tried, its values, the winner."""

from pathlib import Path
from typing import Any

import click

from gateway.cli.context import NO, USAGE, config_option, fail, guarded, iso, open_config, printable
from gateway.cli.policy import open_policy
from gateway.cli.trail import trail_of
from gateway.core.verdict import Stage
from gateway.policy.cases import as_message, given
from gateway.policy.catalogue import stages_of
from gateway.policy.context import later
from gateway.policy.rehearsal import Rehearsal, rehearse
from gateway.policy.replay import explain_record
from gateway.policy.rules import Policy
from gateway.policy.values import Found
from gateway.storage.sqlite_trace import FoundEvent, SqliteTrace


@click.command("explain")
@click.argument("subject", required=False, metavar="[FOLDER|ID]")
@config_option
@click.option("--client-ip", help="Who connects.")
@click.option("--helo", help="What it says in HELO.")
@click.option("--from", "sender", help="The reverse-path; <> is the null one.")
@click.option("--to", "recipient", help="The recipient; with ID: only this one.")
@click.option("--user", help="Who signed in.")
@click.option("--listener", type=click.Choice(["smtp", "submission", "submissions"]), help="On which listener.")
@click.option("--message", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="The message, a file.")
@click.option(
    "--set", "facts", multiple=True, metavar="FACT=VALUE", help="Any other fact; `unknown` for one that fails."
)
def policy_explain(
    subject: str | None, config_path: Path, message: Path | None, facts: tuple[str, ...], **options: Any
) -> None:
    """Take one envelope through all stages: each rule tried, its values, the winner. Nothing is looked up.

    With the ID of a refusal, a session or a queued message: that mail, on the facts that were recorded, by the policy
    of now.
    """
    folder = Path(subject) if subject is not None and (Path(subject).is_dir() or "/" in subject) else None
    if subject is not None and folder is None:
        given_too = [name for name, value in options.items() if value is not None and name != "recipient"]
        if given_too or facts or message is not None:
            fail("with an ID all facts are those of the record", USAGE)
        guarded(lambda: _explain_recorded(subject, config_path, options["recipient"]))
    values = _given(facts, options)

    def body() -> int:
        found, _, around = open_policy(folder, config_path)
        octets = None if message is None else as_message(message.read_bytes())
        last = Stage.MESSAGE if octets is not None else later(Stage.RECIPIENT, *stages_of(values))
        _show(found, rehearse(found, values, around, last, message=octets, full=True))
        return 0

    guarded(body)


def _explain_recorded(wanted: str, config_path: Path, recipient: str | None) -> int:
    found, _, _ = open_policy(None, config_path)
    events = _transactions_of(wanted.strip("[]"), config_path)
    if not events:
        click.echo(f"smarthost: no transaction of {wanted} is recorded", err=True)
        return NO
    for event in events:
        record: dict[str, Any] = event.data
        then = "by this policy" if record["policy"] == found.version else "by another policy than that of now"
        click.echo(f"{iso(event.at)}  {record['result']} {then}: session {record['session']}, {record['client']}")
        recipients = [to for to in record["recipients"] or [""] if recipient in (None, to)]
        for to in recipients:
            click.echo(f"== <{printable(record['sender'] or '')}> to <{printable(to)}>")
            rehearsal, lacking = explain_record(found, record, to)
            _show(found, rehearsal)
            for key in lacking:
                click.echo(f"not recorded, taken as unknown: {key}")
    return 0


def _transactions_of(wanted: str, config_path: Path) -> list[FoundEvent]:
    config = open_config(config_path)
    if not (config.data / "trace.db").exists():
        fail(f"{config.data}: nothing is recorded yet; has the gateway run?")
    store = SqliteTrace(config.data / "trace.db")
    try:
        events = [event for event in store.find(wanted) if event.kind == "transaction"]
    finally:
        store.close()
    exactly = [event for event in events if wanted.upper() in _names(event.data)]
    return exactly or events


def _names(data: dict[str, Any]) -> set[str]:
    decisions = (each["id"] for each in data["decisions"])
    refusals = (decision_id for _, _, decision_id in data["refusals"])
    return {data["queue_id"], *(part["queue_id"] for part in data["parts"]), *decisions, *refusals}


def _show(found: Policy, rehearsal: Rehearsal) -> None:
    for line in trail_of(found, rehearsal):
        click.echo(line)
    by = f" by “{rehearsal.rule}”" if rehearsal.rule else ""
    click.echo(f"outcome: {rehearsal.action}{by}")


def _given(facts: tuple[str, ...], options: dict[str, Any]) -> dict[str, Found]:
    names = {
        "client_ip": "client.ip",
        "helo": "helo.name",
        "sender": "sender.address",
        "recipient": "recipient.address",
        "user": "auth.user",
        "listener": "session.listener",
    }
    texts = [(names[option], text) for option, text in options.items() if text is not None]
    for fact in facts:
        key, equals, text = fact.partition("=")
        if not equals:
            fail(f"--set {fact}: write FACT=VALUE", USAGE)
        texts.append((key, text))
    found: dict[str, Found] = {}
    for key, text in texts:
        try:
            key, value = given(key, "" if (key, text) == ("sender.address", "<>") else text)
        except ValueError as error:
            fail(f"{key}: {error}", USAGE)
        found[key] = value
    return found
