"""A policy's own tests: `tests/*.yaml`, cases that must hold before the policy is applied.

    domains: [example.org]              # local, for all cases below; relay_domains and trusted likewise
    tests:
      - test: a stranger cannot relay
        given: {client.ip: 203.0.113.7, sender.address: a@example.net, recipient.address: b@example.com}
        expect: {reject: strangers may not relay through us}

A file may be the bare list too. What is not given is computed from what is, or neutral; `unknown` is a check's failure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml

from gateway.content.attachment import Attachment
from gateway.content.inspection import named_attachment
from gateway.core.address import parse_domain, parse_mailbox, path_or_null
from gateway.core.errors import ConfigError
from gateway.core.verdict import DISPOSING, REFUSING, Action, Matched, Stage
from gateway.policy.catalogue import ATTACHMENT, FACTS, stages_of
from gateway.policy.context import later
from gateway.policy.expression import compile_number, key_of_call
from gateway.policy.lists import network_set
from gateway.policy.loader import load_policy
from gateway.policy.nodes import YamlFile
from gateway.policy.rehearsal import Rehearsal, Surroundings, rehearse
from gateway.policy.rules import NO_GROUND, Ground, Policy
from gateway.policy.syntax import ExpressionError, suggestion
from gateway.policy.values import UNKNOWN, Found, Kind

MAX_MESSAGE = 32 * 1024 * 1024  # octets of a sample message
_FILE_KEYS = ("domains", "relay_domains", "trusted", "tests")
_CASE_KEYS = ("test", "given", "expect", "domains", "relay_domains", "trusted")
_EXPECT_KEYS = (*Action, "score", "marks", "reply", "effects", "stage")


@dataclass(frozen=True, slots=True)
class Expectation:
    """action None: only what else is said counts. rule None: whichever."""

    action: Action | None = None
    rule: str | None = None
    notes: tuple[str, ...] = ()
    score: float | None = None
    marks: tuple[str, ...] | None = None
    reply: str | None = None
    effects: tuple[str, ...] | None = None
    stage: Stage | None = None


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    place: str  # file:line
    given: Mapping[str, Found]
    message: bytes | None
    expect: Expectation
    around: Surroundings


@dataclass(frozen=True, slots=True)
class Result:
    """failure: what was expected and what came, "" when it holds."""

    case: Case
    failure: str
    rehearsal: Rehearsal = field(repr=False)

    def __str__(self) -> str:
        return f"{self.case.place}: test “{self.case.name}”: {self.failure}"


def load_cases(folder: Path, policy: Policy, around: Surroundings) -> tuple[Case, ...]:
    """All cases of a policy folder's tests/. around: what files that say nothing are at home in. Raises ConfigError."""
    found: list[Case] = []
    errors: list[str] = []
    stages = {rule.name: stage for stage, rules in policy.rules.items() for rule in rules}
    for path in sorted((folder / "tests").glob("*.yaml")):
        loader = _Loader(YamlFile(path, f"{folder.name}/tests/{path.name}", ("test",)), stages)
        found += loader.load(around)
        errors += loader.file.errors
    if errors:
        raise ConfigError("\n".join(errors))
    return tuple(found)


def load_tested_policy(folder: Path, around: Surroundings, ground: Ground = NO_GROUND) -> Policy:
    """A policy that may be applied: it loads, and its tests hold. Raises ConfigError."""
    policy = load_policy(folder, ground)
    failed = [str(result) for result in run_cases(folder, policy, around) if result.failure]
    if failed:
        raise ConfigError("\n".join(failed))
    return policy


def run_cases(folder: Path, policy: Policy, around: Surroundings) -> list[Result]:
    """Raises ConfigError when the cases cannot be read."""
    return [run_case(policy, case) for case in load_cases(folder, policy, around)]


def run_case(policy: Policy, case: Case) -> Result:
    last = _last_stage(policy, case)
    rehearsal = rehearse(policy, case.given, case.around, last, message=case.message, full=True)
    return Result(case, "; ".join(_differences(case.expect, rehearsal)), rehearsal)


def _relay_domain(text: str) -> str:
    """One with a leading dot takes its subdomains too."""
    return ("." if text.startswith(".") else "") + parse_domain(text.removeprefix(".")).ascii


def as_message(octets: bytes) -> bytes:
    """A sample as it would come: with CRLF, where an editor has left LF alone."""
    return octets if b"\r\n" in octets else octets.replace(b"\n", b"\r\n")


def _last_stage(policy: Policy, case: Case) -> Stage:
    """As far as something given or expected needs the mail to go. Where no rule is to decide, to the end: a rule of a
    later stage would decide otherwise.
    """
    expect = case.expect
    is_of_a_rule = expect.stage is not None or bool(expect.rule) or expect.action in (*REFUSING, *DISPOSING)
    stages = [Stage.CONNECT if is_of_a_rule and case.message is None else Stage.MESSAGE]
    stages += stages_of(case.given)
    stages += [case.expect.stage] if case.expect.stage else []
    wanted = {case.expect.rule, *case.expect.notes}
    stages += [stage for stage, rules in policy.rules.items() if any(rule.name in wanted for rule in rules)]
    return later(*stages)


def _differences(expect: Expectation, found: Rehearsal) -> Iterator[str]:
    wanted = expect.action
    if wanted is not None and (found.action is not wanted or not _is_rule(expect, found)):
        rule = f" by “{expect.rule}”" if expect.rule else ""
        by = f" by “{found.rule}”" if found.rule else " (no rule decided)"
        stage = found.decisions[-1].stage
        yield f"expected {wanted}{rule}, got {found.action}{by} at {stage}"
    for note in expect.notes:
        if found.matched(note) not in (Matched.YES, Matched.WOULD):
            yield f"expected “{note}” to match"
    if expect.score is not None and abs(found.score - expect.score) > 1e-9:
        yield f"expected score {expect.score:g}, got {found.score:g}"
    if expect.marks is not None and set(found.marks) != set(expect.marks):
        yield f"expected marks {sorted(expect.marks)}, got {sorted(found.marks)}"
    answer = found.decisions[-1].verdict.reply
    if expect.reply is not None and expect.reply not in str(answer or ""):
        yield f"expected a reply with “{expect.reply}”, got “{answer or ''}”"
    effects = tuple(str(effect) for decision in found.decisions for effect in decision.effects)
    if expect.effects is not None and set(effects) != set(expect.effects):
        yield f"expected effects {list(expect.effects)}, got {list(effects)}"


def _is_rule(expect: Expectation, found: Rehearsal) -> bool:
    if expect.rule is None:
        return True
    if expect.action is Action.ACCEPT:
        # Of several stages each may have its own accept.
        return any(decision.verdict.rule == expect.rule for decision in found.decisions)
    return found.rule == expect.rule


class _Loader:
    def __init__(self, file: YamlFile, stages: Mapping[str, Stage]) -> None:
        self.file = file
        self.stages = stages  # of the policy's rules by name

    def load(self, around: Surroundings) -> Iterator[Case]:
        root = self.file.root()
        if root is None:
            return
        nodes: list[yaml.Node] = []
        if isinstance(root, yaml.SequenceNode):
            nodes = root.value
        else:
            entries = self.file.mapping(root, _FILE_KEYS)
            around = self._around(entries, around)
            tests = entries.get("tests")
            if isinstance(tests, yaml.SequenceNode):
                nodes = tests.value
            else:
                self.file.node_error(tests or root, "`tests:` wants a list of cases")
        for node in nodes:
            case = self._case(node, around)
            if case is not None:
                yield case

    def _case(self, node: yaml.Node, around: Surroundings) -> Case | None:
        entries = self.file.mapping(node, _CASE_KEYS)
        if "test" not in entries or "expect" not in entries:
            if entries:
                self.file.node_error(node, "a case has `test:` (its name) and `expect:`")
            return None
        name = self.file.text(entries["test"]) or ""
        given, message = self._given(entries["given"]) if "given" in entries else ({}, None)
        expect = self._expect(entries["expect"])
        place = f"{self.file.shown}:{node.start_mark.line + 1}"
        return Case(name, place, given, message, expect, self._around(entries, around))

    def _around(self, entries: Mapping[str, yaml.Node], around: Surroundings) -> Surroundings:
        for key in ("domains", "relay_domains", "trusted"):
            if key not in entries:
                continue
            texts = self.file.texts(entries[key])
            try:
                if key == "trusted":
                    around = replace(around, trusted=network_set(texts))
                elif key == "domains":
                    around = replace(around, domains=frozenset(parse_domain(text).ascii for text in texts))
                else:
                    around = replace(around, relay_domains=frozenset(map(_relay_domain, texts)))
            except ValueError as error:
                self.file.node_error(entries[key], str(error))
        return around

    # --- given ----------------------------------------------------------------------------------------------------

    def _given(self, node: yaml.Node) -> tuple[dict[str, Found], bytes | None]:
        found: dict[str, Found] = {}
        message: bytes | None = None
        for key_node, value in self.file.pairs(node):
            key = str(key_node.value)
            if key == "message":
                message = self._message(value)
                continue
            try:
                kind, key = _kind_of(key)
                found[key] = self._value(value, key, kind)
            except ValueError as error:
                at = key_node if isinstance(error, _UnknownFact) else value
                self.file.node_error(at, str(error), max(1, len(str(at.value)) if isinstance(at.value, str) else 1))
        return found, message

    def _value(self, node: yaml.Node, key: str, kind: Kind) -> Found:
        if isinstance(node, yaml.SequenceNode):
            if kind is Kind.RECORDS:
                return tuple(self._attachment(each) for each in node.value)
            if kind is not Kind.LIST:
                raise ValueError(f"{kind} is wanted here, this is a list")
            return tuple(_known_word(key, text) for text in self.file.texts(node))
        text = self.file.text(node)
        return None if text is None else value_of(key, kind, text)

    def _attachment(self, node: yaml.Node) -> Attachment:
        """One as people write it: what follows from its name is worked out."""
        entries = self.file.mapping(node, tuple(ATTACHMENT))
        found: dict[str, Any] = {}
        for name, value in entries.items():
            field = ATTACHMENT[name]
            if field.kind is Kind.LIST:
                found[name] = tuple(_of_words(field.words, text) for text in self.file.texts(value))
            elif (text := self.file.text(value)) is not None:
                given_value = value_of("", field.kind, text)
                found[name] = _of_words(field.words, given_value) if isinstance(given_value, str) else given_value
        return named_attachment(**found)

    def _message(self, node: yaml.Node) -> bytes | None:
        """A file beside the tests, or the message itself where the text has lines."""
        text = self.file.text(node)
        if text is None:
            return None
        if "\n" in text:
            return as_message(text.encode().replace(b"\r\n", b"\n"))
        path = self.file.path.parent / text
        try:
            if path.stat().st_size > MAX_MESSAGE:
                raise OSError("too large")
            octets = path.read_bytes()
        except OSError as error:
            self.file.node_error(node, f"{text}: {error.strerror or error}", len(text))
            return None
        return as_message(octets)

    # --- expect ---------------------------------------------------------------------------------------------------

    def _expect(self, node: yaml.Node) -> Expectation:
        if isinstance(node, yaml.ScalarNode):
            return Expectation(self._action(node))
        entries = self.file.mapping(node, _EXPECT_KEYS)
        actions = [Action(key) for key in entries if key in list(Action) and key != Action.NOTE]
        if len(actions) > 1:
            self.file.node_error(node, f"one outcome of {', '.join(Action)} is expected")
        action = actions[0] if actions else None
        rule = self._rule(entries[action]) if action is not None else None
        notes = self.file.texts(entries[Action.NOTE]) if Action.NOTE in entries else ()
        for name in notes:
            self._check_rule(entries[Action.NOTE], name)
        score = self.file.text(entries["score"]) if "score" in entries else None
        stage = self.file.text(entries["stage"]) if "stage" in entries else None
        if stage is not None and stage not in list(Stage):
            self.file.node_error(entries["stage"], f"unknown stage `{stage}`{suggestion(stage, tuple(Stage))}")
            stage = None
        return Expectation(
            action,
            rule,
            tuple(notes),
            None if score is None else self._score(entries["score"], score),
            tuple(self.file.texts(entries["marks"])) if "marks" in entries else None,
            self.file.text(entries["reply"]) if "reply" in entries else None,
            tuple(self.file.texts(entries["effects"])) if "effects" in entries else None,
            None if stage is None else Stage(stage),
        )

    def _action(self, node: yaml.ScalarNode) -> Action | None:
        outcomes = (Action.ACCEPT, *REFUSING, *DISPOSING)
        if node.value in outcomes:
            return Action(node.value)
        self.file.node_error(node, f"one of {', '.join(sorted(outcomes))} is wanted here", max(1, len(node.value)))
        return None

    def _rule(self, node: yaml.Node) -> str | None:
        name = self.file.text(node)
        if name in (None, "", "none"):
            return None
        self._check_rule(node, str(name))
        return name

    def _check_rule(self, node: yaml.Node, name: str) -> None:
        if name not in self.stages:
            self.file.node_error(node, f"no rule is called “{name}”{suggestion(name, tuple(self.stages))}", len(name))

    def _score(self, node: yaml.Node, text: str) -> float | None:
        try:
            found = _number(text)
        except ValueError as error:
            self.file.node_error(node, str(error), len(text))
            return None
        return float(found) if isinstance(found, int | float) else None


def given(key: str, text: str) -> tuple[str, Found]:
    """One fact as people write it, a list with commas: its key and value. Raises ValueError."""
    kind, key = _kind_of(key)
    if kind is Kind.LIST and text != "unknown":
        return key, tuple(_known_word(key, part.strip()) for part in text.split(",") if part.strip())
    return key, value_of(key, kind, text)


def _known_word(key: str, text: str) -> str:
    fact = FACTS.get(key)
    return text if fact is None else _of_words(fact.words, text)


def _of_words(words: tuple[str, ...], text: str) -> str:
    """Raises ValueError for a word that there is not."""
    if words and text not in words:
        raise ValueError(f"one of {', '.join(words)} is wanted here{suggestion(text, words)}")
    return text


def value_of(key: str, kind: Kind, text: str) -> Found:
    """Raises ValueError."""
    match text, kind:
        case "unknown", _:
            return UNKNOWN
        case _, Kind.TEXT if (fact := FACTS.get(key)) is not None and fact.words:
            return _of_words(fact.words, text)
        case "none", Kind.TEXT | Kind.NUMBER:
            return None
        case "true" | "false", Kind.BOOL:
            return text == "true"
        case _, Kind.TEXT:
            if key == "sender.address":
                path_or_null(text)
            elif key == "recipient.address":
                parse_mailbox(text)
            return text
        case _, Kind.IP:
            return str(ip_address(text))
        case _, Kind.NUMBER:
            return _number(text)
        case _:
            raise ValueError(f"{kind} is wanted here")


class _UnknownFact(ValueError):
    """The fault is the key's."""


def _kind_of(key: str) -> tuple[Kind, str]:
    """A fact's or function call's kind, and the key that it is known by."""
    if "(" in key:
        try:
            function, normal = key_of_call(key)
        except ExpressionError as error:
            raise _UnknownFact(str(error)) from None
        return function.kind, normal
    fact = FACTS.get(key)
    if fact is None:
        raise _UnknownFact(f"unknown fact `{key}`{suggestion(key, FACTS)}")
    return fact.kind, key


def _number(text: str) -> Found:
    number = compile_number(text, Stage.CONNECT, {})
    if number.constant is None:
        raise ValueError("a number is wanted here")
    return int(number.constant) if number.constant.is_integer() else number.constant
