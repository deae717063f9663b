#!/bin/bash -l
#SBATCH --job-name=hpchub-kernel-9f3a
#SBATCH --partition=gpu
#SBATCH --account=physics
#SBATCH --qos=high
#SBATCH --time=02:00:00
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --gres=gpu:a100:1
#SBATCH "--constraint=a b"
#SBATCH --output=/home/alice/.hpchub/kernels/9f3a/job.log
#SBATCH --open-mode=append
#SBATCH --export=NONE
#SBATCH --no-requeue

# Runs kernels for a notebook server on another node. It holds no secret: the agent reads the job's key
# from its folder, which only the account can enter.

# Modules and conda are defined by the login profile, whichever way this was started.
shopt -q login_shell || exec /bin/bash -l "$0"
# A profile may have asked for strictness that activation scripts do not bear.
set +eu

fail() {
    printf 'hpchub: %s\n' "$*" >&2
    exit 3
}

# Slurm hands a job's own options on to every srun that a notebook runs: --export=NONE would strip its
# environment, --open-mode=append change its files.
unset SLURM_EXPORT_ENV SLURM_GET_USER_ENV SLURM_OPEN_MODE

cd || fail "the home directory ${HOME:-(HOME is not set)} cannot be entered on $(uname -n)"

printf 'hpchub: a kernel is about to start on %s\n' "$(uname -n)"
exec /opt/jupyter/bin/python3 /home/alice/.hpchub/kernels/9f3a/agent.py --folder /home/alice/.hpchub/kernels/9f3a --keep 1800
