"""Fixtures of whole gateways among others, and how tests of mail clients say what they have shown."""

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.support.clients import note
from tests.support.remote import Remote, remote_world

SHOWN = pytest.StashKey[set[str]]()


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    """The world outside."""
    with remote_world() as world:
        yield world


@pytest.fixture
def shows(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """`shows("move")` stands right after the assertion that proves it."""
    shown: set[str] = set()
    request.node.stash[SHOWN] = shown
    return shown.add


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A test marked `shows` has to have shown what its mark says, no less and no more; that is noted when it passed."""
    result = yield
    for mark in pyfuncitem.iter_markers("shows"):
        client, *operations = mark.args
        assert pyfuncitem.stash[SHOWN] == set(operations), f"{client} was said to show {operations}"
        if path := os.environ.get("SMARTHOST_CLAIMS"):
            note(Path(path), client, operations)
    return result
