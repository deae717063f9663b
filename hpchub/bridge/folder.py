"""A server's folder on the cluster: made before the job, read when it dies, removed after it.

Everything here is a pair of a command and the reading of its answer; the shell text is fixed, and
whatever varies is an argument or standard input.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass

from hpchub.bridge.login_limits import LIMITS_NAME
from hpchub.bridge.login_nodes import parse_load
from hpchub.core.command import Command, CommandResult
from hpchub.core.secret import Secret
from hpchub.errors import AccountProblem, HostUnreachable, NotAllowed, NotListening, UnexpectedOutput

SERVERS_FOLDER = ".hpchub/servers"
SCRIPT_NAME = "notebook.sh"
LAUNCHER_NAME = "launcher.py"
LOG_NAME = "server.log"
TCP_KEY_NAME = "tcp_key"
TCP_PORT_NAME = "tcp_port"
LOG_TAIL_LINES = 20
LOG_TAIL_BYTES = 8192

# tar says `Wrote only 512 of 10240 bytes` where part of a file still had room.
_FULL = ("no space left", "quota exceeded", "wrote only")
_TAR_ENDS = ("tar: Exiting with failure status", "tar: Error is not recoverable")

_MOST_CODE_DIGITS = 3
_TCP = re.compile(r"([0-9]{1,5})\n([0-9a-f]{64})\n?", re.ASCII)

# Of a server that failed the log is kept, and swept after a month; whatever holds more may still run.
# A folder of our own name is what a bridge left that died before it had submitted anything.
_PREPARE = f"""
umask 077
cd -- "$HOME" || exit 91
mkdir -p {SERVERS_FOLDER} && cd {SERVERS_FOLDER} || exit 92
find . -mindepth 1 -maxdepth 1 -mtime +30 ! -exec test -e {{}}/{LAUNCHER_NAME} \\; -exec rm -rf {{}} +
rm -rf -- "$1"
mkdir -- "$1" && tar -xmf - -C "$1" || {{ rm -rf -- "$1"; exit 92; }}
cd -- "$1" && pwd -P || exit 92
read -r load rest </proc/loadavg && echo "$load $(nproc)" || :
"""

# `setsid` leaves the session's process group, so the end of the SSH session is not the server's. It forks
# by itself: a shell's `&` would have every kernel and terminal ignore SIGINT for good. The trap has the
# inner shell outlive the server; what it starts gets its own default back.
_START_ON_LOGIN_NODE = f"""
cd -- "$1" || exit 91
[ ! -s pid ] || exit 0
setsid -f /bin/sh -c '
  echo $$ >pid; trap : TERM
  limited=; [ ! -e {LIMITS_NAME} ] || limited="/bin/bash {LIMITS_NAME}"
  $limited /bin/bash -l {SCRIPT_NAME}; echo $? >exit_code.new; mv exit_code.new exit_code
' </dev/null >>{LOG_NAME} 2>&1 || exit 94
tries=0
until [ -s pid ]; do
  if [ $tries -eq 500 ]; then exit 94; fi
  tries=$((tries + 1))
  sleep 0.02
done
"""

# The pid counts only while that process still works in the folder: pids are used again. The signal is
# sent every two seconds, because one that comes while the shell is about to fork reaches no server.
_END_ON_LOGIN_NODE = """
cd -- "$1" || exit 91
[ -e pid ] || exit 0
pid=$(cat pid)
alive() { [ "$(readlink "/proc/$pid/cwd")" = "$1" ]; }
tries=0
while alive "$1"; do
  if [ $((tries % 20)) -eq 0 ]; then kill -s TERM -- "-$pid"; fi
  if [ $tries -eq 100 ]; then kill -s KILL -- "-$pid"; fi
  if [ $tries -eq 200 ]; then exit 93; fi
  tries=$((tries + 1))
  sleep 0.1
done
"""

# A process that is gone may have written its code since the first look.
_OUTCOME = f"""
cd -- "$1" || exit 91
if [ -e exit_code ]; then cat exit_code
elif [ -s pid ] && [ "$(readlink "/proc/$(cat pid)/cwd")" != "$1" ]; then
    cat exit_code 2>/dev/null || echo gone
else echo running; fi
tail -n {LOG_TAIL_LINES} {LOG_NAME} 2>/dev/null | tail -c {LOG_TAIL_BYTES} || :
"""

_FOREIGN = 95
_OWNER = f"""
[ -d "$1" ] || exit 96
[ "$(/usr/bin/stat -c %u -- "$1")" = "$(/usr/bin/id -u)" ] || exit {_FOREIGN}
""".strip()

_ADD = """
umask 077
cd -- "$1" && tar -xmf -
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a server's folder tells: the exit code (None while it runs) and the log's last lines.

    `gone`: a login node's process was ended together with what should have written its exit code.
    """

    exit_code: int | None
    log_tail: str
    gone: bool = False


def prepare_command(server_id: str, files: Mapping[str, bytes]) -> Command:
    """Makes the folder, mode 0700, with these files in it, mode 0600."""
    return Command(argv=_sh(_PREPARE, server_id), stdin=_tar(files), timeout_s=60)


def parse_prepare(result: CommandResult, user: str, host: str) -> str:
    """The folder's absolute path.

    Raises:
        AccountProblem: The home is missing, full or not writable; the message says which.
    """
    if result.exit_code == 0 and result.stdout.startswith("/"):
        return result.stdout.partition("\n")[0]
    if result.exit_code == 91:
        raise AccountProblem(
            f"{user}'s home folder is missing or closed on {host}: {_last_line(result.stderr)}.",
            "Ask the site's staff to look at your home folder.",
        )
    if result.exit_code == 92:
        raise _home_problem(result.stderr, user, host)
    raise UnexpectedOutput("preparing the server's folder", result.stdout + result.stderr)


def parse_prepared_load(result: CommandResult) -> float | None:
    """The login node's load by CPU, which comes after the folder; None where it could not be told."""
    return parse_load(result.stdout.partition("\n")[2])


def add_command(folder: str, files: Mapping[str, bytes]) -> Command:
    """Puts more files, mode 0600, into the folder."""
    return Command(argv=_sh(_ADD, folder), stdin=_tar(files), timeout_s=60)


def parse_add(result: CommandResult, user: str, host: str) -> None:
    """AccountProblem where they could not be written."""
    if result.exit_code:
        raise _home_problem(result.stderr, user, host)


def start_on_login_node_command(folder: str) -> Command:
    """Starts `notebook.sh` in a session of its own and returns; does nothing where that was done before.

    It keeps within limits where the folder has some.
    """
    return Command(argv=_sh(_START_ON_LOGIN_NODE, folder))


def end_command(folder: str) -> Command:
    """Ends a login node's server and waits for its end, 20 s at most."""
    return Command(argv=_sh(_END_ON_LOGIN_NODE, folder), timeout_s=40)


def parse_end(result: CommandResult, host: str) -> None:
    """HostUnreachable where the processes would not end."""
    if result.exit_code:
        raise HostUnreachable(f"The server on {host} could not be ended (exit {result.exit_code}).")


def outcome_command(folder: str) -> Command:
    """Asks how a server ended, and for its log."""
    return Command(argv=_sh(_OUTCOME, folder))


def parse_outcome(result: CommandResult) -> Outcome:
    """The exit code and the log's last lines; an unreadable folder has neither."""
    first, _, tail = result.stdout.partition("\n")
    code = int(first) if first.isascii() and first.isdigit() and len(first) <= _MOST_CODE_DIGITS else None
    shown = tail.encode("utf-8", "surrogateescape").decode("utf-8", "replace").rstrip("\n")
    return Outcome(code, shown, gone=first == "gone")


def owner_argv(runtime_dir: str) -> tuple[str, ...]:
    """What says, run on a server's node, whether its runtime folder is the account's own.

    The folder's name is no secret, so anybody on the node could have made it first. A folder that is
    ours in a directory like /tmp can be replaced by nobody else.
    """
    return ("/bin/sh", "-c", _OWNER, "hpchub", runtime_dir)


def parse_owner(result: CommandResult, host: str) -> None:
    """Return where the folder is the account's own.

    Raises:
        NotAllowed: It is somebody else's; nothing may be sent there.
        HostUnreachable: The node could not be asked.
    """
    if result.exit_code == _FOREIGN:
        raise NotAllowed(
            f"Somebody else has made this server's folder on {host}.",
            "Nothing was sent there. Start again, and tell the site's staff.",
        )
    if result.exit_code:
        raise HostUnreachable(f"The server's folder on {host} could not be looked at: {result.stderr[-200:]}")


def tcp_command(folder: str) -> Command:
    """Asks for the port that the launcher listens on and the key that proves who calls."""
    return Command(argv=("cat", f"{folder}/{TCP_PORT_NAME}", f"{folder}/{TCP_KEY_NAME}"))


def parse_tcp(result: CommandResult) -> tuple[int, Secret]:
    """Port and key. NotListening where the launcher has not written its port yet."""
    found = _TCP.fullmatch(result.stdout)
    if result.exit_code or found is None:
        raise NotListening("The server has not opened its port yet.")
    return int(found[1]), Secret(found[2])


def keep_log_command(folder: str) -> Command:
    """Removes all but the log of a server that failed: its keys with the rest."""
    argv = ("find", folder, "-mindepth", "1", "!", "-name", LOG_NAME, "-delete")
    return Command(argv=argv, timeout_s=60)


def remove_command(folder: str) -> Command:
    """Removes the folder of a server that ended well."""
    return Command(argv=("rm", "-rf", "--", folder), timeout_s=60)


def _sh(script: str, argument: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script.strip(), "hpchub", argument)


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o600
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _home_problem(stderr: str, user: str, host: str) -> AccountProblem:
    lowered = stderr.lower()
    if "not found" in lowered:
        return AccountProblem(
            f"Ordinary programs are missing from {user}'s PATH on {host}: {_last_line(stderr)}.",
            "Look at what ~/.bashrc and ~/.profile do with PATH there.",
        )
    if any(words in lowered for words in _FULL):
        return AccountProblem(
            f"{user}'s home folder is full on {host}: {_last_line(stderr)}.",
            "Remove some files there, then start again.",
        )
    return AccountProblem(
        f"{user}'s home folder is not writable on {host}: {_last_line(stderr)}.",
        f"hpchub keeps its files in ~/{SERVERS_FOLDER}. Make that writable, or ask the site's staff.",
    )


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if not line.startswith(_TAR_ENDS)]
    return lines[-1][:200] if lines else "it gave no reason"
