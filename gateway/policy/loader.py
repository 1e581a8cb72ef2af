"""Loading a policy folder: YAML files in name order, lists, and errors with their place and advice."""

import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

import yaml

from gateway.core.errors import ConfigError
from gateway.core.verdict import REFUSING, Action, Stage
from gateway.policy import effects
from gateway.policy.catalogue import FACTS, is_known_at
from gateway.policy.expression import Condition, Number, compile_choice, compile_condition, compile_number, fact_reader
from gateway.policy.lints import lint
from gateway.policy.lists import NamedList, load_lists
from gateway.policy.nodes import YamlFile
from gateway.policy.rules import NO_GROUND, EffectTemplate, Ground, OnUnknown, Policy, Rule
from gateway.policy.syntax import ExpressionError, suggestion
from gateway.policy.template import ReplyTemplate, Template
from gateway.policy.values import Evaluate

_REPLY = re.compile(r"(?P<code>[1-9]\d\d)(?: (?P<status>\d\.\d{1,3}\.\d{1,3}))? (?P<text>.+)", re.DOTALL)
_STATUS = re.compile(r"[0-9.]+")
_PLACE = re.compile(r"\{([^{}]*)\}")
_SENTENCES = (*Action, "when", "reply")
_CLASS = {Action.REJECT: "5", Action.DEFER: "4"}
_RULE_KEYS = (*Action, "when", "reply", "do", "mode", "on_unknown")
_FILE_KEYS = ("stage", "rules")


def load_policy(folder: Path, ground: Ground = NO_GROUND) -> Policy:
    """Read every *.yaml of the folder in name order. Raises ConfigError naming all errors found, one after another."""
    if not folder.is_dir():
        raise ConfigError(f"policies: {folder} is no folder")
    errors: list[str] = []
    rules: dict[Stage, list[Rule]] = {stage: [] for stage in Stage}
    lists = load_lists(folder / "lists")  # what uses a broken list is not to blame: its error comes alone
    names: dict[str, str] = {}
    for path in sorted(folder.glob("*.yaml")):
        loader = _FileLoader(path, folder, lists, names, ground.routes)
        for stage, rule in loader.load():
            rules[stage].append(rule)
        errors += loader.file.errors
    if errors:
        raise ConfigError("\n".join(errors))
    frozen = {stage: tuple(found) for stage, found in rules.items()}
    others = [
        f"{folder.name}/{path.name}: not read: a policy file ends in .yaml" for path in sorted(folder.glob("*.yml"))
    ]
    return Policy(frozen, lists, (*others, *lint(frozen, lists)), version_of(sources_of(folder)), ground.on_error)


def sources_of(folder: Path) -> dict[str, bytes]:
    """All files that a policy is read from, by their path in the folder."""
    paths = sorted((*folder.glob("*.yaml"), *folder.glob("lists/*")))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


def version_of(sources: Mapping[str, bytes]) -> str:
    """A digest over them; another version is another policy."""
    digest = sha256()
    for name, octets in sources.items():
        digest.update(f"{name}\0{len(octets)}\0".encode() + octets)
    return digest.hexdigest()[:16]


class _FileLoader:
    def __init__(
        self,
        path: Path,
        folder: Path,
        lists: Mapping[str, NamedList],
        names: dict[str, str],
        routes: frozenset[str] | None,
    ) -> None:
        self.file = YamlFile(path, f"{folder.name}/{path.name}", _SENTENCES)
        self.lists = lists
        self.routes = routes
        self.names = names  # rule name to place, over the whole policy

    def load(self) -> Iterator[tuple[Stage, Rule]]:
        root = self.file.root()
        if root is None:
            return
        entries = self.file.mapping(root, _FILE_KEYS)
        stage = self._stage(root, entries)
        rules = entries.get("rules")
        if rules is None:
            self.file.node_error(root, "`rules:` is missing")
        elif not isinstance(rules, yaml.SequenceNode):
            self.file.node_error(rules, "`rules:` wants a list")
        elif stage is not None:
            for node in rules.value:
                rule = self._rule(node, stage)
                if rule is not None:
                    yield stage, rule

    def _stage(self, root: yaml.Node, entries: dict[str, yaml.Node]) -> Stage | None:
        node = entries.get("stage")
        if node is None:
            self.file.node_error(root, "`stage:` is missing")
            return None
        text = self.file.text(node)
        if text in list(Stage):
            return Stage(text)
        self.file.node_error(node, f"unknown stage `{text}`{suggestion(text or '', tuple(Stage))}")
        return None

    def _rule(self, node: yaml.Node, stage: Stage) -> Rule | None:
        entries = self.file.mapping(node, _RULE_KEYS)
        actions = [key for key in entries if key in list(Action)]
        if len(actions) != 1:
            if entries:
                self.file.node_error(
                    node, f"a rule has exactly one action of {', '.join(Action)}; this has {len(actions)}"
                )
            return None
        action = Action(actions[0])
        name = self._name(entries[action])
        condition = self._condition(entries["when"], stage) if "when" in entries else None
        reply = self._reply(entries["reply"], action, stage) if "reply" in entries else None
        score, marks, found = self._effects(entries["do"], stage) if "do" in entries else (None, (), ())
        mode = self._choice(entries["mode"], ("enforce", "monitor")) if "mode" in entries else "enforce"
        on_unknown = self._choice(entries["on_unknown"], tuple(OnUnknown)) if "on_unknown" in entries else None
        if action is not Action.QUARANTINE and any(effect.key == "self_release" for effect in found):
            self.file.node_error(entries["do"], "`self_release` is for a rule that quarantines")
        if name is None or ("when" in entries and condition is None):
            return None
        return Rule(
            name,
            action,
            condition,
            reply,
            f"{self.file.shown}:{node.start_mark.line + 1}",
            found,
            score,
            marks,
            mode == "monitor",
            OnUnknown(on_unknown) if on_unknown else None,
        )

    def _choice(self, node: yaml.Node, choices: tuple[str, ...]) -> str | None:
        text = self.file.text(node)
        if text is None or text in choices:
            return text
        self.file.node_error(node, f"one of {', '.join(choices)} is wanted here{suggestion(text, choices)}", len(text))
        return None

    def _name(self, node: yaml.Node) -> str | None:
        name = self.file.text(node)
        if name is None:
            return None
        if not name or len(name) > 120 or not name.isprintable():
            self.file.node_error(node, "a rule's name is 1 to 120 printable characters")
            return None
        if name in self.names:
            self.file.node_error(node, f"a rule of this name exists already: {self.names[name]}")
            return None
        self.names[name] = f"{self.file.shown}:{node.start_mark.line + 1}"
        return name

    def _condition(self, node: yaml.Node, stage: Stage) -> Condition | None:
        text = self.file.text(node)
        if text is None:
            return None
        try:
            return compile_condition(text, stage, self.lists)
        except ExpressionError as error:
            self.file.expression_error(node, text, error)
            return None

    def _effects(
        self, node: yaml.Node, stage: Stage
    ) -> tuple[Number | None, tuple[str, ...], tuple[EffectTemplate, ...]]:
        score: Number | None = None
        marks: tuple[str, ...] = ()
        found: list[EffectTemplate] = []
        for key, value in self.file.mapping(node, effects.KEYS).items():
            if key == "mark":
                marks = self._marks(value)
                continue
            text = self.file.text(value)
            if text is None:
                continue
            try:
                if key == "score":
                    score = compile_number(text, stage, self.lists)
                else:
                    found.append(self._effect(key, text, stage))
            except ExpressionError as error:
                self.file.expression_error(value, text, error)
            except ValueError as error:
                self.file.node_error(value, str(error), len(text))
        return score, marks, tuple(found)

    def _effect(self, key: str, text: str, stage: Stage) -> EffectTemplate:
        return effects.effect(
            key,
            text,
            lambda part, offset: _template(part, offset, stage),
            lambda condition: compile_choice(condition, stage, self.lists),
            self.routes,
        )

    def _marks(self, node: yaml.Node) -> tuple[str, ...]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found = []
        for each in nodes:
            text = self.file.text(each)
            if text is not None and not effects.MARK.fullmatch(text):
                self.file.node_error(each, "a mark is a letter and up to 39 letters, digits, - and _", len(text))
            elif text is not None:
                found.append(text)
        return tuple(found)

    def _reply(self, node: yaml.Node, action: Action, stage: Stage) -> ReplyTemplate | None:
        text = self.file.text(node)
        if text is None:
            return None
        text = " ".join(text.splitlines()).strip()
        match = _REPLY.fullmatch(text)
        if match is None or _STATUS.fullmatch(match["text"]):
            self.file.node_error(node, "a reply is a code, an enhanced status, and a text: 550 5.7.1 No thanks")
            return None
        if action not in REFUSING:
            self.file.node_error(node, f"`{action}` has no reply")
            return None
        wanted, status = _CLASS[action], match["status"] or f"{_CLASS[action]}.7.1"
        if match["code"][0] != wanted or status[0] != wanted or match["code"] == "421":
            self.file.node_error(node, f"a reply to `{action}` is {wanted}xx {wanted}.x.x, and not 421")
            return None
        try:
            return ReplyTemplate(int(match["code"]), status, _template(match["text"], match.start("text"), stage))
        except ExpressionError as error:
            self.file.expression_error(node, text, error)
            return None


def _template(text: str, offset: int, stage: Stage) -> Template:
    """offset: where the text begins in its node's, for the place of an error. Raises ExpressionError."""
    parts: list[str | Evaluate] = []
    names: list[str] = []
    end = 0
    for match in _PLACE.finditer(text):
        name = match[1]
        fact = FACTS.get(name)
        if fact is None:
            why = f"unknown fact `{name}`{suggestion(name, FACTS)}"
            raise ExpressionError(why, offset + match.start(1), max(1, len(name)))
        if not is_known_at(fact, stage):
            raise ExpressionError(f"`{name}` is not known yet", offset + match.start(1), len(name))
        parts += (text[end : match.start()], fact_reader(fact))
        names.append(name)
        end = match.end()
    stray = re.search(r"[{}]", _PLACE.sub(lambda match: " " * len(match[0]), text))
    if stray is not None:
        raise ExpressionError("a brace without its other half; places are written {fact}", offset + stray.start())
    rest = text[end:]
    return Template((*parts, rest), tuple(names))
