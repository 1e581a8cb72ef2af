"""Fixtures of the checks' tests."""

from collections.abc import Iterator

import pytest

from gateway.demo.nameserver import NameServer
from tests.support.fakes import FakeClock


@pytest.fixture(scope="session")
def running_server() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


@pytest.fixture
def server(running_server: NameServer) -> NameServer:
    running_server.clear()
    return running_server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
