"""hpchub.core.cluster_file and toml_table, and that the reference documents every key"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.cluster import Attach, Caps, Container, LoginLimits, LoginNode, Placement
from hpchub.core.cluster_file import load_cluster, load_clusters
from hpchub.core.toml_table import Table
from hpchub.errors import ConfigError

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "cluster-file.md"

SMALL = """\
known_hosts = "known_hosts"

[[login_nodes]]
name = "login1"

[placements.login]

[environments.lab]
prefix = "/opt/lab"
"""

LARGE = """\
title = "Alpha"
known_hosts = "alpha.known_hosts"

[scheduler]
kind = "slurm"
cluster = "alpha"
templates = "templates"

[[login_nodes]]
name = "login1"
address = "192.0.2.1"
port = 2222

[[login_nodes]]
name = "login2"
port = 2223

[limits]
servers = 900
servers_per_user = 4
starts_at_once = 16

[placements.login]
runtime_dir = "/run/hpchub"
servers = 100
servers_per_user = 1
memory = "8G"
cpus = 4
processes = 500
nice = 5
idle_time = "09:00:00"
max_age = "7-00:00:00"

[placements.compute]
attach = "ssh"
runtime_dir = "/dev/shm"
sshd = "/opt/sshd"
port = 24
servers = 800
servers_per_user = 3
idle_time = "01:00:00"
max_age = "2-00:00:00"

[partitions.cpu]
title = "CPU"
max_time = "08:00:00"
max_cpus = 64
max_memory = "256G"
max_gpus = 4
gpu_type = "a100"

[environments.lab]
modules = ["python/3.11"]
conda = "lab"
conda_root = "/opt/conda"

[environments."py3.11"]
title = "Image"
description = "In a container"
container = "apptainer"
image = "/images/x.sif"
binds = ["/scratch", "/a:/b"]
placements = ["compute"]

[defaults]
placement = "compute"
partition = "cpu"
environment = "lab"
account = "physics"
time = "02:00:00"
cpus = 2
memory = "4G"
gpus = 1
"""


def write(tmp_path: Path, text: str, name: str = "alpha.toml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_cluster(write(tmp_path, text))
    return [problem.removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


def test_a_small_file_is_enough(tmp_path: Path) -> None:
    """A login node, host keys, a placement and an environment make a cluster."""
    cluster = load_cluster(write(tmp_path, SMALL))
    assert (cluster.name, cluster.title, cluster.scheduler) == ("alpha", "alpha", "slurm")
    assert cluster.placements == (Placement.LOGIN,)
    assert cluster.known_hosts == tmp_path / "known_hosts"
    assert cluster.login_nodes[0].address == "login1"
    assert cluster.defaults.environment == "lab"
    assert cluster.status_account == ""


def test_a_service_account(tmp_path: Path) -> None:
    """The account that asks about everybody's jobs, where the file names one."""
    text = LARGE.replace('kind = "slurm"', 'kind = "slurm"\nstatus_account = "slurmwatch"')
    assert load_cluster(write(tmp_path, text)).status_account == "slurmwatch"


def test_every_key_is_read(tmp_path: Path) -> None:
    """What the file says is what the components get."""
    cluster = load_cluster(write(tmp_path, LARGE))
    assert cluster.scheduler_cluster == "alpha"
    assert cluster.templates == tmp_path / "templates"
    assert cluster.login_nodes[0] == LoginNode(name="login1", address="192.0.2.1", port=2222)
    assert cluster.compute is not None
    assert (cluster.compute.attach, cluster.compute.port) == (Attach.SSH, 24)
    assert cluster.runtime_dir(Placement.COMPUTE) == "/dev/shm"
    assert (cluster.caps, cluster.starts_at_once) == (Caps(servers=900, servers_per_user=4), 16)
    assert cluster.home(Placement.LOGIN).caps == Caps(servers=100, servers_per_user=1)
    assert (cluster.compute.idle_time_s, cluster.compute.max_age_s) == (3600, 2 * 86400)
    assert cluster.login is not None
    limits = LoginLimits(memory_bytes=8 * 1024**3, cpus=4, processes=500, nice=5)
    assert cluster.login.limits == limits and limits.are_set and not LoginLimits().are_set
    assert cluster.home(Placement.LOGIN).idle_time_s == 9 * 3600
    assert cluster.compute.caps == Caps(servers=800, servers_per_user=3)
    assert cluster.runtime_dir(Placement.LOGIN) == "/run/hpchub"
    assert cluster.partitions["cpu"].max_memory_bytes == 256 * 1024**3
    image = cluster.environments["py3.11"]
    assert (image.container, image.placements) == (Container.APPTAINER, (Placement.COMPUTE,))
    assert (cluster.defaults.account, cluster.defaults.time_s, cluster.defaults.gpus) == ("physics", 7200, 1)


def test_warnings_near_the_end(tmp_path: Path) -> None:
    """A quarter of an hour and five minutes ahead, unless the file says otherwise; none for an empty list."""
    usual = load_cluster(write(tmp_path, LARGE)).compute
    assert usual is not None
    assert (usual.warn_before_s, usual.successor) == ((900, 300), True)
    said = 'port = 24\nwarn_before = ["01:00:00", "00:00:30"]\nsuccessor = false'
    other = load_cluster(write(tmp_path, LARGE.replace("port = 24", said))).compute
    assert other is not None
    assert (other.warn_before_s, other.successor) == ((3600, 30), False)
    none = load_cluster(write(tmp_path, LARGE.replace("port = 24", "warn_before = []"))).compute
    assert none is not None
    assert none.warn_before_s == ()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("max_cpus = 64", "max_cpu = 64", "alpha.toml:47: partitions.cpu.max_cpu: there is no key 'max_cpu'"),
        ("max_cpus = 64", "max_cpu = 64", "partitions.cpu.max_cpus: is missing"),
        ("max_cpus = 64", "max_cpus = 0", "alpha.toml:47: partitions.cpu.max_cpus: 0 is not"),
        ("max_cpus = 64", "max_cpus = true", "True is not a whole number"),
        ('"256G"', '"256"', "alpha.toml:48: partitions.cpu.max_memory"),
        ('"08:00:00"', "8", "partitions.cpu.max_time: 8 is not a text"),
        ("port = 2222", "port = 0", "alpha.toml:12: login_nodes[0].port"),
        ("port = 2223", "port = 0", "alpha.toml:16: login_nodes[1].port"),
        ('"py3.11"]', '"py 3"]', "'py 3' is not a name"),
        ('image = "/images/x.sif"', 'image = "$(id)"', "environments.py3.11.image"),
        ('image = "/images/x.sif"', "", "container and image go together"),
        ('conda = "lab"', 'conda = "lab"\nprefix = "/x"', "choose one of prefix, conda, image"),
        ('conda_root = "/opt/conda"', "", "environments.lab.conda_root: is missing"),
        ('["compute"]', '["moon"]', "environments.py3.11.placements"),
        ('"/a:/b"', '"/a b"', "environments.py3.11.binds"),
        ("servers = 900", "servers = 0", "limits.servers: 0 is not a whole number"),
        ("servers = 900", "server = 900", "limits.server: there is no key 'server' here; did you mean"),
        ("servers_per_user = 4", "servers_per_user = 901", "limits.servers_per_user: is more than servers"),
        ("servers_per_user = 1", "servers_per_user = -1", "placements.login.servers_per_user: -1 is not"),
        ("processes = 500", "processes = 6", "placements.login.processes: no notebook server runs with less"),
        ('memory = "8G"', 'memory = "8M"', "placements.login.memory: no notebook server runs in less"),
        ("nice = 5", "nice = 20", "placements.login.nice: 20 is not a whole number from 0 to 19"),
        ("starts_at_once = 16", "starts_at_once = 0", "limits.starts_at_once: 0 is not"),
        ('attach = "ssh"', 'attach = "shs"', "did you mean 'ssh'?"),
        ("port = 24", 'warn_before = ["5 min"]', "placements.compute.warn_before: '5 min' is not a time"),
        ("port = 24", 'warn_before = "00:05:00"', "is not a list of texts"),
        ("port = 24", 'successor = "no"', "placements.compute.successor: 'no' is not true or false"),
        ('kind = "slurm"', 'kind = "pbs"', "scheduler.kind: 'pbs' is not one of slurm"),
        ('kind = "slurm"', 'status_account = "root"', "alpha.toml:5: scheduler.status_account: 'root' is no"),
        ('kind = "slurm"', 'status_account = "a,b"', "scheduler.status_account: 'a,b' is no account"),
        ('title = "Alpha"', 'principal = "hpchub-{account}"', "principal: 'hpchub-{account}' is no form"),
        ('title = "Alpha"', 'principal = "{acount}"', "principal: '{acount}' is no form"),
        ('kind = "slurm"', 'status_acount = "w"', "did you mean 'status_account'?"),
        ('partition = "cpu"', 'partition = "cup"', "did you mean 'cpu'?"),
        ('account = "physics"', 'account = "a b"', "defaults.account"),
        ('cluster = "alpha"', 'cluster = "a,b"', "scheduler.cluster"),
        ('title = "Alpha"', 'title = "a\\u0007b"', "alpha.toml:1: title"),
        ('title = "Alpha"', "titel = 'x'", "alpha.toml:1: titel: there is no key 'titel' here; did you mean"),
        ('title = "Alpha"', 'title = "Alpha', "is not TOML"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_place(tmp_path: Path, old: str, new: str, problem: str) -> None:
    """Each fault is found, with its line and key, and the nearest valid word."""
    assert old in LARGE
    found = problems(tmp_path, LARGE.replace(old, new, 1))
    assert any(problem in line for line in found), found


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    """One run of `hpchub check` names everything that is wrong."""
    found = problems(tmp_path, "colour = 1\n[placements.compute]\nattach = 3\n")
    text = "\n".join(found)
    for place in ("colour", "known_hosts", "login_nodes", "attach", "partitions", "environments"):
        assert place in text


@pytest.mark.parametrize(
    "text", ["", "placements = 3", "login_nodes = 'x'", "[[placements]]", "[environments]\nx = 1"]
)
def test_wrong_shapes_are_faults(tmp_path: Path, text: str) -> None:
    """A table where a value belongs, or the reverse, is a fault and not a traceback."""
    assert problems(tmp_path, text)


def test_a_folder_lists_the_faults_of_all_files(tmp_path: Path) -> None:
    """Good files do not hide bad ones."""
    write(tmp_path, SMALL)
    assert list(load_clusters(tmp_path)) == ["alpha"]
    write(tmp_path, "x = 1", "beta.toml")
    write(tmp_path, "y = 1", "gamma.toml")
    with pytest.raises(ConfigError) as caught:
        load_clusters(tmp_path)
    assert {Path(line.split(":")[0]).name for line in caught.value.problems} == {"beta.toml", "gamma.toml"}


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    """No cluster file at all is a mistake, too."""
    with pytest.raises(ConfigError, match="Write one"):
        load_clusters(tmp_path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, or one that is no text, is a ConfigError."""
    with pytest.raises(ConfigError):
        load_cluster(tmp_path / "gone.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError):
        load_cluster(tmp_path / "bad.toml")


_KEYS = st.sampled_from(
    (
        "title",
        "known_hosts",
        "scheduler",
        "login_nodes",
        "limits",
        "placements",
        "partitions",
        "environments",
        "defaults",
    )
)
_TOML = st.recursive(
    st.one_of(st.integers(-5, 5).map(str), st.booleans().map(lambda b: str(b).lower()), st.just('"x"')),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(
            st.sampled_from(("a", "login", "compute", "cpu", "name", "image")), inner, max_size=2
        ).map(lambda items: "{" + ", ".join(f"{key} = {value}" for key, value in items.items()) + "}"),
    ),
    max_leaves=4,
)


@given(st.dictionaries(_KEYS, _TOML, max_size=5))
def test_any_toml_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, body: dict[str, str]) -> None:
    """Values of any shape in any place give a cluster or a ConfigError."""
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text("\n".join(f"{key} = {value}" for key, value in body.items()), encoding="utf-8")
    try:
        load_cluster(path)
    except ConfigError as error:
        assert error.problems


# -- the reference -----------------------------------------------------------------------------


def documented() -> dict[str, set[str]]:
    """Keys by section: the first cell of each row of each section's table."""
    sections: dict[str, set[str]] = defaultdict(set)
    section = ""
    for line in REFERENCE.read_text(encoding="utf-8").split("\n"):
        if line.startswith("## "):
            section = re.sub(r"[`\[\]]", "", line.removeprefix("## "))
            section = "" if section == "The top of the file" else section
        elif match := re.match(r"\| `([a-z_]+)` \|", line):
            sections[section].add(match[1])
    return dict(sections)


def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Keys by section, as the reader itself asks for them."""
    sections: dict[str, set[str]] = defaultdict(set)
    finish = Table.finish

    def record(table: Table) -> None:
        section = re.sub(
            r"\[\d+\]|^(partitions|environments)\..*", lambda m: f"{m[1]}.NAME" if m[1] else "", table._where
        )
        sections[section] |= table._known
        finish(table)

    monkeypatch.setattr(Table, "finish", record)
    load_cluster(write(tmp_path, LARGE))
    return dict(sections)


def test_every_key_is_documented_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/reference/cluster-file.md lists exactly the keys that the reader knows."""
    assert documented() == known(tmp_path, monkeypatch)


def test_the_example_of_the_reference_is_good(tmp_path: Path) -> None:
    """The whole file shown there can be copied."""
    example = re.search(r"```toml\n(.*?)```", REFERENCE.read_text(encoding="utf-8"), re.DOTALL)
    assert example
    assert load_cluster(write(tmp_path, example[1])).partitions["gpu"].max_gpus == 4
