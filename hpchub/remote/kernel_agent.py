"""Runs kernels inside a job, for a notebook server on another node.

    python3 FOLDER/agent.py --folder FOLDER --keep SECONDS [--sshd PROGRAM]

It is copied into the job's folder: standard library only, Python 3.8 or later, and one module for that
reason. docs/reference/kernels.md says what it promises. It listens on one TCP port of its own choice, or
with `--sshd` on a unix socket that a step of the job reaches through that sshd. Nobody gets anywhere who
cannot prove the folder's key. Kernels listen on unix sockets in a 0700 folder on the node, or on loopback
ports.

A connection says which kernel it is for and whether it is that kernel's `control` or one of its five
channels. Control carries JSON lines; a channel's bytes are passed on as they are. Each kernel has one
controller, the last that came. The job ends with its last kernel, or when nobody has controlled any
for `--keep` seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import fcntl
import hmac
import json
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Optional, Tuple  # noqa: UP035  Python 3.8

GREETING = "hpchub-kernel-1"
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
CONTROL = "agent"
KEY, ADDRESS = "key", "agent.json"
SILENCE_S = 30.0
LISTEN_WAIT_S = 60.0
LINE_BYTES = 4 * 1024 * 1024
PUMP_BYTES = 256 * 1024

_PR_SET_PDEATHSIG = 1
_PROOF_BYTES = 512
_PROOF_WAIT_S = 10.0
_UNPROVEN = 32
_PLAIN_ROOT = re.compile(r"[A-Za-z0-9/._-]{1,60}", re.ASCII)
_PAUSE_S = 0.05
_END_WAIT_S = 5.0
_JOB_FIRST_S = 0.5
# What kernels print besides their messages goes to the job's log, which lies in a home.
_LOG_BYTES = 16 * 1024 * 1024
_LOG_KEPT_BYTES = 64 * 1024
# However short `--keep` is: a notebook server may need some time to read where we are, and to call again.
_FIRST_CALL_S = 60.0
_CALL_AGAIN_S = 10.0
_KERNEL_ID = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)

Streams = Tuple[asyncio.StreamReader, asyncio.StreamWriter]  # noqa: UP006  Python 3.8


def proof(key: bytes, side: str, role: str, agent_nonce: str, client_nonce: str) -> str:
    """What one side shows the other. Both nonces and the role are bound in."""
    text = "\0".join((GREETING, side, role, agent_nonce, client_nonce))
    return hmac.new(key, text.encode(), "sha256").hexdigest()


def message_key(key: bytes, kernel_id: str) -> str:
    """The key that signs a kernel's messages; both sides make it, so that it is sent nowhere."""
    return hmac.new(key, f"messages of {kernel_id}".encode(), "sha256").hexdigest()


def own_address() -> str:
    """The address of the node's own name; every address where that is a loopback one."""
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        return "0.0.0.0"  # noqa: S104  each connection proves itself
    return "0.0.0.0" if address.startswith("127.") else address  # noqa: S104  as above


class PrivateFolder:
    """A new folder of mode 0700 on this node, short enough for sockets in it (unix(7): 107 bytes), and
    of letters that need no quotes. What processes that were killed left of theirs is removed.
    """

    def __init__(self) -> None:
        root = tempfile.gettempdir()
        if not _PLAIN_ROOT.fullmatch(root):
            root = "/tmp"  # noqa: S108  only mkdtemp writes there
        for lock in Path(root).glob("hpchub-*/lock"):
            remove_unused(lock)
        self.path = Path(tempfile.mkdtemp(prefix="hpchub-", dir=root))
        # Under its name once it is held: one that nobody holds is of a process that was killed.
        draft = self.path / "new"
        self._lock = draft.open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        draft.rename(self.path / "lock")

    def remove(self) -> None:
        """With all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def remove_unused(lock: Path) -> None:
    """Removes one of our folders whose process is gone; other people's are left alone."""
    try:
        if lock.parent.lstat().st_uid != os.geteuid():
            return
        with lock.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
    except OSError:
        return  # it is in use, or somebody else removes it


class Refused(Exception):
    """A request that cannot be followed; its text is the answer."""


class Kernel:
    """One kernel's process, which may be started more than once."""

    def __init__(self, kernel_id: str, runtime: Path, key: bytes) -> None:
        self.id = kernel_id
        self.controller: Optional[asyncio.StreamWriter] = None  # noqa: UP045  Python 3.8
        self.exit_code: Optional[int] = None  # noqa: UP045  Python 3.8
        self._runtime = runtime
        self._key = key
        self._process: Optional[subprocess.Popen[bytes]] = None  # noqa: UP045  Python 3.8
        self._info: Dict[str, Any] = {}  # noqa: UP006  Python 3.8
        self._watch: Optional[asyncio.Task[None]] = None  # noqa: UP045  Python 3.8
        self._asked_to_end = False
        self._kills_before = 0
        self.job_ends = False

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    async def start(self, request: Dict[str, Any]) -> None:  # noqa: UP006  Python 3.8
        """Start it, in the place of what runs. Refused where there is no such command."""
        await self.stop()
        shutil.rmtree(self._runtime, ignore_errors=True)
        self._runtime.mkdir(mode=0o700)
        self._info = self._connection(request.get("transport") == "tcp")
        path = self._runtime / "connection.json"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(self._info, file, indent=2)
        self._kills_before = memory_kills()
        self._process = self._spawn(request, path)
        self.exit_code, self._asked_to_end = None, False
        self._watch = asyncio.ensure_future(self._tell_end(self._process))

    @staticmethod
    def _spawn(request: Dict[str, Any], connection: Path) -> subprocess.Popen[bytes]:  # noqa: UP006  Python 3.8
        argv = [word.replace("{connection_file}", str(connection)) for word in request["argv"]]
        # ipykernel takes itself for started by hand without it, and says so at length.
        environ = {**os.environ, "JPY_PARENT_PID": str(os.getpid()), **request.get("env", {})}
        folder = Path(request.get("cwd") or "/")
        try:
            return subprocess.Popen(
                argv, env=environ, stdin=subprocess.DEVNULL,
                cwd=folder if folder.is_dir() else None, start_new_session=True,
                preexec_fn=die_with_parent,  # the agent forks from its main thread alone
            )  # fmt: skip
        except OSError as error:
            raise Refused(f"{argv[0]}: {error.strerror}") from None

    def _connection(self, tcp: bool) -> Dict[str, Any]:  # noqa: UP006  Python 3.8
        names = [f"{name}_port" for name in CHANNELS]
        base = {"key": message_key(self._key, self.id), "signature_scheme": "hmac-sha256", "kernel_name": ""}
        if not tcp:
            ports = dict(zip(names, range(1, len(names) + 1)))  # noqa: B905  Python 3.8
            return {**base, "transport": "ipc", "ip": str(self._runtime / "k"), **ports}
        held = [socket.create_server(("127.0.0.1", 0)) for _ in names]
        ports = {name: one.getsockname()[1] for name, one in zip(names, held)}  # noqa: B905  Python 3.8
        for one in held:
            one.close()
        return {**base, "transport": "tcp", "ip": "127.0.0.1", **ports}

    async def channel(self, name: str) -> Optional[Streams]:  # noqa: UP045  Python 3.8
        """A connection to one of its sockets, once it listens; None where it ends before."""
        for _ in range(int(LISTEN_WAIT_S / _PAUSE_S)):
            if not self.runs:
                return None
            port = self._info[f"{name}_port"]
            try:
                if self._info["transport"] == "ipc":
                    path = f"{self._info['ip']}-{port}"
                    return await asyncio.open_unix_connection(path, limit=PUMP_BYTES)
                return await asyncio.open_connection(self._info["ip"], port, limit=PUMP_BYTES)
            except OSError:
                await asyncio.sleep(_PAUSE_S)
        return None

    def send_signal(self, number: int) -> None:
        """To the kernel and all that it has started; nothing where it has ended."""
        self._asked_to_end = self._asked_to_end or number in (signal.SIGTERM, signal.SIGKILL)
        if self._process is not None and self.runs:
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                return  # it ended this moment

    async def stop(self) -> None:
        """Ask it to end, and make sure of it."""
        self.send_signal(signal.SIGTERM)
        for _ in range(int(_END_WAIT_S / _PAUSE_S)):
            if not self.runs:
                break
            await asyncio.sleep(_PAUSE_S)
        self.send_signal(signal.SIGKILL)
        if self._watch is not None:
            await self._watch
        shutil.rmtree(self._runtime, ignore_errors=True)

    async def _tell_end(self, process: subprocess.Popen[bytes]) -> None:
        # The loop's own pool has few threads on a small job, and this one is held until the kernel ends.
        thread = ThreadPoolExecutor(1)
        try:
            code = await asyncio.get_running_loop().run_in_executor(thread, end_of, process)
        finally:
            thread.shutdown(wait=False)
        if code < 0 and not self._asked_to_end:
            # Slurm signals all of a job's processes at once, and then the job is what ends.
            await asyncio.sleep(_JOB_FIRST_S)
        self.exit_code = code
        say(f"the kernel ended with {process.returncode}")
        if not self.job_ends:
            tell(self.controller, self.state())

    def state(self) -> Dict[str, Any]:  # noqa: UP006  Python 3.8
        """What its controller is told."""
        kills = memory_kills() - self._kills_before
        return {"event": "state", "runs": self.runs, "code": self.exit_code, "memory": kills}


class Agent:
    """The job's one port or socket, and the kernels behind it."""

    def __init__(self, folder: Path, keep_s: float, sshd: str = "") -> None:
        self._folder = folder
        self._keep_s = keep_s
        self._sshd = sshd
        if sshd and not os.access(sshd, os.X_OK):
            raise ValueError(f"attach srun needs {sshd} on {socket.gethostname()}, where it is not")
        self._key = bytes.fromhex((folder / KEY).read_text().strip())
        if len(self._key) < 32:
            raise ValueError("the key is too short")
        self._kernels: Dict[str, Kernel] = {}  # noqa: UP006  Python 3.8
        self._runtime = PrivateFolder()
        self._over = asyncio.Event()
        self._unproven = 0
        self._idle_since: Optional[float] = 0.0  # noqa: UP045  Python 3.8

    async def run(self) -> None:
        """Serve until the last kernel has ended."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end_job)
        server, place = await self._listen()
        # In place: a new file under an old name is found late on a network file system.
        (self._folder / ADDRESS).write_text(json.dumps(place))
        self._idle_since = loop.time()
        try:
            while not self._over.is_set() and not self._abandoned(loop.time()):
                try:
                    await asyncio.wait_for(self._over.wait(), 1.0)
                except asyncio.TimeoutError:  # noqa: UP041  they differ in 3.8
                    with contextlib.suppress(OSError):  # of a full disk, or a quota
                        trim_log()
        finally:
            server.close()
            for kernel in list(self._kernels.values()):
                await kernel.stop()
            self._runtime.remove()

    async def _listen(self) -> Tuple[asyncio.AbstractServer, Dict[str, Any]]:  # noqa: UP006  Python 3.8
        """The server, and how it is found."""
        if self._sshd:
            path = str(self._runtime.path / "agent.sock")
            # srun wants Slurm's name of the node.
            node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
            found = {"socket": path, "sshd": self._sshd, "node": node}
            return await asyncio.start_unix_server(self._meet, path, limit=LINE_BYTES), found
        server = await asyncio.start_server(self._meet, own_address(), 0, limit=LINE_BYTES)
        address, port = server.sockets[0].getsockname()[:2]
        return server, {"address": address, "port": port, "node": socket.gethostname()}

    def _end_job(self) -> None:
        """Slurm wants it: say so before the kernels end, so that nobody takes theirs for the reason."""
        for kernel in self._kernels.values():
            kernel.job_ends = True
            tell(kernel.controller, {"event": "job ends"})
        self._over.set()

    def _abandoned(self, now: float) -> bool:
        if any(kernel.controller is not None for kernel in self._kernels.values()):
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        limit_s = max(self._keep_s, _CALL_AGAIN_S if self._kernels else _FIRST_CALL_S)
        if self._idle_since is not None and now - self._idle_since > limit_s:
            say(f"nobody has asked for a kernel for {limit_s:g} s: the job ends")
            return True
        return False

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let a connection prove itself, then serve what it asks for."""
        if self._unproven >= _UNPROVEN:
            writer.close()
            return
        self._unproven += 1
        try:
            role, answer = await asyncio.wait_for(self._check_proof(reader, writer), _PROOF_WAIT_S)
        except (OSError, ValueError, asyncio.TimeoutError):  # noqa: UP041  they differ in 3.8
            writer.close()
            return
        finally:
            self._unproven -= 1
        kernel_id, _, part = role.partition("/")
        try:
            if part == CONTROL:
                kernel = self._kernels.get(kernel_id) or Kernel(
                    kernel_id, self._runtime.path / kernel_id[:16], self._key
                )
                self._kernels[kernel_id] = kernel
                writer.write(f"ok {answer}\n".encode())
                await self._serve_control(kernel, reader, writer)
            else:
                inner = None
                if kernel_id in self._kernels:
                    inner = await self._kernels[kernel_id].channel(part)
                if inner is not None:
                    writer.write(f"ok {answer}\n".encode())
                    await join((reader, writer), inner)
        except OSError:
            pass  # one side is gone: the other learns of it by the close below
        finally:
            writer.close()

    async def _check_proof(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Tuple[str, str]:  # noqa: UP006  Python 3.8
        """The role a connection has proven, and our own proof for it. ValueError where it has not."""
        nonce = secrets.token_hex(16)
        writer.write(f"{GREETING} {nonce}\n".encode())
        line = await reader.readline()
        if len(line) > _PROOF_BYTES:
            raise ValueError("too long")
        role, client_nonce, shown = line.decode("ascii").split()
        if not hmac.compare_digest(shown, proof(self._key, "client", role, nonce, client_nonce)):
            raise ValueError("not proven")
        kernel_id, _, part = role.partition("/")
        if not _KERNEL_ID.fullmatch(kernel_id) or part not in (CONTROL, *CHANNELS):
            raise ValueError("no such role")
        return role, proof(self._key, "agent", role, nonce, client_nonce)

    async def _serve_control(
        self, kernel: Kernel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if kernel.controller is not None:
            kernel.controller.close()  # a new one is there because the old one is not
        kernel.controller = writer
        tell(writer, kernel.state())
        try:
            while True:
                line = await asyncio.wait_for(reader.readline(), SILENCE_S)
                if not line:
                    return
                await self._follow(kernel, json.loads(line))
        except (OSError, ValueError, KeyError, asyncio.TimeoutError) as error:  # noqa: UP041  as above
            say(f"a controller is gone: {str(error) or type(error).__name__}")
        finally:
            if kernel.controller is writer:
                kernel.controller = None

    async def _follow(self, kernel: Kernel, request: Dict[str, Any]) -> None:  # noqa: UP006  Python 3.8
        wish = request["do"]
        if wish == "start":
            try:
                await kernel.start(request)
            except (Refused, OSError, ValueError) as error:  # the node's /tmp is full, say
                tell(kernel.controller, {"event": "refused", "message": str(error)})
                return
            tell(kernel.controller, {"event": "started"})
        elif wish == "signal":
            kernel.send_signal(int(request["number"]))
        elif wish == "end":
            await kernel.stop()
            self._kernels.pop(kernel.id, None)
            tell(kernel.controller, {"event": "over"})
            if not self._kernels:
                self._over.set()
        elif wish == "ping":
            tell(kernel.controller, {"event": "pong"})


def end_of(process: subprocess.Popen[bytes]) -> int:
    """Waits for a kernel's end, and ends what it leaves behind, which would hold memory; the exit code."""
    with contextlib.suppress(ChildProcessError):  # somebody asked whether it runs, and so reaped it
        # Not yet reaped, it keeps its number, which is its group's.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def die_with_parent() -> None:
    """A kernel of its own session would outlive a killed agent where Slurm tracks processes by parent."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def tell(writer: Optional[asyncio.StreamWriter], message: Dict[str, Any]) -> None:  # noqa: UP006, UP045  Python 3.8
    """One line for a controller, if there is one."""
    if writer is not None and not writer.is_closing():
        writer.write(json.dumps(message).encode() + b"\n")


async def join(one: Streams, other: Streams) -> None:
    """Carry bytes both ways until one side ends: ZeroMQ never closes one direction alone."""
    pumps = [asyncio.ensure_future(pump(one[0], other[1])), asyncio.ensure_future(pump(other[0], one[1]))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        one[1].close()
        other[1].close()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes one way until the end of either."""
    try:
        while True:
            data = await reader.read(PUMP_BYTES)
            if not data:
                return
            writer.write(data)
            await writer.drain()
    except OSError:
        return  # the other side is gone


def memory_kills() -> int:
    """How many processes of the job the kernel has killed for want of memory, where cgroups count them."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = (
            ("/sys/fs/cgroup/memory", "memory.oom_control")
            if controllers
            else ("/sys/fs/cgroup", "memory.events")
        )
        try:
            text = Path(f"{root}{path}/{name}").read_text()
        except OSError:
            continue
        found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
        if found:
            return int(found[1])
    return 0


def trim_log() -> None:
    """Cuts off the start of a log that has become long, so that a kernel that prints a lot fills no home."""
    status = os.fstat(2)
    appends = fcntl.fcntl(2, fcntl.F_GETFL) & os.O_APPEND
    if not stat.S_ISREG(status.st_mode) or not appends or status.st_size <= _LOG_BYTES:
        return
    with Path("/proc/self/fd/2").open("rb") as file:
        file.seek(-_LOG_KEPT_BYTES, os.SEEK_END)
        end = file.read()
    os.ftruncate(2, 0)
    say("this log was too long; what follows is its end")
    os.write(2, end)


def say(text: str) -> None:
    """One line for the job's log, where there is room for it."""
    with contextlib.suppress(OSError):
        print(f"hpchub: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Run until the last kernel has ended; 5 where the job's folder is of no use."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--keep", type=float, required=True)
    parser.add_argument("--sshd", default="")
    args = parser.parse_args()

    async def run() -> None:
        await Agent(args.folder, args.keep, args.sshd).run()

    try:
        asyncio.run(run())
    except (OSError, ValueError) as error:
        say(f"kernels cannot be served from {args.folder}: {error}")
        return 5
    return 0


if __name__ == "__main__":
    sys.exit(main())
