"""A user's mail as a Maildir++ that Dovecot takes over with its UIDs: `dovecot-uidlist` and `dovecot-keywords` beside
the files, and `subscriptions`. Nothing of the store's own changes.
"""

import os
import secrets
import shutil
from pathlib import Path

from gateway.core.errors import StoreError
from gateway.core.foldernames import INBOX, folder_name
from gateway.core.mailflags import letters_of
from gateway.mailbox import boxes, maildir
from gateway.mailbox.index import Index
from gateway.mailbox.values import Box

MAX_LETTERS = 26  # keywords that a file name can tell; the others are left out


def export(index: Index, root: Path, target: Path) -> int:
    """root: the user's Maildir; target: a folder that is made. How many messages. Raises StoreError, OSError."""
    if target.exists():
        raise StoreError(f"{target} is there already")
    count = 0
    for box in boxes.all_boxes(index):
        folder = target / folder_name(box.name)
        for part in ("tmp", "new", "cur"):
            (folder / part).mkdir(parents=True, mode=0o700)
        if box.name != INBOX:
            (folder / "maildirfolder").touch()
        count += _export_box(index, box, root / folder_name(box.name), folder)
    names = sorted(boxes.subscriptions(index) - {INBOX})
    lines = ["V\t2", "", *("\t".join(level.replace(".", "%2E") for level in name.split("/")) for name in names)]
    (target / "subscriptions").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return count


def _export_box(index: Index, box: Box, source: Path, folder: Path) -> int:
    words = index.keywords(box.id)
    letters = {bit: chr(ord("a") + number) for number, bit in enumerate(sorted(words)[:MAX_LETTERS])}
    lines = [f"3 V{box.uidvalidity} N{box.uidnext} G{secrets.token_hex(16)}"]
    for message in index.messages(box.id):
        path = maildir.find(source, message.file)
        if path is None:
            continue
        base = message.file.partition(":")[0]
        told = "".join(letter for bit, letter in letters.items() if message.flags >> bit & 1)
        copy = folder / "cur" / f"{base}:2,{letters_of(message.flags)}{told}"
        shutil.copyfile(path, copy)
        os.utime(copy, (message.internal_date, message.internal_date))
        lines.append(f"{message.uid} :{base}")
    (folder / "dovecot-uidlist").write_text("\n".join(lines) + "\n", encoding="utf-8")
    told_words = [f"{ord(letter) - ord('a')} {words[bit]}\n" for bit, letter in letters.items()]
    (folder / "dovecot-keywords").write_text("".join(told_words), encoding="utf-8")
    return len(lines) - 1
