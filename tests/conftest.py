"""Fixtures for every test. What they are made of is in tests/support/."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support import require
from support.demo import Demo, private_demo
from support.hub import HubSession

pytest_plugins = ["support.ci"]

# How long an example takes says more about what else the machine does than about the code.
settings.register_profile("hpchub", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hpchub")
# `make test-fast` asks for this one; `make test` tries the usual hundred examples.
settings.register_profile("quick", settings.get_profile("hpchub"), max_examples=20)

# What a shell without job control runs in the background ignores the first two, what nohup runs the last, and
# so would all it starts.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# JupyterHub's jsonschema builds a grammar at import, to check a format, `iri`, that nothing here has: over a
# second for each process.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

_DEMO_DIR = "HPCHUB_DEMO_DIR"

# JupyterHub, an OpenID provider, slapd, a KDC, PostgreSQL, sshd: they take seconds, to start or to be asked.
_SERVERS = {
    *("running_hub", "portal_and_hub", "oidc_hub", "oauth_hub", "kerberos_hub"),
    *("directory", "by_search", "by_dn", "either", "kdc", "postgresql"),
    *("sshd", "bash_node", "noisy_node", "laptop"),
}
_demo_key = pytest.StashKey[Demo]()


@pytest.fixture(scope="session")
def demo(request: pytest.FixtureRequest) -> Iterator[Demo]:
    """A running demo: booted for this session, or the one that HPCHUB_DEMO_DIR names."""
    with ExitStack() as stack:
        if running := os.environ.get(_DEMO_DIR):
            found = Demo.load(Path(running).resolve())
        else:
            require.cluster()
            found = stack.enter_context(private_demo())
        request.config.stash[_demo_key] = found
        yield found


@pytest.fixture
def hub_login(demo: Demo) -> Iterator[Callable[[str], HubSession]]:
    """A function that logs a user of the demo in and returns the session."""
    with ExitStack() as stack:

        def login(user: str) -> HubSession:
            session = stack.enter_context(HubSession(demo.url))
            return session.login(user, demo.users[user])

        yield login


@pytest.fixture(autouse=True)
def _requirements(request: pytest.FixtureRequest) -> None:
    """Skip, visibly, what this machine cannot run."""
    if request.node.get_closest_marker("browser"):
        require.browser()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Next to nothing of what is imported now is ever garbage, so it is not looked through, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what uses one of the servers, before marks choose among the tests."""
    for item in items:
        if not _SERVERS.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the demo's logs under a test that failed on it."""
    report = yield
    running = item.config.stash.get(_demo_key, None)
    if report.failed and running and "demo" in getattr(item, "fixturenames", ()):
        report.sections.append(("the demo's logs", running.log_tails()))
    return report
