"""`hpchub kernels`: install, list, check and remove the kernels that Jupyter offers."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hpchub.core.cluster import Container
from hpchub.errors import HpchubError, InvalidRequest
from hpchub.kernels.allocation import Allocation
from hpchub.kernels.claims import notebooks, records
from hpchub.kernels.health import GOOD, Health, check
from hpchub.kernels.installing import Wanted, install, make, remove, shipped
from hpchub.kernels.job_settings import number_or_text
from hpchub.kernels.kernelspec import SLURM, Kernelspec
from hpchub.kernels.places import (
    Place,
    environment_place,
    kernel_folders,
    list_kernelspecs,
    places,
    provisioners,
    system_place,
    user_place,
)
from hpchub.paths import kernels_dir

# Each check starts a program or two; the machine is shared.
_CHECKS_AT_ONCE = 4
_INTERRUPTED = 130


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's own verbs and their arguments."""
    verbs = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = verbs.add_parser(
        "install", help="make a kernel from one of ours, a folder, an environment, an image"
    )
    new.add_argument(
        "source", help=f"one of {', '.join(shipped())}; a folder, .sif image, or installed kernel"
    )
    new.add_argument("--name", default="", help="what Jupyter calls it; otherwise the source's name")
    new.add_argument("--title", default="", help="what people see")
    new.add_argument(
        "--module", action="append", default=[], metavar="NAME", help="load it first; repeatable"
    )
    new.add_argument("--prefix", default="", metavar="FOLDER", help="a virtualenv or conda environment")
    new.add_argument("--container", type=Container, choices=list(Container), help="what runs the image")
    new.add_argument("--image", default="", help="a container image")
    new.add_argument(
        "--bind", action="append", default=[], metavar="PATH", help="show it to the image as well"
    )
    new.add_argument(
        "--slurm",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="run it in a job: partition=cpu, time=02:00:00, cpus=4, memory=8G and others; repeatable",
    )
    new.add_argument("--replace", action="store_true", help="take the place of one of the same name")
    new.add_argument("--no-check", action="store_true", help="install it even where it would not start")
    _add_scope(new)
    listed = verbs.add_parser("list", help="every kernel that Jupyter offers, and where it comes from")
    checked = verbs.add_parser("check", help="try them, and say what is missing and how to get it")
    checked.add_argument("names", nargs="*", metavar="NAME", help="otherwise all of them")
    for one in (listed, checked):
        one.add_argument("--json", action="store_true", help="for programs")
        one.add_argument("--environment", type=Path, default=Path(sys.prefix), metavar="PREFIX",
                         help="where Jupyter is installed; otherwise this Python's")  # fmt: skip
    verbs.add_parser("jobs", help="the jobs of your kernels, and why one of them waits")
    gone = verbs.add_parser("remove", help="take a kernel away; the environment that it starts stays")
    gone.add_argument("names", nargs="+", metavar="NAME")
    _add_scope(gone)


def run(args: argparse.Namespace) -> int:
    """One action; 1 where a check found something, 130 after Ctrl-C, as a shell has it."""
    actions = {"install": _install, "list": _list, "check": _check, "jobs": _jobs, "remove": _remove}
    try:
        return actions[args.action](args)
    except KeyboardInterrupt:
        return _INTERRUPTED


def magic(line: str) -> None:
    """`%kernels`, which is `hpchub kernels`: what it says is printed, a refusal too."""
    parser = argparse.ArgumentParser(prog="%kernels", description=__doc__)
    configure(parser)
    try:
        run(parser.parse_args(shlex.split(line)))
    except HpchubError as error:
        print(f"%kernels: {error}", file=sys.stderr)
    except SystemExit:
        return  # argparse has said why


def _add_scope(parser: argparse.ArgumentParser) -> None:
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("--user", action="store_true", help="for yourself, which is the default")
    scope.add_argument("--system", action="store_true", help="for everybody on this machine")
    scope.add_argument(
        "--environment", type=Path, metavar="PREFIX", help="for everybody whose Jupyter is there"
    )


def _scope(args: argparse.Namespace) -> Place:
    if args.system:
        return system_place()
    return environment_place(args.environment) if args.environment else user_place(os.environ)


def _install(args: argparse.Namespace) -> int:
    spec = make(
        Wanted(
            source=args.source, name=args.name, title=args.title,
            modules=tuple(args.module), prefix=args.prefix, container=args.container,
            image=args.image, binds=tuple(args.bind), slurm=_settings(args.slurm),
        )
    )  # fmt: skip
    place = _scope(args)
    if not args.no_check:
        health = check(spec, launcher=kernels_dir() / "launch")
        if not health.is_good:
            print(_line(spec, health))
            print("Not installed. --no-check installs it all the same.")
            return 1
    print(f"{spec.title!r} is installed in {install(spec, place, replacing=args.replace)}")
    print("JupyterLab offers it after a reload of the page.")
    return 0


def _list(args: argparse.Namespace) -> int:
    found, problems = list_kernelspecs(places(os.environ, args.environment))
    if args.json:
        rows = [
            {"name": spec.name, "title": spec.title, "place": place.kind, "folder": str(spec.folder),
             "starts": _starts(spec)}
            for place, spec in found
        ]  # fmt: skip
        print(json.dumps(rows, indent=2))
    else:
        _print_table([(spec.name, spec.title, place.kind, _starts(spec)) for place, spec in found])
    for problem in problems:
        print(f"hpchub kernels: {problem}", file=sys.stderr)
    return 0


def _check(args: argparse.Namespace) -> int:
    found, problems = list_kernelspecs(places(os.environ, args.environment))
    chosen = [spec for _, spec in found if not args.names or spec.name in args.names]
    unknown = sorted(set(args.names) - {spec.name for spec in chosen})
    if unknown:
        raise InvalidRequest(f"There is no kernel {', '.join(unknown)}.", "`hpchub kernels list` shows them.")
    offered = provisioners(args.environment)

    def tried(spec: Kernelspec) -> Health:
        health = check(spec)
        name, _ = spec.provisioner
        if not health.is_good or not name or not offered or name in offered:
            return health
        return _not_offered(name, args.environment)

    with ThreadPoolExecutor(_CHECKS_AT_ONCE) as threads:
        healths = list(threads.map(tried, chosen))
    pairs = list(zip(chosen, healths, strict=True))
    if args.json:
        rows = [
            {"name": spec.name, "good": health.is_good, "problem": health.problem, "hint": health.hint}
            for spec, health in pairs
        ]
        print(json.dumps(rows, indent=2))
    else:
        for spec, health in pairs:
            print(_line(spec, health))
    if args.names:
        problems = []  # of kernels that nobody asked about
    for problem in problems:
        print(f"hpchub kernels: {problem}", file=sys.stderr)
    return 0 if not problems and all(health.is_good for health in healths) else 1


def _not_offered(provisioner: str, prefix: Path) -> Health:
    """Of a kernel that Jupyter leaves out of its list, without a word to people."""
    hint = f'{prefix}/bin/python3 -m pip install "hpchub[kernels]"'
    return Health(
        f"Jupyter in {prefix} does not offer it: no package there has the provisioner {provisioner}",
        hint if provisioner.startswith("hpchub-") else "",
    )


def _jobs(_args: argparse.Namespace) -> int:
    async def told(folder: Path, job_id: str) -> str:
        job = Allocation(folder, job_id)
        await job.look()
        return f"{job_id}: {job.explanation} For {', '.join(notebooks(folder)) or 'nobody any more'}."

    async def gather() -> list[str]:
        return [await told(folder, str(record["job"])) for folder, record in list(records())]

    # In a notebook this thread has a loop already.
    with ThreadPoolExecutor(1) as thread:
        lines = thread.submit(lambda: asyncio.run(gather())).result()
    print("\n".join(lines) or "No kernel of yours runs in a job.")
    return 0


def _remove(args: argparse.Namespace) -> int:
    place = _scope(args)
    folders, _ = kernel_folders(place.folder)  # also those whose kernel.json is broken
    known = {folder.name.lower(): folder for folder in folders}
    unknown = [name for name in args.names if name.lower() not in known]
    if unknown:
        raise InvalidRequest(
            f"There is no kernel {', '.join(unknown)} in {place.folder}.",
            "`hpchub kernels list` shows where each is; name the place with --system or --environment.",
        )
    for name in args.names:
        remove(known[name.lower()])
        print(f"{name} is gone from {place.folder}")
    return 0


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
    """What stands after --slurm: numbers as numbers, options of sbatch as a list."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InvalidRequest(f"--slurm {pair}: write KEY=VALUE, for example time=02:00:00.")
        if key == "options":
            settings.setdefault(key, []).append(value)
        else:
            settings[key] = number_or_text(value)
    return settings


def _starts(spec: Kernelspec) -> str:
    """What a kernel starts, in a few words."""
    name, config = spec.provisioner
    what = spec.launch.told() if spec.launch else spec.argv[0]
    if name == SLURM:
        asked = ", ".join(f"{key}={value}" for key, value in config.items())
        return f"{what}, in a job{f' ({asked})' if asked else ''}"
    return what


def _line(spec: Kernelspec, health: Health) -> str:
    if health == GOOD:
        return f"{_shown(spec.name)}: good"
    return _shown(f"{spec.name}: {health.problem}") + (f"\n    {health.hint}" if health.hint else "")


def _shown(text: str) -> str:
    """Text of a kernel.json, which somebody else may have written, without what moves a terminal's cursor."""
    return "".join(char if char.isprintable() else " " for char in text)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    table = [tuple(map(_shown, row)) for row in (("NAME", "TITLE", "PLACE", "STARTS"), *rows)]
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join((*cells, row[3])))
