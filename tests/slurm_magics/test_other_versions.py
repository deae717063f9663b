"""The same questions to several versions of the real Slurm: tests/golden/README.md says where they ran."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from golden import capture_magics, reader

from hpchub.core.job import JobState
from hpchub.schedulers.slurm_states import state_of
from slurm_magics import columns, expand_job_id, expand_nodes, frames
from slurm_magics.efficiency import measure
from slurm_magics.queries import plan
from slurm_magics.records import NODE_KINDS, PARTITION_KINDS, parse_jobs, parse_table
from slurm_magics.values import Kind
from support.answers import frame_of
from support.dtypes import DTYPES

UTC = ZoneInfo("UTC")
# What a frame has besides Slurm's own headings.
_MADE = {"DEFAULT": "boolean", "ReqMemPer": "category", "Step": "category"}

pytestmark = pytest.mark.parametrize("folder", reader.VERSIONS, ids=lambda folder: folder.name)


def frame(name: str, folder: Path) -> pd.DataFrame:
    """The frame of a capture, read as the magics read it."""
    tool, words = capture_magics.QUERIES[name]
    query = plan(tool, words, {}, capture_magics.MARK)
    assert query is not None
    asked = reader.record(f"magics_{name}", folder)
    assert (asked["argv"], asked["environ"]) == (list(query.argv), query.environ), "capture again"
    answer = reader.golden(f"magics_{name}", folder).stdout.encode("utf-8", "surrogateescape")
    return frame_of(query, answer)


def made(folder: Path, name: str) -> dict[str, str]:
    """Ids of a capture's jobs, by what is odd about them."""
    found: dict[str, str] = reader.record(f"magics_{name}", folder)["jobs"]
    return found


@pytest.mark.parametrize("name", capture_magics.QUERIES)
def test_each_column_has_its_type(folder: Path, name: str) -> None:
    """The one that the reference promises; a column that stays text for want of understanding warns."""
    kinds = {"squeue": columns.SQUEUE, "sinfo": columns.SINFO, "sacct": columns.SACCT}[name.split("_")[0]]
    for heading, dtype in frame(name, folder).dtypes.map(str).items():
        kind = kinds.get(str(heading), Kind.TEXT)
        assert dtype in (_MADE.get(str(heading), ""), *DTYPES[kind]), heading


def test_no_row_is_lost_or_forged(folder: Path) -> None:
    """Each job of the queue once, under its own name, whatever that is; each state is one that we know."""
    queue = frame("squeue", folder)
    jobs = made(folder, "squeue")
    assert queue["JOBID"].is_unique
    assert set(queue["JOB"]) == {int(number) for number in jobs.values()} | set(
        queue[queue["HET"].notna()]["JOB"]
    )
    names = queue.set_index("JOBID")["NAME"]
    for kind, text in capture_magics.NAMES.items():
        assert names[jobs[kind]] == text.encode("utf-8", "surrogateescape").decode(
            "utf-8", "backslashreplace"
        )
    states = {state_of(native) for native in [*queue["STATE"], *frame("sacct", folder)["State"]]}
    assert JobState.UNKNOWN not in states


def test_ids_and_node_lists_are_read(folder: Path) -> None:
    """Of tasks that wait together and of a heterogeneous job's parts; and each node once."""
    queue = frame("squeue", folder).set_index("JOBID")
    jobs = made(folder, "squeue")
    (waiting,) = [text for text in queue.index if text.startswith(f"{jobs['held_array']}_")]
    assert expand_job_id(waiting) == [f"{jobs['held_array']}_{task}" for task in (1, 3, 5, 7, 9)]
    parts = queue[queue["JOB"] == int(jobs["het"])]
    assert sorted(parts["HET"]) == [0, 1]
    nodes = frame("sinfo", folder)["NODELIST"]
    assert {name for text in nodes for name in expand_nodes(text)} == {"c1", "c2"}


def test_jobs_are_records(folder: Path) -> None:
    """Each that Slurm names, and no other; with what people wrote as they wrote it."""
    numbers = reader.golden("magics_squeue_numbers", folder).stdout.split()
    records = parse_jobs(reader.golden("magics_scontrol_jobs", folder).stdout, numbers)
    assert records is not None
    by_id = {record["JobId"]: record for record in records}
    assert sorted(by_id) == sorted(numbers)
    jobs = made(folder, "scontrol_jobs")
    for kind in ("blanks", "newline", "long", "na", "number", "unit_separator"):
        assert by_id[jobs[kind]]["JobName"] == capture_magics.NAMES[kind]
    assert by_id[jobs["held"]]["Comment"] == "two words"
    assert by_id[jobs["short"]]["TimeLimit"] == "00:01:00"
    assert by_id[jobs["blanks"]]["StdOut"] == "/dev/null"


@pytest.mark.parametrize(("name", "kinds"), [("nodes", NODE_KINDS), ("partitions", PARTITION_KINDS)])
def test_nodes_and_partitions_have_types(folder: Path, name: str, kinds: dict[Kind, str]) -> None:
    """In each column that is no text."""
    table = parse_table(reader.golden(f"magics_scontrol_{name}", folder).stdout)
    known = columns.kinds_by_heading(kinds)
    found = frames.table_to_frame(table, known, zone=UTC)
    assert len(found) == {"nodes": 2, "partitions": 3}[name]
    for heading, dtype in found.dtypes.map(str).items():
        assert dtype in DTYPES[known.get(str(heading), Kind.TEXT)], heading


def test_a_drained_node_says_why(folder: Path) -> None:
    """The words of whoever drained it, and when: where one was."""
    reasons = frame("sinfo_reasons", folder)
    if folder == reader.SLURM:
        assert reasons.empty  # nobody had drained any
        return
    assert reasons["REASON"].tolist() == ["two words"]
    assert reasons["NODELIST"].tolist() == ["c2"]
    assert set(reasons["TIMESTAMP"].dt.year) == {2026}


def test_memory_asked_for_is_of_each_node(folder: Path) -> None:
    """A job of two nodes with 1 GB on each, whatever ReqMem means in that version."""
    rows = frame("sacct_long", folder)
    job = rows[rows["JobIDRaw"] == made(folder, "sacct_long")["short"]]
    # The long listing has these in another form, or not at all.
    counted = {"NNodes": 2, "AllocCPUS": 2}
    job = job.assign(
        ElapsedRaw=job["Elapsed"],
        TotalCPU=job["Elapsed"],
        **{heading: pd.array([count], dtype="Int64") for heading, count in counted.items()},
    )
    assert measure("short", job).memory_asked_bytes == 1 << 30
