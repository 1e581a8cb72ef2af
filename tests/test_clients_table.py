"""docs/clients.md claims what the tests show, no more and no less."""

import os
import re
import sys
from pathlib import Path

from tests.support.clients import CLIENTS, OPERATIONS, cells, declared, heading, main, note, noted, rows, with_table
from tests.support.process import run

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENT = REPOSITORY / "docs" / "clients.md"
TEXT = "A table:\n\n| a |\n|---|\n| b |\n\nAn end.\n"
MARKS = """
import pytest

@pytest.mark.shows("mutt", "read", "flag")
def test_all(shows):
    shows("flag")
    shows("read")

@pytest.mark.shows("mutt", "move", "delete")
def test_less(shows):
    shows("move")

@pytest.mark.shows("mutt", "search")
def test_more(shows):
    shows("search")
    shows("append")

@pytest.mark.shows("mutt", "new mail")
def test_failed(shows):
    shows("new mail")
    assert False
"""


def test_the_table_is_what_the_tests_claim() -> None:
    """`make clients` writes it. Versions are those of the run that wrote it."""
    first, *lines = rows(DOCUMENT.read_text(encoding="utf-8"))
    claims = declared()
    assert first == heading()
    assert {line[0]: line[2:] for line in lines} == {client: cells(claims, client) for client in CLIENTS}
    assert len(lines) == len(CLIENTS)
    assert all(line[1] for line in lines)


def test_claims_are_of_known_clients_and_operations_that_these_have() -> None:
    for client, operation in declared():
        assert operation in OPERATIONS
        assert operation not in CLIENTS[client].lacks


def test_a_client_whose_tests_are_here_shows_all_that_it_has() -> None:
    claims = declared()
    for client in {client for client, _ in claims}:
        assert "not shown" not in cells(claims, client), client


def test_nothing_is_written_when_a_claim_was_not_shown(tmp_path: Path) -> None:
    path, document = tmp_path / "noted", tmp_path / "clients.md"
    document.write_text(TEXT, encoding="utf-8")
    assert "mutt: read" in main(str(path), str(document))
    note(path, "mutt", ["read", "new mail"])
    note(path, "alpine", ["read"])
    assert noted(path) == {("mutt", "read"), ("mutt", "new mail"), ("alpine", "read")}
    assert "mutt: move" in main(str(path), str(document))
    assert document.read_text(encoding="utf-8") == TEXT


def test_the_table_takes_the_place_of_the_one_before() -> None:
    text = with_table(TEXT, {("mutt", "read")}, lambda _: "1.2")
    assert text.startswith("A table:\n\n| Client | Version | read |")
    assert text.endswith("|\n\nAn end.\n")
    assert rows(text)[1][:4] == ["mutt", "1.2", "yes", "not shown"]
    assert with_table(text, {("mutt", "read")}, lambda _: "1.2") == text


def test_a_mark_counts_only_when_the_test_passed_and_showed_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "from tests.e2e.conftest import pytest_pyfunc_call, shows\n", encoding="utf-8"
    )
    (tmp_path / "test_marks.py").write_text(MARKS, encoding="utf-8")
    finished = run(
        [sys.executable, "-m", "pytest", "-c", str(REPOSITORY / "pyproject.toml"), "--rootdir", str(tmp_path),
         "-p", "no:cacheprovider", "-p", "no:randomly", "-rA", str(tmp_path / "test_marks.py")],
        cwd=REPOSITORY, timeout=60, env={**os.environ, "SMARTHOST_CLAIMS": str(tmp_path / "noted")},
    )  # fmt: skip
    assert set(re.findall(r"PASSED .*::(\w+)", finished.stdout)) == {"test_all"}, finished.stdout
    assert len(re.findall(r"FAILED .*::(\w+)", finished.stdout)) == 3
    assert noted(tmp_path / "noted") == {("mutt", "read"), ("mutt", "flag")}
