"""What shows from outside that a mailbox has changed, whichever program changed it: times of files, of which none is
opened.

The write-ahead log's tells of all that goes through the index, those of `new` and `cur` of what strangers do.
"""

import os
import time
from pathlib import Path

SETTLED_NS = 20_000_000  # a time that is younger may stand still while there are more changes

Stamp = tuple[int, ...]


class Traces:
    """account: the folder with the index; box: that of the mailbox."""

    def __init__(self, account: Path, box: Path) -> None:
        self._log, self._index = f"{account}/index.db-wal", f"{account}/index.db"
        self._folders = f"{box}/new", f"{box}/cur"

    def look(self) -> Stamp:
        """Another one whenever something may have changed since the last."""
        logged, size = _written(self._log)
        # A log that is empty or gone is all in the index: that a process opens or closes one is no news.
        times = (logged if size else 0, _written(self._index)[0], *(_written(folder)[0] for folder in self._folders))
        now = time.time_ns()
        is_settled = all(abs(now - each) > SETTLED_NS for each in times)
        return (*times, size, 0 if is_settled else now)


def _written(path: str) -> tuple[int, int]:
    """When, in ns, and the size in octets; (-1, 0): there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return -1, 0
    return found.st_mtime_ns, found.st_size
