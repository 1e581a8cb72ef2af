"""What users say of mail by moving it: into Junk it is spam, out of Junk, unless into Trash, it is wanted.

A user can say so of a bounded number of messages a day: the filter is everybody's.
"""

from collections.abc import Sequence

from gateway.core.ports import Counters
from gateway.mailbox.store import MessageStore
from gateway.mailbox.values import Box
from gateway.spam.lesson_spool import LessonSpool

JUNK, TRASH = "\\Junk", "\\Trash"
MAX_A_DAY = 200
DAY_S = 86400.0


class JunkLessons:
    """spool None: nothing is learnt from users."""

    def __init__(self, store: MessageStore, counters: Counters, spool: LessonSpool | None) -> None:
        self._store = store
        self._counters = counters
        self._spool = spool

    def copied(self, account: str, box: Box, target: str, uids: Sequence[int]) -> int:
        """Of messages that lie in the target under these UIDs now: how many will be learnt. Blocks."""
        if self._spool is None or not uids:
            return 0
        found = self._store.box(account, target)
        if found is None or (box.special == JUNK) == (found.special == JUNK) or found.special == TRASH:
            return 0
        count = 0
        for path in self._store.files(account, found, uids[:MAX_A_DAY]):
            if self._counters.hit(f"lessons:{account}", DAY_S) > MAX_A_DAY:
                break
            count += self._spool.put(path, is_spam=found.special == JUNK)
        return count
