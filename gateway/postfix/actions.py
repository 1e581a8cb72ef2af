"""What stands behind a key of an access(5) table."""

import json
import re
from dataclasses import dataclass
from enum import Enum, auto

from gateway.core.address import parse_mailbox
from gateway.postfix.maincf import MainCf

_CODED = re.compile(r"([45])([0-9][0-9])\b\s*(.*)", re.DOTALL)
_STATUS = re.compile(r"([245])\.(\d{1,3}\.\d{1,3})\b\s*(.*)", re.DOTALL)
_MAX_TEXT = 300


class Kind(Enum):
    PERMIT = auto()
    REJECT = auto()
    DEFER = auto()
    HOLD = auto()
    DISCARD = auto()
    DEFER_IF_PERMIT = auto()
    DEFER_IF_REJECT = auto()
    EFFECT = auto()
    NOTE = auto()  # says so in the trace
    NOTHING = auto()
    RESTRICTIONS = auto()
    COMMENT = auto()  # cannot be translated


@dataclass(frozen=True, slots=True)
class Act:
    """reply: of REJECT and DEFER; effect: an entry of `do:`; text: of RESTRICTIONS and COMMENT; code_name: the
    parameter that has the reply's code.
    """

    kind: Kind
    reply: str = ""
    effect: str = ""
    text: str = ""
    code_name: str = ""
    defers_unknown: bool = False  # a look-up that failed defers


def act_of(result: str, cf: MainCf) -> Act:
    word, rest = [*result.split(None, 1), "", ""][:2]
    rest = rest.strip()
    coded = _CODED.fullmatch(result.strip())
    if result.strip().isascii() and result.strip().isdigit():
        return Act(Kind.PERMIT)  # access(5): an all-numerical result
    if coded is not None:
        return refusal(f"{coded[1]}{coded[2]}", coded[3])
    match word.upper():
        case "OK":
            return Act(Kind.PERMIT)
        case "PERMIT" if not rest:
            return Act(Kind.PERMIT)
        case "REJECT":
            return refusal(cf.get("access_map_reject_code"), rest)
        case "DEFER":
            return refusal(cf.get("access_map_defer_code"), rest)
        case "DEFER_IF_PERMIT":
            return Act(Kind.DEFER_IF_PERMIT)
        case "DEFER_IF_REJECT":
            return Act(Kind.DEFER_IF_REJECT)
        case "DUNNO":
            return Act(Kind.NOTHING)
        case "HOLD":
            return Act(Kind.HOLD)
        case "DISCARD":
            return Act(Kind.DISCARD)
        case "WARN" | "INFO":
            return Act(Kind.NOTE)
        case "BCC" | "REDIRECT":
            return _to(word.lower(), rest)
        case "PREPEND":
            field = rest.replace("{", "(").replace("}", ")").encode("ascii", "replace").decode()
            return Act(Kind.EFFECT, effect=f"add_header: {json.dumps(field)}")
        case "FILTER":
            return Act(Kind.COMMENT, text=f"{result}: name the host as a [routes.NAME] and choose it by `route`")
        case _:
            return Act(Kind.RESTRICTIONS, text=result)


def _to(key: str, address: str) -> Act:
    if "$" in address:
        return Act(Kind.COMMENT, text=f"{address}: an address made of what a pattern has found")
    try:
        return Act(Kind.EFFECT, effect=f"{key}: {json.dumps(str(parse_mailbox(address.strip('<>'))))}")
    except ValueError as error:
        return Act(Kind.COMMENT, text=f"{address}: {error}")


def refusal(code: str, text: str) -> Act:
    """A refusal with somebody's text: no place for facts, nothing but printable ASCII."""
    plain = "".join(char if char.isascii() and char.isprintable() and char not in "{}" else " " for char in text)
    return coded(code, plain[:_MAX_TEXT])


def coded(code: str, text: str) -> Act:
    """A refusal by its code, of 4xx a deferral; a status within the text gets the code's class."""
    code = {"421": "450", "521": "554"}.get(code, code)
    if not re.fullmatch("[45][0-9][0-9]", code):
        code = "554"
    kind = Kind.REJECT if code.startswith("5") else Kind.DEFER
    found = _STATUS.fullmatch(text.strip())
    status, text = (f"{code[0]}.{found[2]}", found[3]) if found else (f"{code[0]}.7.1", text)
    return Act(kind, f"{code} {status} {text.strip() or 'Access denied'}")
