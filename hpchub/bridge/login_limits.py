"""How a server on a login node is kept within limits, without root: by whatever the node offers.

In this order: a scope of the person's own systemd, a cgroup that the site has delegated, resource limits.
docs/howto/limits.md says what each of them holds and what it does not.
"""

from __future__ import annotations

import zlib

from hpchub.core.cluster import LoginLimits

LIMITS_NAME = "limits.sh"
_CGROUPS = "/sys/fs/cgroup"

# Runs "$@" within limits. A zero is no limit. Fixed text: the numbers stand in front of it.
_SCRIPT = """
say() { printf 'hpchub: limited by %s\\n' "$*" >&2; }

# Without lingering the person's systemd ends with their last login, and takes its scopes along. And where
# a controller is not handed down to it, it takes the property and does nothing.
by_systemd() {
    command -v systemd-run >/dev/null && command -v loginctl >/dev/null || return 1
    [ "$(loginctl show-user "$(id -un)" --property=Linger --value 2>/dev/null)" = yes ] || return 1
    export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"
    scope=(systemd-run --user --scope --quiet --collect)
    files=()
    if [ "$memory" != 0 ]; then scope+=(-p "MemoryMax=$memory"); files+=(memory.max); fi
    if [ "$processes" != 0 ]; then scope+=(-p "TasksMax=$processes"); files+=(pids.max); fi
    if [ "$cpus" != 0 ]; then scope+=(-p "CPUQuota=$((cpus * 100))%"); files+=(cpu.max); fi
    "${scope[@]}" -- /bin/sh -c '
        folder=$1$(sed -n s/^0:://p /proc/self/cgroup); shift
        for file; do [ -e "$folder/$file" ] || exit 1; done
    ' hpchub "$cgroups" "${files[@]}" 2>/dev/null
}

limit() {
    [ "$2" = 0 ] || { [ -w "$group/$1" ] && printf '%s\\n' "$2" >"$group/$1"; }
}

# A process may move itself to where both groups' common parent is its own account's.
by_cgroup() {
    own=$cgroups$(sed -n 's/^0:://p' /proc/self/cgroup)
    for parent in "${own%/}" "${own%/*}"; do
        group=$parent/$name
        [ -w "$parent/cgroup.procs" ] && mkdir -p "$group" 2>/dev/null || continue
        if limit memory.max "$memory" && limit pids.max "$processes" &&
            limit cpu.max "${cpu_max:-0}" && (echo "$BASHPID" >"$group/cgroup.procs") 2>/dev/null; then
            return 0
        fi
        rmdir "$group" 2>/dev/null
    done
    return 1
}

# RLIMIT_AS would count what is only reserved, of which V8, Java and CUDA take far more than they use;
# RLIMIT_DATA counts what can be written to. Both are each process's own. RLIMIT_NPROC counts the threads
# of all the account's processes on the node.
by_ulimit() {
    [ "$memory" = 0 ] || ulimit -d "$((memory / 1024))" 2>/dev/null
    [ "$processes" = 0 ] || ulimit -u "$processes" 2>/dev/null
    [ "$cpus" = 0 ] && return
    chosen= count=$(nproc)
    for ((index = 0; index < cpus && index < count; index++)); do
        chosen+=${chosen:+,}$(((first_cpu + index) % count))
    done
    if taskset -c "$chosen" true 2>/dev/null; then set_cpus=(taskset -c "$chosen"); fi
}

[ "$nice" = 0 ] || set -- nice -n "$nice" "$@"
[ "$cpus" = 0 ] || cpu_max="$((cpus * 100000)) 100000"
set_cpus=()
if by_systemd; then
    say "systemd"
    exec "${scope[@]}" --unit="$name" -- "$@"
elif by_cgroup; then
    say "the cgroup $group"
    trap : TERM
    (echo "$BASHPID" >"$group/cgroup.procs"; exec "$@")
    code=$?
    rmdir "$group" 2>/dev/null
    exit $code
fi
by_ulimit
say "ulimit"
exec "${set_cpus[@]}" "$@"
"""


def limits_script(limits: LoginLimits, server_id: str, cgroups: str = _CGROUPS) -> bytes:
    """`limits.sh`: runs its arguments as a command within the limits.

    Args:
        limits: What the cluster file says.
        server_id: Names the server's scope or cgroup, and spreads servers over the CPUs.
        cgroups: Where the node's cgroups are mounted.
    """
    values = {
        "memory": limits.memory_bytes,
        "cpus": limits.cpus,
        "processes": limits.processes,
        "nice": limits.nice,
        "first_cpu": zlib.crc32(server_id.encode()) % 4096,
    }
    lines = ["#!/bin/bash", *(f"{name}={value}" for name, value in values.items())]
    lines += [f"name=hpchub-{server_id[:16]}", f"cgroups={cgroups}"]
    return ("\n".join(lines) + _SCRIPT).encode()
