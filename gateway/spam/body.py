"""What a message says and shows: its texts as a reader sees them, its links, and the tricks of its HTML.

Bounded in octets, links and parts, and linear in them: no pattern here goes back over what it has passed.
"""

import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.message.header import decode_octets
from gateway.message.mime import Part
from gateway.message.transfer import decode

MAX_TEXT = 32 * 1024  # characters that are read, over all parts
MAX_OCTETS = 96 * 1024  # of one part that are decoded
MAX_PARTS = 50
MAX_LINKS = 400
MAX_ANCHORS = 100

INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]+"
)
_LINK = re.compile(r"https?://([^\s/?#\"'<>\\)\]]{1,200})([^\s\"'<>)\]]{0,300})", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_HREF = re.compile(r"href\s{0,9}=\s{0,9}[\"']?\s{0,9}https?://([^/\"'\s>?#]{1,200})")
_SHOWN_HOST = re.compile(r"(?:https?://)?((?:[\w-]{1,63}\.){1,8}[a-z]{2,24})(?:/\S*)?\Z")
_UNSHOWN = (("<!--", "-->"), ("<style", "</style"), ("<script", "</script"), ("<head>", "</head>"))
_MARKS = {
    "form": ("<form",), "script": ("<script",), "iframe": ("<iframe",), "centre": ("<center",), "font": ("<font",),
    "map": ("<area",), "bgcolor": ("bgcolor",), "quote": ("<blockquote",),
    "hidden": ("display:none", "display: none", "visibility:hidden"), "tiny": ("font-size:0", "font-size: 0"),
    "pixel": ('width="1"', 'height="1"', "width=1 ", "height=1 ", 'width="0"'),
}  # fmt: skip
_SECOND_LEVEL = frozenset({"co", "com", "org", "net", "gov", "edu", "ac", "gob", "gouv", "or", "ne", "go"})


@dataclass(slots=True)
class Body:
    """text: of all parts, lower case, without what nobody sees; links: host and rest, each once; marks: what its HTML
    does; plain, rich: characters of its plain and its HTML texts; mismatches: links whose text names another host.
    """

    text: str = ""
    links: list[tuple[str, str]] = field(default_factory=list)
    marks: set[str] = field(default_factory=set)
    charsets: list[str] = field(default_factory=list)
    plain: int = 0
    rich: int = 0
    has_plain: bool = False
    has_rich: bool = False
    images: int = 0
    mismatches: int = 0


def organisation(host: str) -> str:
    """Its last two labels, or three where the second is a register's own: near enough to compare hosts by."""
    labels = host.lower().strip(".").split(".")
    if len(labels) >= 3 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL:
        return ".".join(labels[-3:])
    return ".".join(labels[-2:])


def normal(text: str) -> str:
    """As words are compared: letters of other widths mapped, what is invisible left out, in lower case."""
    if not text.isascii():
        text = INVISIBLE.sub("", unicodedata.normalize("NFKC", text))[:MAX_TEXT]
    return text.lower()


def read_body(octets: bytes, parts: list[Part]) -> Body:
    """parts: of the message that these octets are."""
    found = Body()
    out: list[str] = []
    budget = MAX_TEXT
    texts = [part for part in parts[:MAX_PARTS] if part.is_leaf and part.media_type in ("text/plain", "text/html")]
    for part in sorted(texts, key=lambda part: part.media_type == "text/html"):
        if part.disposition.word == "attachment" or budget <= 0:
            continue
        raw, _ = decode(octets[part.start : min(part.end, part.start + MAX_OCTETS)], part.encoding)
        text = decode_octets(raw, part.content_type.first("charset"))[:budget]
        budget -= len(text)
        if part.encoding == "base64" and text.isascii():
            found.marks.add("b64ascii")
        found.links += _LINK.findall(text)[:MAX_LINKS]
        if part.media_type == "text/html":
            found.has_rich = True
            shown = _read_html(text, found)
            found.rich += len(shown.strip())
        else:
            found.has_plain = True
            shown = text
            found.plain += len(text.strip())
        out.append(shown)
    whole = "\n".join(out)
    if not whole.isascii() and INVISIBLE.search(whole):
        found.marks.add("invisible")
    found.text = normal(whole)
    found.links = list(dict.fromkeys((_host(host), rest) for host, rest in found.links))
    return found


def _host(place: str) -> str:
    return place.lower().rpartition("@")[2].partition(":")[0]


def _read_html(text: str, found: Body) -> str:
    """The text that is shown."""
    low = text.lower()
    if len(low) != len(text):
        text = low
    found.mismatches += sum(_mismatches(low))
    found.images += low.count("<img")
    found.marks.update(f"html:{name}" for name, signs in _MARKS.items() if any(sign in low for sign in signs))
    if any(tag in text for tag in ("<TABLE", "<TD", "<BR", "<FONT", "<P>")):
        found.marks.add("html:upper")
    for start, end in _UNSHOWN:
        text, low = _cut(text, low, start, end)
    shown = _TAG.sub(" ", text)
    return html.unescape(shown) if "&" in shown else shown


def _cut(text: str, low: str, start: str, end: str) -> tuple[str, str]:
    """Without each region; one that is not closed goes to the end."""
    at = low.find(start)
    if at < 0:
        return text, low
    texts, lows, done = [], [], 0
    while at >= 0:
        texts.append(text[done:at])
        lows.append(low[done:at])
        closing = low.find(end, at + len(start))
        done = len(text) if closing < 0 else closing + len(end)
        at = low.find(start, done)
    return " ".join((*texts, text[done:])), " ".join((*lows, low[done:]))


def _mismatches(low: str) -> Iterator[bool]:
    """Of each anchor: is its text a host of another organisation than the one it leads to?"""
    for anchor in re.split(r"<a\s", low)[1 : MAX_ANCHORS + 1]:
        head = anchor[:1500]
        opened = head.find(">")
        closed = head.find("</a", opened) if opened >= 0 else -1
        target = _HREF.search(head, 0, opened) if closed >= 0 else None
        if target is None or "." not in head[opened + 1 : closed]:
            continue
        text = _TAG.sub("", head[opened + 1 : closed]).strip()
        shown = _SHOWN_HOST.match(text) if len(text) < 300 else None
        yield shown is not None and organisation(shown[1]) != organisation(target[1])
