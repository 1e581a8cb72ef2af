"""`smarthost policy import-postfix` on ten main.cf files: real Postfix and the imported policy answer alike.

Each file is asked two hundred envelopes at both servers, in one network namespace with one name server. What differs
must be explained here, and may never be about relaying or about recipients that do not exist.
"""

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.postfix_import.harness import (
    ENVELOPES,
    NAMES,
    Answers,
    check_policy,
    compare,
    envelopes,
    harness_missing,
    import_policy,
    prepare,
)

ALLOWED = 10  # of the two hundred
MISSING = harness_missing()
NO_DOMAIN = "an address without a domain is refused by the grammar of MAIL; Postfix adds its own domain"
POSTMASTER = "a local postmaster or abuse address is reached past refusals of connect, helo and sender (RFC 5321 4.5.1)"
OWN_NAME = "nobody outside greets with our own name; the table's pattern has /i, which in Postfix makes case matter"
ABOUT_RELAYING = re.compile(r"\brelay", re.IGNORECASE)
ABOUT_RECIPIENTS = re.compile(r"5\.1\.1|4\.1\.1|user unknown|no such mailbox|no postmaster", re.IGNORECASE)

# Configuration: pattern of envelopes as they are shown -> why the answers differ.
EXPLAINED: dict[str, dict[str, str]] = {
    "03-provider": {"* <postmaster@*": POSTMASTER, "* <abuse@netz.test>": POSTMASTER},
    "05-blocklists": {
        "* <postmaster@*": POSTMASTER,
        "* <abuse@*": POSTMASTER,
    },
    "07-backup-mx": {"* <nodomain> *": NO_DOMAIN},
    "08-satellite": {"10.1.2.3 * <nodomain> *": NO_DOMAIN},
    "09-office": {
        "* <postmaster@*": POSTMASTER,
        "* <abuse@*": POSTMASTER,
    },
    "10-old-style": {
        "* URANUS.institut.test *": OWN_NAME,
        "* uranus.institut.test *": OWN_NAME,
        "* <x@remote.test> <prof@institut.test>": "check_sender_mx_access: no fact knows the addresses of MX hosts",
    },
}

AskedAll = Callable[[str], tuple[Path, list[Answers]]]


@pytest.mark.parametrize("name", NAMES)
def test_envelopes_are_the_same_each_time(name: str) -> None:
    asked = envelopes(name)
    assert len(set(asked)) == ENVELOPES
    assert asked == envelopes(name)


@pytest.mark.parametrize("name", NAMES)
def test_imported_policy_is_accepted(name: str, tmp_path: Path) -> None:
    import_policy(prepare(name, tmp_path), tmp_path / "imported").expect()
    check_policy(tmp_path / "imported").expect()


@pytest.fixture(scope="module")
def asked_all(request: pytest.FixtureRequest) -> Iterator[AskedAll]:
    """Answers by configuration; those of the tests to come are fetched meanwhile, two at a time."""
    root = Path(tempfile.mkdtemp(prefix="smarthost-test-", dir="/tmp"))
    root.chmod(0o755)
    chosen = [item.name for item in request.session.items if item.path == request.path]
    with ThreadPoolExecutor(2) as pool:
        running: dict[str, Future[list[Answers]]] = {}
        for name in (match[1] for match in map(re.compile(r"test_answers_alike\[(.*)\]").fullmatch, chosen) if match):
            (root / name).mkdir(mode=0o755)
            running[name] = pool.submit(compare, name, root / name)
        yield lambda name: (root / name, running[name].result())
        for future in running.values():
            future.cancel()
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.peers
@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
@pytest.mark.parametrize("name", NAMES)
def test_answers_alike(name: str, asked_all: AskedAll) -> None:
    folder, answers = asked_all(name)
    check_policy(folder / "imported").expect()
    assert len(answers) == ENVELOPES
    odd = [each for each in answers if not re.match(r"[245]\d\d ", each.postfix) or "4.3" in each.postfix[:8]]
    assert not odd, "Postfix is not well:\n" + _shown(odd)
    explained = EXPLAINED.get(name, {})
    differing = [each for each in answers if each.differ]
    forbidden = [each for each in differing if _is_about_delivery(each)]
    assert not forbidden, "about relaying or unknown recipients:\n" + _shown(forbidden)
    used: Counter[str] = Counter()
    unexplained = []
    for each in differing:
        reasons = [pattern for pattern in explained if fnmatchcase(str(each.envelope), _literal(pattern))]
        used.update(reasons)
        if not reasons:
            unexplained.append(each)
    assert not unexplained, f"{len(unexplained)} unexplained:\n" + _shown(unexplained)
    assert len(differing) <= ALLOWED, _shown(differing)
    assert used.keys() == explained.keys(), "explanations that explain nothing any more"


def _is_about_delivery(answers: Answers) -> bool:
    """Does either refusal speak of relaying, or of a recipient that is not there?"""
    texts = (answers.postfix, answers.smarthost)
    return any(ABOUT_RELAYING.search(text) or ABOUT_RECIPIENTS.search(text) for text in texts)


def _literal(pattern: str) -> str:
    """Only the star has a meaning in a pattern; address literals have square brackets."""
    return pattern.replace("[", "[[]")


def _shown(answers: list[Answers]) -> str:
    return "\n".join(map(str, answers))
