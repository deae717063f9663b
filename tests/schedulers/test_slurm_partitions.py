"""Slurm's partitions with their limits, from what sinfo answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from golden.reader import golden, record
from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.command import CommandResult
from hpchub.errors import HpchubError, SchedulerUnavailable, UnexpectedOutput
from hpchub.schedulers.slurm_partitions import PartitionLimits, parse_partitions, partitions_command

_GIB = 1024**3


def _answer(*rows: str) -> CommandResult:
    return CommandResult(exit_code=0, stdout="\n".join(row.replace("|", "\x1f") for row in (*rows, "")))


def test_the_demos_partitions() -> None:
    """As a real sinfo answers, asked as we ask; what a partition allows counts, not only what nodes have."""
    assert record("sinfo_partitions")["argv"] == list(partitions_command().argv)
    node = PartitionLimits(
        name="cpu", is_default=True, state="up", max_time_s=28800, default_time_s=3600,
        cpus=8, memory_bytes=16 * _GIB, gpus={"": 2},
    )  # fmt: skip
    assert parse_partitions(golden("sinfo_partitions")) == [
        node,
        replace(node, name="short", is_default=False, max_time_s=1800, default_time_s=600, cpus=4),
        replace(node, name="gpu", is_default=False, max_time_s=14400),
    ]


def test_a_partition_with_several_kinds_of_nodes() -> None:
    """Is one, with the most that any of its nodes has of each kind."""
    answer = _answer(
        "CLUSTER: alpha",
        "big|big|up|1-00:00:00|n/a|UNLIMITED|64|257500|gpu:a100:4(S:0-1),shard:8",
        "big|big|up|1-00:00:00|n/a|UNLIMITED|128|191000|gpu:a100:2,gpu:1g.5gb:7,gpu:h100:1(IDX:0)",
        "wide|wide|inact|infinite|30:00|48|96|1900|(null)",
        "tiny|tiny*|drain|infinite|n/a|UNLIMITED|1|512|gpu:4090:8",
    )
    assert parse_partitions(answer) == [
        PartitionLimits(
            name="big", is_default=False, state="up", max_time_s=86400, default_time_s=86400, cpus=128,
            memory_bytes=257500 * 1024**2, gpus={"a100": 4, "1g.5gb": 7, "h100": 1},
        ),
        PartitionLimits(
            name="wide", is_default=False, state="inact", max_time_s=0, default_time_s=1800, cpus=48,
            memory_bytes=1900 * 1024**2,
        ),
        PartitionLimits(
            name="tiny", is_default=True, state="drain", max_time_s=0, default_time_s=0, cpus=1,
            memory_bytes=512 * 1024**2, gpus={"4090": 8},
        ),
    ]  # fmt: skip


def test_no_partition_is_an_answer() -> None:
    """Of a person who may use none."""
    assert parse_partitions(_answer()) == []


def test_a_controller_that_is_down_is_no_answer() -> None:
    """It is Slurm that is away, in its own words."""
    with pytest.raises(
        SchedulerUnavailable, match="did not answer sinfo: Unable to contact slurm controller"
    ):
        parse_partitions(golden("sinfo_controller_down"))


@pytest.mark.parametrize(
    "row",
    ["cpu|cpu|up|soon|n/a|8|8|512|(null)", "cpu|cpu|up|1:00|n/a|8|many|512|(null)", "cpu|cpu|up", "welcome"],
)
def test_what_nobody_can_read_is_no_partition(row: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(UnexpectedOutput):
        parse_partitions(_answer(row))


@given(st.lists(st.text(st.characters(exclude_characters="\n"))), st.integers(0, 1))
def test_any_text_is_read_or_refused(rows: list[str], code: int) -> None:
    """With no error but ours."""
    try:
        found = parse_partitions(CommandResult(exit_code=code, stdout="\n".join(rows)))
    except HpchubError:
        return
    assert all(one.name for one in found)
