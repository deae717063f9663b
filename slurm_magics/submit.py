"""`%%sbatch`: from a cell's text, or a template, to what is given to sbatch."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from hpchub.paths import templates_dir
from slurm_magics.errors import SlurmError
from slurm_magics.programs import before_program
from slurm_magics.python_cell import PythonCell, pack
from slurm_magics.submission import Submission
from slurm_magics.words import fill, take_flag, take_option, told

_SHELL = "#!/bin/bash\n"
_OWN_TEMPLATES = Path("~/.config/slurm_magics/templates")
_SITE_TEMPLATES = Path("/etc/slurm_magics/templates")
# sbatch then prints something and submits nothing.
_TEXT_ONLY = frozenset({"--help", "-h", "--usage", "-V", "--version", "--test-only"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One line of `%sbatch`, read: what goes to sbatch and what is the magic's own.

    `is_text`: sbatch only prints something.
    """

    submission: Submission
    dry_run: bool
    wait: bool
    is_text: bool
    python: PythonCell | None = None

    def preview(self) -> str:
        """What would be run, and the script."""
        return f"{shlex.join(('sbatch', *self.submission.words))}\n\n{self.submission.script}".rstrip() + "\n"


def read_request(
    words: Sequence[str], cell: str | None, names: Mapping[str, Any], folder: PurePath, templates: str = ""
) -> Request:
    """From the line's words and the cell's text; None as cell is the line magic.

    Raises:
        SlurmError: The template is not there or lacks a value, or there is no script at all.
    """
    end = before_program("sbatch", words)
    left, dry_run = take_flag(list(words[:end]), "--dry-run")
    left, wait = take_flag(left, "--wait", "-W")
    left, no_fill = take_flag(left, "--no-fill")
    left, python = take_flag(left, "--python")
    left, template = take_option(left, "template")
    if cell is not None and not cell.strip() and template is None:
        raise SlurmError("The cell has no script.", "Write it under the line %%sbatch.")
    packed = pack(cell, names) if python and cell is not None else None
    if python and packed is None:
        raise SlurmError("--python takes a cell.", "Write %%sbatch --python, and the Python below.")
    script = packed.script if packed else (cell or "") if no_fill else fill(cell or "", names)
    if template is not None:
        script = render(template, script, names, templates)
    if script and not script.startswith("#!"):
        script = _SHELL + script
    results = packed.folder if packed else None
    is_text = not _TEXT_ONLY.isdisjoint(left)
    given = (*left, *words[end:])
    submission = Submission(words=given, folder=folder, script=script, results=results)
    return Request(submission=submission, dry_run=dry_run, wait=wait, is_text=is_text, python=packed)


def template_folders(chosen: str = "") -> list[Path]:
    """Where templates are looked for, first come first: what was chosen, one's own, the site's, ours."""
    named = chosen or os.environ.get("SLURM_MAGICS_TEMPLATES", "")
    folders = [Path(part) for part in named.split(os.pathsep) if part]
    folders += [_OWN_TEMPLATES, _SITE_TEMPLATES, templates_dir() / "magics"]
    return [folder.expanduser() for folder in folders]


def render(name: str, body: str, names: Mapping[str, Any], chosen: str = "") -> str:
    """The template's text with the cell as `body` and the notebook's variables by their names.

    Raises:
        SlurmError: It is not there, or is wrong, or a variable is missing.
    """
    import jinja2

    folders = template_folders(chosen)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  a shell script, not a page
        keep_trailing_newline=True,
    )
    environment.filters["sh"] = lambda value: shlex.quote(str(value))
    try:
        return environment.select_template([name, f"{name}.sh.j2"]).render({**names, "body": body})
    except jinja2.TemplatesNotFound as error:
        files = [path for folder in folders for path in folder.glob("*.sh.j2")]
        known = sorted({path.name.removesuffix(".sh.j2") for path in files})
        there = f"Known: {', '.join(known)}." if known else f"Put one into {folders[0]}."
        raise SlurmError(f"There is no template {name!r}.", there) from error
    except jinja2.UndefinedError as error:
        raise SlurmError(
            f"The template {name!r} cannot be used: {told(error)}.",
            "Give the notebook a variable of that name.",
        ) from error
    except Exception as error:  # a template can do what Python can, and fail as that does
        raise SlurmError(f"The template {name!r} cannot be used: {told(error)}.") from error
