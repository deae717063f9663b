"""Waits on a node for the bridge's handover, then becomes the notebook server.

    python3 FOLDER/launcher.py --runtime-dir RUNTIME_DIR/hpchub-ID --folder FOLDER [--tcp]

It is uploaded as a file and runs in the person's own environment: standard library only, Python 3.8
or later, and one module for that reason. docs/reference/processes.md ("On the cluster", "The
handover") says what it promises, docs/reference/ssh.md what goes over attach `tcp`.

The main thread imports JupyterLab while it waits, which takes longer than the tunnel; a second
thread serves the sockets, from the start to the end of the process.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hmac
import importlib
import importlib.util
import json
import os
import queue
import re
import secrets
import shutil
import signal
import socket
import stat
import struct
import sys
import threading
from pathlib import Path
from typing import Any, Awaitable, Callable, Dict, List, NoReturn, Optional, Tuple  # noqa: UP035  Python 3.8

HANDOVER, NOTEBOOK, HUB = "handover.sock", "notebook.sock", "hub.sock"
HUB_SOCKET = re.compile(r"hub-[a-z0-9]{1,40}\.sock", re.ASCII)
GREETING = "hpchub-tcp-1"
EXTENSION, END = "time_left.js", "end.json"

EXIT_ENVIRONMENT, EXIT_NO_HANDOVER, EXIT_RUNTIME_DIR = 3, 4, 5

_LINE_BYTES = 1024 * 1024
_PROOF_BYTES = 512
_PROOF_WAIT_S = 10.0
_UNPROVEN = 32
_HUB_WAIT_S = 30.0
_STOP_WAIT_S = 10.0
_PUMP_BYTES = 256 * 1024

# Not jupyterhub.singleuser: it decides by the environment, at import, which server it is.
_HEAVY = (
    "jupyter_server.serverapp",
    "jupyterlab.labapp",
    "jupyterhub.services.auth",
    "jupyter_server.services.contents.filemanager",
    "jupyter_server.services.kernels.kernelmanager",
    "jupyter_server_terminals",
    "jupyter_lsp",
    "notebook_shim",
    "nbconvert.exporters",
    "aiohttp",
)

# jsonschema imports it to check a format, `iri`, that no Jupyter schema has. It builds a grammar at import,
# which takes longer than importing all the rest (1.0.x: 0.7 s of 1.6 s).
_GRAMMAR = "rfc3987_syntax"

Streams = Tuple[asyncio.StreamReader, asyncio.StreamWriter]  # noqa: UP006  Python 3.8
Handover = Tuple[Dict[str, str], List[str]]  # noqa: UP006  Python 3.8


class Refused(Exception):
    """A handover that cannot be followed; its text is the answer."""


def proof(key: bytes, side: str, role: str, server_nonce: str, client_nonce: str) -> str:
    """What one side shows the other on a tcp connection. Both nonces and the role are bound in."""
    text = "\0".join((GREETING, side, role, server_nonce, client_nonce))
    return hmac.new(key, text.encode(), "sha256").hexdigest()


def missing_modules() -> List[str]:  # noqa: UP006  Python 3.8
    """Which of the two packages that a notebook server is made of cannot be imported."""
    return [name for name in ("jupyterhub", "jupyterlab") if importlib.util.find_spec(name) is None]


def read_handover(line: bytes, started: bool) -> Tuple[str, Optional[Handover]]:  # noqa: UP006, UP045  3.8
    """The hub socket's name, and environment and argv unless the server has started.

    Raises:
        Refused: The line is not a handover.
    """
    try:
        body = json.loads(line)
    except ValueError:
        raise Refused("the handover is not JSON") from None
    name = body.get("hub_socket") if isinstance(body, dict) else None
    if not isinstance(name, str) or not HUB_SOCKET.fullmatch(name):
        raise Refused("the handover names no hub socket")
    if started:
        return name, None
    environ, argv = body.get("environ"), body.get("argv")
    if not isinstance(environ, dict) or not all(isinstance(value, str) for value in environ.values()):
        raise Refused("the first handover must carry the environment")
    if not isinstance(argv, list) or not argv or not all(isinstance(value, str) for value in argv):
        raise Refused("the first handover must carry the argv")
    return name, (environ, argv)


class Door:
    """The sockets in the runtime folder, served by a thread with an event loop of its own."""

    def __init__(self, runtime: Path, folder: Path, tcp: bool, end: Optional[Path] = None) -> None:  # noqa: UP045  3.8
        self.handed: queue.SimpleQueue[Handover] = queue.SimpleQueue()
        self._end = end
        self._runtime = runtime
        self._folder = folder
        self._tcp = tcp
        self._started = False
        self._linked = ""
        self._parked: dict[str, asyncio.Queue[Streams]] = {}
        self._unproven = 0
        self._ready = threading.Event()
        self._failure = ""
        self._keep: set[Any] = set()

    def open(self) -> None:
        """Start the thread; return once it listens. OSError where it cannot."""
        threading.Thread(target=self._run, name="hpchub-door", daemon=True).start()
        self._ready.wait()
        if self._failure:
            raise OSError(self._failure)

    def _run(self) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._listen())
        except (OSError, ValueError) as error:
            self._failure = str(error) or type(error).__name__
            return
        finally:
            self._ready.set()
        loop.run_forever()

    async def _listen(self) -> None:
        if self._tcp:
            await self._listen_tcp()
        # Last: whoever finds this socket finds everything else in place.
        await self._serve_unix(HANDOVER, self._handover)

    async def _serve_unix(
        self, name: str, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> None:
        # The folder is 0700, so the socket is closed to others from its first moment.
        path = str(self._runtime / name)
        self._keep.add(await asyncio.start_unix_server(serve, path, limit=_LINE_BYTES))

    # -- the handover ---------------------------------------------------------------------------

    async def _handover(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one channel: a handover, then a heartbeat until either side ends."""
        try:
            if _peer_uid(writer) != os.getuid():
                return
            line = await asyncio.wait_for(reader.readline(), _PROOF_WAIT_S)
            try:
                answer: dict[str, Any] = {"ok": True, "pid": self._accept(line)}
            except Refused as refusal:
                answer = {"ok": False, "message": str(refusal)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
            while answer["ok"]:
                line = await reader.readline()
                if not line:
                    return
                news = read_news(line)
                if news.get("stop") is True:
                    self._stop()
                if "ends_at" in news:
                    self._keep_end(news)
        except (OSError, ValueError, asyncio.TimeoutError) as error:  # noqa: UP041  they differ in 3.8
            say(f"a handover channel ended: {str(error) or type(error).__name__}")
        finally:
            writer.close()

    def _accept(self, line: bytes) -> int:
        """Follow a handover; the process id."""
        name, first = read_handover(line, self._started)
        target = self._runtime / name
        try:
            if not stat.S_ISSOCK(target.lstat().st_mode):
                raise Refused(f"{name} is not a socket")
        except FileNotFoundError:
            raise Refused(f"{name} is not there") from None
        link = self._runtime / f"link-{secrets.token_hex(8)}"
        link.symlink_to(name)
        link.replace(self._runtime / HUB)
        if self._linked not in ("", name):
            # sshd leaves the socket of a lost connection behind.
            (self._runtime / self._linked).unlink(missing_ok=True)
        self._linked = name
        if first is not None:
            self._started = True
            self.handed.put(first)
        return os.getpid()

    def _stop(self) -> None:
        """Ask the server to end, and make sure of it."""
        timer = threading.Timer(_STOP_WAIT_S, end_at_once)
        timer.daemon = True
        timer.start()
        os.kill(os.getpid(), signal.SIGTERM)

    def _keep_end(self, news: Dict[str, Any]) -> None:  # noqa: UP006  Python 3.8
        """Put the end of the job's time where the person's page reads it; no server ends for want of it."""
        if self._end is None:
            return
        fresh = self._end.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(news))
            fresh.replace(self._end)
        except OSError as error:
            say(f"the time left cannot be shown: {error}")

    # -- attach tcp -----------------------------------------------------------------------------

    async def _listen_tcp(self) -> None:
        key = bytes.fromhex((self._folder / "tcp_key").read_text().strip())
        if len(key) < 32:
            raise ValueError("tcp_key is too short")

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._meet(key, reader, writer)

        server = await asyncio.start_server(serve, own_address(), 0, limit=_PROOF_BYTES)
        self._keep.add(server)
        fresh = self._folder / "tcp_port.new"
        fresh.write_text(f"{server.sockets[0].getsockname()[1]}\n")
        fresh.replace(self._folder / "tcp_port")

    async def _meet(self, key: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let a connection prove itself, then join it to the socket it asks for."""
        if self._unproven >= _UNPROVEN:
            writer.close()
            return
        self._unproven += 1
        try:
            role, answer = await asyncio.wait_for(_check_proof(key, reader, writer), _PROOF_WAIT_S)
        except (OSError, ValueError, asyncio.TimeoutError):  # noqa: UP041  they differ in 3.8
            writer.close()
            return
        finally:
            self._unproven -= 1
        try:
            if HUB_SOCKET.fullmatch(role):
                await self._park(role, reader, writer, answer)
            else:
                inner = await asyncio.open_unix_connection(str(self._runtime / role), limit=_PUMP_BYTES)
                writer.write(f"ok {answer}\n".encode())
                await join((reader, writer), inner)
        except OSError:
            writer.write(f"closed {answer}\n".encode())
            writer.close()

    async def _park(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: str
    ) -> None:
        """Keep a proven connection until the server calls the hub through `name`."""
        if name not in self._parked:
            parked: asyncio.Queue[Streams] = asyncio.Queue()
            self._parked[name] = parked

            async def call(inner_reader: asyncio.StreamReader, inner_writer: asyncio.StreamWriter) -> None:
                outer = await _take(parked)
                if outer is None:
                    inner_writer.close()
                else:
                    await join(outer, (inner_reader, inner_writer))

            await self._serve_unix(name, call)
        writer.write(f"ok {answer}\n".encode())
        self._parked[name].put_nowait((reader, writer))


async def _take(parked: asyncio.Queue[Streams]) -> Streams | None:
    """A parked connection that is still open; None where none comes in time."""
    while True:
        try:
            reader, writer = await asyncio.wait_for(parked.get(), _HUB_WAIT_S)
        except asyncio.TimeoutError:  # noqa: UP041  they differ in 3.8
            return None
        if not reader.at_eof() and not writer.is_closing():
            return reader, writer
        writer.close()


async def _check_proof(
    key: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[str, str]:
    """The role a connection has proven, and our own proof for it. ValueError where it has not."""
    server_nonce = secrets.token_hex(16)
    writer.write(f"{GREETING} {server_nonce}\n".encode())
    role, client_nonce, shown = (await reader.readline()).decode("ascii").split()
    expected = proof(key, "client", role, server_nonce, client_nonce)
    if not hmac.compare_digest(shown, expected):
        raise ValueError("not proven")
    if role not in (HANDOVER, NOTEBOOK) and not HUB_SOCKET.fullmatch(role):
        raise ValueError("no such role")
    return role, proof(key, "server", role, server_nonce, client_nonce)


async def join(one: Streams, other: Streams) -> None:
    """Carry bytes both ways until both have ended or one has failed."""
    try:
        await asyncio.gather(_pump(one[0], other[1]), _pump(other[0], one[1]))
    except OSError:
        pass  # one side is gone: the other learns of it by the close below
    finally:
        one[1].close()
        other[1].close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        data = await reader.read(_PUMP_BYTES)
        if not data:
            break
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    peer = writer.get_extra_info("socket")
    packed = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", packed)[1])


def read_news(line: bytes) -> Dict[str, Any]:  # noqa: UP006  Python 3.8
    """What a line after the handover says; empty where nobody can read it, which harms nothing."""
    try:
        body = json.loads(line)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def own_address() -> str:
    """The address of the node's own name; every address where that is a loopback one."""
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        return "0.0.0.0"  # noqa: S104  each connection proves itself
    return "0.0.0.0" if address.startswith("127.") else address  # noqa: S104  as above


def end_at_once() -> NoReturn:
    """Kill every descendant, then this process.

    Not the process group: that holds the batch script, which still has an exit code to write down.
    """
    for pid in reversed(_descendants(os.getpid())):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it has ended by itself
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit(1)


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = entry.read_text(errors="replace")
        except OSError:
            continue  # it has ended by itself
        # The name in parentheses may hold anything, so count from the last one.
        parent = int(text.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(entry.parent.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found[1:]


def say(text: str) -> None:
    """One line for the server's log."""
    print(f"hpchub: {text}", file=sys.stderr, flush=True)


def _import_early() -> None:
    """Import what the server will need. What fails here fails again, in the server's own words."""
    _postpone(_GRAMMAR, "is_valid_syntax")
    gc.disable()  # next to nothing of what is being imported is ever garbage
    for name in _HEAVY:
        try:
            if importlib.util.find_spec(name) is not None:
                importlib.import_module(name)
        except ImportError as error:
            say(f"could not import {name} early: {error}")
    gc.freeze()
    gc.enable()


def _postpone(name: str, function: str) -> None:
    """Have `from name import function` load the module at the function's first call."""
    spec = importlib.util.find_spec(name)
    if spec is None or name in sys.modules:
        return
    later = importlib.util.module_from_spec(spec)

    def load() -> Any:
        if sys.modules.get(name) is later:
            del sys.modules[name]
        return importlib.import_module(name)

    vars(later)[function] = lambda *args: getattr(load(), function)(*args)
    vars(later)["__getattr__"] = lambda other: getattr(load(), other)
    sys.modules[name] = later


def _on_sigterm(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def lay_out_extension(runtime: Path, folder: Path) -> Optional[Path]:  # noqa: UP045  Python 3.8
    """Make what JupyterLab takes for an installed extension; where it reads the end of the job's time.

    None where that cannot be made: a server does without. Jupyter gives an extension's files to whoever
    asks for them, logged in or not, so the name is nobody's guess; the person's own page tells it.
    """
    name = f"hpchub-{secrets.token_hex(8)}"
    home = runtime / "share" / "labextensions" / name
    static = home / "static"
    about = {
        "name": name,
        "version": "1.0.0",
        "description": "Shows how much of the job's time is left.",
        "jupyterlab": {
            "extension": True,
            "_build": {"load": f"static/{EXTENSION}", "extension": "./extension"},
        },
    }
    try:
        static.mkdir(parents=True)
        shutil.copyfile(str(folder / EXTENSION), str(static / EXTENSION))
        # The last to come, and whole: JupyterLab reads every package.json or shows no page at all.
        (home / "package.new").write_text(json.dumps(about))
        (home / "package.new").replace(home / "package.json")
    except OSError as error:
        say(f"the time left cannot be shown: {error}")
        return None
    return static / END


def _show_extension(runtime: Path) -> None:
    """Before the site's and the person's own folders, and instead of none of them."""
    own = str(runtime / "share")
    others = os.environ.get("JUPYTER_PATH", "")
    os.environ["JUPYTER_PATH"] = f"{own}{os.pathsep}{others}" if others else own


def _become_server(environ: dict[str, str], argv: list[str], runtime: Path) -> None:
    os.environ.update(environ)
    _show_extension(runtime)
    sys.argv = list(argv)
    say("the handover is here, the server starts")
    importlib.import_module("jupyterhub.singleuser").main()


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--runtime-dir", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--tcp", action="store_true")
    parser.add_argument("--wait-s", type=float, default=600.0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The server's whole life; the exit code."""
    options = _parse(argv)
    runtime, folder = options.runtime_dir.absolute(), options.folder.absolute()
    site_umask = os.umask(0o077)
    missing = missing_modules()
    if missing:
        say(
            f"The environment at {sys.prefix} has no {' and no '.join(missing)}. "
            "Install jupyterhub and jupyterlab there, or choose another environment."
        )
        return EXIT_ENVIRONMENT
    try:
        runtime.mkdir(mode=0o700)
    except OSError as error:
        say(f"The folder for the server's sockets cannot be made: {error}.")
        return EXIT_RUNTIME_DIR
    try:
        end = lay_out_extension(runtime, folder)
        return _serve(Door(runtime, folder, options.tcp, end), runtime, options.wait_s, site_umask)
    finally:
        shutil.rmtree(runtime, ignore_errors=True)


def _serve(door: Door, runtime: Path, wait_s: float, site_umask: int) -> int:
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        door.open()
    except OSError as error:
        say(f"The server's sockets cannot be opened: {error}.")
        return EXIT_RUNTIME_DIR
    os.chdir(str(Path.home()))
    sys.path[:] = [entry for entry in sys.path if entry != str(Path(__file__).parent)]
    _import_early()
    try:
        environ, argv = door.handed.get(timeout=wait_s)
    except queue.Empty:
        say(f"No handover came within {wait_s:.0f} s. Is the bridge running?")
        return EXIT_NO_HANDOVER
    os.umask(site_umask)  # a person's notebooks are as open to their group as the site has it
    _become_server(environ, argv, runtime)
    return 0


if __name__ == "__main__":
    sys.exit(main())
