"""Fixtures of whole gateways among others."""

from collections.abc import Iterator

import pytest

from tests.support.remote import Remote, remote_world


@pytest.fixture(scope="module")
def remote() -> Iterator[Remote]:
    """The world outside."""
    with remote_world() as world:
        yield world
