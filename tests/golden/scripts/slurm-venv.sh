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

prefix=/opt/jupyter
[ -x "$prefix/bin/python3" ] || fail "the environment" venv "at $prefix is not there: no bin/python3 on $(uname -n)"
unset PYTHONHOME
if [ -d "$prefix/conda-meta" ]; then
    export CONDA_PREFIX="$prefix"
    PATH="$prefix/bin:$PATH"
    for hook in "$prefix"/etc/conda/activate.d/*.sh; do
        [ -r "$hook" ] && . "$hook"
    done
else
    # An environment that was copied names its old place in bin/activate: what follows has the last word.
    [ -r "$prefix/bin/activate" ] && . "$prefix/bin/activate"
    export VIRTUAL_ENV="$prefix"
    PATH="$prefix/bin:$PATH"
fi
export PATH

python=/opt/jupyter/bin/python3
[ -x "$python" ] || fail "the environment" venv "has no python3 on $(uname -n)"
printf 'hpchub: starting on %s with %s\n' "$(uname -n)" "$python"
exec "$python" /home/alice/.hpchub/servers/9f3a/launcher.py --runtime-dir /tmp/hpchub-9f3a --folder /home/alice/.hpchub/servers/9f3a
