"""A message as tokens: the words of its text, those of its header and links, and what its structure shows.

Each token is a bucket of BUCKETS, by a checksum; the three kinds are apart, for a model weighs each by its length.
Fields that only say which way a message took (Received, List-*) are left out: they tell one site's mail from another's.
"""

import re
from dataclasses import dataclass
from zlib import crc32

from gateway.message.header import Header
from gateway.message.mime import Part
from gateway.spam.body import Body, organisation, read_body
from gateway.spam.structure import IPV4, author_of, structure_of, subject_of

BITS = 18
BUCKETS = 1 << BITS
MAX_WORD = 24  # octets; a longer one counts by its length
MAX_NAME_WORDS = 20
MAX_SUBJECT_WORDS = 60
MAX_COUNTED_LINKS = 50
MAX_PAIRS = 2000  # of letters of scripts without blanks

_WORD = re.compile(r"[^\W_](?:[\w'\u2019$%\u20ac\u00a3-]*\w)?|[$\u20ac\u00a3](?=\d)|!!+|[$]{2,}|\*{3,}")
_LINK = re.compile(r"https?://\S{1,500}")
_PATH_WORD = re.compile(r"[a-z]{3,20}")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2,200}")
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
# Standards and pictures are in everybody's links.
_COMMON_HOSTS = frozenset({"w3.org", "microsoft.com"})
_COMMON_PATHS = frozenset("gif jpg jpeg png html htm php asp aspx www dtd img images image".split())
_WORDS, _SUBJECT, _NAME, _LINKS, _STRUCTURE = 0, 0x51F15E01, 0x1D872B41, 0x3A4C9D17, 0x7E2F0B33  # seeds


@dataclass(frozen=True, slots=True)
class Tokens:
    """Buckets of each kind, each once; signs: the structure's tokens in words."""

    words: tuple[int, ...]
    header: tuple[int, ...]
    structure: tuple[int, ...]
    signs: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        return self.words, self.header, self.structure


def tokenise(octets: bytes, parts: list[Part]) -> Tokens:
    """parts: of `message.mime.walk`, over these octets. Bounded whatever they hold."""
    header = parts[0].header
    body = read_body(octets, parts)
    words = _split(_LINK.sub(" ", body.text))
    signs = structure_of(header, parts, body, len(words))
    return Tokens(
        tuple(_buckets(words, _WORDS) | _pairs(body.text)),
        tuple(_of_header(header) | _of_links(body)),
        tuple({_bucket(sign.encode("utf-8", "replace"), _STRUCTURE) for sign in signs}),
        tuple(signs),
    )


def _bucket(token: bytes, seed: int) -> int:
    return crc32(token, seed) & (BUCKETS - 1)


def _split(text: str) -> list[bytes]:
    """Words, with all digits alike."""
    return " ".join(_WORD.findall(text)).encode("utf-8", "replace").translate(_DIGITS).split()


def _buckets(words: list[bytes], seed: int) -> set[int]:
    return {
        crc32(word if len(word) <= MAX_WORD or (word[0] > 127 and len(word) <= 2 * MAX_WORD) else _long(word), seed)
        & (BUCKETS - 1)
        for word in set(words)
    }


def _long(word: bytes) -> bytes:
    return b"long:%d" % (len(word) // 10)


def _pairs(text: str) -> set[int]:
    """Of letters, where a script has no blanks between words."""
    if text.isascii():
        return set()
    found: set[int] = set()
    for run in _CJK.findall(text):
        found.update(_bucket(run[at : at + 2].encode(), _WORDS) for at in range(len(run) - 1))
        if len(found) > MAX_PAIRS:
            break
    return found


def _of_header(header: Header) -> set[int]:
    name, _ = author_of(header)
    found = _buckets(_split(name)[:MAX_NAME_WORDS], _NAME)
    return found | _buckets(_split(subject_of(header))[:MAX_SUBJECT_WORDS], _SUBJECT)


def _of_links(body: Body) -> set[int]:
    found: set[int] = set()
    hosts: set[str] = set()
    for host, rest in body.links[:MAX_COUNTED_LINKS]:
        domain = organisation(host)
        if domain in _COMMON_HOSTS:
            continue
        if host not in hosts and not IPV4.fullmatch(host):
            hosts.add(host)
            labels = [label[:20] for label in host.split(".")[:-1][:8] if not domain.startswith(f"{label}.")]
            tokens = [f"host:{domain}", f"tld:{host.rpartition('.')[2]}", *(f"label:{label}" for label in labels)]
            found.update(_bucket(each.encode("utf-8", "replace").translate(_DIGITS), _LINKS) for each in tokens)
        paths = [word for word in _PATH_WORD.findall(rest.lower())[:6] if word not in _COMMON_PATHS]
        found.update(_bucket(word.encode(), _LINKS) for word in paths)
    return found
