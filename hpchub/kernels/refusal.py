"""What Slurm would say to a kernel's job: asked without submitting one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from hpchub.core.command import Command
from hpchub.kernels.job_settings import JobSettings
from hpchub.kernels.step import slurm_environ
from hpchub.schedulers.render import render_kernel_script
from hpchub.schedulers.slurm import Slurm

# A controller that is away is asked for longer, and says nothing about the job.
_LIMIT_S = 15.0
# sbatch(1), --test-only. What else it may say is not about the job; checked on 22.05.
_REFUSED = re.compile(r"allocation failure: (.+)")


def refusal(settings: JobSettings) -> str:
    """Slurm's words where it would refuse the job now; nothing where it would not, or cannot be asked.

    Raises:
        HpchubError: The script cannot be written.
    """
    script = render_kernel_script(
        settings.templates, settings=settings, job_name="hpchub-kernel", folder=str(Path.home())
    )
    command = Slurm().submit_command(script)
    if not shutil.which(command.name):
        return ""
    found = _REFUSED.search(_said(command))
    return found[1].strip() if found else ""


def _said(command: Command) -> str:
    """What sbatch writes about a job that it does not submit; nothing where it takes too long."""
    try:
        done = subprocess.run(
            (*command.argv, "--test-only"), input=command.stdin, capture_output=True, env=slurm_environ(),
            timeout=_LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout + done.stderr).decode("utf-8", "replace") if done.returncode else ""
