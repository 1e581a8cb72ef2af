"""`import maildir|mbox`: mail that another program has kept, into a user's mailboxes."""

import os
import pickle
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import click

from gateway.cli.context import config_option, fail, guarded, open_config
from gateway.config import load_config
from gateway.core.errors import StoreError
from gateway.core.foldernames import normal_name
from gateway.mailbox.maildir import with_crlf
from gateway.mailbox.sources import Source, messages_of_maildir, messages_of_mbox
from gateway.mailbox.store import MessageStore
from gateway.process import quotas_of
from gateway.servers.summarised import open_store
from gateway.storage.sqlite_accounts import SqliteAccounts

STEP = 1000  # messages between lines of progress


@click.group("import")
def import_() -> None:
    """Take over mail: import maildir, import mbox."""


@import_.command("maildir")
@click.argument("address")
@click.argument("path", type=click.Path(path_type=Path, exists=True, file_okay=False))
@config_option
def import_maildir(address: str, path: Path, config_path: Path) -> None:
    """Take a Maildir or Maildir++ (Dovecot, Courier, Postfix) at PATH into ADDRESS's mailboxes of the same names.

    Flags, Dovecot's keywords and dates come along. PATH is not changed. What is there already is left out, so the
    command can be given again.
    """
    guarded(lambda: _import(config_path, address.lower(), lambda: messages_of_maildir(path)))


@import_.command("mbox")
@click.argument("address")
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--mailbox", default="INBOX", show_default=True, help="Where it goes; made if need be.")
@config_option
def import_mbox(address: str, path: Path, mailbox: str, config_path: Path) -> None:
    """Take an mbox file at PATH into one of ADDRESS's mailboxes."""
    try:
        name = normal_name(mailbox)
    except ValueError as error:
        fail(f"--mailbox: {error}", 2)
    guarded(lambda: _import(config_path, address.lower(), lambda: messages_of_mbox(path, name)))


def _import(config_path: Path, account: str, read: Callable[[], Iterator[Source]]) -> int:
    """Root reads, since the mail may be somebody's own; the service's user writes."""
    load_config(config_path)
    if os.geteuid() != 0:
        return _take(config_path, account, read())
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(sending)
        with os.fdopen(receiving, "rb") as pipe:
            guarded(lambda: _take(config_path, account, _received(pipe)))
    os.close(receiving)
    with os.fdopen(sending, "wb") as pipe:
        try:
            for source in read():
                pickle.dump(source, pipe)
            pickle.dump(None, pipe)
        except StoreError as error:
            pickle.dump(str(error), pipe)
        except BrokenPipeError:
            pass  # the writer has said why
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _received(pipe: BinaryIO) -> Iterator[Source]:
    """From the same program: nothing of a stranger's is unpickled."""
    while True:
        try:
            source = pickle.load(pipe)  # noqa: S301
        except EOFError:
            fail("the mail could not be read to its end; what was imported stays")
        if isinstance(source, str):
            fail(source)
        if source is None:
            return
        yield source


def _take(config_path: Path, account: str, sources: Iterable[Source]) -> int:
    config = open_config(config_path)
    with closing(SqliteAccounts(config.data / "accounts.db")) as accounts:
        if accounts.account(account) is None:
            fail(f"no account {account}")
        (config.data / "mail").mkdir(mode=0o700, exist_ok=True)
        with closing(open_store(config.data / "mail", quotas_of(config, accounts))) as store:
            counts = _store_all(store, account, sources)
    click.echo(f"imported {counts['new']} messages" + (f", {counts['known']} were there" if counts["known"] else ""))
    return 0


def _store_all(store: MessageStore, account: str, sources: Iterable[Source]) -> Counter[str]:
    counts: Counter[str] = Counter()
    known: dict[str, set[str]] = {}
    for source in sources:
        if source.mailbox not in known:
            if store.box(account, source.mailbox) is None:
                store.create(account, source.mailbox)
            known[source.mailbox] = store.email_ids(account, source.mailbox)
        octets = b"".join(with_crlf(BytesIO(source.octets)))
        email_id = sha256(octets).hexdigest()[:32]
        if email_id in known[source.mailbox]:
            counts["known"] += 1
            continue
        store.append(account, source.mailbox, [octets], source.flags, source.keywords, source.date, email_id)
        known[source.mailbox].add(email_id)
        counts["new"] += 1
        if counts["new"] % STEP == 0:
            print(f"{counts['new']} messages, now {source.mailbox}", file=sys.stderr)
    return counts
