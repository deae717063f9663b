"""The demo cluster itself: what is joined, what is apart, and that the machine keeps no trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import require
from support.demo import Demo, run_hpchub

pytestmark = pytest.mark.live

_FILES = ("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/ssh/sshd_config", "/etc/nsswitch.conf")


def _machine() -> dict[str, object]:
    """What a demo must leave as it found it."""
    return {
        "mounts": sorted(Path("/proc/self/mounts").read_text().splitlines()),
        "links": sorted(os.listdir("/sys/class/net")),  # noqa: PTH208  names are all we want
        "files": {path: Path(path).read_bytes() for path in _FILES},
        "homes": sorted(path.name for path in Path("/home").iterdir()),
        "slurm": sorted(path.name for path in Path("/etc/slurm").iterdir()),
        "opt": sorted(path.name for path in Path("/opt").iterdir()),
    }


def _up(directory: Path) -> Demo:
    up = run_hpchub("demo", "up", "--cluster-only", "--dir", str(directory), timeout_s=120)
    assert up.returncode == 0, up.stdout + up.stderr
    return Demo.load(directory)


def _alive(directory: Path) -> list[int]:
    """Processes of any namespace whose command line or environment names the folder, or a host of it."""
    recorded = json.loads((directory / "processes.json").read_text())
    return [row["pid"] for row in recorded if Path(f"/proc/{row['pid']}").exists()]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A cluster without a hub."""
    require.cluster()
    directory = tmp_path_factory.mktemp("demo")
    try:
        yield _up(directory)
    finally:
        down = run_hpchub("demo", "down", "--dir", str(directory))
        assert down.returncode == 0, down.stdout + down.stderr


def test_exec_passes_streams_and_exit_code_through(cluster: Demo) -> None:
    """`exec` is the command: what goes in, what comes out, how it ends, and as whom."""
    done = cluster.exec("c1", ["sh", "-c", "cat; id -un >&2; hostname; exit 7"], user="bob", stdin="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "in\nc1\n", "bob\n")


@pytest.mark.parametrize("name", ["Hans.Peter-2_x", "a_name_with_32_characters_in_all"])
def test_unusual_names_run_jobs(cluster: Demo, name: str) -> None:
    """Capitals, dots, dashes and 32 characters survive passwd, munge, accounting and a job."""
    assert cluster.exec("login2", ["srun", "id", "-un"], user=name, check=True).stdout == f"{name}\n"


def test_accounts_are_enforced(cluster: Demo) -> None:
    """carol has no association, so Slurm refuses her job; alice may charge two accounts, bob one."""
    refused = cluster.exec("login1", ["srun", "hostname"], user="carol")
    assert refused.returncode != 0
    assert "Invalid account" in refused.stderr
    ask = ["sacctmgr", "-nP", "show", "assoc", "where", "user=alice,bob", "format=user,account"]
    rows = cluster.exec("login1", ask, user="alice", check=True).stdout.split()
    assert sorted(rows) == ["alice|chemistry", "alice|physics", "bob|physics"]


def test_partitions_differ_in_their_limits(cluster: Demo) -> None:
    """An hour fits partition cpu and not partition short; only gpu has GPUs."""
    assert cluster.exec("login1", ["srun", "-p", "cpu", "-t", "60", "true"], user="bob").returncode == 0
    refused = cluster.exec("login1", ["srun", "-p", "short", "-t", "60", "true"], user="bob")
    assert "time limit" in refused.stderr.lower()
    gpus = cluster.exec("login1", ["srun", "-p", "gpu", "--gpus=2", "hostname"], user="bob", check=True)
    assert gpus.stdout == "c2\n"


def _reaches(cluster: Demo, host: str, address: str, port: int) -> bool:
    probe = f"exec 3<>/dev/tcp/{address}/{port}"
    return cluster.exec(host, ["timeout", "2", "bash", "-c", probe]).returncode == 0


def test_hub_and_compute_nodes_cannot_reach_each_other(cluster: Demo) -> None:
    """The hub reaches sshd on the login nodes' edge and nothing of the fabric; nodes know no edge."""
    assert _reaches(cluster, "hub", "10.78.0.11", 22)
    assert _reaches(cluster, "c1", "ctl", 6817)
    for address, port in (("10.77.0.21", 6818), ("10.77.0.22", 6818), ("10.77.0.1", 6817)):
        assert not _reaches(cluster, "hub", address, port)
    for host in ("c1", "c2", "ctl"):
        assert not _reaches(cluster, host, "10.78.0.1", 22)
        assert not _reaches(cluster, host, "10.78.0.11", 22)
    # Not even through a login node that someone made a router: it forwards nothing.
    cluster.exec("hub", ["ip", "route", "add", "10.77.0.0/24", "via", "10.78.0.11"], check=True)
    try:
        assert not _reaches(cluster, "hub", "10.77.0.21", 6818)
    finally:
        cluster.exec("hub", ["ip", "route", "del", "10.77.0.0/24"], check=True)


def test_node_local_folders_are_node_local(cluster: Demo) -> None:
    """/home is shared; /tmp, /run and /dev/shm are each host's own, and none is the machine's."""
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        cluster.exec("c1", ["touch", f"{folder}/of-c1"], user="alice", check=True)
        assert cluster.exec("c2", ["test", "-e", f"{folder}/of-c1"]).returncode == 1
        assert not Path(folder, "of-c1").exists()
    cluster.exec("c1", ["touch", "of-c1"], user="alice", check=True)
    assert cluster.exec("login2", ["test", "-e", "/home/alice/of-c1"]).returncode == 0


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("dora", "Permission denied"), ("jana", "No space left on device")],
)
def test_homes_with_a_trouble(cluster: Demo, name: str, complaint: str) -> None:
    """dora's home is not writable and jana's is full, to the last inode."""
    assert complaint in cluster.exec("login1", ["mkdir", f"/home/{name}/.hpchub"], user=name).stderr


def _login(cluster: Demo, name: str, key: Path) -> subprocess.CompletedProcess[str]:
    """ssh from the hub to login1 with a certificate that the cluster's CA signed for this name."""
    sign = [
        "ssh-keygen",
        "-q",
        "-s",
        cluster.info["ca_key"],
        "-I",
        "test",
        "-n",
        f"hpchub:{name}",
        "-V",
        "+5m",
        f"{key}.pub",
    ]
    subprocess.run(sign, check=True)
    hosts = Path(cluster.info["clusters_folder"]) / "demo.known_hosts"
    options = ("-F", "none", "-i", str(key), "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={hosts}")
    return cluster.exec("hub", ["ssh", *options, "-l", name, "10.78.0.11", "hostname"])


@pytest.mark.parametrize(
    ("name", "exit_code", "prints"),
    [
        ("alice", 0, "login1\n"),
        ("Hans.Peter-2_x", 0, "login1\n"),
        ("emil", 0, "Welcome, Emil.\nno-newlinelogin1\n"),
        ("finn", 1, ""),
        ("ivo", 255, ""),
        ("gina", 255, ""),
        ("root", 255, ""),
    ],
)
def test_sshd_trusts_the_authority_and_knows_its_limits(
    cluster: Demo, tmp_path: Path, name: str, exit_code: int, prints: str
) -> None:
    """A certificate opens accounts that are there and not locked, and never root's."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    done = _login(cluster, name, key)
    assert (done.returncode, done.stdout) == (exit_code, prints)


@pytest.mark.parametrize("prefix", ["lab", "data"])
def test_environments_hold_jupyter_and_differ(cluster: Demo, prefix: str) -> None:
    """Users can run both; pandas is in `data` alone."""
    python = f"/opt/hpc/{prefix}/bin/python"
    imported = cluster.exec(
        "c1", [python, "-c", "import jupyterlab, jupyterhub, sys; print(sys.prefix)"], user="bob"
    )
    assert imported.stdout == f"/opt/hpc/{prefix}\n"
    assert (cluster.exec("c1", [python, "-c", "import pandas"], user="bob").returncode == 0) == (
        prefix == "data"
    )


def test_module_finds_jupyter(cluster: Demo) -> None:
    """`module load jupyter/demo` in a login shell puts JupyterLab on the PATH."""
    found = cluster.exec(
        "c2", ["bash", "-lc", "module load jupyter/demo; command -v jupyter-lab"], user="alice"
    )
    assert found.stdout == "/opt/hpc/lab/bin/jupyter-lab\n"


def test_two_side_by_side_and_no_trace(cluster: Demo, tmp_path: Path) -> None:
    """A second demo boots beside the first, keeps its own accounts of jobs, and leaves nothing."""
    before = _machine()
    second = _up(tmp_path)
    assert _machine() == before
    cluster.exec("login1", ["touch", "mine"], user="alice", check=True)
    assert second.exec("login1", ["test", "-e", "/home/alice/mine"]).returncode == 1
    pids = _alive(tmp_path)
    assert pids
    assert run_hpchub("demo", "down", "--dir", str(tmp_path)).returncode == 0
    assert _machine() == before
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.log", "logs"]
    assert cluster.exec("login1", ["sinfo", "-h"], user="alice").returncode == 0


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """SIGINT in the middle of a boot ends everything that had begun."""
    require.cluster()
    before = _machine()
    argv = (sys.executable, "-m", "hpchub.cli", "demo", "run", "--cluster-only", "--dir", str(tmp_path))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        assert child.stdout is not None
        assert "hosts" in child.stdout.readline()
        pids = _alive(tmp_path)
        child.send_signal(signal.SIGINT)
        said = child.stdout.read()
    assert child.returncode == 0, said
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert _machine() == before
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_killed_supervisor_takes_the_hosts_along(tmp_path: Path) -> None:
    """After SIGKILL no host is left, `down` cleans up, and a new demo boots in the same folder."""
    require.cluster()
    demo = _up(tmp_path)
    pids = _alive(tmp_path)
    os.kill(demo.info["supervisor"]["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/ns/mnt").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert run_hpchub("demo", "down", "--dir", str(tmp_path)).returncode == 0
    assert not [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.log", "logs"]


def test_up_again_says_where_it_is(cluster: Demo) -> None:
    """A folder holds one demo: `up` once more says where that is, `run` is refused, and it goes on."""
    again = run_hpchub("demo", "up", "--cluster-only", "--dir", str(cluster.directory))
    assert (again.returncode, again.stderr) == (0, "")
    assert f"Running already in {cluster.directory}" in again.stdout
    second = run_hpchub("demo", "run", "--cluster-only", "--dir", str(cluster.directory))
    assert second.returncode == 1
    assert "is running in" in second.stderr
    assert cluster.exec("login1", ["true"]).returncode == 0


def test_a_wrong_host_is_told_the_right_ones(cluster: Demo) -> None:
    """`exec` on a host that is not there names those that are."""
    done = cluster.exec("c3", ["true"])
    assert done.returncode == 1
    assert "Choose ctl, login1, login2, c1, c2, hub." in done.stderr


def test_down_where_nothing_runs_says_so(tmp_path: Path) -> None:
    """`down` twice, or in a folder that never had a demo, is no failure."""
    require.root()
    down = run_hpchub("demo", "down", "--dir", str(tmp_path))
    assert (down.returncode, down.stdout) == (0, f"No demo is running in {tmp_path}.\n")


@pytest.mark.parametrize("home", ["/home", "/root"])
def test_the_checkout_may_lie_in_a_home(home: str) -> None:
    """A demo's state may be under /home or /root, as people's checkouts are: the hosts see neither."""
    require.cluster()
    script = (
        f"mount -t tmpfs tmpfs /mnt; mkdir /mnt/up /mnt/work; "
        f"mount -t overlay -o lowerdir={home},upperdir=/mnt/up,workdir=/mnt/work overlay {home}; "
        f"mkdir -m 700 {home}/visitor; "
        f'demo() {{ "$PYTHON" -m hpchub.cli demo "$@"; }}; '
        f"demo up --cluster-only --dir {home}/visitor/state >&2 || exit 1; "
        f"demo exec --dir {home}/visitor/state login1 -- ls -A {home}; "
        f"demo down --dir {home}/visitor/state >&2"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "visitor" not in done.stdout.split()
