"""What Slurm would say to a kernel's job: asked without submitting one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from hpchub.core.command import Command, CommandResult
from hpchub.errors import UnexpectedOutput
from hpchub.kernels.job_settings import JobSettings
from hpchub.kernels.step import slurm_environ
from hpchub.schedulers.render import render_kernel_script
from hpchub.schedulers.slurm import Slurm
from hpchub.schedulers.slurm_errors import failure, told_by_sbatch

# A controller that is away is asked for longer, and says nothing about the job.
_LIMIT_S = 15.0
# sbatch(1), --test-only: the controller's words, which it also says of an outage. Of an option that sbatch
# itself does not take it speaks as always; checked on 22.05.
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
    answer = _tried(command)
    if answer is None or not answer.exit_code or not isinstance(failure("sbatch", answer), UnexpectedOutput):
        return ""
    found = _REFUSED.search(answer.stderr)
    return found[1].strip() if found else told_by_sbatch(answer)


def _tried(command: Command) -> CommandResult | None:
    """What sbatch answers about a job that it does not submit; None where it takes too long."""
    try:
        done = subprocess.run(
            (*command.argv, "--test-only"), input=command.stdin, capture_output=True, env=slurm_environ(),
            timeout=_LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return CommandResult(
        exit_code=done.returncode,
        stdout=done.stdout.decode("utf-8", "replace"),
        stderr=done.stderr.decode("utf-8", "replace"),
    )
