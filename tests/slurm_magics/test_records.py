"""`scontrol show`: mappings and tables from what a real Slurm answered, and what may not be believed."""

from __future__ import annotations

from datetime import UTC

import pytest
from golden import reader
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from slurm_magics import SlurmError
from slurm_magics.columns import kinds_by_heading
from slurm_magics.frames import table_to_frame
from slurm_magics.records import NODE_KINDS, PARTITION_KINDS, Record, parse_jobs, parse_table
from support.slurm_commands import Commands

JOBS = reader.golden("magics_scontrol_jobs").stdout
NUMBERS = reader.golden("magics_squeue_numbers").stdout.split()
MADE = reader.record("magics_scontrol_jobs")["jobs"]
ONE = next(text for text in JOBS.split("\n\n") if text.startswith(f"JobId={MADE['blanks']} "))


def renamed(name: str) -> str:
    return ONE.replace("JobName=my job  2", f"JobName={name}")


def read(text: str) -> Record | None:
    found = parse_jobs(text, [MADE["blanks"]])
    return found[0] if found else None


def test_every_job_is_a_record() -> None:
    """One for each, odd names and all; of an array and of a heterogeneous job each part."""
    found = parse_jobs(JOBS, NUMBERS)
    assert found is not None
    assert sorted(record["JobId"] for record in found) == sorted(NUMBERS)
    by_id = {record["JobId"]: record for record in found}
    assert by_id[MADE["newline"]]["JobName"] == "line\n99999"
    assert by_id[MADE["long"]]["JobName"] == "n" * 1000
    assert by_id[MADE["pipe_and_quotes"]]["JobName"] == "a|b\"c'd"
    assert by_id[MADE["held"]]["Comment"] == "two words"
    assert by_id[MADE["het"]]["JobName"] == "wrap"
    assert by_id[MADE["het"]]["HetJobIdSet"].startswith(f"{MADE['het']}-")
    assert by_id[MADE["short"]]["TimeLimit"] == "00:01:00"
    assert by_id[MADE["short"]]["ReqB:S:C:T"] == "0:0:*:*"


@given(
    st.text("ab=\n _Jo", max_size=20) | st.sampled_from(["\n   StdOut=/x", " UserId=root(0)", "\n\nJobId=1 "])
)
def test_no_name_forges_a_field(name: str) -> None:
    """The name is whole, and every other field is what it was."""
    plain = read(ONE)
    assert plain is not None
    record = read(renamed(name))
    assert record is None or {**record, "JobName": ""} == {**plain, "JobName": ""}
    assert record is None or record["JobName"] == name


@pytest.mark.parametrize(
    "text",
    [
        renamed("x\n   UserId=root(0) GroupId=root(0)"),
        renamed("x\n\nJobId=1 JobName=y"),
        ONE.replace("StdIn=/dev/null", "StdIn=/dev/null\n   UserId=root(0)"),
        ONE.replace("WorkDir=", "WorkDir=\n   Command=/bin/true\n   X="),
        f"Welcome\n{ONE}",
        ONE[:300],
        "",
    ],
)
def test_what_is_doubtful_stays_text(text: str) -> None:
    """A field that stands twice, a job that Slurm does not name, half a record."""
    assert not read(text)


def test_nodes_and_partitions_are_tables() -> None:
    """Typed; one row for each."""
    nodes = parse_table(reader.golden("magics_scontrol_nodes").stdout)
    frame = table_to_frame(nodes, kinds_by_heading(NODE_KINDS), zone=UTC)
    assert frame["NodeName"].tolist() == ["c1", "c2"]
    assert frame["RealMemory"].tolist() == [16 << 30] * 2
    assert str(frame["BootTime"].dtype) == "datetime64[s, UTC]"
    assert frame["OS"].str.contains("SMP").all()
    partitions = parse_table(reader.golden("magics_scontrol_partitions").stdout)
    frame = table_to_frame(partitions, kinds_by_heading(PARTITION_KINDS), zone=UTC)
    assert frame["PartitionName"].tolist() == ["cpu", "short", "gpu"]
    assert frame["MaxTime"].dt.total_seconds().tolist() == [28800, 1800, 14400]
    assert frame["MaxNodes"].isna().all()
    text = "Maintenance on Monday\nNodeName=c1 Arch=x86_64\n\nNodeName=c2\n"
    assert parse_table(text).columns == (["c1", "c2"], ["x86_64", ""]), "a line without a field is no row"


@pytest.fixture
def slurm(commands: Commands) -> Commands:
    """One job, whose name is odd."""
    commands.answer("scontrol", f"{renamed('<b>&')}\n\n")
    commands.answer("squeue", f"{MADE['blanks']}\n")
    return commands


def test_a_job_is_a_mapping(shell: InteractiveShell, slurm: Commands) -> None:
    """It prints in two columns; as a page its text is text. Text for those who want text."""
    record = shell.run_cell("%scontrol show job {1 + 1} {nobody}").result
    assert isinstance(record, str)
    record = shell.run_cell("%scontrol -M demo show job 42").result
    assert record["JobName"] == "<b>&"
    assert "\nJobName " in shell.display_formatter.formatters["text/plain"](record)
    assert "&lt;b&gt;&amp;" in record._repr_html_()
    assert slurm.calls("squeue")[-1]["argv"][1:] == [
        "--noheader", "--states=all", "--clusters=demo", "--jobs=42", "--format=%A",
    ]  # fmt: skip
    shell.run_cell("%slurm display text").raise_error()
    assert isinstance(shell.run_cell("%scontrol show job 42").result, str)


@pytest.mark.parametrize(
    "line", ["-d show job 42", "--json show job 42", "-o show node", "show config", "ping"]
)
def test_all_else_stays_text(shell: InteractiveShell, slurm: Commands, line: str) -> None:
    """In Slurm's own words."""
    assert shell.run_cell(f"%scontrol {line}").result.startswith("JobId=")
    assert slurm.calls("squeue") == []


def test_a_job_that_is_not_there(shell: InteractiveShell, slurm: Commands) -> None:
    """Slurm's words."""
    slurm.answer("scontrol", stderr="slurm_load_jobs error: Invalid job id specified\n", exit_code=1)
    error = shell.run_cell("%scontrol show job 42").error_in_exec
    assert isinstance(error, SlurmError)
    assert "Invalid job id" in error.message
