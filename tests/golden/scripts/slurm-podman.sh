#!/bin/bash -l
#SBATCH --job-name=hpchub-9f3a
#SBATCH --partition=cpu
#SBATCH --account=physics
#SBATCH --time=01:30:00
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=1536M
#SBATCH --output=/home/alice/.hpchub/servers/9f3a/server.log
#SBATCH --open-mode=append
#SBATCH --export=NONE
#SBATCH --no-requeue

# Starts one notebook server. It holds no secret: the launcher is given the server's environment
# through the tunnel.

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

command -v podman-hpc >/dev/null || fail "there is no" podman-hpc "on $(uname -n)"
printf 'hpchub: starting on %s in the image %s\n' "$(uname -n)" docker.io/jupyter/base:1
# podman-hpc passes its arguments on to podman-run(1): https://github.com/NERSC/podman-hpc. keep-id makes
# the account the same inside, which the handover checks; no variable passes unless it is named.
exec podman-hpc run --rm --network=host --userns=keep-id --entrypoint=python3 \
    --env HOME --env USER --env LANG --env 'SLURM_*' --workdir "$HOME" \
    --volume "$HOME:$HOME" --volume /home/alice/.hpchub/servers/9f3a:/home/alice/.hpchub/servers/9f3a \
    --volume /tmp:/tmp \
    --volume /scratch:/scratch \
    --volume /data:/mnt/data \
    docker.io/jupyter/base:1 /home/alice/.hpchub/servers/9f3a/launcher.py --runtime-dir /tmp/hpchub-9f3a --folder /home/alice/.hpchub/servers/9f3a
