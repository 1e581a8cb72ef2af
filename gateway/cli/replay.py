"""`policy replay` and `policy coverage`: what recorded mail says of a policy."""

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Self

import click

from gateway.checks.dnsbl import DnsLists, DomainLists
from gateway.checks.names import Names, ReverseDns
from gateway.checks.runner import DEADLINE_S, Check
from gateway.cli.context import NO, USAGE, config_option, fail, guarded, json_option, open_config, show
from gateway.config import Config, load_config, parse_duration
from gateway.dns.resolver import DnsResolver, ResolverSettings
from gateway.policy.context import Context, Need
from gateway.policy.loader import load_policy
from gateway.policy.replay import NotRecorded, Replayed, replay
from gateway.policy.values import UNKNOWN, Found
from gateway.policy_folder import ground_of
from gateway.storage.sqlite_trace import FoundEvent, SqliteTrace

EXAMPLES = 5  # ids shown of each change
since_option = click.option("--since", default="7d", show_default=True, help="How far back: 90s, 30m, 2h, 3d.")


def _recorded(config: Config, since: str) -> Iterator[FoundEvent]:
    try:
        seconds = parse_duration(since)
    except ValueError as error:
        fail(f"--since: {error}", USAGE)
    if not (config.data / "trace.db").exists():
        fail(f"{config.data}: nothing is recorded yet; has the gateway run?")
    trace = SqliteTrace(config.data / "trace.db")
    try:
        yield from trace.transactions(time.time() - seconds)
    finally:
        trace.close()


class LiveChecks:
    """Facts of DNS as they are now. `with`: one event loop for all of them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._runner = asyncio.Runner()
        self._checks: dict[str, Check] = {}

    def __enter__(self) -> Self:
        self._runner.__enter__()
        self._runner.run(self._make())
        return self

    def __exit__(self, *exc: object) -> None:
        self._runner.close()

    async def _make(self) -> None:
        settings = ResolverSettings(self._config.dns.servers)
        resolver = DnsResolver(settings, lambda rdtype, result, seconds: None)
        reverse = ReverseDns(resolver)
        lists = DnsLists(resolver, lambda zone, is_up: None)
        self._checks = {
            "reverse_dns": reverse,
            "names": Names(resolver),
            "dnsbl": lists,
            "dnswl": lists,
            "rhsbl": DomainLists(resolver, reverse, lambda zone, is_up: None),
        }

    def look_up(self, need: Need, context: Context) -> Found:
        check = self._checks.get(need.provider)
        if check is None:
            raise NotRecorded(need.key)
        return self._runner.run(self._fetch(check, need, context))

    async def _fetch(self, check: Check, need: Need, context: Context) -> Found:
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await check.fetch(need, context)
        except TimeoutError:
            return UNKNOWN


@click.command("replay")
@click.option(
    "--candidate", required=True, type=click.Path(path_type=Path, file_okay=False, exists=True), help="Its folder."
)
@since_option
@click.option("--live", is_flag=True, help="Look up in DNS now what was not recorded.")
@click.option("--fail-on-change", is_flag=True, help="Exit 1 if any verdict changes.")
@config_option
@json_option
def policy_replay(
    candidate: Path, since: str, live: bool, fail_on_change: bool, config_path: Path, as_json: bool
) -> None:
    """Take recorded transactions through a candidate policy: which verdicts change, by rule, with examples."""

    def body() -> int:
        # The candidate lies where whoever calls may read, and perhaps the service's user may not.
        found = load_policy(candidate, ground_of(load_config(config_path)))
        config = open_config(config_path)
        results: list[Replayed] = []
        count = 0
        with LiveChecks(config) if live else nullcontext() as checks:
            for event in _recorded(config, since):
                judged = list(replay(found, event.data, None if checks is None else checks.look_up))
                count += bool(judged)
                results += judged
        changes: dict[tuple[str, str], list[str]] = defaultdict(list)
        lacking: Counter[str] = Counter()
        for result in results:
            if result.after is None:
                lacking[result.lacks] += 1
            elif result.differs:
                changes[str(result.before), str(result.after)].append(result.id)
        changed = sum(map(len, changes.values()))
        if as_json:
            rows = [{"before": old, "after": new, "count": len(ids), "ids": ids} for (old, new), ids in changes.items()]
            told = {"transactions": count, "recipients": len(results), "changed": changed, "changes": rows}
            click.echo(json.dumps({**told, "undecidable": dict(lacking)}, indent=2))
        else:
            _tell(count, len(results), changes, lacking)
        return NO if changed and fail_on_change else 0

    guarded(body)


def _tell(count: int, judged: int, changes: dict[tuple[str, str], list[str]], lacking: Counter[str]) -> None:
    changed = sum(map(len, changes.values()))
    click.echo(f"{count} transactions, {judged} verdicts: {changed} change, {sum(lacking.values())} undecidable")
    rows: list[dict[str, object]] = [
        {"count": len(ids), "now": old, "candidate": new, "examples": ids[:EXAMPLES]}
        for (old, new), ids in sorted(changes.items(), key=lambda item: -len(item[1]))
    ]
    if rows:
        show(rows, ("count", "now", "candidate", "examples"), as_json=False)
    for fact, number in lacking.most_common():
        click.echo(f"undecidable: {number} for want of {fact}, which was not recorded")


@click.command("coverage")
@since_option
@config_option
@json_option
def policy_coverage(since: str, config_path: Path, as_json: bool) -> None:
    """How often each rule matched; those that never did come first."""

    def body() -> int:
        config = open_config(config_path)
        found = load_policy(config.policies, ground_of(config))
        hits: Counter[str] = Counter()
        for event in _recorded(config, since):
            decisions = event.data["decisions"]
            for decision in decisions if isinstance(decisions, list) else []:
                hits.update(rule for rule, _, matched in decision["trail"] if matched in ("yes", "would"))
        rows: list[dict[str, object]] = [
            {
                "count": hits[rule.name],
                "stage": stage.value,
                "action": rule.action.value,
                "rule": rule.name,
                "place": rule.place,
            }
            for stage, rules in found.rules.items()
            for rule in rules
        ]
        rows.sort(key=lambda row: int(str(row["count"])))
        show(rows, ("count", "stage", "action", "rule", "place"), as_json=as_json)
        return 0

    guarded(body)
