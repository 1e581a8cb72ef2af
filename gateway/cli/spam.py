"""`spam train|score|stats|model`: what the embedded filter thinks, and what it is taught."""

import asyncio
import sqlite3
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

import click

from gateway.checks.engines import Engine, EngineError
from gateway.cli.context import NO, USAGE, config_option, fail, guarded, iso, json_option, open_config, show
from gateway.config import load_config
from gateway.core.errors import ConfigError
from gateway.message.mime import walk
from gateway.role_checks import spam_engines
from gateway.spam.corpus import messages_in, sources_in, tokens_of
from gateway.spam.filter import BASE_MODEL, SpamFilter
from gateway.spam.lessons import Lessons, Outcome, digest_of
from gateway.spam.model import open_model, write_model
from gateway.spam.tokens import Tokens
from gateway.spam.training import fit_stack, train, unseen_scores
from gateway.storage.sqlite_spam import Learnt, SqliteLessons, learnt

SPAM_FROM, HAM_BELOW = 0.99, 0.5  # probabilities: the shipped policy keeps back what is called spam here
MAX_REFUSED = 5  # messages after which an engine is left alone
MAX_MESSAGES = 50_000  # of one training
paths = click.Path(path_type=Path, exists=True)


@click.group()
def spam() -> None:
    """The embedded spam filter."""


@spam.command("train")
@click.option("--spam", "spam_paths", type=paths, multiple=True, help="Spam: a message, an mbox, a Maildir, a folder.")
@click.option("--ham", "ham_paths", type=paths, multiple=True, help="Wanted mail, likewise.")
@click.option("--forget", "forget_paths", type=paths, multiple=True, help="Take back what was learnt of these.")
@config_option
def spam_train(
    spam_paths: tuple[Path, ...], ham_paths: tuple[Path, ...], forget_paths: tuple[Path, ...], config_path: Path
) -> None:
    """Teach the filter. The running gateway takes it within seconds; a message is learnt once, however often."""
    if not (spam_paths or ham_paths or forget_paths):
        fail("nothing to learn: give --spam, --ham or --forget", USAGE)

    def body() -> int:
        # Read before root is given away: the folders may be somebody's own.
        engines = spam_engines(load_config(config_path))
        found = [(True, _read(spam_paths)), (False, _read(ham_paths)), (None, _read(forget_paths))]
        config = open_config(config_path)
        counts = dict.fromkeys(Outcome, 0)
        with closing(SqliteLessons(config.data / "spam.db")) as store:
            lessons = Lessons(store, config.data / "spam.model")
            expired = lessons.expire(time.time() - config.checks.spam.keep)
            lessons_to_learn = [(label, *each) for label, messages in found for each in messages]
            with click.progressbar(lessons_to_learn, label="learning") as bar:
                for label, digest, tokens in bar:
                    if label is None:
                        counts[lessons.forget(digest)] += 1
                    else:
                        counts[lessons.learn(digest, tokens, is_spam=label, at=time.time())] += 1
            lessons.save()
        _teach_others(engines, {True: spam_paths, False: ham_paths})
        told = [f"{count} {outcome}" for outcome, count in counts.items() if count]
        click.echo(", ".join(told) + (f"; {expired} expired" if expired else ""))
        return 0 if counts[Outcome.UNKNOWN] == 0 else NO

    guarded(body)


def _teach_others(engines: tuple[Engine, ...], folders: dict[bool, tuple[Path, ...]]) -> None:
    """Those that are set beside the embedded filter; what one of them refuses is told, and costs nothing else."""

    async def teach() -> None:
        for engine in engines:
            refused = 0
            for is_spam, paths_ in folders.items():
                for _, octets in chain.from_iterable(map(messages_in, paths_)):
                    try:
                        await engine.learn(octets, is_spam=is_spam)
                    except EngineError as error:
                        refused += 1
                        if refused == 1:
                            click.echo(f"smarthost: {engine.name}: {error}", err=True)
                        if refused > MAX_REFUSED:
                            break
            await engine.close()

    if engines:
        asyncio.run(teach())


def _read(folders: Iterable[Path]) -> list[tuple[bytes, Tokens]]:
    found: list[tuple[bytes, Tokens]] = []
    messages = chain.from_iterable(messages_in(folder) for folder in folders)
    with click.progressbar(messages, label="reading") as bar:
        for _, octets in bar:
            if len(found) >= MAX_MESSAGES:
                fail(f"more than {MAX_MESSAGES} messages; train with fewer at a time", USAGE)
            found.append((digest_of(octets), tokens_of(octets)))
    return found


@spam.command("score")
@click.argument("files", type=paths, nargs=-1)
@config_option
@json_option
def spam_score(files: tuple[Path, ...], config_path: Path, as_json: bool) -> None:
    """A line `probability verdict path` for each message; without files, the one on standard input.

    The verdict is spam from 0.99 on, where the shipped policy keeps a message back, ham below 0.5, else unsure.
    """

    def body() -> int:
        site = load_config(config_path).data / "spam.model" if config_path.exists() else Path()
        judge = SpamFilter(site)
        for name, octets in _given(files):
            text = octets if b"\r\n" in octets else octets.replace(b"\n", b"\r\n")
            found = judge.judge(text, walk(text).parts)
            verdict = "spam" if found.probability >= SPAM_FROM else "ham" if found.probability < HAM_BELOW else "unsure"
            if as_json:
                row = {"path": name, "probability": found.probability, "verdict": verdict, "symbols": found.symbols}
                show([row], (), as_json=True)
            else:
                click.echo(f"{found.probability:.6f} {verdict:6} {name}")
        return 0

    guarded(body)


def _given(files: tuple[Path, ...]) -> Iterator[tuple[str, bytes]]:
    if not files:
        yield "-", sys.stdin.buffer.read()
    for path in files:
        yield from messages_in(path)


@spam.command("stats")
@config_option
@json_option
def spam_stats(config_path: Path, as_json: bool) -> None:
    """What the filter has learnt: shipped, and here."""

    def body() -> int:
        config = open_config(config_path)
        base = open_model(BASE_MODEL)
        try:
            here = learnt(config.data / "spam.db")
        except sqlite3.Error:
            here = Learnt(0, 0, None)
        row = {
            "shipped_spam": base.spam,
            "shipped_ham": base.ham,
            "learnt_spam": here.spam,
            "learnt_ham": here.ham,
            "oldest": iso(here.oldest) if here.oldest is not None else None,
            "serves": "the site's model" if (config.data / "spam.model").exists() else "the shipped model",
            "made": base.told.get("made", ""),
        }
        show([row], tuple(row), as_json=as_json)
        return 0

    guarded(body)


@spam.command("model")
@click.argument("corpus", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--output", type=click.Path(path_type=Path), default=BASE_MODEL, help="Default: the model that ships.")
@click.option("--without", multiple=True, metavar="SOURCE", help="Sources to leave out.")
@click.option("--made", default="", help="What to say of how it was made.")
def spam_model(corpus: Path, output: Path, without: tuple[str, ...], made: str) -> None:
    """Make a model from a corpus sorted as ham/SOURCE/… and spam/SOURCE/…."""

    def body() -> int:
        try:
            found = list(sources_in(corpus, frozenset(without)))
        except OSError as error:
            raise ConfigError(f"{corpus}: {error}: ham/SOURCE and spam/SOURCE are wanted") from error
        examples = [example for _, example in found]
        click.echo(f"{len(examples)} messages; folds to fit the stack on")
        stack = fit_stack(unseen_scores(examples), [example.is_spam for example in examples])
        model = train(examples, progress=lambda done, all_: click.echo(f"pass {done} of {all_}"))
        model.stack = stack
        sources = sorted({source for source, _ in found})
        model.told = {"made": made, "sources": sources}
        write_model(model, output)
        click.echo(f"{output}: {model.spam} spam, {model.ham} ham from {', '.join(sources)}")
        return 0

    guarded(body)
