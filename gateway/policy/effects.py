"""The effects of `do:`: what each key takes, and the value it gives when its rule matches."""

import re
from collections.abc import Callable, Collection

from gateway.core.address import parse_mailbox
from gateway.core.verdict import (
    AddHeader,
    Bcc,
    ByRoute,
    Delay,
    Effect,
    Protection,
    Redirect,
    RequireTls,
    SelfRelease,
    StripAttachments,
    TagSubject,
)
from gateway.policy.context import Context
from gateway.policy.expression import Choice
from gateway.policy.rules import EffectTemplate
from gateway.policy.syntax import suggestion
from gateway.policy.template import Template
from gateway.policy.values import Mark

MAX_DELAY_S = 30.0  # of one rule, and of all rules of a stage together
MAX_HEADER_VALUE = 900  # characters, so that the line stays under 998
KEYS = (
    "score",
    "mark",
    "add_header",
    "tag_subject",
    "redirect",
    "bcc",
    "route",
    "require_tls",
    "delay",
    "strip_attachments",
    "self_release",
)

_FIELD_NAME = re.compile(r"[!-9;-~]{1,60}")
# Fields that say where a message has been or who vouches for it are not a rule's to write.
_FORBIDDEN = re.compile(
    r"(?:received|received-spf|return-path|delivered-to|bcc|subject|from|sender|to|cc|date|message-id|mime-version|content-.*"
    r"|dkim-signature|arc-.*|authentication-results|resent-.*)",
    re.IGNORECASE,
)
_PROTECTIONS = {"true": Protection.ENCRYPTED, "verified": Protection.VERIFIED}
MARK = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")


def effect(
    key: str,
    text: str,
    template: Callable[[str, int], Template],
    choice: Callable[[str], Choice],
    routes: Collection[str] | None,
) -> EffectTemplate:
    """template(text, offset): compiles a part of the value that begins at `offset`; choice: compiles a condition over
    attachments; routes: names that the configuration has, None: not known. Raises ValueError, ExpressionError.
    """
    match key:
        case "add_header":
            return _add_header(text, template)
        case "strip_attachments":
            return _strip(choice(text))
        case "tag_subject":
            if not text.isascii() or not text.isprintable() or len(text) > 60:
                raise ValueError("a tag is up to 60 printable ASCII characters")
            return _constant(key, TagSubject(text))
        case "redirect":
            return _constant(key, Redirect(str(parse_mailbox(text))))
        case "bcc":
            return _constant(key, Bcc(str(parse_mailbox(text))))
        case "route":
            if routes is not None and text not in routes:
                raise ValueError(f"no route `{text}` in the configuration{suggestion(text, tuple(routes))}")
            return _constant(key, ByRoute(text))
        case "require_tls":
            if text not in _PROTECTIONS:
                raise ValueError("write `require_tls: true`, or `verified` to have the certificate checked too")
            return _constant(key, RequireTls(_PROTECTIONS[text]))
        case "self_release":
            if text != "true":
                raise ValueError("write `self_release: true`, or leave it out")
            return _constant(key, SelfRelease())
        case _:
            return _constant(key, Delay(_seconds(text)))


def _constant(key: str, value: Effect) -> EffectTemplate:
    return EffectTemplate(key, lambda context: value)


def _add_header(text: str, template: Callable[[str, int], Template]) -> EffectTemplate:
    name, colon, rest = text.partition(":")
    value = rest.strip()
    if not colon or not _FIELD_NAME.fullmatch(name) or not value:
        raise ValueError('write `add_header: "Name: value"`')
    if not value.isprintable():
        raise ValueError("a header value is one line of printable characters")
    if _FORBIDDEN.fullmatch(name):
        raise ValueError(f"`{name}` is not a rule's to add")
    compiled = template(value, text.index(value, len(name) + 1))

    def fill(context: Context) -> Effect | Mark:
        filled = compiled.fill(context)
        return filled if isinstance(filled, Mark) else AddHeader(name, filled[:MAX_HEADER_VALUE])

    return EffectTemplate("add_header", fill, compiled.names)


def _strip(choice: Choice) -> EffectTemplate:
    def fill(context: Context) -> Effect | Mark | None:
        found = choice.chosen(context)
        if isinstance(found, Mark):
            return found
        return StripAttachments(tuple((each.part, each.name) for each in found)) if found else None

    return EffectTemplate("strip_attachments", fill, choice.facts, is_needed=True)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(f"`{text}` is no number of seconds") from None
    if not 0 < seconds <= MAX_DELAY_S:
        raise ValueError(f"a delay is more than 0 and at most {MAX_DELAY_S:g} seconds")
    return seconds
