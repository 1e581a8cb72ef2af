"""YAML files of a policy as trees of nodes with their places, and errors that carry file:line:column and a caret.

Every scalar is read as text, so that `no`, `on`, `1.10` and a key given twice surprise nobody.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from gateway.policy.syntax import ExpressionError, suggestion

MAX_NESTING = 100
# A whole scalar in quotes, and a comment; `"a" in b` is none.
_QUOTED = re.compile(r"""('(?:[^']|'')*'|"(?:[^"\\]|\\.)*")\s*(?:(?<=\s)#.*)?""")
_TOKEN = re.compile(r"""(?P<comment>(?<=\s)#)|"(?:[^"\\]|\\.)*"|.""")
MAX_FILE = 4 * 1024 * 1024  # octets


class YamlFile:
    """One file. errors: all that was found wrong so far.

    sentences: keys whose value on one line needs no quotes, also when it holds `: `.
    """

    def __init__(self, path: Path, shown: str, sentences: tuple[str, ...] = ()) -> None:
        self.path = path
        self.shown = shown
        self.errors: list[str] = []
        self.lines: list[str] = []
        # A key with a plain value on its line; `lead` is the indent with the dash of a list.
        self._sentence = re.compile(
            rf"(?P<lead>\s*(?:- +)?)(?P<key>(?:{'|'.join(sentences)}): +)"
            r"(?P<value>[^\s|>&*!#].*)"
        )
        self._has_sentences = bool(sentences)

    def root(self) -> yaml.Node | None:
        """None for an empty file, or one that cannot be read: then there is an error."""
        try:
            if self.path.stat().st_size > MAX_FILE:
                raise ValueError(f"file of over {MAX_FILE} octets")
            text = self.path.read_text(encoding="utf-8")
            self.lines = text.splitlines()
            if _nesting(text) > MAX_NESTING:
                raise ValueError(f"brackets nested over {MAX_NESTING} deep")
            found: yaml.Node | None = yaml.compose(self._quoted(), Loader=yaml.CSafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self.error(mark.line if mark else 0, mark.column if mark else 0, f"YAML: {error.problem or error.context}")
            return None
        except (OSError, ValueError, yaml.YAMLError) as error:
            self.error(0, 0, f"cannot be read: {error}")
            return None
        return found

    def _quoted(self) -> str:
        """The source with one-line values of sentence keys in quotes, so that `: ` in a reply needs none."""
        out = []
        indents = [_indent_of(line) if line.strip() else None for line in self.lines]
        below: int | None = 0  # indent of the next line that is not blank
        following: list[int] = []
        for indent in reversed(indents):
            following.append(below or 0)
            below = below if indent is None else indent
        following.reverse()
        for number, line in enumerate(self.lines):
            match = self._sentence.fullmatch(line) if self._has_sentences else None
            is_plain = match is not None and not _QUOTED.fullmatch(match["value"])
            if match is not None and is_plain and following[number] <= len(match["lead"]):
                value = _without_comment(match["value"])
                quoted = value.rstrip().replace("'", "''")
                line = f"{match['lead']}{match['key']}'{quoted}' {match['value'][len(value) :]}"
            out.append(line)
        return "\n".join(out) + "\n"

    def mapping(self, node: yaml.Node, known: tuple[str, ...]) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self.node_error(node, f"a mapping with some of {', '.join(known)} is wanted here")
            return {}
        out: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = str(key_node.value)
            if key not in known:
                self.node_error(key_node, f"unknown key `{key}`{suggestion(key, known)}", len(key))
            elif key in out:
                self.node_error(key_node, f"key `{key}` given twice", len(key))
            else:
                out[key] = value
        return out

    def text(self, node: yaml.Node) -> str | None:
        if isinstance(node, yaml.ScalarNode):
            return str(node.value)
        self.node_error(node, "a text is wanted here")
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

    def node_error(self, node: yaml.Node, message: str, length: int = 1) -> None:
        self.error(node.start_mark.line, node.start_mark.column, message, length)

    def error(self, line: int, column: int, message: str, length: int = 1) -> None:
        text = f"{self.shown}:{line + 1}:{column + 1}: {message}"
        if line < len(self.lines):
            source = self.lines[line]
            stripped = source.lstrip()
            indent = len(source) - len(stripped)
            text += f"\n    {stripped}\n    {' ' * max(0, column - indent)}{'^' * max(1, length)}"
        self.errors.append(text)

    def expression_error(self, node: yaml.Node, text: str, error: ExpressionError) -> None:
        """At the piece of the node's text that the error is about."""
        line, column = self._place(node, text, error.column, error.length)
        self.error(line, column, str(error), error.length)

    def pairs(self, node: yaml.Node) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        """A mapping of free keys, each once."""
        if not isinstance(node, yaml.MappingNode):
            self.node_error(node, "a mapping is wanted here")
            return
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                self.node_error(key, f"key `{name}` given twice", len(name))
                continue
            seen.add(name)
            yield key, value

    def texts(self, node: yaml.Node) -> list[str]:
        """A list of texts, or one text alone."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        return [text for each in nodes if (text := self.text(each)) is not None]


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


def _without_comment(value: str) -> str:
    """A `#` after a space begins one, except between double quotes."""
    for token in _TOKEN.finditer(value):
        if token["comment"]:
            return value[: token.start()]
    return value


def _indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())
