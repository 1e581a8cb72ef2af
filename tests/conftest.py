"""Fixtures for all tests."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.gateway import Gateway

# The same inputs at each run; `pytest --hypothesis-profile=default` draws new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that an unprivileged process can reach (pytest's own is closed to others)."""
    folder = Path(tempfile.mkdtemp(prefix="smarthost-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


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
def shared_gateway() -> Iterator[Gateway]:
    """One running gateway for the tests of a module that only look at replies."""
    folder = Path(tempfile.mkdtemp(prefix="smarthost-test-", dir="/tmp"))
    folder.chmod(0o755)
    with Gateway(folder / "gateway") as gateway:
        yield gateway
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
