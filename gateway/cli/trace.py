"""`trace`: everything that happened to a message, an address or a decision, in order."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from gateway.cli.context import NO, config_option, fail, guarded, iso, json_option, open_config, printable
from gateway.storage.sqlite_trace import FoundEvent, SqliteTrace


@click.command()
@click.argument("wanted")
@click.argument("address", required=False)
@config_option
@json_option
def trace(wanted: str, address: str | None, config_path: Path, as_json: bool) -> None:
    """Everything that happened to ID, ADDRESS or MESSAGE-ID; `trace delete ADDRESS` forgets an address.

    An ID is the one in brackets at the end of a refusal, or a queue id.
    """

    def body() -> int:
        config = open_config(config_path)
        if not (config.data / "trace.db").exists():
            fail(f"{config.data}: there is no trace yet; has the gateway run?")
        store = SqliteTrace(config.data / "trace.db")
        try:
            if address is not None:
                if wanted != "delete":
                    fail("usage: smarthost trace WANTED, or smarthost trace delete ADDRESS", 2)
                click.echo(f"deleted {store.forget(address)} events")
                return 0
            found = store.find(wanted.strip("<>[]") if "@" not in wanted else wanted.strip("<>"))
        finally:
            store.close()
        if not found:
            click.echo(f"smarthost: nothing is known of {wanted}", err=True)
            return NO
        _print(found, as_json=as_json)
        return 0

    guarded(body)


def _print(found: list[FoundEvent], *, as_json: bool) -> None:
    if as_json:
        rows = [{"at": iso(event.at), "kind": event.kind, **event.data} for event in found]
        click.echo(json.dumps(rows, indent=2))
        return
    for event in found:
        show = _SHOWN.get(event.kind)
        lines = show(event.data) if show is not None else [json.dumps(event.data)]
        first, *rest = map(printable, lines)
        sys.stdout.write(f"{iso(event.at)}  {first}\n" + "".join(f"    {line}\n" for line in rest))


def _authentication(found: dict[str, Any]) -> str:
    told = [("spf", found["spf"]["result"], found["spf"]["domain"])]
    told += [("dkim", each["result"], each["domain"]) for each in found["dkim"]]
    told.append(("arc", found["arc"]["result"], ", ".join(found["arc"]["sealers"])))
    policy = found["dmarc"]["policy"]
    told.append(("dmarc", found["dmarc"]["result"], found["dmarc"]["domain"] + (f", p={policy}" if policy else "")))
    return "found " + ", ".join(f"{name} {result}" + (f" ({whose})" if whose else "") for name, result, whose in told)


def _transaction(data: dict[str, Any]) -> list[str]:
    who = f"{data['client']}" + (f" signed in as {data['user']}" if data["user"] else "")
    who += f" by way of {data['through']}" if data.get("through") else ""
    tls = f", {data['tls']}" if data["tls"] else ""
    lines = [
        f"{data['result']}: session {data['session']} on {data['listener']}",
        f"client {who}, HELO {data['helo'] or '(none)'}{tls}{', trusted' if data['trusted'] else ''}",
    ]
    if data["sender"] is not None:
        lines.append(f"from <{data['sender']}> to {', '.join(f'<{to}>' for to in data['recipients']) or '(nobody)'}")
    if data["message_id"]:
        lines.append(f"{data['message_id']}, {data['size']} octets")
    for decision in data["decisions"]:
        lines += _decision(decision)
    if data["facts"]:
        lines.append("looked at " + ", ".join(f"{name} = {_value(value)}" for name, value in data["facts"].items()))
    if data.get("authentication"):
        lines.append(_authentication(data["authentication"]))
    for part in data["parts"]:
        if part["disposition"] or part["effects"]:
            done = part["disposition"] or "deliver"
            by = f" by “{part['rule']}”" if part["rule"] else ""
            effects = f": {', '.join(part['effects'])}" if part["effects"] else ""
            lines.append(f"{part['queue_id']} for {', '.join(part['recipients'])}: {done}{by}{effects}")
    lines += [f"refused {verb}: {reply}" for verb, reply, _ in data["refusals"]]
    if data["reply"]:
        lines.append(f"answered {data['reply']}")
    return lines


_MATCHED = {"no": "no match", "yes": "matched", "unknown": "could not be decided", "would": "would have matched"}


def _decision(decision: dict[str, Any]) -> list[str]:
    to = f" for {', '.join(f'<{name}>' for name in decision['recipients'])}" if decision["recipients"] else ""
    by = f" by “{decision['rule']}”" if decision["rule"] else " (no rule decided)"
    lines = [f"{decision['stage']}{to}: {decision['action']}{by}"]
    for rule, action, matched in decision["trail"]:
        if rule != decision["rule"] or matched != "yes":
            lines.append(f"  {_MATCHED[matched]}: {action} “{rule}”")
    lines += [f"  {name} = {_value(value)}" for name, value in decision.get("facts", {}).items()]
    given = [f"score {decision['score']:+g}"] if "score" in decision else []
    given += [f"mark {mark}" for mark in decision.get("marks", ())] + decision.get("effects", [])
    lines += [f"  gave {', '.join(given)}"] if given else []
    if decision["reply"]:
        lines.append(f"  {decision['reply']}")
    if "shadow" in decision:
        lines.append(f"  shadow: {decision['shadow']['action']}{_by(decision['shadow'])}")
    return lines


def _by(shadow: dict[str, str]) -> str:
    if not shadow["rule"]:
        return ""
    return f" for want of {shadow['rule']}" if shadow["action"] == "undecided" else f" by “{shadow['rule']}”"


def _value(value: object) -> str:
    return "unknown" if isinstance(value, dict) else json.dumps(value, ensure_ascii=False)


def _delivery(data: dict[str, Any]) -> list[str]:
    by = f" by {data['remote']}" if data["remote"] else ""
    return [
        f"{data['result']}: {data['queue_id']} to <{data['recipient']}>{by}, attempt {data['attempt']},"
        f" {data['seconds']} s: {data['reply']}"
    ]


def _notice(data: dict[str, Any]) -> list[str]:
    return [f"{data['notice']} sent for {data['queue_id']} as {data['notice_id']}"]


def _release(data: dict[str, Any]) -> list[str]:
    to = ", ".join(f"<{recipient}>" for recipient in data["recipients"])
    as_ = f" as {data['as']}" if data["as"] else ""
    reason = f": {data['reason']}" if data["reason"] else ""
    return [f"{_RELEASES[data['result']]}: {data['queue_id']} for {to}{as_}, asked by {data['by']}{reason}"]


_RELEASES = {"released": "released", "refused": "not released", "waiting": "not released yet, cannot be scanned"}
_SHOWN = {"transaction": _transaction, "delivery": _delivery, "notice": _notice, "release": _release}
