"""Authentication-Results (RFC 8601): what this host found out, as a trace field; and fields that pretend to be that."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.core.address import parse_domain
from gateway.message.header import Header, decode_text
from gateway.senderauth.arc import ArcResult
from gateway.senderauth.dkim import DkimResult
from gateway.senderauth.dmarc import DmarcResult
from gateway.senderauth.spf import SpfResult

NAME = "Authentication-Results"
MAX_ID = 1000  # letters of an authserv-id that are looked at
MAX_FIELDS = 20  # of the name; all beyond go
MAX_READ = 1000  # letters of a value that are read in each way; of its beginning as it stands all
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+")  # RFC 2045 5.1
_UNQUOTABLE = re.compile(r"[^ !#-\[\]-~]")
_ID = re.compile(r"(?:[A-Za-z0-9._-]|[^\x00-\x7f\s])*")
_SKIPPED = "(" + "".join(map(chr, range(33)))  # blanks and control characters; a comment begins
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"?', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Authentication:
    """All that was found out of one message."""

    spf: SpfResult
    dkim: tuple[DkimResult, ...]
    dmarc: DmarcResult
    arc: ArcResult


def results_field(authserv_id: str, found: Authentication) -> bytes:
    """The field with its line ends."""
    return f"{NAME}: {findings(authserv_id, found)}\r\n".encode("ascii")


def findings(authserv_id: str, found: Authentication) -> str:
    """The field's value, folded. Bounded by the number of signatures that are looked at."""
    parts = [_spf(found.spf), *map(_dkim, found.dkim or (DkimResult("none"),)), _dmarc(found.dmarc)]
    parts += [] if found.arc.result == "none" else [_arc(found.arc)]
    return f"{authserv_id};\r\n\t" + ";\r\n\t".join(parts)


def claimed_fields(header: Header, authserv_id: str) -> tuple[bytes, ...]:
    """The raw fields that a careless reader could take for this host's own (RFC 8601 5)."""
    ours = _plain(authserv_id)
    fields = [field for field in header.fields if field.name.lower() == NAME.lower()]
    return tuple(
        field.raw
        for number, field in enumerate(fields)
        if number >= MAX_FIELDS or any(_plain(_id_of(reading)) == ours for reading in _readings(field.value))
    )


def _readings(value: bytes) -> Iterator[str]:
    """What a careless reader may make of the value before it looks for the id: encoded words decoded, comments taken
    out, nested or up to their first bracket, with pairs of a backslash in them or without.
    """
    whole = value.decode("utf-8", "replace")
    yield whole
    text = whole[:MAX_READ].replace("\r\n", "")
    for each in dict.fromkeys((text, decode_text(value)[:MAX_READ])):
        yield each
        yield _without_comments(each, "\\")
        yield _without_comments(each, "")
        yield _without_flat_comments(each, "")
        yield _without_flat_comments(each, " ")


def _without_flat_comments(text: str, blank: str) -> str:
    kept = ""
    while True:
        head, _, rest = text.partition("(")
        _, end, after = rest.partition(")")
        if not end:
            return kept + text
        kept, text = kept + head + blank, after


def _without_comments(text: str, escape: str) -> str:
    kept, at, depth = "", 0, 0
    while at < len(text):
        char = text[at]
        if escape and char == escape and depth:
            at += 1
        elif char == "(":
            depth += 1
        elif char == ")" and depth:
            depth -= 1
        elif not depth:
            kept += char
        at += 1
    return kept


def _id_of(value: str) -> str:
    """What comes first that is no blank, no comment and no control character, as a careless reader has it."""
    at = depth = 0
    while at < len(value) and (depth or value[at] in _SKIPPED or value.startswith('""', at)):
        depth += (value[at] == "(") - (value[at] == ")")
        is_pair = value[at] == "\\" if depth else value[at] == '"'
        at += 2 if is_pair else 1
    quoted = _QUOTED.match(value, at)
    text = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else value[at : at + MAX_ID]
    match = _ID.match(text.strip())
    return match[0] if match else ""


def _plain(name: str) -> str:
    name = name.rstrip(".")
    try:
        return parse_domain(name).ascii
    except ValueError:
        return name.lower()


# --- methods (RFC 8601 2.7) -------------------------------------------------------------------------------------------


def _spf(found: SpfResult) -> str:
    kind = "mailfrom" if found.identity == "mailfrom" else "helo"
    return f"spf={found.result}" + (f" smtp.{kind}={_value(found.domain)}" if found.domain else "")


def _dkim(found: DkimResult) -> str:
    properties = {
        "header.d": found.domain, "header.s": found.selector, "header.a": found.algorithm, "header.b": found.signature,
    }  # fmt: skip
    return f"dkim={found.result}{_reason(found.reason)}" + "".join(
        f" {name}={_value(value)}" for name, value in properties.items() if value
    )


def _dmarc(found: DmarcResult) -> str:
    comment = f" (p={found.policy})" if found.policy else ""
    author = f" header.from={_value(found.domain)}" if found.domain else ""
    return f"dmarc={found.result}{comment}{_reason(found.reason)}{author}"


def _arc(found: ArcResult) -> str:
    sealer = f" header.d={_value(found.sealers[0])}" if found.sealers else ""
    return f"arc={found.result}{_reason(found.reason)}{sealer}"


def _reason(text: str) -> str:
    return f' reason="{_UNQUOTABLE.sub("?", text)}"' if text else ""


def _value(text: str) -> str:
    """A token, or a quoted string."""
    return text if _TOKEN.fullmatch(text) else f'"{_UNQUOTABLE.sub("?", text)}"'
