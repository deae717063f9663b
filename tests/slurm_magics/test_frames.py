"""Frames from what the real Slurm 22.05 answered, and from text that is hard."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise, repeat
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from golden import capture_magics, reader
from hypothesis import given
from hypothesis import strategies as st

from slurm_magics import columns
from slurm_magics.delimited import UNIT, Marked, Table
from slurm_magics.frames import UnreadColumn, table_to_frame
from slurm_magics.queries import plan
from slurm_magics.reading import Reading
from support.answers import frame_of

UTC = ZoneInfo("UTC")
PARTS = ("JOB", "TASK", "HET")
MARK = capture_magics.MARK


def frame(name: str) -> pd.DataFrame:
    """The frame of a capture, read as the magics read it."""
    tool, words = capture_magics.QUERIES[name]
    query = plan(tool, words, {}, MARK)
    assert query is not None
    captured = reader.record(f"magics_{name}")
    assert captured["argv"] == list(query.argv), "the question has changed: capture again"
    assert captured["environ"] == query.environ, "the question has changed: capture again"
    answer = reader.golden(f"magics_{name}").stdout.encode("utf-8", "surrogateescape")
    return frame_of(query, answer)


def jobs() -> dict[str, str]:
    """Ids of the captured jobs, by what is odd about them."""
    found: dict[str, str] = reader.record("magics_squeue")["jobs"]
    return found


@pytest.mark.parametrize("name", capture_magics.QUERIES)
def test_every_captured_answer_is_read_without_a_warning(name: str) -> None:
    """No column stays text for want of understanding, and no row is lost."""
    found = frame(name)
    rows = {"squeue_steps": 1, "squeue_bob": 0, "sinfo_reasons": 0}
    assert len(found) >= rows.get(name, 3)
    assert len(found) == 0 or name not in {"squeue_bob", "sinfo_reasons"}


@pytest.mark.parametrize("name", ["squeue", "squeue_clusters", "squeue_format", "sacct", "sacct_format"])
def test_each_job_is_one_row_with_its_own_name(name: str) -> None:
    """Blanks, pipes, quotes, line ends, NA, 007, no UTF-8, 1,000 characters, our own separator."""
    found = frame(name)
    ids, names = ("JobID", "JobName") if name.startswith("sacct") else ("JOBID", "NAME")
    # slurmdbd itself keeps other quotes, no bytes outside of UTF-8 and 255 characters at most.
    rewritten = {"pipe_and_quotes", "not_utf8", "long"} if name.startswith("sacct") else set()
    for kind, text in capture_magics.NAMES.items():
        rows = found[found[ids] == jobs()[kind]]
        assert len(rows) == 1 or (rows.empty and name.startswith("sacct")), kind  # not in the accounting yet
        if len(rows) == 1 and kind not in rewritten:
            shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            assert rows[names].iloc[0] == shown, kind


def test_the_columns_of_squeue_have_types() -> None:
    """Times with zone, durations, bytes, nullable counts, categories."""
    found = frame("squeue")
    assert found.dtypes.map(str).to_dict() | {"JOBID": "", "NAME": "", "NODELIST": ""} == {
        "JOBID": "", "JOB": "Int64", "TASK": "Int64", "HET": "Int64", "PARTITION": "category", "NAME": "",
        "USER": "category", "STATE": "category", "TIME": "timedelta64[ms]", "TIME_LIMIT": "timedelta64[ms]",
        "NODES": "Int64", "CPUS": "Int64", "MIN_MEMORY": "Int64", "SUBMIT_TIME": "datetime64[s, UTC]",
        "START_TIME": "datetime64[s, UTC]", "NODELIST": "", "REASON": "category",
    }  # fmt: skip
    row = found.set_index("JOBID").loc[jobs()["na"]]
    assert (row["NAME"], row["TIME_LIMIT"], row["MIN_MEMORY"]) == ("NA", pd.Timedelta(hours=1), 2**30)


def test_array_tasks_and_components_are_told_apart() -> None:
    """A task's number, a component's number, and nothing where a row stands for several tasks."""
    found = frame("squeue").set_index("JOBID")
    array, het = jobs()["array"], jobs()["het"]
    assert found.loc[f"{array}_1", "TASK"] == 1
    assert found.loc[f"{het}+1", "HET"] == 1
    assert found.loc[f"{array}_[3-9%2]", "TASK"] is pd.NA
    assert set(found.loc[[f"{array}_1", f"{array}_[3-9%2]"], "JOB"]) == {int(array)}


def test_tasks_and_nodes_become_rows() -> None:
    """Nine tasks of an array, of which two run; each node of a job."""
    found = frame("squeue")
    expanded = found.slurm.expand_tasks()
    array, short = jobs()["array"], jobs()["short"]
    assert list(expanded[expanded["JOB"] == int(array)]["TASK"].sort_values()) == list(range(1, 10))
    assert list(expanded[expanded["JOB"] == int(jobs()["held_array"])]["TASK"]) == [1, 3, 5, 7, 9]
    nodes = frame("sinfo").slurm.expand_nodes()
    assert set(nodes["NODELIST"]) == {"c1", "c2"}
    assert list(found[found["JOBID"] == short].slurm.expand_nodes()["NODELIST"]) in (["c1", "c2"], [])


def test_a_cluster_becomes_a_column() -> None:
    """With -M each row says which."""
    assert set(frame("squeue_clusters")["CLUSTER"]) == {"demo"}


def test_the_default_partition_has_no_star() -> None:
    """The star is a column of its own; memory is in bytes; 1/0/0/1 are four counts."""
    summary = frame("sinfo_summary").set_index("PARTITION")
    assert summary["DEFAULT"].to_dict() == {"cpu": True, "short": False, "gpu": False}
    assert summary.loc["cpu", "NODES_T"] == 2
    assert set(frame("sinfo_long_format")["MEMORY"]) == {16 * 2**30}


def test_sacct_has_steps_and_real_times() -> None:
    """Steps beside their jobs; an end that is not there is NaT."""
    found = frame("sacct")
    assert "batch" in set(found["Step"])
    assert found["Elapsed"].dtype.kind == "m"
    assert found["End"].isna().any()


NAME = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])).map(
    lambda text: text.replace(MARK, "")
)
STATES = st.sampled_from(["RUNNING", "PENDING", "007", "NA", "null", ""])
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["1", "42_7", "42_[1-9%2]", "6+1", "007"]),
        NAME,
        STATES,
        st.sampled_from(["0:01", "N/A"]),
    )
)


def printed(rows: Sequence[Sequence[str]], before: str = "") -> bytes:
    """What squeue prints."""
    return (before + "".join(UNIT.join((MARK, *row, MARK)) + "\n" for row in rows)).encode()


def read(pieces: Iterable[bytes], parts: Sequence[str] = PARTS) -> pd.DataFrame:
    """The frame of an answer that comes in these pieces."""
    reading = Reading(Marked("squeue", MARK, 1), columns.SQUEUE, UTC, parts=parts)
    for piece in pieces:
        reading.feed(piece)
    return reading.frame()[0]


@given(ROWS, st.lists(st.integers(0, 2000)), st.integers(1, 200), st.sampled_from(["", "Welcome\n"]))
def test_pieces_make_the_frame_of_the_whole(
    rows: list[tuple[str, ...]], cuts: list[int], enough: int, noise: str
) -> None:
    """Wherever the pieces end, however many rows are read at once, and whatever the jobs are called."""
    heads = ("JOBID", "NAME", "STATE", "TIME")
    whole = printed([heads, *rows], noise)
    table = Table(heads, tuple([row[place] for row in rows] for place in range(4)), len(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slurm_magics.reading._ENOUGH_BYTES", enough)
        found = read(whole[start:end] for start, end in pairwise([0, *sorted(cuts), None]))
    pd.testing.assert_frame_equal(found, table_to_frame(table, columns.SQUEUE, zone=UTC, parts=PARTS))


def test_a_column_that_cannot_be_read_stays_text() -> None:
    """With a warning, and with every value."""
    table = Table(("JOBID", "TIME"), (["1", "2"], ["0:01", "soon"]), rows=2)
    with pytest.warns(UnreadColumn, match="TIME stays text"):
        found = table_to_frame(table, columns.SQUEUE, zone=UTC)
    assert list(found["TIME"]) == ["0:01", "soon"]


def test_an_id_that_nobody_knows_loses_nothing() -> None:
    """It is there as text, without parts, and the others have theirs."""
    ids = ["41", "6_[2,6,9,", "7_3", "8+1"]
    table = Table(("JOBID",), (ids,), rows=4)
    with pytest.warns(UnreadColumn, match=r"'6_\[2,6,9,' is no job id in the column JOBID: it has no parts"):
        found = table_to_frame(table, columns.SQUEUE, zone=UTC, parts=PARTS)
    with pytest.warns(UnreadColumn, match="no parts"):
        quick = read([printed([(one,) for one in ("JOBID", *ids)])])
    assert list(found["JOBID"]) == ids
    assert found[["JOB", "TASK", "HET"]].to_numpy(object, na_value=0).tolist() == [
        [41, 0, 0], [0, 0, 0], [7, 3, 0], [8, 0, 1],
    ]  # fmt: skip
    pd.testing.assert_frame_equal(found, quick)


def test_frames_without_such_columns_cannot_be_expanded() -> None:
    """A KeyError that names the column."""
    bare: Any = pd.DataFrame({"x": [1]})
    with pytest.raises(KeyError, match="JOBID or JobID"):
        bare.slurm.expand_tasks()
    with pytest.raises(KeyError, match="NODELIST"):
        bare.slurm.expand_nodes()


def test_a_long_queue_loses_nothing() -> None:
    """30,000 rows, which are read in many pieces: every cell is what squeue printed."""
    names = ("my job", "NA", "x" * 300, "é", "same_first_8_a", "same_first_8_b", "")
    rows = [
        (f"{1000 + row}_7" if row % 5 else str(1000 + row), names[row % 7], str(row % 3), f"{row % 90}:05")
        for row in range(30_000)
    ]
    heads = ("JOBID", "NAME", "STATE", "TIME")
    found = read([printed([heads, *rows])])
    assert list(zip(found["JOBID"], found["NAME"], found["STATE"].astype(object), strict=True)) == [
        row[:3] for row in rows
    ]
    assert (found["TIME"].dt.total_seconds() == [row % 90 * 60 + 5 for row in range(30_000)]).all()
    assert found["TASK"].count() == 24_000


@pytest.mark.parametrize("name", ["odd\nname", f"odd{UNIT}name"])
def test_one_odd_name_in_a_long_queue(name: str) -> None:
    """Wherever it stands: nobody guesses where a cell ends."""
    rows = [("1", "plain"), ("2", name), ("3", "plain")] * 5_000
    found = read([printed([("JOBID", "NAME"), *rows])])
    assert list(zip(found["JOBID"], found["NAME"], strict=True)) == rows


def test_a_long_answer_is_never_held_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 8 MB that come in pieces less than an eighth is in memory at any time."""
    monkeypatch.setattr("slurm_magics.reading._ENOUGH_BYTES", 1 << 15)
    monkeypatch.setattr("slurm_magics.gathered._ROOM", 0)  # which takes no memory, but is counted
    assert len(read([printed([("USER", "STATE"), ("x", "y")])], parts=())) == 1  # with all that it imports
    rows = printed([("x" * 400, "y" * 400)] * 10)
    tracemalloc.start()
    try:
        found = read(chain([printed([("USER", "STATE")])], repeat(rows, 1000)), parts=())
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert len(found) == 10_000


def test_a_value_that_nobody_expects_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole column stays text, with every cell as it was printed, though others have long been read."""
    monkeypatch.setattr("slurm_magics.reading._ENOUGH_BYTES", 100)
    times = ["0:01", "12:00:00", "1-00:00:09", "00:05", "UNLIMITED", "N/A"] * 20
    counts = ["7", "007", "2K", "", "16+", "123456789012345"] * 20
    rows = [*zip(times, counts, strict=True), ("soon", "many")]
    answer = printed([("TIME", "CPUS"), *rows])
    with pytest.warns(UnreadColumn, match="stays text"):
        found = read((answer[start : start + 50] for start in range(0, len(answer), 50)), parts=())
    assert list(zip(found["TIME"], found["CPUS"], strict=True)) == rows
