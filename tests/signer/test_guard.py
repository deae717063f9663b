"""The count of failures in the signer's state file: shared, kept, and true when many come at once."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpchub.errors import ConfigError, RemoteError, SiteError
from hpchub.signer.guard import Guard
from hpchub.signer.guessing import GuessLimits
from hpchub.signer.proofs import Accepted, Refused
from hpchub.signer.state import State

from .conftest import Clock

LIMITS = GuessLimits()
HOME, ELSEWHERE = "198.51.100.7", "192.0.2.1"
RIGHT, WRONG = Accepted("alice", "password"), Refused("wrong password")


@pytest.fixture
def guard(state: State, clock: Clock) -> Guard:
    return Guard(state, LIMITS, clock)


def tried(guard: Guard, name: str, source: str, verdict: Accepted | Refused = WRONG) -> str:
    """`in`, or why not."""
    found = guard.attempt(name, source, lambda _: verdict)
    return "in" if isinstance(found, Accepted) else found.reason


def test_the_right_password_waits_too(guard: Guard, clock: Clock) -> None:
    """After five failures even the right one is refused, for ten seconds; then it is let in."""
    assert [tried(guard, "alice", HOME) for _ in range(5)] == ["wrong password"] * 5
    assert tried(guard, "alice", HOME, RIGHT) == "too many failures of this pair; it was right"
    assert tried(guard, "alice", HOME) == "too many failures of this pair; wrong password"
    clock.now += 10
    assert tried(guard, "alice", HOME, RIGHT) == "in"
    assert [tried(guard, "alice", HOME) for _ in range(5)] == ["wrong password"] * 5


def test_what_waits_is_looked_at_all_the_same(guard: Guard) -> None:
    """The proof runs once for each attempt, whether it counts or not: the work tells nothing."""
    looks = 0

    def check(_counts: bool) -> Refused:
        nonlocal looks
        looks += 1
        return WRONG

    for _ in range(12):
        guard.attempt("alice", HOME, check)
    assert looks == 12


def test_an_owner_gets_in_while_a_botnet_guesses(guard: Guard) -> None:
    """Strangers use up the account's allowance for unknown addresses, and nothing else."""
    assert tried(guard, "alice", HOME, RIGHT) == "in"
    said = [tried(guard, "alice", f"10.0.0.{number}") for number in range(40)]
    assert said.count("wrong password") == LIMITS.per_account
    assert set(said[LIMITS.per_account :]) == {"too many failures of this account; wrong password"}
    assert tried(guard, "alice", HOME, RIGHT) == "in"
    assert tried(guard, "alice", "10.0.1.1", RIGHT) == "too many failures of this account; it was right"
    assert tried(guard, "bob", "10.0.1.1", Accepted("bob", "password")) == "in"


def test_success_elsewhere_gives_no_new_guesses(guard: Guard) -> None:
    """An attacker's own account, and the owner's logins, leave the attacker's counts as they are."""
    for number in range(LIMITS.per_address):
        tried(guard, f"user{number}", ELSEWHERE)
        tried(guard, "mallory", ELSEWHERE, Accepted("mallory", "password"))
    assert tried(guard, "victim", ELSEWHERE).startswith("too many failures of this address")
    assert tried(guard, "mallory", ELSEWHERE, Accepted("mallory", "password")) == "in"


def test_unknown_names_are_counted_alike(guard: Guard) -> None:
    """A name that no site has, and one that no account can have, wait like any other."""
    for name in ("nobody.here", "root", "../etc", ""):
        for _ in range(5):
            tried(guard, name, f"10.0.0.{len(name)}", Refused("x"))
        assert tried(guard, name, f"10.0.0.{len(name)}", Refused("x")).startswith("too many failures")


def test_limits_outlive_the_process_and_are_shared(folder: Path, clock: Clock) -> None:
    """Two at once on one file count together; one that is opened later goes on with the count."""
    first, second = State(folder), State(folder)
    for number in range(5):
        tried(Guard((first, second)[number % 2], LIMITS, clock), "alice", HOME)
    first.close()
    assert tried(Guard(second, LIMITS, clock), "alice", HOME, RIGHT).startswith("too many")
    second.close()
    third = State(folder)
    assert tried(Guard(third, LIMITS, clock), "alice", HOME, RIGHT).startswith("too many")
    third.close()


_PROCESS = """
import sys
from pathlib import Path
from hpchub.signer.guard import Guard
from hpchub.signer.guessing import GuessLimits
from hpchub.signer.proofs import Refused
from hpchub.signer.state import State

guard = Guard(State(Path(sys.argv[1])), GuessLimits())
said = [guard.attempt("alice", f"10.{sys.argv[2]}.0.{n}", lambda _: Refused("no")).reason for n in range(20)]
print(said.count("no"))
"""


def test_processes_share_one_allowance(folder: Path) -> None:
    """Two processes that guess at one account at the same time have one allowance between them."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(folder), str(number)], stdout=subprocess.PIPE, text=True
        )
        for number in range(2)
    ]
    assert sum(int(process.communicate(timeout=30)[0]) for process in running) == LIMITS.per_account


def test_many_at_once_do_not_slip_by(guard: Guard) -> None:
    """Attempts are charged before they are looked at: of 40 at once, five are."""
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda _: tried(guard, "alice", HOME), range(40)))
    assert said.count("wrong password") == LIMITS.free_tries


def test_what_nobody_could_tell_counts_as_nothing(guard: Guard) -> None:
    """While the directory is down everybody fails, and nobody has to wait for it afterwards."""

    def down(_counts: bool) -> Refused:
        raise RemoteError("The directory is down.")

    for _ in range(30):
        with pytest.raises(RemoteError):
            guard.attempt("alice", HOME, down)
    assert tried(guard, "alice", HOME, RIGHT) == "in"
    assert guard.counts("alice")[0].failures == 0


def test_staff_see_and_lift(guard: Guard) -> None:
    """Counts are shown by account and by address; a lifted one is looked at again at once."""
    for number in range(25):
        tried(guard, "alice", f"10.0.0.{number}")
    for _ in range(6):
        tried(guard, "bob", HOME)
    (shown,) = [count for count in guard.counts("bob") if count.address]
    assert (shown.address, shown.failures, shown.refused) == (HOME, 5, 1)
    assert shown.waits_until > 0
    assert [count.share for count in guard.counts("alice") if not count.address] == [pytest.approx(1)]
    assert {count.account for count in guard.counts("10.0.0.3")} == {"alice", ""}
    guard.lift("alice")
    guard.lift(HOME)
    assert tried(guard, "alice", "10.0.2.2", RIGHT) == "in"
    assert tried(guard, "bob", HOME, Accepted("bob", "password")) == "in"
    tried(guard, "dora", "")
    assert guard.lift("carol") == 0
    assert [count.failures for count in guard.counts("dora") if count.account] == [1, 0]


def test_staff_can_make_an_address_known(guard: Guard) -> None:
    """A newcomer under attack has no known address; staff can give one."""
    for number in range(25):
        tried(guard, "alice", f"10.0.0.{number}")
    assert tried(guard, "alice", HOME, RIGHT).startswith("too many failures of this account")
    guard.know("Alice", HOME)
    assert tried(guard, "alice", HOME, RIGHT) == "in"


def test_an_account_has_few_known_addresses(guard: Guard, clock: Clock) -> None:
    """The newest sixteen: the allowance of known addresses is not for everybody who ever logged in."""
    for number in range(20):
        clock.now += 60
        assert tried(guard, "alice", f"10.0.0.{number}", RIGHT) == "in"
    known = [count.address for count in guard.counts("alice") if count.known and count.address]
    assert sorted(known) == sorted(f"10.0.0.{number}" for number in range(4, 20))


def test_what_bears_on_nobody_is_forgotten(guard: Guard, state: State, clock: Clock) -> None:
    """Rows of strangers go after a day, so that a flood of names does not stay on the disk."""
    for number in range(30):
        tried(guard, f"user{number}", HOME)
    tried(guard, "alice", HOME, RIGHT)
    clock.now += 25 * 3600
    tried(guard, "bob", ELSEWHERE)
    with state.transaction() as connection:
        left = connection.execute("SELECT account FROM guess_pairs ORDER BY account").fetchall()
    assert left == [("alice",), ("bob",)]


def test_the_file_is_private(folder: Path, state: State, guard: Guard) -> None:
    """Mode 0600 for the database and the files that SQLite keeps beside it."""
    tried(guard, "alice", HOME)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {"state.sqlite": 0o600, "state.sqlite-wal": 0o600, "state.sqlite-shm": 0o600}


@pytest.mark.parametrize("fault", ["loose", "link", "text", "newer"])
def test_a_file_that_will_not_do_is_refused(folder: Path, fault: str) -> None:
    """One that others can reach, a symbolic link, no database, one of a later version: ConfigError."""
    path = folder / "state.sqlite"
    if fault == "link":
        path.symlink_to(folder / "other")
    elif fault == "text":
        path.touch(mode=0o600)
        path.write_text("no database" * 100)
    else:
        opened = State(folder)
        if fault == "newer":
            opened._connection.execute("PRAGMA user_version=99")
        opened.close()
        if fault == "loose":
            path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"state\.sqlite"):
        State(folder)


def test_nothing_is_granted_uncounted(guard: Guard, state: State) -> None:
    """Where the file cannot be used, the right password earns an error, and the signer is not ready."""
    state._connection.execute("PRAGMA query_only=ON")
    with pytest.raises(SiteError, match="uncounted"):
        tried(guard, "alice", HOME, RIGHT)
    with pytest.raises(SiteError):
        guard.check()
