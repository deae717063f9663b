"""Fixtures of the browser tests: a person at a fresh browser, whose servers are stopped afterwards."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from browser.person import Person, chromium

from support.demo import Demo
from support.hub import HubSession
from support.servers import Server

PersonOf = Callable[[str], Person]

_SCREENSHOTS = Path(__file__).parents[1] / "screenshots"


@pytest.fixture
def person_of(
    demo: Demo, hub_login: Callable[[str], HubSession], request: pytest.FixtureRequest
) -> Iterator[PersonOf]:
    """A function from a user's name to that person, whose screenshots are kept in a folder of the test's."""
    folder = _SCREENSHOTS / re.sub(r"\W+", "-", request.node.name).strip("-")
    shutil.rmtree(folder, ignore_errors=True)
    users = []

    with ExitStack() as stack:

        def person(user: str) -> Person:
            users.append(user)
            return Person(demo, stack.enter_context(chromium()), user, folder)

        yield person
    for user in users:
        server = Server(demo, hub_login(user), user)
        if server.model():
            server.stop()
        # What a test that failed has submitted would be in the way of others.
        demo.exec("login1", ["scancel", f"--user={user}"], user=user)
