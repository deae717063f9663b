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

# Environment Modules and Lmod define `module` in the profile, some sites only for interactive shells.
if ! command -v module >/dev/null; then
    for init in "${MODULESHOME:-}/init/bash" "${LMOD_PKG:-}/init/bash" /usr/share/lmod/lmod/init/bash \
        /usr/share/modules/init/bash /usr/share/Modules/init/bash; do
        [ -r "$init" ] && . "$init" && break
    done
fi
command -v module >/dev/null || fail "there is no module command on $(uname -n)"
module load python/3.11 || fail "the module" python/3.11 "cannot be loaded on $(uname -n)"
module load jupyter || fail "the module" jupyter "cannot be loaded on $(uname -n)"

python="$(type -P python3)"
[ -x "$python" ] || fail "the environment" modules "has no python3 on $(uname -n)"
printf 'hpchub: starting on %s with %s\n' "$(uname -n)" "$python"
exec "$python" /home/alice/.hpchub/servers/9f3a/launcher.py --runtime-dir /tmp/hpchub-9f3a --folder /home/alice/.hpchub/servers/9f3a
