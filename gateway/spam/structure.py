"""What a message's structure shows, as words: how its fields are made, how its parts lie, what its links do.

Each is a token for the model; none decides by itself.
"""

import re
from collections.abc import Iterator

from gateway.message.header import Header, decode_text
from gateway.message.mime import Part
from gateway.spam.body import INVISIBLE, Body, normal, organisation

MAX_VALUE = 2000  # octets of a field
IPV4 = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
FREE_MAIL = frozenset(
    """
    gmail.com googlemail.com yahoo.com hotmail.com outlook.com aol.com gmx.de gmx.net web.de live.com msn.com icloud.com
    mail.ru yandex.ru 163.com 126.com qq.com protonmail.com proton.me
    """.split()
)
SHORTENERS = frozenset(
    """
    bit.ly t.co tinyurl.com goo.gl ow.ly is.gd buff.ly rb.gy cutt.ly t.ly rebrand.ly shorturl.at tiny.cc lnkd.in
    """.split()
)
_PRESENT = frozenset(
    """
    reply-to sender x-mailer user-agent x-priority x-msmail-priority importance mime-version content-language
    thread-topic thread-index organization x-originating-ip x-mimeole cc bcc content-class priority x-sender errors-to
    disposition-notification-to
    """.split()
)
_ANGLE = re.compile(r"<([^<>]*)>\s*\Z")
_COMMENTED = re.compile(r"(\S{1,300}@\S{1,300})\s*\(([^()]*)\)\Z")
_MESSAGE_ID = re.compile(r"<([^@<>]*)@([^<>]*)>\Z")
_ZONE = re.compile(r"([+-]\d{4})?\s*(\([^)]{0,40}\))?\s*\Z")
_DAY = re.compile(r"\s*(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ")
_REPLY = re.compile(r"\s*(?:re|aw|sv|antw|vs|fwd?|wg|tr|rv|odp)\s*(?:\[\d+\])?:\s*", re.IGNORECASE)
_NO_REPLY = re.compile(r"(?:no|do)[-_.]?(?:not?)?[-_.]?reply")
_MAILER = re.compile(r"[A-Za-z]{2,}")
_HEXES = re.compile(r"[0-9A-Fa-f]{6,}")
_UPPER = re.compile(r"[A-Z]+")
_LOWER = re.compile(r"[a-z]+")
_NUMBER = re.compile(r"\d+")
_SUFFIX = re.compile(r"\.(\w{2,5})\Z")
_MEDIA_TYPE = re.compile(r"[\w/+.-]{1,60}")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_CYRILLIC = re.compile("[\u0430-\u044f]")
_MIXED_SCRIPT = re.compile("[a-z][\u0430-\u044f]|[\u0430-\u044f][a-z]")


def value_of(header: Header, name: str) -> str | None:
    """Decoded, and cut; None where there is no such field."""
    field = header.first(name)
    return None if field is None else decode_text(field.value[:MAX_VALUE])


def mailbox(text: str) -> tuple[str, str]:
    """Display name and address of the last mailbox in a field."""
    match = _ANGLE.search(text[-600:])
    if match is not None:
        return text[: len(text) - len(match[0])].strip().strip('"').strip(), match[1].strip().lower()
    match = _COMMENTED.match(text.strip())
    return (match[2], match[1].lower()) if match is not None else ("", text.strip().lower())


def author_of(header: Header) -> tuple[str, str]:
    """Display name, as words are compared, and address."""
    name, address = mailbox(value_of(header, "From") or "")
    return normal(name[:200]), address


def subject_of(header: Header) -> str:
    """Without what marks it as a reply, as words are compared."""
    text = (value_of(header, "Subject") or "")[:500]
    match = _REPLY.match(text)
    return normal(text[match.end() :] if match else text)


def domain_of(address: str) -> str:
    return address.rpartition("@")[2].strip(" >") if "@" in address else ""


def scale(number: int) -> int:
    """0, 1, 2 to 3, 4 to 7, and so on."""
    return number.bit_length()


def shape(text: str) -> str:
    """How it is made, whatever it says: each run of digits, of small and of great letters as one; long hex as great.

    What a mail program puts together has the shape that the program gives it.
    """
    text = _HEXES.sub("A", text[:200])
    return _NUMBER.sub("0", _LOWER.sub("a", _UPPER.sub("A", text)))[:40]


def structure_of(header: Header, parts: list[Part], body: Body, words: int) -> list[str]:
    """words: how many its text has."""
    name, address = author_of(header)
    return [
        *_author(name, address),
        *_recipients(header, address),
        *_reply_to(header, address),
        *_message_id(header, address),
        *_date(header),
        *_subject(header),
        *_program(header),
        *_parts(parts),
        *_text(body, words),
        *_links(body, organisation(domain_of(address))),
    ]


def _author(name: str, address: str) -> Iterator[str]:
    domain = domain_of(address)
    if not name:
        yield "from:noname"
    elif "@" in name:
        shown = name.rpartition("@")[2].strip(" >\"'")
        yield "from:nameaddr" if shown != domain else "from:nameaddrsame"
    if not domain:
        yield "from:nodomain"
        return
    local = address.rpartition("@")[0]
    if domain in FREE_MAIL:
        yield "from:free"
    if re.search(r"\d{3}", local):
        yield "from:digits"
    if _NO_REPLY.match(local):
        yield "from:noreply"
    if len(local) > 20:
        yield "from:long"
    if any(char.isdigit() for char in organisation(domain)):
        yield "from:domaindigits"


def _recipients(header: Header, author: str) -> Iterator[str]:
    to = value_of(header, "To")
    if to is None:
        yield "to:absent"
    elif "undisclosed" in to.lower() or "@" not in to:
        yield "to:undisclosed"
    else:
        yield f"to:{scale(to.count('@'))}"
        if author and author in to.lower():
            yield "to:author"


def _reply_to(header: Header, author: str) -> Iterator[str]:
    text = value_of(header, "Reply-To")
    if text:
        address = mailbox(text)[1]
        domain = organisation(domain_of(address))
        if address == author:
            yield "replyto:same"
        elif domain == organisation(domain_of(author)):
            yield "replyto:domain"
        else:
            yield "replyto:free" if domain in FREE_MAIL else "replyto:other"


def _message_id(header: Header, author: str) -> Iterator[str]:
    text = (value_of(header, "Message-ID") or "").strip()
    match = _MESSAGE_ID.match(text)
    if match is None:
        yield "mid:bad" if text else "mid:none"
        return
    yield f"midleft:{shape(match[1])}"
    yield f"midright:{shape(match[2].lower())}"
    domain = organisation(match[2])
    yield "mid:same" if domain == organisation(domain_of(author)) else "mid:other"
    if "." not in match[2]:
        yield "mid:nodot"
    if domain in ("gmail.com", "outlook.com", "yahoo.com"):
        yield f"mid:{domain}"


def _date(header: Header) -> Iterator[str]:
    text = value_of(header, "Date")
    if not text:
        yield "date:none"
        return
    match = _ZONE.search(text[-80:])
    zone = match[1] if match is not None else None
    if zone is None:
        yield "date:nozone"
    elif zone in ("+0000", "-0000"):
        yield "date:utc"
    else:
        yield "date:oddzone" if zone[-2:] not in ("00", "30", "45") else "date:zone"
    if match is not None and match[2]:
        yield "date:comment"
    if _DAY.match(text) is None:
        yield "date:noday"


def _subject(header: Header) -> Iterator[str]:
    field = header.first("Subject")
    raw = b"" if field is None else field.value[:MAX_VALUE]
    if b"=?" in raw:
        yield "subject:b" if b"?b?" in raw.lower() else "subject:q"
    elif not raw.isascii():
        yield "subject:8bit"
    text = (value_of(header, "Subject") or "")[:500]
    letters = [char for char in text if char.isalpha()]
    if len(letters) > 5:
        upper = sum(map(str.isupper, letters)) / len(letters)
        if upper > 0.4:
            yield "subject:caps" if upper > 0.8 else "subject:halfcaps"
    if "!" in text:
        yield "subject:!"
    if "?" in text:
        yield "subject:?"
    if re.search(r"\d{5}", text):
        yield "subject:digits"
    if "    " in text:
        yield "subject:gap"
    if not text.strip():
        yield "subject:empty"
    if not text.isascii():
        if any(ord(char) > 0x2190 and not _CJK.match(char) for char in text):
            yield "subject:emoji"
        if INVISIBLE.search(text):
            yield "subject:invisible"


def _program(header: Header) -> Iterator[str]:
    yield from (f"has:{name}" for name in {field.name.lower() for field in header.fields} & _PRESENT)
    mailer = value_of(header, "X-Mailer") or value_of(header, "User-Agent")
    if mailer:
        yield f"mailer:{' '.join(_MAILER.findall(mailer[:80])[:2]).lower()}"
    priority = value_of(header, "X-Priority") or value_of(header, "Importance")
    if priority:
        yield f"priority:{priority.strip().lower()[:8]}"


def _parts(parts: list[Part]) -> Iterator[str]:
    top = _MEDIA_TYPE.match(parts[0].media_type)
    yield f"top:{top[0] if top else ''}"
    yield f"tree:{','.join(part.media_type[:40] for part in parts[1:6])}"
    for part in parts[:50]:
        if part.is_leaf and part.media_type in ("text/plain", "text/html"):
            yield f"charset:{part.content_type.first('charset').lower()[:20]}"
            yield f"encoding:{part.media_type[5:]}:{part.encoding[:20]}"
        if part.names:
            yield "attachment:named"
        if part.media_type.startswith("image/"):
            yield "attachment:image"


def _text(body: Body, words: int) -> Iterator[str]:
    yield from sorted(body.marks)
    if body.has_rich:
        if not body.has_plain:
            yield "htmlonly"
        elif body.plain < body.rich / 4:
            yield "plainshort"
        yield f"rich:{min(8, scale(body.rich // 64))}"
        yield f"images:{min(5, scale(body.images))}"
        if body.images and body.rich < 200:
            yield "imageonly"
    if body.has_plain:
        yield f"plain:{min(8, scale(body.plain // 64))}"
    yield f"words:{min(10, scale(words))}"
    if words:
        if any(sign in body.text for sign in "$€£"):
            yield "money"
        if body.text.count("!") > words / 30:
            yield "manyexclamations"
    if not body.text.isascii() and _CYRILLIC.search(body.text) and _MIXED_SCRIPT.search(body.text, 0, 20_000):
        yield "mixedscript"


def _links(body: Body, author: str) -> Iterator[str]:
    if body.mismatches:
        yield "linkmismatch"
    links = body.links[:50]
    hosts = {host for host, _ in links}
    yield f"links:{min(6, scale(len(links)))}"
    yield f"hosts:{min(5, scale(len(hosts)))}"
    if hosts:
        own = sum(organisation(host) == author for host in hosts)
        yield "links:own" if own == len(hosts) else "links:mixed" if own else "links:foreign"
    if any(IPV4.fullmatch(host) for host in hosts):
        yield "links:ip"
    if any("xn--" in host or not host.isascii() for host in hosts):
        yield "host:punycode"
    if any(organisation(host) in SHORTENERS for host in hosts):
        yield "links:short"
    if any("%" in rest for _, rest in links):
        yield "links:percent"
    yield from sorted({f"host:{_LOWER.sub('a', _NUMBER.sub('0', host))[:20]}" for host in hosts})
    yield from sorted({f"host:dots{min(9, host.count('.'))}" for host in hosts})
    if any("-" in host for host in hosts):
        yield "host:hyphen"
    yield from sorted(set().union(*(_path(rest) for _, rest in links)))


def _path(rest: str) -> Iterator[str]:
    """What follows the host in a link."""
    yield f"path:{scale(len(rest))}"
    path, mark, _ = rest.partition("?")
    suffix = _SUFFIX.search(path[-8:])
    yield f"path:.{suffix[1].lower() if suffix else ''}"
    if mark and "=" in rest:
        yield "path:="
    if "@" in rest:
        yield "path:@"
