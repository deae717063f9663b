"""A kernel in a job, made from another one because somebody wants other resources for it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpchub.core.units import render_memory
from hpchub.errors import ConfigError, InvalidRequest
from hpchub.kernels.health import check
from hpchub.kernels.installing import Wanted, install, make, slug
from hpchub.kernels.job_settings import JobSettings, number_or_text, read_settings
from hpchub.kernels.kernelspec import SLURM, Kernelspec
from hpchub.kernels.places import list_kernelspecs, places, user_place
from hpchub.paths import kernels_dir

# What JupyterLab's form asks for. The other settings stay those of the kernel that it is made from.
FIELDS = ("partition", "time", "cpus", "memory", "gpus")
_NUMBERS = ("cpus", "gpus")
# Where kernel.json says that a kernel was made here.
_MARK = "hpchub"
_LONGEST_TITLE = 100
_LONGEST_NAME = 100  # as kernelspec.py has it


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    """The kernel that further ones are named after: the first that somebody chose other resources for."""

    name: str
    title: str


def choose(source: Kernelspec, fields: Mapping[str, str], title: str = "") -> Kernelspec:
    """The kernel with these settings; installed for this person where there was none, after a few seconds.

    Empty fields leave it to Slurm. The same settings lead to the same kernel.

    Raises:
        InvalidRequest: It runs in no job; settings are wrong, and which; it would not start with them, and
            why; the title is taken, or none.
        ConfigError: The home cannot be written.
    """
    settings, config = _changed(source, fields)
    title = _checked_title(title)
    installed = {spec.name: spec for _, spec in list_kernelspecs(places(os.environ))[0]}
    origin = _origin(source)
    for one in (source, installed.get(origin.name)):
        if one is not None and title in ("", one.title) and _has(one, settings):
            return one
    words = (title,) if title else _words(settings)
    spec = make(
        Wanted(
            source=str(source.folder),
            name=f"{origin.name}-{slug('-'.join(words))}"[:_LONGEST_NAME].rstrip("-._"),
            title=title or ", ".join((origin.title, *words)),
        )
    )  # fmt: skip
    stanza = {"provisioner_name": SLURM, "config": config}
    mark = {"kernel": spec.name, "from": origin.name, "title": origin.title}
    metadata = {**spec.body.get("metadata", {}), "kernel_provisioner": stanza, _MARK: mark}
    spec = spec.changed(metadata=metadata)
    there = installed.get(spec.name)
    if there is not None and there.body == spec.body:
        return there
    if there is not None and (_origin(there).name != origin.name or title not in ("", there.title)):
        raise InvalidRequest(f"There is a kernel {there.title} already.", "Give it another title.")
    health = check(spec, launcher=kernels_dir() / "launch")
    if not health.is_good:
        raise InvalidRequest(f"It would not start: {health.problem}.", health.hint)
    install(spec, user_place(os.environ), replacing=there is not None)
    return spec


def _checked_title(title: str) -> str:
    """On one line; InvalidRequest where nobody could read it, or write it down."""
    title = " ".join(title.split())
    if len(title) > _LONGEST_TITLE:
        raise InvalidRequest(
            f"The title has {len(title)} characters.", f"At most {_LONGEST_TITLE} are shown."
        )
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in title):
        raise InvalidRequest("The title holds a character that cannot be shown.")
    return title


def _changed(source: Kernelspec, fields: Mapping[str, str]) -> tuple[JobSettings, dict[str, Any]]:
    """A kernel's settings with these fields, as they are meant and as kernel.json holds them."""
    provisioner, config = source.provisioner
    if provisioner != SLURM:
        raise InvalidRequest(f"The kernel {source.title} does not run in a job.")
    given = {name: value.strip() for name, value in fields.items() if value.strip()}
    numbers = {name: number_or_text(given[name]) for name in _NUMBERS if name in given}
    config = {name: value for name, value in config.items() if name not in FIELDS} | given | numbers
    try:
        return read_settings(config), config
    except ConfigError as error:
        raise InvalidRequest("\n".join(error.problems)) from error


def _has(spec: Kernelspec, settings: JobSettings) -> bool:
    provisioner, config = spec.provisioner
    try:
        return provisioner == SLURM and read_settings(config) == settings
    except ConfigError:
        return False


def _origin(spec: Kernelspec) -> _Origin:
    """What it was made from here; itself where it was not, or was installed again under another name."""
    mark = spec.body.get("metadata", {}).get(_MARK)
    if isinstance(mark, dict) and mark.get("kernel") == spec.name:
        return _Origin(name=str(mark.get("from", spec.name)), title=str(mark.get("title", spec.title)))
    return _Origin(name=spec.name, title=spec.title)


def _words(settings: JobSettings) -> list[str]:
    """The fields as a title has them: `8 cores`, `15G`, `1 GPU`, `2 h`, `cpu`."""
    words = [f"{settings.cpus} core" + "s" * (settings.cpus > 1)]
    if settings.memory_bytes:
        words.append(render_memory(settings.memory_bytes))
    if settings.gpus:
        words.append(f"{settings.gpus} GPU" + "s" * (settings.gpus > 1))
    if settings.time_s:
        words.append(_duration(settings.time_s))
    return [*words, settings.partition] if settings.partition else words


def _duration(seconds: int) -> str:
    """`1 h 30 min`."""
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    parts = [f"{value} {unit}" for value, unit in ((hours, "h"), (minutes, "min"), (seconds, "s")) if value]
    return " ".join(parts)
