"""Makes a kernelspec from one that hpchub ships, a site's own folder, or somebody's environment."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from hpchub.core.cluster import Container
from hpchub.errors import ConfigError, InvalidRequest
from hpchub.kernels.kernelspec import SLURM, Kernelspec, checked_name, load_kernelspec, render_kernelspec
from hpchub.kernels.places import Place, is_file, list_kernelspecs, places
from hpchub.paths import kernels_dir

_DIRECTORY_MODE, _PROGRAM_MODE, _FILE_MODE = 0o755, 0o755, 0o644
# What rename(2) says of a folder that stands where another is to be put.
_IS_THERE = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a new kernelspec is made from. Empty values keep what the source has."""

    source: str
    name: str = ""
    title: str = ""
    modules: tuple[str, ...] = ()
    prefix: str = ""
    container: Container | None = None
    image: str = ""
    binds: tuple[str, ...] = ()
    slurm: Mapping[str, Any] = field(default_factory=dict)


def shipped() -> list[str]:
    """The names of the kernelspecs that hpchub ships."""
    return sorted(path.name for path in kernels_dir().iterdir() if (path / "kernel.json").is_file())


def make(wanted: Wanted) -> Kernelspec:
    """The kernelspec; its folder is the one that it is made from.

    Raises:
        InvalidRequest: The source is neither; or options do not fit it.
        ConfigError: The source's kernel.json is wrong.
    """
    try:
        base, wanted = _base(wanted)
    except OSError as error:
        raise InvalidRequest(f"{wanted.source} cannot be read: {error.strerror}.") from error
    spec = replace(base, name=checked_name((wanted.name or slug(base.name)).lower()))
    ways = (wanted.modules, wanted.prefix, wanted.container, wanted.image, wanted.binds)
    if any(ways):
        spec = spec.changed(argv=list(_with_ways(spec, wanted)))
    if wanted.source in shipped():
        _check_complete(base, wanted)
    if wanted.title:
        spec = spec.changed(display_name=wanted.title)
    elif wanted.name and (any(ways) or wanted.slurm):
        language = base.title.split(" (")[0]
        spec = spec.changed(display_name=f"{language} ({wanted.name})")
    if wanted.slurm:
        stanza = {"provisioner_name": SLURM, "config": {**_slurm_settings(spec), **wanted.slurm}}
        spec = spec.changed(metadata={**spec.body.get("metadata", {}), "kernel_provisioner": stanza})
    return spec


def install(spec: Kernelspec, place: Place, *, replacing: bool = False) -> Path:
    """Puts it where Jupyter finds it; the folder.

    Raises:
        InvalidRequest: There is one of that name, and it is not to be replaced.
        ConfigError: The place cannot be written.
    """
    target = place.folder / spec.name
    if os.path.lexists(target) and not replacing:
        raise _taken(target)
    try:
        _make(place)
        # A folder around it: Jupyter takes every folder here that has a kernel.json for a kernel.
        with tempfile.TemporaryDirectory(
            prefix=".hpchub-", dir=place.folder, ignore_cleanup_errors=True
        ) as around:
            fresh, old = Path(around, "new"), Path(around, "old")
            fresh.mkdir()
            _fill(fresh, spec)
            if replacing:
                _exchange(fresh, target, old)
            else:
                _put(fresh, target)
    except shutil.Error as error:
        source, _, why = error.args[0][0]
        raise ConfigError(f"{source} cannot be copied to {place.folder}: {why}.") from error
    except OSError as error:
        raise ConfigError(
            f"{place.folder} cannot be written: {error.strerror}.", "Say --user to install it for yourself."
        ) from error
    return target


def _make(place: Place) -> None:
    """Makes the folder of kernelspecs; what is new of an environment's or the machine's is for everybody."""
    new = [folder for folder in (place.folder, *place.folder.parents) if not folder.exists()]
    place.folder.mkdir(parents=True, exist_ok=True)
    for folder in new if place.kind != "user" else ():
        folder.chmod(_DIRECTORY_MODE)


def remove(folder: Path) -> None:
    """Takes a kernelspec away; what it starts stays.

    Raises:
        ConfigError: The folder cannot be written.
    """
    try:
        if folder.is_symlink():
            folder.unlink()
        else:
            shutil.rmtree(folder)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be removed: {error.strerror}.") from error


def _put(fresh: Path, target: Path) -> None:
    """Puts a folder where there is none. InvalidRequest where somebody was first."""
    try:
        fresh.rename(target)
    except OSError as error:
        if error.errno not in _IS_THERE:
            raise
        raise _taken(target) from None


def _exchange(fresh: Path, target: Path, old: Path) -> None:
    """Puts a folder in the place of what is there, which is lost only when the new one stands."""
    try:
        if os.path.lexists(target):
            target.rename(old)
        _put(fresh, target)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(target):
            old.rename(target)
        raise


def _taken(target: Path) -> InvalidRequest:
    return InvalidRequest(
        f"There is a kernel {target.name} in {target.parent}.", "Give another --name, or say --replace."
    )


def _base(wanted: Wanted) -> tuple[Kernelspec, Wanted]:
    """What it is made from, and what the source itself says."""
    if wanted.source in shipped():
        return load_kernelspec(kernels_dir() / wanted.source), wanted
    path = Path(wanted.source).expanduser().absolute()
    name = wanted.name or slug(path.stem if path.suffix == ".sif" else path.name)
    if is_file(path / "kernel.json"):
        return load_kernelspec(path), wanted
    if (path / "pyvenv.cfg").is_file():
        return _shipped("virtualenv"), replace(wanted, prefix=str(path), name=name)
    if (path / "conda-meta").is_dir():
        return _shipped(_conda_kernel(path)), replace(wanted, prefix=str(path), name=name)
    if path.suffix == ".sif" and path.is_file():
        return _shipped("apptainer"), replace(
            wanted, container=Container.APPTAINER, image=str(path), name=name
        )
    found, _ = list_kernelspecs(places(os.environ))
    for _, spec in found:
        if spec.name == wanted.source.lower():
            return spec, wanted
    if not path.exists():
        _refuse_missing(wanted.source)
    raise InvalidRequest(
        f"{wanted.source} is no kernel of ours, none that is installed, no folder with a kernel.json, "
        "no virtualenv or conda environment, and no .sif image.",
        f"Ours are {', '.join(shipped())}.",
    )


def _refuse_missing(source: str) -> NoReturn:
    """Says of a path, or of a single word, that there is nothing of that name."""
    if "/" in source:
        raise InvalidRequest(
            f"There is no such folder or file: {source}.",
            "Look at its spelling, and whether this machine has it.",
        )
    raise InvalidRequest(
        f"{source} is no kernel of ours and none that is installed, and there is no such folder here.",
        f"Ours are {', '.join(shipped())}.",
    )


def _check_complete(spec: Kernelspec, wanted: Wanted) -> None:
    """InvalidRequest where one of ours would keep the example of what it starts."""
    launch = spec.launch
    needed = {
        "--prefix FOLDER": launch and launch.prefix and not wanted.prefix,
        "--image IMAGE": launch and launch.image and not wanted.image,
        "--module NAME": launch and launch.modules and not wanted.modules,
    }
    missing = [option for option, lacks in needed.items() if lacks]
    if missing:
        raise InvalidRequest(f"The kernel {spec.name} wants to be told what it starts: {', '.join(missing)}.")


def _shipped(name: str) -> Kernelspec:
    return load_kernelspec(kernels_dir() / name)


def _conda_kernel(prefix: Path) -> str:
    """Of an environment without Python, the language that it has."""
    for program, kernel in (("python3", "conda"), ("R", "r"), ("julia", "julia")):
        if (prefix / "bin" / program).exists():
            return kernel
    return "conda"


def _with_ways(spec: Kernelspec, wanted: Wanted) -> tuple[str, ...]:
    launch = spec.launch
    if launch is None:
        raise InvalidRequest(
            f"{spec.folder} does not start with our launcher, so it takes no modules, prefix or image."
        )
    container = wanted.container or launch.container
    if wanted.image and not container:
        raise InvalidRequest("An image needs --container.", f"One of {', '.join(Container)}.")
    if wanted.container and not wanted.image:
        raise InvalidRequest(f"{container} runs an image: give --image.")
    if wanted.binds and not container:
        raise InvalidRequest("--bind shows a path to an image: give --container and --image as well.")
    prefix = str(Path(wanted.prefix).expanduser().absolute()) if wanted.prefix else launch.prefix
    if container and prefix:
        raise InvalidRequest("A kernel has a prefix or an image, not both.")
    return replace(
        launch,
        modules=wanted.modules or launch.modules,
        prefix=prefix,
        container=container,
        image=wanted.image or launch.image,
        binds=wanted.binds or launch.binds,
    ).words()


def _slurm_settings(spec: Kernelspec) -> dict[str, Any]:
    name, config = spec.provisioner
    return config if name == SLURM else {}


def _fill(folder: Path, spec: Kernelspec) -> None:
    """The source's files with our kernel.json, readable for all whatever the umask."""
    shutil.copytree(spec.folder, folder, dirs_exist_ok=True, ignore_dangling_symlinks=True)
    (folder / "kernel.json").write_text(render_kernelspec(spec.body), encoding="utf-8")
    if spec.launch is not None:
        shutil.copyfile(kernels_dir() / "launch", folder / "launch")
        (folder / "launch").chmod(_PROGRAM_MODE)
    folder.chmod(_DIRECTORY_MODE)
    for path in folder.rglob("*"):
        runs = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(_PROGRAM_MODE if runs else _FILE_MODE)


def slug(name: str) -> str:
    """A name that Jupyter takes, made from any text."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower(), flags=re.ASCII).strip("-._") or "kernel"
