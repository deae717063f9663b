"""Everything that is installed is pinned, with hashes, and the pins agree with each other."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.tree import ROOT

REQUIREMENTS = ROOT / "requirements"
NAMES = ("build", "hub", "postgresql", "dev", "audit", "cluster", "cluster-data", "bench", "bench-magics")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")


def _lock_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lock_script", ROOT / "scripts" / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its own module up by name.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "lock_script", module)
        spec.loader.exec_module(module)
    return module


lock = _lock_script()


def _pins(name: str) -> dict[str, str]:
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    return {canonicalize_name(pin[1]): pin[2] for line in text.splitlines() if (pin := _PIN.match(line))}


def test_the_folder_holds_what_the_lock_script_writes() -> None:
    """No requirements file is left over, none is missing."""
    assert {path.name for path in REQUIREMENTS.iterdir()} == {
        f"{target.name}.txt" for target in lock.targets()
    }
    assert {target.name for target in lock.targets()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_pin_is_exact_and_has_hashes(name: str) -> None:
    """Each line is a comment, an exact pin that continues, or a sha256; every pin has at least one."""
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    for line in lines:
        assert re.fullmatch(
            r"#.*|[A-Za-z0-9._-]+==\S+( ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line
        ), line
    for pin, block in lock.blocks("\n".join(lines)).items():
        assert "--hash=sha256:" in block, pin


@pytest.mark.parametrize("name", NAMES)
def test_what_pyproject_asks_for_is_pinned(name: str) -> None:
    """A dependency that was added, or raised, is in the pins: `make lock` was run."""
    (target,) = [target for target in lock.targets() if target.name == name]
    pins = _pins(name)
    for wanted in map(Requirement, target.wanted):
        version = pins.get(canonicalize_name(wanted.name))
        assert version is not None, f"{wanted} is not in {name}.txt; run `make lock`"
        assert wanted.specifier.contains(version, prereleases=True), f"{wanted} is pinned at {version}"


@pytest.mark.parametrize(
    ("upper", "lower"),
    [("dev", "hub"), ("dev", "build"), ("dev", "postgresql"), ("hub", "build"), ("bench", "cluster")],
)
def test_files_for_one_environment_agree(upper: str, lower: str) -> None:
    """Files that are installed together, or compared with each other, hold the same versions."""
    ours, theirs = _pins(upper), _pins(lower)
    assert {name: ours[name] for name in ours.keys() & theirs} == {
        name: theirs[name] for name in ours.keys() & theirs
    }


def test_test_tools_come_on_top_of_the_hub() -> None:
    """What is tested is what is run: dev.txt holds every pin of hub.txt."""
    assert _pins("hub").items() <= _pins("dev").items()


def test_the_data_environment_only_adds() -> None:
    """cluster-data.txt repeats nothing of cluster.txt and brings pandas and matplotlib."""
    added = _pins("cluster-data")
    assert added.keys() & _pins("cluster").keys() == set()
    assert {"pandas", "matplotlib"} <= added.keys()


def test_the_data_environment_has_all_that_the_magics_use() -> None:
    """So that on the demo each of them can be tried: `%slurm connect` needs paramiko, say."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {canonicalize_name(Requirement(line).name) for line in extras["magics"]}
    assert wanted <= _pins("cluster").keys() | _pins("cluster-data").keys()


def test_the_rivals_are_those_we_promise_to_beat() -> None:
    """The benchmark is against batchspawner 1.3.0 and slurm-magic 0.1.0."""
    assert _pins("bench")["batchspawner"] == "1.3.0"
    assert _pins("bench-magics") == {"slurm-magic": "0.1.0"}


def test_the_proxy_is_pinned_without_addresses() -> None:
    """package-lock.json holds an integrity hash for each package, and no registry."""
    locked = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert locked.pop("")["dependencies"] == {"configurable-http-proxy": "5.3.0"}
    assert all("integrity" in package and "resolved" not in package for package in locked.values())
    assert locked["node_modules/configurable-http-proxy"]["version"] == "5.3.0"


def test_the_base_install_is_light() -> None:
    """On a login node hpchub brings jinja2 and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [Requirement(line).name for line in project["dependencies"]] == ["jinja2"]


def test_blocks_keep_each_pin_with_its_hashes() -> None:
    """`blocks` cuts a file at its pins and drops what stands before the first."""
    text = "# head\na==1 \\\n    --hash=sha256:00\n\n# note\nB_c==2 ; x == 'y' \\\n    --hash=sha256:11\n"
    assert lock.blocks(text) == {
        "a": "a==1 \\\n    --hash=sha256:00\n",
        "b_c": "B_c==2 ; x == 'y' \\\n    --hash=sha256:11\n",
    }
    assert lock.blocks("") == {}


def test_compiling_leaves_out_this_machines_wheels(tmp_path: Path) -> None:
    """A hash of a wheel that one machine has would lock everybody else out."""
    environ = {"PIP_FIND_LINKS": "/wheels", "PIP_INDEX_URL": "chosen", "HOME": "/h"}
    kept = lock._registry_only(environ, str(tmp_path))
    assert kept["PIP_CONFIG_FILE"] == "/dev/null"
    assert "PIP_FIND_LINKS" not in kept
    assert kept["PIP_INDEX_URL"] == "chosen"
