"""How long things take on the real demo cluster, in seconds. The simulator waits as long.

Measured on 2 cores of an AMD EPYC, Slurm 22.05.8, as alice on login1 with nothing else running. Each
command was run 6 to 15 times from a Python script, piped into

    hpchub demo exec --dir DIR login1 --user alice -- python3 -

which timed `subprocess.run` of the very argv that hpchub sends (hpchub/schedulers/slurm.py), one after
the other. Given are the medians; the longest of each was at most three times that.
"""

from __future__ import annotations

COMMAND_S = {
    "sh": 0.001,  # sh -c true: what a folder's commands take on a local disk
    "sbatch": 0.004,
    "squeue": 0.005,
    "sacct": 0.093,
    "sacctmgr": 0.188,
    "scancel": 0.005,
    "srun": 0.031,  # one more step of a running job: /bin/true
}

# From `make bench` (bench/results/2026-11-21T0455Z.md, "Where it goes on a compute node").
QUEUE_S = 0.57  # from sbatch's answer to a job that runs
NOTEBOOK_START_S = 1.04  # from the handover to a notebook server that answers

# From a job's first line to a launcher that listens: `time python3 hpchub/remote/launcher.py --help`.
LAUNCHER_S = 0.2

# sshd_config(5): Debian's own, and sshd's, defaults.
MAX_SESSIONS = 10
MAX_STARTUPS = (10, 30, 100)

# jupyterhub-singleuser's own default (JUPYTERHUB_ACTIVITY_INTERVAL).
ACTIVITY_S = 300.0
