"""Job ids and node lists, taken apart and written out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_magics.hostlist import expand_nodes, expand_numbers
from slurm_magics.job_ids import expand_job_id, parse_job_id


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("42", (42, None, None, "", "")),
        ("42_7", (42, 7, None, "", "")),
        ("42+1", (42, None, 1, "", "")),
        ("42_[1-9%2]", (42, None, None, "", "1-9%2")),
        ("42_7.batch", (42, 7, None, "batch", "")),
        ("42.0", (42, None, None, "0", "")),
        ("6+0.extern", (6, None, 0, "extern", "")),
    ],
)
def test_parts_of_an_id(text: str, parts: tuple[object, ...]) -> None:
    """Job, array task, heterogeneous component, step, tasks in brackets."""
    assert tuple(parse_job_id(text)) == parts


@pytest.mark.parametrize(
    "text", ["", "x", "42_", "42_[", "4 2", "42_7_8", "٤٢", "٤٢_1", "42\n", "9" * 30, "1_" + "9" * 30]
)
def test_what_is_no_id(text: str) -> None:
    """Not guessed at."""
    with pytest.raises(ValueError, match="no job id"):
        parse_job_id(text)


def test_one_row_stands_for_several_tasks() -> None:
    """Ranges, steps, lists; the limit of running tasks is no task."""
    assert expand_job_id("42_[1-3%2]") == ["42_1", "42_2", "42_3"]
    assert expand_job_id("42_[1-9:4,20]") == ["42_1", "42_5", "42_9", "42_20"]
    assert expand_job_id("42_7") == ["42_7"]


@given(st.sets(st.integers(0, 500), min_size=1))
def test_any_set_of_tasks_comes_back(tasks: set[int]) -> None:
    """However the list is cut, each task is there once."""
    assert expand_numbers(",".join(map(str, sorted(tasks)))) == sorted(tasks)


def test_too_many_tasks_are_an_error() -> None:
    """And no endless list."""
    with pytest.raises(ValueError, match="more than"):
        expand_job_id("42_[1-900000,1-900000]")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("c1", ["c1"]),
        ("nid[00009-00011]", ["nid00009", "nid00010", "nid00011"]),
        ("c[1-2,5],login1", ["c1", "c2", "c5", "login1"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("a[1]-ib,b", ["a1-ib", "b"]),
    ],
)
def test_node_lists(text: str, names: list[str]) -> None:
    """Leading zeros stay, and so does the order."""
    assert expand_nodes(text) == names


@pytest.mark.parametrize(
    "text",
    ["c[1-", "c[x]", "c[1-2", "c]1[", "c[1-99999999]", "c[1-1001]n[1-1001]", "c[1-900000,1-900000]"],
)
def test_what_is_no_node_list(text: str) -> None:
    """An error, and no endless list."""
    with pytest.raises(ValueError, match=r"no node list|no range|more than"):
        expand_nodes(text)
