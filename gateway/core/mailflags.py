"""Flags as numbers: system flags, which all mailboxes share, and keywords, by the words of one mailbox.

In file names flags are letters, as Maildir readers know them; keywords are in the index alone.
"""

from collections.abc import Iterable, Mapping

ANSWERED, FLAGGED, DELETED, SEEN, DRAFT = 1, 2, 4, 8, 16
SYSTEM = {"\\Answered": ANSWERED, "\\Flagged": FLAGGED, "\\Deleted": DELETED, "\\Seen": SEEN, "\\Draft": DRAFT}
FIRST_KEYWORD = 5  # the first bit
MAX_KEYWORDS = 58  # of one mailbox: a flag number stays a signed 64-bit one
_LETTERS = {"D": DRAFT, "F": FLAGGED, "R": ANSWERED, "S": SEEN, "T": DELETED}


def bits_of(names: Iterable[str]) -> tuple[int, list[str]]:
    """Of the system flags among them, and the keywords."""
    bits, keywords = 0, []
    for name in names:
        if name in SYSTEM:
            bits |= SYSTEM[name]
        else:
            keywords.append(name)
    return bits, keywords


def names_of(flags: int, keywords: Mapping[int, str]) -> list[str]:
    """keywords: by bit."""
    found = [name for name, bit in SYSTEM.items() if flags & bit]
    rest = flags >> FIRST_KEYWORD
    bit = FIRST_KEYWORD
    while rest:
        if rest & 1 and bit in keywords:
            found.append(keywords[bit])
        rest >>= 1
        bit += 1
    return found


def letters_of(flags: int) -> str:
    """In the order that Maildir wants."""
    return "".join(letter for letter, bit in _LETTERS.items() if flags & bit)


def bits_of_letters(letters: str) -> int:
    """Letters that are no system flag's say nothing."""
    return sum(_LETTERS[letter] for letter in {*letters} if letter in _LETTERS)
