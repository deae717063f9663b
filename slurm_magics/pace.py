"""How often one who waits for a job asks Slurm, and how long Slurm is left alone after failures. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slurm_magics.watch import Look

# Seconds since the wait began, and how old a state may then be.
_PACE = ((15.0, 1.0), (120.0, 3.0), (float("inf"), 10.0))
_MOST_REST_S = 30.0


def count_failure(failures: int, look: Look) -> int:
    """How many queries in a row have failed.

    Raises:
        SlurmError: The next ones will, too, until the person does something.
    """
    if look.trouble and not look.trouble.retryable:
        raise look.trouble
    return failures + 1 if look.trouble else 0


def rest_s(failures: int) -> float:
    """How long to leave Slurm alone after so many failures in a row, in seconds."""
    return min(_MOST_REST_S, 2.0 ** min(failures, 10)) if failures else 0.0


def fresh_s(waited_s: float) -> float:
    """How old a state may be after so many seconds of waiting, in seconds."""
    return step_s(_PACE, waited_s)


def step_s(pace: Sequence[tuple[float, float]], since_s: float) -> float:
    """The pause of the step that so many seconds fall into, in seconds. A step: until when, and its pause."""
    return next(pause_s for until_s, pause_s in pace if since_s < until_s)
