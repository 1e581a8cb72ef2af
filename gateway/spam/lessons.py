"""What a site teaches the filter: each message once, remembered so that it can be taken back, and forgotten in time.

The lessons are the source; the model that serves is the shipped one with all of them applied, in a file of its own that
is replaced whole. A lesson that is taken back, or has expired, is undone by making that file anew.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from gateway.core.errors import ConfigError
from gateway.spam.filter import BASE_MODEL
from gateway.spam.model import Model, open_model, read_model, write_model
from gateway.spam.tokens import Tokens
from gateway.spam.training import teach


class Outcome(StrEnum):
    LEARNT = "learnt"
    KNOWN = "known"  # learnt before, and so
    CHANGED = "changed"  # learnt before as the other
    FORGOTTEN = "forgotten"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Lesson:
    """at: in seconds since the epoch."""

    digest: bytes
    is_spam: bool
    at: float
    tokens: Tokens


class LessonStore(Protocol):
    def find(self, digest: bytes) -> bool | None:
        """Was it spam? None: not learnt."""

    def put(self, lesson: Lesson) -> None: ...

    def remove(self, digest: bytes) -> bool: ...

    def remove_before(self, at: float) -> int: ...

    def all(self) -> Iterator[Lesson]:
        """In the order in which they were learnt."""


def digest_of(octets: bytes) -> bytes:
    """Of a message, whatever its line ends and the trace fields that delivery puts on top."""
    text = octets.replace(b"\r\n", b"\n")
    header, _, body = text.partition(b"\n\n")
    fields = sorted(
        line
        for line in header.split(b"\n")
        if line.lower().startswith((b"message-id:", b"date:", b"from:", b"subject:"))
    )
    return sha256(b"\n".join(fields) + b"\n\n" + body.rstrip()).digest()


class Lessons:
    """site: where the model that serves is written; one that this version cannot read is made anew of the lessons."""

    def __init__(self, store: LessonStore, site: Path, base: Path = BASE_MODEL) -> None:
        self._store = store
        self._site = site
        self._base = base
        self._model: Model | None = None
        self._is_stale = site.exists() and not _is_of_this_version(site)

    def learn(self, digest: bytes, tokens: Tokens, *, is_spam: bool, at: float) -> Outcome:
        known = self._store.find(digest)
        if known is is_spam:
            return Outcome.KNOWN
        self._store.put(Lesson(digest, is_spam, at, tokens))
        if known is not None:
            self._is_stale = True
            return Outcome.CHANGED
        teach(self._opened(), tokens, is_spam=is_spam)
        return Outcome.LEARNT

    def forget(self, digest: bytes) -> Outcome:
        if not self._store.remove(digest):
            return Outcome.UNKNOWN
        self._is_stale = True
        return Outcome.FORGOTTEN

    def expire(self, before: float) -> int:
        """How many lessons were older than that."""
        found = self._store.remove_before(before)
        self._is_stale |= found > 0
        return found

    def save(self, progress: Callable[[int], None] = lambda done: None) -> None:
        """The model that serves, if anything has changed. progress: told how many lessons were applied anew."""
        if self._is_stale:
            self._model = read_model(self._base)
            for number, lesson in enumerate(self._store.all(), 1):
                teach(self._model, lesson.tokens, is_spam=lesson.is_spam)
                progress(number)
        if self._model is not None:
            write_model(self._model, self._site)
        self._model, self._is_stale = None, False

    def _opened(self) -> Model:
        if self._model is None:
            from_site = self._site.exists() and not self._is_stale
            self._model = read_model(self._site if from_site else self._base)
        return self._model


def _is_of_this_version(site: Path) -> bool:
    try:
        open_model(site)
    except ConfigError:
        return False
    return True
