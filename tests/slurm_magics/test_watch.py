"""What is known of jobs, from one query to the next: parts of an array come and go in the queue."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hpchub.core.command import Command, CommandResult
from hpchub.schedulers.slurm import Slurm
from slurm_magics.watch import Watch

NO_DATABASE = "sacct: error: Unable to connect to database: Connection refused\n"


class Cluster:
    """What the queue and the accounting say, by task; the accounting is silent without an answer."""

    def __init__(self, queue: dict[str, str], accounting: dict[str, str] | None = None) -> None:
        self.queue, self.accounting = queue, accounting
        self.asked: list[str] = []

    def run(self, command: Command, environ: Mapping[str, str]) -> CommandResult:
        tool = command.argv[0]
        self.asked.append(tool)
        if tool == "squeue":
            rows = [f"{row}\x1f{state}\x1fc1\x1fNone\x1f1\x1f2" for row, state in self.queue.items()]
            return CommandResult(exit_code=0, stdout="\n".join(rows), stderr="")
        if self.accounting is None:
            return CommandResult(exit_code=1, stdout="", stderr=NO_DATABASE)
        rows = [f"{row}\x1f{state}\x1fc1\x1f0:0" for row, state in self.accounting.items()]
        return CommandResult(exit_code=0, stdout="\n".join(rows), stderr="")


def told(watch: Watch, *ids: str) -> tuple[list[str], tuple[int, int]]:
    """The states of some ids, and how many tasks of the array have ended, of how many; asked anew."""
    watch.forget()
    look = watch.look("42", 60.0)
    return [watch.look(one, 60.0).status.native for one in ids], (look.ended, look.tasks)


def test_a_task_that_has_left_the_queue_stays_ended() -> None:
    """While others run, an end that was seen stays one, and what ended unseen is looked up, once."""
    cluster = Cluster({"42_1": "FAILED", "42_2": "RUNNING", "42_[3-9]": "PENDING"}, {})
    watch = Watch(Slurm(), cluster.run)
    assert told(watch, "42_1", "42_2") == (["FAILED", "RUNNING"], (1, 9))
    cluster.asked.clear()
    cluster.queue = {"42_3": "RUNNING", "42_[4-9]": "PENDING"}
    cluster.accounting = {"42_1": "FAILED", "42_2": "COMPLETED", "42_3": "RUNNING", "42_[4-9]": "PENDING"}
    for _ in range(3):
        assert told(watch, "42_1", "42_2", "42_3", "42") == (
            ["FAILED", "COMPLETED", "RUNNING", "RUNNING"],
            (2, 9),
        )
    assert cluster.asked.count("sacct") == 1


def test_an_array_that_is_seen_late() -> None:
    """What had left the queue before the first look is looked up; without the accounting it is no trouble."""
    queue = {"42_8": "RUNNING", "42_[9-10%1]": "PENDING"}
    ended = {f"42_{task}": "COMPLETED" for task in range(1, 8)}
    watch = Watch(Slurm(), Cluster(queue, ended).run)
    assert told(watch, "42_1", "42_8") == (["COMPLETED", "RUNNING"], (7, 10))
    assert told(Watch(Slurm(), Cluster(queue).run), "42_8") == (["RUNNING"], (0, 3))


def test_a_task_that_is_requeued_has_not_ended() -> None:
    """Though its end had been seen: alone or among others that wait."""
    cluster = Cluster({"42_1": "NODE_FAIL", "42_2": "RUNNING"}, {})
    watch = Watch(Slurm(), cluster.run)
    assert told(watch, "42_1") == (["NODE_FAIL"], (1, 2))
    for row in ("42_1", "42_[1,3]"):
        cluster.queue = {row: "PENDING", "42_2": "RUNNING"}
        assert told(watch, "42_1") == (["PENDING"], (0, 2 if row == "42_1" else 3))


def test_tasks_that_leave_while_the_accounting_is_away() -> None:
    """Are in doubt, each by itself: the others' states are known, and the array runs."""
    cluster = Cluster({"42_1": "RUNNING", "42_2": "RUNNING"}, {})
    watch = Watch(Slurm(), cluster.run)
    told(watch)
    cluster.queue, cluster.accounting = {"42_2": "RUNNING"}, None
    assert told(watch, "42_1", "42_2", "42") == (["UNKNOWN", "RUNNING", "RUNNING"], (0, 2))
    trouble = watch.look("42_1", 60.0).trouble
    assert trouble is not None and "did not answer sacct" in trouble.message


@pytest.mark.parametrize("row", ["42_[1,3,7,...]", "42_[1-3"])
def test_a_list_that_nobody_can_read(row: str) -> None:
    """Is an answer that decides nothing; no failure of ours."""
    look = Watch(Slurm(), Cluster({row: "PENDING"}, {}).run).look("42", 60.0)
    assert look.status.native == "UNKNOWN"
    assert look.trouble is not None and "something unexpected" in look.trouble.message
