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

__all__ = ["SlurmError", "expand_job_id", "expand_nodes", "load_ipython_extension", "parse_job_id"]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """What `%load_ext slurm_magics` calls."""
    from slurm_magics.magics import SlurmMagics

    SlurmMagics(shell).register()
