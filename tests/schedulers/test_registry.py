"""hpchub.schedulers.registry and hpchub.paths"""

from __future__ import annotations

from pathlib import Path

import pytest
from schedulers.samples import make_cluster

from hpchub import paths
from hpchub.core.cluster_file import SCHEDULERS
from hpchub.errors import ConfigError
from hpchub.schedulers.registry import BACKENDS, scheduler_for
from hpchub.schedulers.slurm import Slurm


def test_the_cluster_file_chooses_the_backend() -> None:
    """The backend is bound to what the file says."""
    assert scheduler_for(make_cluster(scheduler_cluster="beta")) == Slurm(cluster="beta")


def test_the_reader_and_the_registry_agree() -> None:
    """A cluster file can name exactly the backends that there are, and each has its templates."""
    assert set(SCHEDULERS) == set(BACKENDS)
    for name in BACKENDS:
        assert (paths.templates_dir() / name / "notebook.sh.j2").is_file()


def test_an_unknown_backend_is_a_config_error() -> None:
    """A name that got past the reader names those that there are."""
    with pytest.raises(ConfigError, match="slurm"):
        scheduler_for(make_cluster(scheduler="abacus"))


def test_templates_of_a_wheel_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package uses its own folder, not one of that name in site-packages."""
    package = tmp_path / "hpchub"
    monkeypatch.setattr(paths, "_PACKAGE", package)
    (tmp_path / "templates").mkdir()
    with pytest.raises(ConfigError, match="templates"):
        paths.templates_dir()
    (tmp_path / "pyproject.toml").touch()
    assert paths.templates_dir() == tmp_path / "templates"
    (package / "_data" / "templates").mkdir(parents=True)
    assert paths.templates_dir() == package / "_data" / "templates"
