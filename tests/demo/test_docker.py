"""docker-compose.slurm.yml, as far as it can be checked without a container engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpchub.demo.environments import ready_environments
from hpchub.demo.layout import ETC, PACKAGE, SCRIPTS
from hpchub.demo.site import CLUSTER_HOSTS, HUB, LOGIN_HOSTS, Site
from support import require

_ROOT = Path(__file__).parents[2]
_COMPOSE = _ROOT / "docker-compose.slurm.yml"
_DOCKERFILE = _ROOT / "docker" / "Dockerfile"


@pytest.fixture(scope="module")
def config() -> Iterator[dict[str, Any]]:
    """The compose file as docker-compose itself understands it."""
    require.programs("docker-compose")
    done = subprocess.run(
        ["docker-compose", "-f", str(_COMPOSE), "config"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    yield yaml.safe_load(done.stdout)


@pytest.mark.slow
def test_services_are_the_hosts(config: dict[str, Any]) -> None:
    """Each host and the hub is one service, named as it names itself, all of one image."""
    assert set(config["services"]) == {*CLUSTER_HOSTS, HUB}
    for name, service in config["services"].items():
        assert (service["hostname"], service["command"]) == (name, [name])
        assert service["image"] == config["services"]["hub"]["image"]


@pytest.mark.slow
def test_addresses_are_those_of_the_other_demos(config: dict[str, Any]) -> None:
    """Every address is the one that hpchub.demo.site gives, and a network's own end takes none of them."""
    site = Site()
    for network, addresses in (("fabric", site.fabric), ("edge", site.edge)):
        found = {
            name: service["networks"][network]["ipv4_address"]
            for name, service in config["services"].items()
            if network in service["networks"]
        }
        assert found == addresses
        assert config["networks"][network]["ipam"]["config"][0]["gateway"] not in addresses.values()


def test_the_hub_is_outside(config: dict[str, Any]) -> None:
    """The hub is on the edge alone, compute nodes on the fabric alone, which leads nowhere."""
    networks = {name: set(service["networks"]) for name, service in config["services"].items()}
    assert networks[HUB] == {"edge"}
    assert {name for name in networks if networks[name] == {"edge", "fabric"}} == set(LOGIN_HOSTS)
    assert config["networks"]["fabric"]["internal"] is True
    assert not config["networks"]["edge"].get("internal", False)


def test_one_port_on_loopback(config: dict[str, Any]) -> None:
    """The hub's port is published on 127.0.0.1, and nobody else's on anything."""
    ports = {name: service["ports"] for name, service in config["services"].items() if "ports" in service}
    assert list(ports) == [HUB]
    (port,) = ports[HUB]
    shown = port if isinstance(port, str) else f"{port['host_ip']}:{port['published']}:{port['target']}"
    assert shown.startswith("127.0.0.1:8000:8000")


def test_the_hub_sees_no_file_of_the_cluster(config: dict[str, Any]) -> None:
    """Homes and munge's key are in volumes the hub does not have; no container is privileged."""
    volumes = {
        name: {volume.split(":")[0] if isinstance(volume, str) else volume["source"] for volume in
               service.get("volumes", [])}
        for name, service in config["services"].items()
    }  # fmt: skip
    assert volumes[HUB] == {"meeting"}
    assert all(volumes[name] >= {"cluster", "home"} for name in CLUSTER_HOSTS)
    assert not [
        name for name, service in config["services"].items() if {"privileged", "cap_add"} & set(service)
    ]


def _copies() -> list[tuple[list[str], str]]:
    """Sources and target of each COPY."""
    text = _DOCKERFILE.read_text().replace("\\\n", " ")
    rows = [line.split()[1:] for line in text.splitlines() if line.startswith("COPY ")]
    return [(row[:-1], row[-1]) for row in rows]


def test_the_image_has_the_very_files_of_the_package() -> None:
    """All settings and scripts reach the image as hpchub/demo has them; the image writes none itself."""
    copied = [source for sources, _ in _copies() for source in sources]
    assert all((_ROOT / source).exists() for source in copied)
    assert "hpchub/" in copied  # which holds etc/ and scripts/: container.py renders and runs them there
    for folder in (ETC, SCRIPTS):
        assert folder.is_relative_to(PACKAGE)
    kept = {path.name.removesuffix(".j2") for path in ETC.rglob("*") if path.is_file()}
    others = [path.name for path in _DOCKERFILE.parent.iterdir()]
    assert not kept & set(others)
    assert sorted(others) == ["Dockerfile", "Dockerfile.dockerignore"]
    assert "<<" not in _DOCKERFILE.read_text()
    assert "echo " not in _DOCKERFILE.read_text()


def test_the_ignore_file_lets_every_copy_through() -> None:
    """What the Dockerfile copies is what docker/Dockerfile.dockerignore lets into the build."""
    lines = (_DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert {source.split("/")[0] for sources, _ in _copies() for source in sources} == allowed


_ENTER = (
    "unshare",
    "--mount",
    "--propagation",
    "private",
    "--uts",
    "--ipc",
    "--pid",
    "--fork",
    "--mount-proc",
)


@pytest.mark.live
def test_containers_start_as_hosts(tmp_path: Path) -> None:
    """What the image runs makes a cluster and a hub: each host's command in namespaces like a container's.

    The networks are made as compose would; a server on each placement gets ready.
    """
    require.cluster()
    visible = ("sh", str(SCRIPTS / "private-opt.sh"), str(ready_environments(print)))
    script = Path(__file__).with_name("containers.sh")
    done = subprocess.run(
        [*_ENTER, "--net", "--kill-child", *visible, "sh", str(script), str(tmp_path)],
        env={
            **os.environ,
            "PYTHON": sys.executable,
            "CHECKOUT": str(_ROOT),
            "PYTHONPATH": os.pathsep.join((str(_ROOT), str(_ROOT / "tests"))),
        },
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    logs = "\n".join(f"--- {path.name}\n{path.read_text()}" for path in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["login"]["ready"] is True, logs
    assert seen["compute"]["ready"] is True, logs
