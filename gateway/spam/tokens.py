"""A message as tokens: the words of its text, those of its header and links, what its structure shows, and letters.

Each token is a bucket, by a checksum; the kinds are apart, for a model weighs each by its length. Words are below
BUCKETS, runs of letters from there to ALL_BUCKETS, so that the many runs do not crowd the words.
Fields that only say which way a message took (Received, List-*) are left out: they tell one site's mail from another's.
References and In-Reply-To are left out too: the subject says as much of mail like that which was learnt, and on unseen
sources they cost more than they brought.
"""

import re
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

from gateway.message.header import Header
from gateway.message.mime import Part
from gateway.spam.body import Body, normal, organisation, read_body
from gateway.spam.structure import IPV4, author_of, structure_of, subject_of, value_of

BITS = 18
BUCKETS = 1 << BITS
ALL_BUCKETS = 2 * BUCKETS
MAX_WORD = 24  # octets; a longer one counts by its length
MAX_NAME_WORDS = 20
MAX_SUBJECT_WORDS = 60
MAX_COUNTED_LINKS = 50
MAX_PAIRS = 2000  # of letters of scripts without blanks
MAX_LETTERS = 4 * 1024  # octets of words whose runs of letters count
MAX_SUBJECT = 300

_SHOUTED = re.compile(rb"!!+|[$]{2,}|\*{3,}")
_LINK = re.compile(r"https?://\S{1,500}")
_PATH_WORD = re.compile(r"[a-z]{3,20}")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2,200}")
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
# What words are made of: letters of ASCII, all digits as one, signs within words, and octets of other letters.
_LETTERS = bytes(
    (48 if 48 <= octet < 58 else octet) if chr(octet).isalnum() or octet > 127 or octet in b"'-$%" else 32
    for octet in range(256)
)
_MARKS = tuple(
    mark.encode()
    for mark in "\u00a0\u00ab\u00bb\u00b7\u2013\u2014\u2018\u201a\u201c\u201d\u201e\u2022\u2026\u3001\u3002\uff0c"
)
# Standards and pictures are in everybody's links.
_COMMON_HOSTS = frozenset({"w3.org", "microsoft.com"})
_COMMON_PATHS = frozenset("gif jpg jpeg png html htm php asp aspx www dtd img images image".split())
_TAG = re.compile(r"\[[^\[\]]{1,40}\]\s{0,9}")  # of a list: tells where mail was gathered
_RUN = 4  # octets: as many as an array's item has
_PRIME = 262_139  # the greatest below BUCKETS
_OF_SUBJECT = 0x35F1  # runs of its letters are other tokens than those of the text
_WORDS, _SUBJECT, _NAME, _LINKS, _STRUCTURE = 0, 0x51F15E01, 0x1D872B41, 0x3A4C9D17, 0x7E2F0B33  # seeds


@dataclass(frozen=True, slots=True)
class Tokens:
    """Buckets of each kind, each once; signs: the structure's tokens in words.

    letters, subject: runs of letters of the text's words, and of the subject with its marks of a reply.
    """

    words: tuple[int, ...]
    header: tuple[int, ...]
    structure: tuple[int, ...]
    letters: tuple[int, ...] = ()
    subject: tuple[int, ...] = ()
    signs: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[tuple[int, ...], ...]:
        return self.words, self.header, self.structure, self.letters, self.subject

    @property
    def counted(self) -> tuple[tuple[int, ...], ...]:
        """The kinds whose buckets are below BUCKETS."""
        return self.words, self.header, self.structure


def tokenise(octets: bytes, parts: list[Part]) -> Tokens:
    """parts: of `message.mime.walk`, over these octets. Bounded whatever they hold."""
    header = parts[0].header
    body = read_body(octets, parts)
    every = _split(_LINK.sub(" ", body.text) if "http" in body.text else body.text)
    words = _plain(every)
    signs = structure_of(header, parts, body, len(every))
    return Tokens(
        tuple(_buckets(words, _WORDS) | _pairs(body.text)),
        tuple(_of_header(header) | _of_links(body)),
        tuple({_bucket(sign.encode("utf-8", "replace"), _STRUCTURE) for sign in signs}),
        tuple(_runs(_in_a_row(words), 0)),
        tuple(_runs(_whole_subject(header), _OF_SUBJECT)),
        tuple(signs),
    )


def _bucket(token: bytes, seed: int) -> int:
    return crc32(token, seed) & (BUCKETS - 1)


def _split(text: str) -> list[bytes]:
    """Words in lower case, with all digits alike; marks that are shouted are words too."""
    octets = text.encode("utf-8", "replace")
    if len(octets) > len(text):
        octets = octets.replace(b"\xe2\x80\x99", b"'")
        for mark in _MARKS:
            octets = octets.replace(mark, b" ")
    words = octets.translate(_LETTERS).split()
    if b"!!" in octets or b"$$" in octets or b"***" in octets:
        words += _SHOUTED.findall(octets)
    return words


def _plain(words: Iterable[bytes]) -> list[bytes]:
    """Each once, without the signs around it."""
    found = dict.fromkeys([word.strip(b"'-%") for word in dict.fromkeys(words)])
    found.pop(b"", None)
    return list(found)


def _buckets(words: Iterable[bytes], seed: int) -> set[int]:
    return {
        crc32(word if len(word) <= MAX_WORD or (word[0] > 127 and len(word) <= 2 * MAX_WORD) else _long(word), seed)
        & (BUCKETS - 1)
        for word in words
    }


def _long(word: bytes) -> bytes:
    return b"long:%d" % (len(word) // 10)


def _in_a_row(words: list[bytes]) -> bytes:
    """Each word once, so far apart that no run has letters of two."""
    return b"   ".join([b"", *[word[:MAX_WORD] for word in words], b""])[:MAX_LETTERS]


def _whole_subject(header: Header) -> bytes:
    text = normal(_TAG.sub("", (value_of(header, "Subject") or "")[:MAX_SUBJECT]))
    return b" ^%b$ " % text.encode("utf-8", "replace")


def _runs(octets: bytes, salt: int) -> list[int]:
    """Of each run of four octets its bucket; two may share one."""
    found: set[int] = set()
    for start in range(_RUN):
        end = len(octets) - (len(octets) - start) % _RUN
        numbers = array("I", octets[start:end])
        if sys.byteorder == "big":
            numbers.byteswap()  # a model serves on every machine
        found.update(numbers)
    return [BUCKETS + (number + salt) % _PRIME for number in found]


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
    found = _buckets(_plain(_split(name)[:MAX_NAME_WORDS]), _NAME)
    return found | _buckets(_plain(_split(subject_of(header))[:MAX_SUBJECT_WORDS]), _SUBJECT)


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
