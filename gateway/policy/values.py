"""Kinds of values in the language, and the evaluator's two marks, which no rule can see: pending and unknown.

Logic over them is Kleene's: false decides `and`, true decides `or`, whatever else is not known. A part that is pending
may yet decide; one that is unknown will not.
"""

from collections.abc import Callable, Sequence
from enum import Enum, StrEnum
from typing import Any

from gateway.content.attachment import Attachment


class Kind(StrEnum):
    """Types of the expression language. TEXT and NUMBER facts may also be none; elements of a LIST are texts, those of
    RECORDS have fields of their own.
    """

    BOOL = "true or false"
    NUMBER = "number"
    TEXT = "text"
    IP = "address"
    NONE = "none"
    LIST = "list"
    RECORDS = "list of records"


class Mark(Enum):
    PENDING = "pending"  # not learnt yet
    UNKNOWN = "unknown"  # could not be learnt


PENDING = Mark.PENDING
UNKNOWN = Mark.UNKNOWN

Value = bool | int | float | str | None | tuple[str, ...] | tuple[Attachment, ...]
Found = Value | Mark
Evaluate = Callable[[Any], Any]  # from a Context to a Found


def forget(context: Any, pending: int, unknown: int) -> None:
    """A part has decided, which notes nothing: nothing hangs on what the others noted beyond so many."""
    del context.pending[pending:]
    del context.unknown[unknown:]


def both(parts: Sequence[Evaluate]) -> Evaluate:
    """Kleene's `and`, left to right. What its parts noted as pending or unknown is taken back once one decides."""

    def run(context: Any) -> object:
        mark: Mark | None = None
        pending, unknown = len(context.pending), len(context.unknown)
        for part in parts:
            value = part(context)
            if not value:
                if mark is not None:
                    forget(context, pending, unknown)
                return False
            if value is PENDING or (value is UNKNOWN and mark is None):
                mark = value
        return True if mark is None else mark

    return run


def either(parts: Sequence[Evaluate]) -> Evaluate:
    """Kleene's `or`."""

    def run(context: Any) -> object:
        mark: Mark | None = None
        pending, unknown = len(context.pending), len(context.unknown)
        for part in parts:
            value = part(context)
            if not value:
                continue
            if type(value) is not Mark:
                if mark is not None:
                    forget(context, pending, unknown)
                return True
            if value is PENDING or mark is None:
                mark = value
        return False if mark is None else mark

    return run


def negated(part: Evaluate) -> Evaluate:
    def run(context: Any) -> object:
        value = part(context)
        return value if type(value) is Mark else not value

    return run


def lifted(operation: Callable[[Any, Any], object], left: Evaluate, right: Evaluate) -> Evaluate:
    """An operation on two values that is pending or unknown where one of them is."""

    def run(context: Any) -> object:
        one, two = left(context), right(context)
        if type(one) is Mark or type(two) is Mark:
            return PENDING if one is PENDING or two is PENDING else UNKNOWN
        return operation(one, two)

    return run


def lifted_one(operation: Callable[[Any], object], part: Evaluate) -> Evaluate:
    def run(context: Any) -> object:
        value = part(context)
        return value if type(value) is Mark else operation(value)

    return run
