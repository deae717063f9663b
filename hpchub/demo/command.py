"""`hpchub demo run|up|down|exec|install`."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from hpchub.core.cluster import Attach
from hpchub.demo.environments import ready_environments
from hpchub.demo.hosts import require_namespaces
from hpchub.demo.info import ending_words, find_host, running_words
from hpchub.demo.layout import Layout
from hpchub.demo.loopback import HELP
from hpchub.demo.packages import FOR_TESTS, NEEDED, install_packages, missing_packages
from hpchub.demo.supervisor import Plan, is_held, stop
from hpchub.demo.supervisor import run as supervise
from hpchub.errors import SiteError

_UP_TIMEOUT_S = 900  # a first start builds the environments
_DOWN_TIMEOUT_S = 30


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verbs and their options."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, purpose in (
        ("run", "start in the foreground; Ctrl-C stops it all"),
        ("up", "start in the background; returns when all is ready"),
        ("down", "stop what `up` or `run` started"),
        ("exec", "run a command on a host of the demo"),
        ("install", "install what the demo needs, and stop there"),
    ):
        # What stands after HOST belongs to the command, its -h too.
        verb = verbs.add_parser(name, help=purpose, description=purpose, add_help=name != "exec")
        _add_dir(verb)
        if name in {"run", "up"}:
            verb.add_argument("--attach", choices=[way.value for way in Attach], default="srun")
            verb.add_argument("--port", type=int, help="the hub's port on 127.0.0.1 (default: 8000, or any)")
            verb.add_argument("--cluster-only", action="store_true", help="Slurm and sshd, but no hub")
            verb.add_argument("--loopback", action="store_true", help=HELP)
        if name == "install":
            verb.add_argument("--for-tests", action="store_true", help="what the tests need besides")
        if name == "exec":
            # HOST too: argparse drops a `--` that follows an argument of its own.
            verb.add_argument("words", nargs=argparse.REMAINDER, metavar="HOST [--user NAME] -- COMMAND")


def _add_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path(os.environ.get("HPCHUB_DEMO_DIR") or ".demo"),
        help="the demo's state folder (default: $HPCHUB_DEMO_DIR or .demo)",
    )


def run(args: argparse.Namespace) -> int:
    """Run one verb; the exit code. `exec` does not return."""
    layout = Layout(args.dir.absolute())
    _become_root(args)
    if args.action == "exec":
        _exec(args)
    if args.action == "up":
        return _up(layout, args)
    if args.action == "down":
        return _down(layout)
    if args.action == "install":
        return _install(for_tests=args.for_tests)
    plan = Plan(
        layout=layout,
        attach=Attach(args.attach),
        port=args.port,
        cluster_only=args.cluster_only,
        loopback=args.loopback,
    )
    begun = time.monotonic()

    def say(line: str) -> None:
        # The closing block, which begins with an empty line, is there to be copied from.
        _say(line if line.startswith("\n") else f"{time.monotonic() - begun:5.1f} s  {line}")

    supervise(plan, say)
    return 0


def _install(*, for_tests: bool) -> int:
    if missing := missing_packages(NEEDED + (FOR_TESTS if for_tests else ())):
        install_packages(missing, _say)
    try:
        require_namespaces()
    except SiteError:
        _say("Namespaces are not allowed here: the first start with --loopback builds the environments.")
    else:
        ready_environments(_say)
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _exec(args: argparse.Namespace) -> NoReturn:
    """Become the command: its streams, signals and exit code pass through."""
    asked, command = _exec_words(args.words, args.dir)
    host = find_host(Layout(asked.dir.absolute()), asked.host)
    entered = host.enter(command or ["bash"], asked.user)
    os.execvp(entered[0], entered)


def _exec_words(words: list[str], directory: Path) -> tuple[argparse.Namespace, list[str]]:
    """Our own options (`host`, `dir`, `user`), and the command: all that stands after the first `--`."""
    middle = words.index("--") if "--" in words else len(words)
    options = argparse.ArgumentParser(prog="hpchub demo exec")
    options.add_argument("host", help="login1, login2, c1, c2, ctl or hub")
    _add_dir(options)
    options.set_defaults(dir=directory)
    options.add_argument("--user", default="", help="as whom (default: root)")
    asked, command = options.parse_known_args(words[:middle])
    return asked, [*command, *words[middle + 1 :]]


def _up(layout: Layout, args: argparse.Namespace) -> int:
    """Start `run` apart from this terminal and pass its lines on until it is ready."""
    if is_held(layout):
        for line in running_words(layout):
            _say(line)
        return 0
    layout.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    argv = [
        sys.executable,
        "-m",
        "hpchub.cli",
        "demo",
        "run",
        "--dir",
        str(layout.dir),
        "--attach",
        args.attach,
    ]
    argv += ["--port", str(args.port)] if args.port is not None else []
    argv += ["--cluster-only"] if args.cluster_only else []
    argv += ["--loopback"] if args.loopback else []
    log = layout.dir / "demo.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    ready = False
    try:
        ready = _follow(child, layout, log)
    finally:
        # Ctrl-C here, or a pipe that closed: what was begun must not boot on unseen.
        if not ready and child.poll() is None:
            child.terminate()
            child.wait(_DOWN_TIMEOUT_S)
    if not ready:
        raise SiteError(f"The demo did not start. The whole log: {log}")
    _say(ending_words(layout))
    return 0


def _follow(child: subprocess.Popen[bytes], layout: Layout, log: Path) -> bool:
    """Pass a supervisor's lines on; whether it got ready before it ended."""
    deadline = time.monotonic() + _UP_TIMEOUT_S
    with log.open(encoding="utf-8") as lines:
        ready = ended = False
        while not (ready or ended) and time.monotonic() < deadline:
            time.sleep(0.05)
            ended = child.poll() is not None
            ready = layout.ready.exists() and layout.ready.read_text() == str(child.pid)
            sys.stdout.write(lines.read())
            sys.stdout.flush()
    return ready and not ended


def _down(layout: Layout) -> int:
    stopped = stop(layout)
    _say(f"Stopped; the logs stay in {layout.logs}." if stopped else f"No demo is running in {layout.dir}.")
    return 0


def _become_root(args: argparse.Namespace) -> None:
    """Namespaces and accounts of several people need root: run again through sudo where we are not.

    Not for what would change this machine itself: that is asked for as root, or not at all.
    """
    if os.geteuid() == 0:
        return
    if getattr(args, "loopback", False):
        raise SiteError(
            "--loopback adds accounts and settings to this machine: it needs root.",
            "Run it as root, in a container that is thrown away.",
        )
    if shutil.which("sudo") is None:
        raise SiteError(
            "The demo needs root: it makes namespaces, mounts and accounts of its own.",
            "Run it as root, or install sudo.",
        )
    keep = [f"{name}={os.environ[name]}" for name in ("PATH", "HPCHUB_DEMO_DIR") if name in os.environ]
    _say("The demo needs root; running again through sudo.")
    sys.stdout.flush()
    os.execvp("sudo", ["sudo", "--", "env", *keep, sys.executable, "-m", "hpchub.cli", *sys.argv[1:]])
