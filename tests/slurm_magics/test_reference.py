"""docs/reference/magics.md leaves nothing out."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden import capture_magics, capture_tables, reader

from slurm_magics import columns
from slurm_magics.completion import OWN_OPTIONS, WORDS
from slurm_magics.help import COMMANDS, TABLES
from slurm_magics.job import Job
from slurm_magics.records import parse_table
from slurm_magics.values import Kind
from support.tree import ROOT

PAGE = (ROOT / "docs" / "reference" / "magics.md").read_text()


@pytest.mark.parametrize("name", [*TABLES, *COMMANDS, "sbatch", "slurm"])
def test_every_magic_is_listed(name: str) -> None:
    """A magic that nobody can find is none."""
    assert f"`%{name}`" in PAGE


@pytest.mark.parametrize("folder", reader.VERSIONS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("name", ["squeue", "squeue_long", "sinfo", "sacct"])
def test_every_column_is_listed(name: str, folder: Path) -> None:
    """Each heading that Slurm gave to a query without a format of the user's own."""
    first = reader.golden(f"magics_{name}", folder).stdout.split("\n", 1)[0]
    headings = first.replace(capture_magics.MARK, "\x1f").split("\x1f")
    own = {heading for heading in headings if heading and heading != "JobIDRaw"}
    assert {heading for heading in own if f"`{heading}`" not in PAGE} == set()


@pytest.mark.parametrize("folder", reader.VERSIONS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("name", [name for name in capture_tables.QUERIES if not name.startswith("sprio")])
def test_every_column_of_the_piped_tables_is_listed(name: str, folder: Path) -> None:
    """Each heading that Slurm gave, with and without a format."""
    answer = reader.golden(f"tables_{name}", folder)
    if "Unknown field 'lastconsumed'" in answer.stderr:
        answer = reader.golden(f"tables_{name}_older", folder)
    if "No valid entity" in answer.stderr:
        pytest.skip("that version does not have it")
    lines = answer.stdout.split("\n")
    headings = next(line for line in lines if line.endswith("|")).split("|")[:-1]
    assert {heading for heading in headings if f"`{heading}`" not in PAGE} == set()


def test_every_column_of_sprio_is_listed() -> None:
    """Whatever may be asked for with -o."""
    assert {heading for heading in columns.SPRIO.values() if f"`{heading}`" not in PAGE} == set()


@pytest.mark.parametrize(
    "kinds", [columns.SQUEUE, columns.SINFO, columns.SACCT, columns.SSHARE, columns.SREPORT, columns.SACCTMGR]
)
def test_every_type_is_listed(kinds: dict[str, Kind]) -> None:
    """Each heading that becomes something else than text."""
    assert {heading for heading in kinds if f"`{heading}`" not in PAGE} == set()


def test_every_option_is_listed() -> None:
    """Each that is ours and not Slurm's, and each word of %slurm."""
    assert {option for option in OWN_OPTIONS["sbatch"] if f"`{option}" not in PAGE} == set()
    plotted = {tool for tool, options in OWN_OPTIONS.items() if "--plot" in options}
    assert {tool for tool in plotted if f"`%{tool} --plot`" not in PAGE} == set()
    assert {word for word in WORDS[("slurm",)].split() if f"`%slurm {word}" not in PAGE} == set()


@pytest.mark.parametrize("folder", reader.VERSIONS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("entity", ["nodes", "partitions"])
def test_every_field_is_listed(entity: str, folder: Path) -> None:
    """Each that Slurm gave of a node or a partition."""
    headings = parse_table(reader.golden(f"magics_scontrol_{entity}", folder).stdout).headings
    assert {heading for heading in headings if f"`{heading}`" not in PAGE} == set()


def test_everything_a_job_can_do_is_listed() -> None:
    """Each public attribute of a Job that is for people."""
    names = {name for name in vars(Job) if not name.startswith("_")}
    assert {name for name in names if f"`job.{name}" not in PAGE} == set()
