"""The fuzz targets' seeds, and each case that was found or feared, played once without a fuzzer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.fuzz.imap_targets  # noqa: F401  # its targets join the others
from tests.fuzz.targets import TARGETS

HERE = Path(__file__).parent


def cases() -> Iterator[object]:
    for path in sorted((*HERE.glob("seeds/*/*"), *HERE.glob("found/*/*"))):
        yield pytest.param(path, id=f"{path.parent.name}/{path.name}")


@pytest.mark.parametrize("path", list(cases()))
def test_case(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_each_target_has_seeds_and_each_case_a_target() -> None:
    assert {path.name for path in HERE.glob("seeds/*")} == set(TARGETS)
    assert {path.name for path in HERE.glob("found/*")} <= set(TARGETS)
