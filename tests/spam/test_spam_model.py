"""The filter's model: what it learns, that its file holds it, what the shipped one says, and what people teach it."""

import math
import random
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ConfigError
from gateway.message.mime import walk
from gateway.spam.corpus import messages_in, sources_in, thread_of, tokens_of
from gateway.spam.filter import BASE_MODEL, SpamFilter
from gateway.spam.lessons import Lesson, Lessons, Outcome, digest_of
from gateway.spam.model import STRONGEST, Model, _log_tail, open_model, read_model, write_model
from gateway.spam.tokens import Tokens
from gateway.spam.training import Example, fit_stack, fold_of, teach, train, unseen_scores

WANTED = Path(__file__).parent / "wanted"
HAM = ["meeting", "agenda", "minutes", "patch", "review", "branch", "lunch", "report", "draft", "release"]
SPAM = ["winner", "prize", "claim", "viagra", "lottery", "urgent", "transfer", "million", "casino", "pills"]


def message(words: list[str], seed: int) -> bytes:
    chosen = random.Random(seed).choices(words, k=12)
    return f"From: a{seed}@x{seed}.example\r\nSubject: {chosen[0]}\r\n\r\n{' '.join(chosen)}\r\n".encode()


def examples(count: int = 60) -> list[Example]:
    found = [Example(tokens_of(message(HAM, seed)), False, f"h{seed}") for seed in range(count)]
    return found + [Example(tokens_of(message(SPAM, seed)), True, f"s{seed}") for seed in range(count, 2 * count)]


@pytest.fixture(scope="module")
def model() -> Model:
    found = train(examples())
    scores = unseen_scores(examples())
    found.stack = fit_stack(scores, [example.is_spam for example in examples()])
    return found


def test_it_tells_what_it_has_learnt_apart(model: Model) -> None:
    for seed in range(500, 520):
        assert model.probability(tokens_of(message(HAM, seed))) < 0.05
        assert model.probability(tokens_of(message(SPAM, seed))) > 0.95


def test_the_same_corpus_makes_the_same_model(model: Model) -> None:
    again = train(examples())
    assert array("f", again.weights) == array("f", model.weights)


def test_what_nobody_has_seen_is_near_even(model: Model) -> None:
    found = model.probability(Tokens((1, 2, 3), (), ()))
    assert 0.05 < found < 0.95
    assert 0.0 <= model.probability(Tokens((), (), ())) <= 1.0


@given(st.lists(st.integers(0, 2**18 - 1), max_size=400), st.lists(st.integers(0, 2**18 - 1), max_size=50))
def test_any_tokens_have_a_probability(words: list[int], structure: list[int]) -> None:
    found = open_model(BASE_MODEL)
    assert 0.0 <= found.probability(Tokens(tuple(words), (), tuple(structure))) <= 1.0


def test_a_file_holds_a_model(model: Model, tmp_path: Path) -> None:
    model.told = {"made": "here"}
    write_model(model, tmp_path / "m")
    for found in (open_model(tmp_path / "m"), read_model(tmp_path / "m")):
        assert (found.spam, found.ham, found.stack, found.told) == (60, 60, model.stack, {"made": "here"})
        tokens = tokens_of(message(SPAM, 7))
        assert found.logit(tokens) == pytest.approx(model.logit(tokens), abs=1e-5)


@pytest.mark.parametrize("damage", [b"", b"x", b"SHSPAM2\n" + b"\0" * 5000])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "m").write_bytes(damage)
    with pytest.raises(ConfigError):
        open_model(tmp_path / "m")
    whole = bytearray(BASE_MODEL.read_bytes())
    whole[:8] = b"SHSPAM9\n"
    (tmp_path / "m").write_bytes(whole)
    with pytest.raises(ConfigError, match="another version"):
        open_model(tmp_path / "m")


def test_the_tail_of_chi_square_is_right() -> None:
    """Against the closed form for two degrees of freedom, and a table for twenty."""
    for half in (0.1, 1.0, 5.0, 40.0):
        assert _log_tail(half, 1) == pytest.approx(-half)
    assert math.exp(_log_tail(31.410 / 2, 10)) == pytest.approx(0.05, abs=1e-4)
    assert _log_tail(2000.0, STRONGEST) < _log_tail(200.0, STRONGEST) <= 0


# --- what ships ---------------------------------------------------------------------------------------------------


def test_the_shipped_model_says_how_it_was_made_and_has_no_source_that_forbids_it() -> None:
    found = open_model(BASE_MODEL)
    assert "pot-spam" not in found.told["sources"]
    assert found.told["made"]
    assert BASE_MODEL.stat().st_size < 4 * 1024 * 1024


def test_wanted_mail_of_first_contacts_is_not_called_spam() -> None:
    """Orders, invoices, newsletters, notices in nine languages, made for this test: none was learnt."""
    judge = SpamFilter(Path("/nonexistent"))
    found = {name: judge.judge(octets, walk(octets).parts).probability for name, octets in _crlf(WANTED)}
    assert len(found) == 50
    over = sorted(name for name, probability in found.items() if probability >= 0.99)
    assert len(over) <= 1, over
    assert sum(probability >= 0.9 for probability in found.values()) <= 6


def _crlf(folder: Path) -> list[tuple[str, bytes]]:
    return [(name, octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")) for name, octets in messages_in(folder)]


def test_short_and_empty_messages_are_not_called_spam() -> None:
    judge = SpamFilter(Path("/nonexistent"))
    for octets in (b"", b"\r\n", b"From: a@b.example\r\n\r\nok\r\n", b"From: a@b.example\r\nSubject: hi\r\n\r\n"):
        assert judge.judge(octets, walk(octets).parts).probability < 0.99


# --- serving ------------------------------------------------------------------------------------------------------


def test_a_site_s_model_is_taken_when_it_comes_and_left_when_it_goes(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.spam.filter.LOOK_EVERY_S", 0.0)
    site = tmp_path / "spam.model"
    judge = SpamFilter(site)
    octets = message(SPAM, 900)
    parts = walk(octets).parts
    before = judge.judge(octets, parts).probability
    write_model(model, site)
    assert judge.judge(octets, parts).probability > 0.95
    site.write_bytes(b"broken")
    assert judge.judge(octets, parts).probability > 0.95  # what was there serves on
    site.unlink()
    assert judge.judge(octets, parts).probability == before


# --- lessons ------------------------------------------------------------------------------------------------------


class Kept:
    """A `LessonStore` in memory."""

    def __init__(self) -> None:
        self.lessons: dict[bytes, Lesson] = {}

    def find(self, digest: bytes) -> bool | None:
        return self.lessons[digest].is_spam if digest in self.lessons else None

    def put(self, lesson: Lesson) -> None:
        self.lessons.pop(lesson.digest, None)
        self.lessons[lesson.digest] = lesson

    def remove(self, digest: bytes) -> bool:
        return self.lessons.pop(digest, None) is not None

    def remove_before(self, at: float) -> int:
        old = [digest for digest, lesson in self.lessons.items() if lesson.at < at]
        return sum(self.remove(digest) for digest in old)

    def all(self):  # type: ignore[no-untyped-def]
        return iter(list(self.lessons.values()))


def test_what_is_taught_is_known_and_can_be_taken_back(tmp_path: Path) -> None:
    site, store = tmp_path / "site.model", Kept()
    lessons = Lessons(store, site)
    octets = [message(["frobnicate", "zorkmid", "plugh", "xyzzy"], seed) for seed in range(10)]
    asked = tokens_of(octets[0])
    before = open_model(BASE_MODEL).logit(asked)

    def learn(is_spam: bool, at: float = 100.0) -> set[Outcome]:
        found = {lessons.learn(digest_of(each), tokens_of(each), is_spam=is_spam, at=at) for each in octets}
        lessons.save()
        return found

    assert learn(True) == {Outcome.LEARNT}
    taught = open_model(site).logit(asked)
    assert taught > before + 1
    assert learn(True) == {Outcome.KNOWN}
    assert open_model(site).logit(asked) == taught
    assert learn(False) == {Outcome.CHANGED}
    assert open_model(site).logit(asked) < before
    assert {lessons.forget(digest_of(each)) for each in octets} == {Outcome.FORGOTTEN}
    assert lessons.forget(digest_of(octets[0])) is Outcome.UNKNOWN
    lessons.save()
    assert open_model(site).logit(asked) == pytest.approx(before, abs=1e-5)
    learn(True, at=50.0)
    assert lessons.expire(60.0) == 10
    lessons.save()
    assert open_model(site).logit(asked) == pytest.approx(before, abs=1e-5)


def test_a_site_s_model_of_another_version_is_made_anew_of_the_lessons(tmp_path: Path) -> None:
    site, store = tmp_path / "site.model", Kept()
    known, new = (tokens_of(message(["frobnicate", "zorkmid", "plugh", "xyzzy"], seed)) for seed in (1, 2))
    store.put(Lesson(b"1", True, 100.0, known))
    whole = BASE_MODEL.read_bytes()
    site.write_bytes(b"SHSPAM1\n" + whole[8:])
    Lessons(store, site).save()
    assert open_model(site).logit(known) > open_model(BASE_MODEL).logit(known) + 1
    site.write_bytes(b"SHSPAM1\n" + whole[8:])
    lessons = Lessons(store, site)
    assert lessons.learn(b"2", new, is_spam=True, at=101.0) is Outcome.LEARNT
    lessons.save()
    alone = read_model(BASE_MODEL)
    teach(alone, new, is_spam=True)
    assert open_model(site).logit(new) > alone.logit(new)  # the older lesson counts too


def test_a_lesson_is_known_by_its_message_however_it_was_delivered() -> None:
    octets = message(HAM, 3)
    delivered = b"Received: by us\r\nX-Spam-Flag: YES\r\n" + octets
    assert digest_of(delivered) == digest_of(octets) == digest_of(octets.replace(b"\r\n", b"\n"))
    assert digest_of(octets) != digest_of(message(HAM, 4))


def test_one_lesson_moves_a_message_to_its_side(tmp_path: Path) -> None:
    found = read_model(BASE_MODEL)
    tokens = tokens_of((WANTED / "bank-en.eml").read_bytes())
    teach(found, tokens, is_spam=True)
    assert found.probability(tokens) > 0.9
    teach(found, tokens, is_spam=False)
    teach(found, tokens, is_spam=False)
    assert found.probability(tokens) < 0.5


# --- corpora ------------------------------------------------------------------------------------------------------


def test_messages_are_found_in_files_folders_mboxes_and_maildirs(tmp_path: Path) -> None:
    one, two = message(HAM, 1), message(SPAM, 2)
    (tmp_path / "a.eml").write_bytes(one)
    box = b"From a@b Wed Nov 25 10:00:00 2026\n" + one.replace(b"\r\n", b"\n") + b"\n"
    (tmp_path / "box").write_bytes(box + b"From c@d Wed Nov 25 10:00:00 2026\n" + two.replace(b"\r\n", b"\n") + b"\n")
    for name in ("cur", "new", "tmp"):
        (tmp_path / "dir" / name).mkdir(parents=True)
    (tmp_path / "dir" / "cur" / "1:2,S").write_bytes(one)
    (tmp_path / "dir" / "new" / "2").write_bytes(two)
    (tmp_path / "dir" / "tmp" / "3").write_bytes(b"half")
    assert [octets for _, octets in messages_in(tmp_path / "a.eml")] == [one]
    assert [digest_of(octets) for _, octets in messages_in(tmp_path / "box")] == [digest_of(one), digest_of(two)]
    assert [octets for _, octets in messages_in(tmp_path / "dir")] == [one, two]


def test_a_sorted_corpus_is_read_by_source(tmp_path: Path) -> None:
    for label, source, octets in (("ham", "lists", message(HAM, 1)), ("spam", "trap", message(SPAM, 2))):
        (tmp_path / label / source).mkdir(parents=True)
        (tmp_path / label / source / "1.eml").write_bytes(octets)
    assert [(source, each.is_spam) for source, each in sources_in(tmp_path)] == [("lists", False), ("trap", True)]
    assert [source for source, _ in sources_in(tmp_path, frozenset({"trap"}))] == ["lists"]


def test_messages_of_one_thread_are_in_one_fold() -> None:
    one = b"Subject: Re: [list] Aw: Big news 12\r\n\r\nx"
    assert thread_of(one) == thread_of(b"Subject: big NEWS 34\r\n\r\ny") == "big news"
    assert fold_of("big news") == fold_of("big news")
    assert {fold_of(str(number)) for number in range(100)} == set(range(5))
