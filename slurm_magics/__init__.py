"""Slurm in the notebook: `%load_ext slurm_magics`, then `%squeue`, `%%sbatch` and the others.

pandas is imported with the first table, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slurm_magics.errors import SlurmError
from slurm_magics.hostlist import expand_nodes
from slurm_magics.job_ids import expand_job_id, parse_job_id

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = [
    "SlurmError",
    "expand_job_id",
    "expand_nodes",
    "load_ipython_extension",
    "parse_job_id",
    "unload_ipython_extension",
]


# Where a shell keeps its magics. %reload_ext unloads them first: settings and connection outlast that.
_KEPT = "_slurm_magics"


def load_ipython_extension(shell: InteractiveShell) -> None:
    """What `%load_ext slurm_magics` calls, and `%reload_ext`."""
    from slurm_magics.magics import SlurmMagics

    magics = getattr(shell, _KEPT, None) or SlurmMagics(shell)
    setattr(shell, _KEPT, magics)
    magics.register()


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """What `%unload_ext slurm_magics` calls. Settings and connection wait for the next time."""
    getattr(shell, _KEPT).unregister()
