"""Fixtures of the live tests: servers that are stopped again, and what a failed test left swept up."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from support.demo import Demo
from support.hub import HubSession
from support.servers import Server, ServerOf


@pytest.fixture
def server_of(demo: Demo, hub_login: Callable[[str], HubSession]) -> Iterator[ServerOf]:
    """A function from a user's name (and a server's) to a server; all are stopped afterwards."""
    made: list[Server] = []
    sessions: dict[str, HubSession] = {}

    def server(user: str, name: str = "") -> Server:
        if user not in sessions:
            sessions[user] = hub_login(user)
        made.append(Server(demo, sessions[user], user, name))
        return made[-1]

    yield server
    for one in made:
        if one.model():
            one.stop()
