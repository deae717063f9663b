"""Each login of a provider counts once, whoever else asks at the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hpchub.signer.state import State
from hpchub.signer.used_logins import UsedLogins


def test_many_at_once(tmp_path: Path) -> None:
    """Two processes' worth of threads, one nonce: one of them wins."""
    tmp_path.chmod(0o700)
    states = [State(tmp_path), State(tmp_path)]
    used = [UsedLogins(state) for state in states]
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda number: used[number % 2].use("nonce"), range(16)))
    for state in states:
        state.close()
    assert won.count(True) == 1


def test_forgotten_after_an_hour(tmp_path: Path) -> None:
    """What no token can be valid for any more is not kept, and until then it is."""
    tmp_path.chmod(0o700)
    state, now = State(tmp_path), [1000.0]
    used = UsedLogins(state, lambda: now[0])
    assert used.use("a")
    now[0] += 3599
    assert not used.use("a")
    now[0] += 2
    assert used.use("a")
    state.close()
