"""Loading a policy folder: YAML files in name order, lists, and errors that carry file:line:column, a caret and
advice.

YAML is read as a tree of nodes with their places, and every scalar as text, so that `no`, `on`, `1.10` and a key
given twice surprise nobody.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from gateway.core.errors import ConfigError
from gateway.core.reply import MAX_LINE, Reply
from gateway.core.verdict import Action, Stage
from gateway.policy.catalogue import FACTS, Context, is_known_at
from gateway.policy.expression import Condition, ExpressionError, compile_condition, read_fact, suggestion
from gateway.policy.lists import NamedList, load_lists

MAX_NESTING = 100
MAX_FILE = 4 * 1024 * 1024  # octets
_REPLY = re.compile(r"(?P<code>[1-9]\d\d)(?: (?P<status>\d\.\d{1,3}\.\d{1,3}))? (?P<text>.+)", re.DOTALL)
_ASKS_WHO = ("client.trusted", "client.ip", "auth.", "recipient.", "session.direction")
_STATUS = re.compile(r"[0-9.]+")
_PLACE = re.compile(r"\{([^{}]*)\}")
# A key of a rule with a plain value on its line; `lead` is the indent with the dash of a list.
_SENTENCE = re.compile(
    rf"(?P<lead>\s*(?:- +)?)(?P<key>(?:{'|'.join(Action)}|when|reply): +)"
    r"(?P<value>[^\s'\"|>&*!#].*?)(?P<comment>\s+#.*)?\s*"
)
_CLASS = {Action.REJECT: "5", Action.DEFER: "4"}
_RULE_KEYS = (*Action, "when", "reply")
_FILE_KEYS = ("stage", "rules")


@dataclass(frozen=True, slots=True)
class ReplyTemplate:
    """parts: texts and fact names in turn, a text first."""

    code: int
    status: str
    parts: tuple[str, ...]

    def fill(self, context: Context) -> Reply:
        """The reply with its facts as printable ASCII, one line of at most 512 octets."""
        out: list[str] = []
        for number, part in enumerate(self.parts):
            if number % 2:
                value = read_fact(part, context)
                text = "none" if value is None else str(value)
                part = "".join(char if " " <= char <= "~" else "?" for char in text)[:320]
            out.append(part)
        return Reply(self.code, self.status, ("".join(out)[: MAX_LINE - 40],))


@dataclass(frozen=True, slots=True)
class Rule:
    """condition None: always. place: `file:line`."""

    name: str
    action: Action
    condition: Condition | None
    reply: ReplyTemplate | None
    place: str


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules by stage in the order they are tried; warnings: lints, each with its place."""

    rules: dict[Stage, tuple[Rule, ...]]
    lists: dict[str, NamedList]
    warnings: tuple[str, ...]


def load_policy(folder: Path) -> Policy:
    """Read every *.yaml of the folder in name order. Raises ConfigError naming all errors found, one after another."""
    if not folder.is_dir():
        raise ConfigError(f"policies: {folder} is no folder")
    errors: list[str] = []
    rules: dict[Stage, list[Rule]] = {stage: [] for stage in Stage}
    lists = load_lists(folder / "lists")  # what uses a broken list is not to blame: its error comes alone
    names: dict[str, str] = {}
    for path in sorted(folder.glob("*.yaml")):
        loader = _FileLoader(path, folder, lists, names)
        for stage, rule in loader.load():
            rules[stage].append(rule)
        errors += loader.errors
    if errors:
        raise ConfigError("\n".join(errors))
    frozen = {stage: tuple(found) for stage, found in rules.items()}
    others = [
        f"{folder.name}/{path.name}: not read: a policy file ends in .yaml" for path in sorted(folder.glob("*.yml"))
    ]
    return Policy(frozen, lists, (*others, *_lint(frozen, lists)))


class _FileLoader:
    def __init__(self, path: Path, folder: Path, lists: dict[str, NamedList], names: dict[str, str]) -> None:
        self.shown = f"{folder.name}/{path.name}"
        self.lists = lists
        self.names = names  # rule name to place, over the whole policy
        self.errors: list[str] = []
        self.path = path
        self.lines: list[str] = []

    def load(self) -> Iterator[tuple[Stage, Rule]]:
        try:
            if self.path.stat().st_size > MAX_FILE:
                raise ValueError(f"file of over {MAX_FILE} octets")
            text = self.path.read_text(encoding="utf-8")
            self.lines = text.splitlines()
            if _nesting(text) > MAX_NESTING:
                raise ValueError(f"brackets nested over {MAX_NESTING} deep")
            root = yaml.compose(self._quoted(), Loader=yaml.CSafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._error(mark.line if mark else 0, mark.column if mark else 0, f"YAML: {error.problem or error.context}")
            return
        except (OSError, ValueError, yaml.YAMLError) as error:
            self._error(0, 0, f"cannot be read: {error}")
            return
        if root is None:
            return
        entries = self._mapping(root, _FILE_KEYS)
        stage = self._stage(root, entries)
        rules = entries.get("rules")
        if rules is None:
            self._node_error(root, "`rules:` is missing")
        elif not isinstance(rules, yaml.SequenceNode):
            self._node_error(rules, "`rules:` wants a list")
        elif stage is not None:
            for node in rules.value:
                rule = self._rule(node, stage)
                if rule is not None:
                    yield stage, rule

    def _quoted(self) -> str:
        """The source with one-line values of a rule's keys in quotes, so that `: ` in a reply needs none."""
        out = []
        indents = [_indent_of(line) if line.strip() else None for line in self.lines]
        below: int | None = 0  # indent of the next line that is not blank
        following: list[int] = []
        for indent in reversed(indents):
            following.append(below or 0)
            below = below if indent is None else indent
        following.reverse()
        for number, line in enumerate(self.lines):
            match = _SENTENCE.fullmatch(line)
            if match is not None and following[number] <= len(match["lead"]):
                quoted = match["value"].replace("'", "''")
                line = f"{match['lead']}{match['key']}'{quoted}'{match['comment'] or ''}"
            out.append(line)
        return "\n".join(out) + "\n"

    def _stage(self, root: yaml.Node, entries: dict[str, yaml.Node]) -> Stage | None:
        node = entries.get("stage")
        if node is None:
            self._node_error(root, "`stage:` is missing")
            return None
        text = self._text(node)
        if text in list(Stage):
            return Stage(text)
        self._node_error(node, f"unknown stage `{text}`{suggestion(text or '', tuple(Stage))}")
        return None

    def _rule(self, node: yaml.Node, stage: Stage) -> Rule | None:
        entries = self._mapping(node, _RULE_KEYS)
        actions = [key for key in entries if key in list(Action)]
        if len(actions) != 1:
            if entries:
                self._node_error(node, f"a rule has exactly one action of {', '.join(Action)}; this has {len(actions)}")
            return None
        action = Action(actions[0])
        name = self._name(entries[action])
        condition = self._condition(entries["when"], stage) if "when" in entries else None
        reply = self._reply(entries["reply"], action, stage) if "reply" in entries else None
        if name is None or ("when" in entries and condition is None):
            return None
        return Rule(name, action, condition, reply, f"{self.shown}:{node.start_mark.line + 1}")

    def _name(self, node: yaml.Node) -> str | None:
        name = self._text(node)
        if name is None:
            return None
        if not name or len(name) > 120 or not name.isprintable():
            self._node_error(node, "a rule's name is 1 to 120 printable characters")
            return None
        if name in self.names:
            self._node_error(node, f"a rule of this name exists already: {self.names[name]}")
            return None
        self.names[name] = f"{self.shown}:{node.start_mark.line + 1}"
        return name

    def _condition(self, node: yaml.Node, stage: Stage) -> Condition | None:
        text = self._text(node)
        if text is None:
            return None
        try:
            return compile_condition(text, stage, self.lists)
        except ExpressionError as error:
            line, column = self._place(node, text, error.column, error.length)
            self._error(line, column, str(error), error.length)
            return None

    def _reply(self, node: yaml.Node, action: Action, stage: Stage) -> ReplyTemplate | None:
        text = self._text(node)
        if text is None:
            return None
        text = " ".join(text.splitlines()).strip()
        match = _REPLY.fullmatch(text)
        if match is None or _STATUS.fullmatch(match["text"]):
            self._node_error(node, "a reply is a code, an enhanced status, and a text: 550 5.7.1 No thanks")
            return None
        if action not in _CLASS:
            self._node_error(node, f"`{action}` has no reply")
            return None
        wanted, status = _CLASS[action], match["status"] or f"{_CLASS[action]}.7.1"
        if match["code"][0] != wanted or status[0] != wanted or match["code"] == "421":
            self._node_error(node, f"a reply to `{action}` is {wanted}xx {wanted}.x.x, and not 421")
            return None
        parts = _PLACE.split(match["text"])
        for name in parts[1::2]:
            fact = FACTS.get(name)
            if fact is None or not is_known_at(fact, stage):
                why = (
                    f"unknown fact `{name}`{suggestion(name, FACTS)}" if fact is None else f"`{name}` is not known yet"
                )
                line, column = self._place(node, text, text.find("{" + name + "}") + 1, len(name))
                self._error(line, column, why, len(name))
                return None
        return ReplyTemplate(int(match["code"]), status, tuple(parts))

    # --- nodes and places -----------------------------------------------------------------------------------------

    def _mapping(self, node: yaml.Node, known: tuple[str, ...]) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self._node_error(node, f"a mapping with some of {', '.join(known)} is wanted here")
            return {}
        out: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = str(key_node.value)
            if key not in known:
                self._node_error(key_node, f"unknown key `{key}`{suggestion(key, known)}", len(key))
            elif key in out:
                self._node_error(key_node, f"key `{key}` given twice", len(key))
            else:
                out[key] = value
        return out

    def _text(self, node: yaml.Node) -> str | None:
        if isinstance(node, yaml.ScalarNode):
            return str(node.value)
        self._node_error(node, "a text is wanted here")
        return None

    def _place(self, node: yaml.Node, text: str, offset: int, length: int) -> tuple[int, int]:
        """Where a piece of a scalar stands in the source: the same occurrence of the same words."""
        start, end = node.start_mark, node.end_mark
        words = text[offset : offset + length].partition("\n")[0].strip()
        source = "\n".join(self.lines[start.line : end.line + 1])
        place = start.column - 1
        for _ in range(text.count(words, 0, offset) + 1 if words else 0):
            place = source.find(words, place + 1)
            if place < 0:
                break
        if place < start.column:
            return start.line, start.column
        before = source[:place]
        return start.line + before.count("\n"), len(before) - before.rfind("\n") - 1

    def _node_error(self, node: yaml.Node, message: str, length: int = 1) -> None:
        self._error(node.start_mark.line, node.start_mark.column, message, length)

    def _error(self, line: int, column: int, message: str, length: int = 1) -> None:
        text = f"{self.shown}:{line + 1}:{column + 1}: {message}"
        if line < len(self.lines):
            source = self.lines[line]
            stripped = source.lstrip()
            indent = len(source) - len(stripped)
            text += f"\n    {stripped}\n    {' ' * max(0, column - indent)}{'^' * max(1, length)}"
        self.errors.append(text)


def _nesting(text: str) -> int:
    """How deep brackets go: the YAML parser is recursive and must not be led too deep."""
    depth = deepest = 0
    for char in text:
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}" and depth:
            depth -= 1
    return deepest


def _indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())


def _lint(rules: dict[Stage, tuple[Rule, ...]], lists: dict[str, NamedList]) -> Iterator[str]:
    used: set[str] = set()
    for stage, found in rules.items():
        ended_by: Rule | None = None
        for rule in found:
            if ended_by is not None:
                yield f"{rule.place}: `{rule.name}` can never be reached: `{ended_by.name}` always decides {stage}"
            if rule.condition is None or rule.condition.constant is True:
                ended_by = ended_by or rule
            elif rule.condition.constant is False:
                yield f"{rule.place}: `{rule.name}` can never match"
            used.update(rule.condition.lists if rule.condition else ())
    yield from _open_relays(rules[Stage.RECIPIENT])
    for name, unused in lists.items():
        if name not in used:
            yield f"{unused.path.parent.name}/{unused.path.name}: no rule uses this list"


def _open_relays(rules: tuple[Rule, ...]) -> Iterator[str]:
    """An accept at recipient that asks neither who sends nor where to, before strangers were refused."""
    for rule in rules:
        facts = rule.condition.facts if rule.condition else ()
        if rule.action is Action.REJECT and {"recipient.is_local", "recipient.is_relayed"} & set(facts):
            return
        if rule.action is Action.ACCEPT and not any(fact.startswith(_ASKS_WHO) for fact in facts):
            yield f"{rule.place}: `{rule.name}` would accept strangers' mail for anybody; the relay guard refuses it"
