"""No token, password or key where it does not belong: looked for as bob and as root, everywhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.demo import Demo, log_files
from support.hub import HubSession
from support.servers import Server
from support.slurm import job_id_of

pytestmark = pytest.mark.live

_HOSTS = ("ctl", "login1", "login2", "c1", "c2")

# Reads {"needles": {name: text}, "paths": [...]} and prints one line for each find: kind, where, needle.
# What cannot be read is counted: a search as somebody without rights must see that it was refused.
_SEARCH = r"""
import json, os, pathlib, stat, sys
asked = json.load(sys.stdin)
needles = {name: text.encode() for name, text in asked["needles"].items()}
me = os.getpid()
refused = looked = 0

def look(kind, where, read):
    global refused, looked
    try:
        data = read()
    except PermissionError:
        refused += 1
        return
    except (FileNotFoundError, ProcessLookupError, OSError):
        return
    looked += 1
    for name, needle in needles.items():
        if needle in data:
            print(json.dumps([kind, where, name]))

for entry in pathlib.Path("/proc").iterdir():
    if entry.name.isdigit() and int(entry.name) != me:
        for kind in ("cmdline", "environ"):
            look(kind, entry.name, (entry / kind).read_bytes)
for top in asked["paths"]:
    for folder, folders, names in os.walk(top):
        for name in names:
            path = pathlib.Path(folder, name)
            try:
                regular = stat.S_ISREG(path.lstat().st_mode)
            except OSError:
                continue
            if regular:
                look("file", str(path), path.read_bytes)
print(json.dumps(["done", str(looked), str(refused)]))
"""


@dataclass(frozen=True, slots=True)
class Running:
    """alice's servers, and everything of hers that must stay hers."""

    job: Server
    here: Server
    needles: dict[str, str]
    nodes: dict[str, str]


def _forms(name: str, secret: str) -> dict[str, str]:
    """A secret as it is, and as base64 would show it."""
    return {name: secret, f"{name} in base64": base64.b64encode(secret.encode()).decode().rstrip("=")}


@pytest.fixture(scope="module")
def running(demo: Demo) -> Iterator[Running]:
    """A server in a job and one on a login node, both with a kernel that was used."""
    with HubSession(demo.url) as session:
        session.login("alice", demo.users["alice"])
        job = Server(demo, session, "alice", "secret-job")
        here = Server(demo, session, "alice", "secret-here")
        try:
            job.start(placement="compute", environment="modules")
            here.start(placement="login")
            needles = _forms("password", demo.users["alice"])
            needles |= _forms("admin token", demo.info["admin_api_token"])
            nodes = {}
            for server in (job, here):
                token, node = server.run(
                    "import os, socket; print(os.environ['JUPYTERHUB_API_TOKEN'], socket.gethostname())"
                ).split()
                assert len(token) >= 32
                needles |= _forms(f"token of {server.name}", token)
                nodes[server.name] = node
            yield Running(job, here, needles, nodes)
        finally:
            for server in (job, here):
                if server.model():
                    server.stop()


def _search(
    demo: Demo, host: str, needles: dict[str, str], paths: list[str], user: str | None = None
) -> tuple[list[list[str]], int, int]:
    """Finds, how much was looked at, and how much was refused."""
    done = demo.exec(
        host,
        ["/usr/bin/python3", "-c", _SEARCH],
        user=user,
        stdin=json.dumps({"needles": needles, "paths": paths}),
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    end = rows.pop()
    return rows, int(end[1]), int(end[2])


def _process_owner_and_tree(demo: Demo, host: str, pid: str) -> tuple[str, str]:
    shown = demo.exec(host, ["ps", "-o", "user=,args=", "-p", pid]).stdout.split(None, 1)
    return (shown[0], shown[1]) if len(shown) == 2 else ("", "")


@pytest.mark.parametrize("host", _HOSTS)
def test_root_finds_no_secret(demo: Demo, running: Running, host: str) -> None:
    """On every host, in every argv, environment, spool, log, home and temporary file: nothing but the
    environment of alice's own processes, and Jupyter's own file in the server's private folder on its
    node, has her server's token, and nothing at all her password.
    """
    paths = [
        "/tmp",
        "/var/tmp",
        "/dev/shm",
        "/home",
        "/var/spool",
        "/var/log",
        "/run",
        "/etc",
        "/var/lib/mysql",
    ]
    finds, looked, refused = _search(demo, host, running.needles, paths)
    assert refused == 0
    assert looked > 20
    for kind, where, needle in finds:
        assert needle.startswith("token of "), (kind, where, needle)
        if kind == "file":
            server = running.job if needle.startswith(f"token of {running.job.name}") else running.here
            runtime = f"/tmp/hpchub-{server.server_id[:16]}"
            assert host == running.nodes[server.name]
            assert where.startswith(f"{runtime}/jupyter/jpserver-"), (where, needle)
            assert demo.exec(host, ["stat", "-c%a %U", runtime]).stdout.split() == ["700", "alice"]
            continue
        assert kind == "environ", (kind, where, needle)
        owner, args = _process_owner_and_tree(demo, host, where)
        assert owner in {"alice", ""}, (where, owner, args, needle)


@pytest.mark.parametrize("host", ["login1", "login2", "c1", "c2"])
def test_bob_finds_no_secret(demo: Demo, running: Running, host: str) -> None:
    """bob finds no secret anywhere; alice's environments and folders are closed to him."""
    paths = ["/tmp", "/var/tmp", "/dev/shm", "/home", "/var/spool", "/var/log", "/run", "/etc"]
    finds, looked, refused = _search(demo, host, running.needles, paths, user="bob")
    assert finds == []
    assert looked > 5
    assert refused > 0


def test_slurm_knows_no_secret(demo: Demo, running: Running) -> None:
    """The job's record, its stored script and the accounting database are free of secrets."""
    job_id = job_id_of(demo, "alice", running.job.name)
    asked = {
        "record": ["scontrol", "show", "job", "--details", "--oneliner"],
        "script": ["scontrol", "write", "batch_script", job_id, "-"],
        "history": ["sacct", "-aPn", "-S", "now-1days", "--format=ALL"],
        "submit line": ["sacct", "-aPn", "-S", "now-1days", "--format=SubmitLine"],
        "database": [
            "mysqldump",
            "--socket=/run/mysqld/mysqld.sock",
            "--all-databases",
            "--skip-lock-tables",
        ],
    }
    for what, argv in asked.items():
        done = demo.exec("ctl", argv)
        assert done.returncode == 0, (what, done.stderr)
        assert len(done.stdout) > 20, what
        for name, needle in running.needles.items():
            assert needle not in done.stdout, (what, name)
        assert "PRIVATE KEY" not in done.stdout, what
        assert "JUPYTERHUB_API_TOKEN" not in done.stdout, what
    spool = demo.exec("ctl", ["ls", "-R", "/var/spool/slurmctld"], check=True).stdout
    assert f"job.{job_id}" in spool  # the search above has looked where Slurm keeps scripts


def test_logs_have_no_secret(demo: Demo, running: Running) -> None:
    """No log of the demo, the audit log included, has a secret."""
    found = log_files(demo.info["logs"])
    audit = Path(demo.info["logs"]) / "audit.jsonl"
    assert audit.stat().st_size
    assert len(found) > 10
    for path in (*found, audit):
        text = path.read_bytes()
        for name, needle in running.needles.items():
            assert needle.encode() not in text, (path.name, name)
        assert b"PRIVATE KEY" not in text, path.name


def _hub_files(demo: Demo) -> Iterator[tuple[Path, bytes]]:
    for path in (demo.directory / "hub").rglob("*"):
        with suppress(FileNotFoundError):  # a database's journal, gone since it was listed
            if path.is_file():
                yield path, path.read_bytes()


def test_hub_machine_has_no_secret_in_the_open(demo: Demo, running: Running) -> None:
    """The demo's own processes have no secret in an argv; alice's password and tokens are in no
    environment and in no file of the hub's, the databases included.
    """
    rows = json.loads((demo.directory / "processes.json").read_text())
    pids = {row["pid"] for row in rows} | {demo.info["supervisor"]["pid"]}
    for pid in pids:
        cmdline = Path(f"/proc/{pid}/cmdline").read_bytes()
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        for name, needle in running.needles.items():
            assert needle.encode() not in cmdline, (pid, name)
            assert needle.encode() not in environ, (pid, name)
    hers = {name: text for name, text in running.needles.items() if not name.startswith("admin")}
    for path, content in _hub_files(demo):
        for name, needle in hers.items():
            assert needle.encode() not in content, (path, name)


def test_private_keys_are_few(demo: Demo, running: Running) -> None:
    """Private keys lie where they must and nowhere else: sshd's own, and in a job's folder the key of the
    job's own sshd, which opens nothing; no user key is on any disk.
    """
    marker = {"a private key": "-----BEGIN OPENSSH PRIVATE KEY-----"}
    paths = ["/tmp", "/var/tmp", "/dev/shm", "/home", "/var/spool", "/run", "/etc/ssh/hpchub"]
    for host in _HOSTS:
        finds, _, _ = _search(demo, host, marker, paths)
        files = {Path(where) for _, where, _ in finds if not where.startswith("/etc/ssh/hpchub/")}
        # The folder of a server that failed is kept for its log.
        strangers = {
            path for path in files if path.name != "host_key" or path.parent.parent.name != "servers"
        }
        assert not strangers, (host, strangers)
        modes = demo.exec(host, ["stat", "-c%a", *map(str, files)]).stdout.split()
        assert set(modes) <= {"600"}
    hub = [
        path.relative_to(demo.directory).as_posix()
        for path, content in _hub_files(demo)
        if b"PRIVATE KEY-----" in content
    ]
    assert all(name.startswith("hub/signer/") for name in hub), hub
