"""The text of a condition: from source to Python's syntax tree, errors with their place, and advice on names."""

import ast
import difflib
import warnings
from collections.abc import Iterator, Mapping

MAX_LENGTH = 4000  # characters of one condition
LIST_MARK = "ǁ"  # stands for "@" while Python parses: a letter of one character, in no fact's name


class ExpressionError(ValueError):
    """column, length: where in the text, from 0, in characters."""

    def __init__(self, message: str, column: int, length: int = 1) -> None:
        super().__init__(message)
        self.column = column
        self.length = length


class Source:
    """One condition's text, parsed. Raises ExpressionError."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise ExpressionError(f"condition of {len(text)} characters, limit {MAX_LENGTH}", 0)
        for mark, message in ((LIST_MARK, "unknown letter"), ("#", "a comment stands on a line of its own, outside")):
            place = _outside_quotes(text, mark)
            if place >= 0:
                raise ExpressionError(message, place)
        if "'''" in text or '"""' in text:
            raise ExpressionError("a text stands in one pair of quotes", max(text.find("'''"), text.find('"""')), 3)
        self.text = text
        self._indent = len(text) - len(text.lstrip())
        # One line for Python's parser, character for character the condition from its first word on.
        self._line = _mark_lists(text).replace("\n", " ")[self._indent :]
        self.tree = self._parse()

    def _parse(self) -> ast.expr:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's advice on `is` and escapes is not for policy writers
                return ast.parse(self._line, mode="eval").body
        except SyntaxError as error:
            column = max(0, (error.offset or 1) - 1) + self._indent
            raise ExpressionError("this is no expression", min(column, max(0, len(self.text) - 1))) from None
        except ValueError:
            raise ExpressionError("condition is not valid text", 0) from None
        except (RecursionError, MemoryError):
            raise ExpressionError("condition is nested too deeply", 0) from None

    def error(self, node: ast.expr, message: str) -> ExpressionError:
        start = self._column(node.col_offset)
        end = self._column(node.end_col_offset or node.col_offset + 1)
        return ExpressionError(message, start, max(1, end - start))

    def _column(self, octets: int) -> int:
        """From ast's place, in UTF-8 octets, to an offset in characters."""
        return self._indent + len(self._line.encode()[:octets].decode(errors="ignore"))


def suggestion(name: str, known: Mapping[str, object] | tuple[str, ...], prefix: str = "") -> str:
    """`. Did you mean `client.ptr`?` where something is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f". Did you mean `{prefix}{near[0]}`?" if near else ""


def dotted(node: ast.expr) -> str | None:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            before = dotted(value)
            return None if before is None else f"{before}.{attribute}"
        case _:
            return None


def _mark_lists(text: str) -> str:
    """`@name` outside quotes becomes one identifier of the same length."""
    out = list(text)
    for place, char in _unquoted(text):
        if char == "@":
            out[place] = LIST_MARK
    return "".join(out)


def _outside_quotes(text: str, wanted: str) -> int:
    return next((place for place, char in _unquoted(text) if char == wanted), -1)


def _unquoted(text: str) -> Iterator[tuple[int, str]]:
    """The characters outside quotes with their places."""
    quote, is_escaped = "", False
    for place, char in enumerate(text):
        if is_escaped or (quote and char == "\\"):
            is_escaped = not is_escaped
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        else:
            yield place, char
