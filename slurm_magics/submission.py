"""What was given to sbatch, and where the output of what it submitted goes. No input or output."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePath

NO_TASK_YET = "4294967294"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What was given to sbatch: its options, the script (empty where a file was named), the folder.

    `results` is the folder where a job of `--python` leaves its value.
    """

    words: tuple[str, ...]
    folder: PurePath
    script: str = field(default="", repr=False)
    results: Path | None = None


@dataclass(slots=True)
class Outputs:
    """Where the standard output of a job, or of an array's tasks, goes, and which tasks there are.

    Slurm forgets a job minutes after its end, so this is asked when the job is submitted. The path of
    tasks that have not begun has a number in the place of theirs.
    """

    by_task: dict[int | None, str] = field(default_factory=dict)
    tasks: frozenset[int] = frozenset()

    def learn(self, known: Outputs) -> None:
        """Add what Slurm says now."""
        self.by_task |= known.by_task
        self.tasks |= known.tasks

    def path(self, task: int | None) -> str:
        """The path of a task's output, or of a plain job's; empty where it is not known."""
        if task in self.by_task and not (task is None and NO_TASK_YET in self.by_task[None]):
            return self.by_task[task]
        return "" if task is None else self.by_task.get(None, "").replace(NO_TASK_YET, str(task))
