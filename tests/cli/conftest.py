"""A folder that `smarthost init` has filled, and the command line in it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cli import Cli


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="smarthost-cli-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Cli]:
    with Cli(root) as cli:
        yield cli


@pytest.fixture
def bare(server: Cli, root: Path) -> Cli:
    """An empty folder."""
    server.folder = Path(tempfile.mkdtemp(prefix="case-", dir=root))
    return server


@pytest.fixture
def cli(bare: Cli) -> Cli:
    """A folder after `init --domain example.org`."""
    bare("init", "--domain", "example.org", "--non-interactive").expect(0)
    return bare
