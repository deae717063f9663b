"""Logins that end, on a real cluster: what is open is closed within five seconds, and no server is lost."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from support.demo import Demo, run_hpchub
from support.hub import HubSession
from support.servers import Server, until
from support.witness import Witness

pytestmark = pytest.mark.live

# But for those whose certificates test_strict_level.py signs itself.
_ACCEPTED = re.compile(r"Accepted publickey for (\S+) .* ID (?!forged-by-a-test )(\S+) \(serial (\d+)\) CA ")
USER = "bob"


def hpchub(demo: Demo, *arguments: str, code: int = 0) -> str:
    config = demo.directory / "hub" / ("signer.toml" if arguments[0] == "audit" else "bridge.toml")
    done = run_hpchub(arguments[0], "--config", str(config), *arguments[1:])
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def sessions(demo: Demo) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(hpchub(demo, "sessions", "--user", USER, "--json"))
    return found


def sshd_of_user(demo: Demo) -> str:
    """The processes with which login nodes hold the user's connections: one for each."""
    found = [demo.exec(host, ["pgrep", "-u", USER, "-x", "sshd"]).stdout for host in ("login1", "login2")]
    return "".join(found)


def until_closed(demo: Demo) -> None:
    """Within five seconds, as the login nodes see it."""
    began = time.monotonic()
    until(lambda: not sshd_of_user(demo), "the connections are closed", 5)
    assert time.monotonic() - began < 5


@pytest.fixture
def witness(demo: Demo) -> Iterator[Witness]:
    """A server on a login node, whose kernel holds something in its memory."""
    with HubSession(demo.url) as session:
        server = Server(demo, session.login(USER, demo.users[USER]), USER, "ends")
        yield Witness.of(server.start(placement="login"))
    run_hpchub("revoke", "--config", str(demo.directory / "hub" / "bridge.toml"), "--undo", USER)
    with HubSession(demo.url) as session:
        Server(demo, session.login(USER, demo.users[USER]), USER, "ends").stop()


def log_in_again(demo: Demo, witness: Witness) -> None:
    witness.server.session.cookies.clear()
    witness.server.session.login(USER, demo.users[USER])
    until(lambda: witness.server.open().status_code == 200, "the page of the server is there", 10)
    witness.is_back(10)


def test_logged_out_and_revoked(demo: Demo, witness: Witness) -> None:
    """Either closes all connections and loses no server; revoked, nobody logs in until that is undone."""
    (row,) = sessions(demo)["sessions"]
    assert row["factor"] == "password" and row["connections"] >= 1 and row["servers"] == 1
    assert sshd_of_user(demo)
    requests.get(
        f"{demo.url}hub/logout", cookies=witness.server.session.cookies, timeout=20
    ).raise_for_status()
    until_closed(demo)
    (row,) = sessions(demo)["sessions"]
    assert (row["since"], row["connections"], row["servers"]) == (None, 0, 1)
    log_in_again(demo, witness)

    (row,) = sessions(demo)["sessions"]
    assert sshd_of_user(demo) and row["certificates"]
    said = hpchub(demo, "revoke", USER, "--reason", "stolen laptop")
    assert f"{USER} is revoked: 1 login has ended" in said
    until_closed(demo)
    krl = requests.get(f"{demo.url}hub/hpchub/krl", timeout=20)
    serial = int(row["certificates"][0]["serial"]).to_bytes(8, "big")
    assert krl.status_code == 200 and krl.content.startswith(b"SSHKRL\n\0") and serial in krl.content
    with HubSession(demo.url) as session:
        assert session.submit_login(USER, demo.users[USER]).status_code == 403
    assert list(sessions(demo)["revoked"]) == [USER]
    assert "is not revoked any more" in hpchub(demo, "revoke", "--undo", USER)
    log_in_again(demo, witness)

    found = hpchub(demo, "audit", "--user", USER, "--since", "10m", "--json")
    events = Counter(json.loads(line)["event"] for line in found.splitlines())
    assert events["disconnected"] >= 2 and events["logout"] >= 1
    assert events["revocation"] >= 2 and events["ended"] >= 1


def test_the_audit_log_joins_the_cluster_s(demo: Demo, witness: Witness) -> None:
    """Each login that sshd accepted has one record of the same account, serial and key id."""
    assert witness.answers()
    logs = Path(str(demo.info["logs"]))
    accepted = [
        match.groups()
        for path in sorted(logs.glob("*login?*"))
        for match in _ACCEPTED.finditer(path.read_text(errors="replace"))
    ]
    assert any(user == USER for user, _, _ in accepted)
    records = [
        json.loads(line) for line in hpchub(demo, "audit", "--event", "certificate", "--json").splitlines()
    ]
    granted = Counter(
        (one["user"], one["key_id"], one["serial"]) for one in records if one["outcome"] == "granted"
    )
    assert set(granted.values()) == {1}
    assert [login for login in accepted if granted[login] != 1] == []
    assert hpchub(demo, "audit", "--verify").splitlines()[-1] == "the chain is whole"


def test_revoked_with_all_servers(demo: Demo, witness: Witness) -> None:
    """`--stop-servers` ends them while the login can still be used for it, then revokes."""
    assert witness.answers()
    said = hpchub(demo, "revoke", USER, "--stop-servers")
    assert "stopped the server on login" in said and "is revoked: 1 login has ended" in said
    until_closed(demo)
    assert sessions(demo)["sessions"] == []
    assert "jupyterhub-singleuser" not in demo.exec("login1", ["ps", "-u", USER, "-o", "args="]).stdout
