"""Fixtures for all tests."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.gateway import Gateway
from tests.support.process import temporary_folder

# The same inputs at each run; `pytest --hypothesis-profile=default` draws new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def module_folder() -> Iterator[Path]:
    """One for all tests of a module."""
    with temporary_folder() as folder:
        yield folder


@pytest.fixture
def make_gateway(open_folder: Path) -> Iterator[Callable[..., Gateway]]:
    """`make_gateway(settings=…)` gives a Gateway that is not started; all are stopped at the end."""
    made: list[Gateway] = []

    def make(**options: object) -> Gateway:
        gateway = Gateway(open_folder / f"gateway{len(made)}", **options)  # type: ignore[arg-type]
        made.append(gateway)
        return gateway

    yield make
    for gateway in made:
        gateway.stop()


@pytest.fixture(scope="module")
def shared_gateway(module_folder: Path) -> Iterator[Gateway]:
    """One running gateway for the tests of a module that only look at replies."""
    with Gateway(module_folder / "gateway") as gateway:
        yield gateway


@pytest.fixture
def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
