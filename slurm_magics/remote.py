"""A cluster's login node over SSH: one connection for all commands, made anew when it is lost.

What a command is told through its environment, such as the mark of a query, goes over its standard input:
others on the login node can read its arguments.
"""

from __future__ import annotations

import secrets
import shlex
import threading
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from pathlib import PurePath, PurePosixPath
from typing import TYPE_CHECKING

from slurm_magics.done import MOST_BYTES, Done, Said, Show, Take, as_text, too_long, too_slow
from slurm_magics.errors import MAY_BE_QUEUED, SlurmError
from slurm_magics.machine import zone_of
from slurm_magics.programs import SUBMITTERS
from slurm_magics.ssh_config import Target
from slurm_magics.ssh_login import Connection, open_connection, require_paramiko
from slurm_magics.ssh_session import STUB, encoded, talk

if TYPE_CHECKING:
    import paramiko

_OPEN_S = 20.0
# A session on a connection that works opens at once.
_SESSION_S = 10.0
_PROBE_S = 3.0
_ENDS_WITHIN_S = 2.0
# sshd's own MaxSessions is 10 for one connection: cards, plots and cells wait for each other.
_MOST_SESSIONS = 8
_READ_S = 120.0
_LEARNT = (
    "HOME", "TZ", "SQUEUE_FORMAT", "SQUEUE_FORMAT2", "SINFO_FORMAT", "SACCT_FORMAT", "SPRIO_FORMAT", "USER",
)  # fmt: skip
# A person's PATH without Slurm's commands may be that of a shell that is no login shell.
_LEARN = (
    "p=$PATH; command -v squeue >/dev/null 2>&1 || "
    """p=$(/bin/sh -lc 'printf "\\n%s" "$PATH"' 2>/dev/null </dev/null | tail -n 1); """
    """printf '%s\\0' "$p" "$(readlink /etc/localtime)" """ + " ".join(f'"${name}"' for name in _LEARNT)
)
_READ = (
    '[ -e "$1" ] || exit 44; s=$(wc -c <"$1") || exit; b=$2; if [ "$b" -lt 0 ]; then b=$((s+b)); '
    'if [ "$b" -lt 0 ]; then b=0; fi; elif [ "$b" -gt "$s" ]; then b=0; fi; n=$((s-b)); '
    'if [ "$n" -gt "$3" ]; then echo "$n"; exit 46; fi; '
    'echo "$b"; exec tail -c "+$((b+1))" -- "$1"'
)
# Without a terminal sshd ends nothing when the channel closes: Ctrl-C would leave an srun behind. At SIGHUP
# srun and salloc cancel what they have begun.
_WITH_HANGUP = (
    "exec 3<&0; COMMAND </dev/null & p=$!; (cat <&3; kill -HUP $p) >/dev/null 2>&1 & w=$!; "
    "wait $p; s=$?; kill $w 2>/dev/null; exit $s"
)
_NO_SUCH_FILE = 44
_NO_SUCH_FOLDER = 45
_TOO_LONG = 46
_NOT_FOUND = 127


class Remote:
    """One login node. Its methods may be called from several threads."""

    def __init__(self, target: Target) -> None:
        require_paramiko()
        self._target = target
        self._lock = threading.Lock()
        self._sessions = threading.BoundedSemaphore(_MOST_SESSIONS)
        self._connection: Connection | None = None
        self._is_closed = False
        self._environ: dict[str, str] = {}
        self._path = ""
        self._localtime = ""
        self._learn()

    @property
    def name(self) -> str:
        return self._target.host

    @property
    def environ(self) -> Mapping[str, str]:
        return self._environ

    @property
    def zone(self) -> tzinfo:
        return zone_of(self._environ.get("TZ", ""), self._localtime)

    @property
    def folder(self) -> PurePosixPath:
        return PurePosixPath(self._environ["HOME"])

    def expanded(self, word: str) -> str:
        is_own = word == "~" or word.startswith("~/")
        return f"{self._environ['HOME']}{word[1:]}" if is_own else word

    def path(self, text: str) -> PurePosixPath:
        return PurePosixPath(text)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        environ: Mapping[str, str | None] | None = None,
        cwd: PurePath | None = None,
        limit_s: float | None = None,
        show: Show | None = None,
        take: Take | None = None,
    ) -> Done:
        variables = {"PATH": self._path, **(environ or {})}
        sets = [
            f"export {name}={shlex.quote(value)}" for name, value in variables.items() if value is not None
        ]
        unsets = [f"unset {name}" for name, value in variables.items() if value is None]
        enter = [f"cd -- {shlex.quote(str(cwd))} || exit {_NO_SUCH_FOLDER}"] if cwd else []
        command = shlex.join(argv)
        begun = f"exec {command}" if limit_s is not None else _WITH_HANGUP.replace("COMMAND", command)
        # Asked beforehand, and said in words of ours: srun passes a task's 127 on, with its shell's words.
        missing = f"{argv[0]}: not on the PATH"
        find = (
            f"command -v {shlex.quote(argv[0])} >/dev/null 2>&1 || "
            f"{{ printf '%s\\n' {shlex.quote(missing)} >&2; exit {_NOT_FOUND}; }}"
        )
        done = self._sh("; ".join((*enter, *sets, *unsets, find, begun)), argv[0], stdin, limit_s, show, take)
        if cwd and done.exit_code == _NO_SUCH_FOLDER:
            raise SlurmError(f"The folder {cwd} is gone on {self.name}.")
        if done.exit_code == _NOT_FOUND and done.stderr == f"{missing}\n".encode():
            raise SlurmError(
                f"There is no {argv[0]} on the PATH of {self.name}.",
                "Connect to a login node of the cluster, or set PATH in your profile there.",
            )
        return done

    def read(self, path: PurePath, start: int = 0) -> tuple[bytes, int] | None:
        script = shlex.join(("exec", "/bin/sh", "-c", _READ, "sh", str(path), str(start), str(MOST_BYTES)))
        done = self._sh(script, "tail", b"", _READ_S)
        if done.exit_code == _NO_SUCH_FILE:
            return None
        first, _, content = done.stdout.partition(b"\n")
        if done.exit_code == _TOO_LONG:
            raise too_long(path, int(first))
        if done.exit_code or not first.isdigit():
            said = as_text(done.stderr).strip()
            raise SlurmError(f"{path} cannot be read on {self.name}: {said or 'nothing was said'}")
        return content, int(first) + len(content)

    def close(self) -> None:
        """End the connection for good."""
        with self._lock:
            self._is_closed = True
            if self._connection:
                self._connection.close()

    def _learn(self) -> None:
        """Connect, and ask for what matters of the person's environment there."""
        done = self._sh(_LEARN, "sh", b"", _OPEN_S)
        told = done.stdout.decode("utf-8", "surrogateescape").split("\0")
        if len(told) != len(_LEARNT) + 3:
            raise SlurmError(f"{self.name} does not say what its environment is.")
        self._path, self._localtime, *values = told[:-1]
        self._environ = {name: value for name, value in zip(_LEARNT, values, strict=True) if value}

    def _sh(
        self,
        script: str,
        tool: str,
        stdin: bytes,
        limit_s: float | None,
        show: Show | None = None,
        take: Take | None = None,
    ) -> Done:
        """Run a script with /bin/sh. What the login shell prints before it is left out."""
        mark = secrets.token_hex(16)
        text = f"printf '%s\\n' {mark}; printf '%s\\n' {mark} >&2; {script}"
        with self._sessions, self._channel() as channel:
            import paramiko  # it is there: the channel is its own

            try:
                channel.exec_command(STUB)
            except (EOFError, OSError, paramiko.SSHException) as error:
                raise self._lost(tool) from error
            said = Said(tool, show, take, mark=f"{mark}\n".encode())
            done = talk(channel, said, encoded(text) + b"\n" + stdin, limit_s)
        if done is None:
            answers = self._answers()
            self._drop()  # with what is stuck over there: it would hold one of sshd's few sessions
            if answers:
                raise too_slow(tool, limit_s or 0.0)
            raise SlurmError(
                f"{self.name} does not answer any more: the connection is given up, while {tool} ran.",
                MAY_BE_QUEUED if tool in SUBMITTERS else "Run the cell again: it connects anew.",
                retryable=True,
            )
        if done.exit_code < 0:
            raise self._lost(tool)
        if said.unbegun is not None:
            words = as_text(said.unbegun).strip()
            raise SlurmError(
                f"Your login shell on {self.name} ended before {tool} began"
                + (f". It said: {words[-300:]}" if words else "."),
                "Check its start-up files, such as .bashrc.",
            )
        return done

    def _channel(self) -> paramiko.Channel:
        """A session on the connection, which is made where there is none.

        One that has been lost without a word, as a laptop's that has slept, is made anew once: nothing has
        been sent on it yet.
        """
        connection, is_fresh = self._connected()
        import paramiko

        try:
            return connection.transport.open_session(timeout=_SESSION_S)
        except (EOFError, OSError, paramiko.SSHException) as error:
            self._drop()
            if not is_fresh:
                return self._channel()
            raise SlurmError(
                f"{self.name} opens no session: {str(error).rstrip('.') or type(error).__name__}.",
                "Run the cell again: it connects anew.",
                retryable=True,
            ) from error

    def _connected(self) -> tuple[Connection, bool]:
        """The connection, and whether it was made just now."""
        with self._lock:
            if self._is_closed:
                raise SlurmError(
                    f"There is no connection to {self.name} any more.",
                    f"%slurm connect {self.name} makes one.",
                )
            is_fresh = self._connection is None or not self._connection.is_alive
            if self._connection is None or is_fresh:
                self._connection = open_connection(self._target)
            return self._connection, is_fresh

    def _answers(self) -> bool:
        """Whether the other side says anything at all."""
        import paramiko

        with self._lock:
            connection = self._connection
        if connection is None:
            return False
        try:
            connection.transport.open_session(timeout=_PROBE_S).close()
        except paramiko.ChannelException:
            return True
        except (EOFError, OSError, paramiko.SSHException):
            return False
        return True

    def _drop(self) -> None:
        with self._lock:
            if self._connection:
                self._connection.close()
                self._connection = None

    def _lost(self, tool: str) -> SlurmError:
        with self._lock:
            connection = self._connection
        if connection is not None:
            connection.transport.join(_ENDS_WITHIN_S)  # it ends a moment after its sessions
            if connection.is_alive:
                return SlurmError(f"{tool} was ended by a signal on {self.name}.")
        hint = "Run the cell again: it connects anew."
        if tool in SUBMITTERS:
            hint = MAY_BE_QUEUED
        return SlurmError(f"The connection to {self.name} was lost while {tool} ran.", hint, retryable=True)
