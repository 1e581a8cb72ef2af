"""Messages that users have judged by moving them into Junk or out of it, until the filter has learnt them.

They wait as further names of the messages' own files, which takes no room and outlives a restart.
"""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MAX_WAITING = 1000  # messages; what comes beyond is not learnt
_ENDS = {True: ".spam", False: ".ham"}


@dataclass(frozen=True, slots=True)
class Waiting:
    path: Path
    is_spam: bool


class LessonSpool:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, file: Path, *, is_spam: bool) -> bool:
        """False: too many wait, or the file is gone. Blocks."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with os.scandir(self._folder) as entries:
            if sum(1 for _ in entries) >= MAX_WAITING:
                return False
        try:
            os.link(file, self._folder / f"{time.time_ns()}-{os.urandom(4).hex()}{_ENDS[is_spam]}")
        except OSError:
            return False
        return True

    def waiting(self, limit: int) -> list[Waiting]:
        """The oldest first."""
        with suppress(FileNotFoundError):
            names = sorted(path for path in self._folder.iterdir() if path.suffix in _ENDS.values())
            return [Waiting(path, path.suffix == _ENDS[True]) for path in names[:limit]]
        return []
