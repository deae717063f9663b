"""Makes the script that a notebook server starts with, from a template and checked values.

The same script serves a login node and a job; for a job it also carries the scheduler's directives.
It holds no secret: the server's environment comes later, through the tunnel.
"""

from __future__ import annotations

import functools
import re
import shlex
import unicodedata
from pathlib import Path
from typing import Any

import jinja2

from hpchub.core.choices import ServerOptions
from hpchub.core.cluster import Attach, Cluster, Placement
from hpchub.core.slugs import job_name
from hpchub.core.units import render_memory, render_time
from hpchub.errors import ConfigError, InvalidRequest
from hpchub.paths import templates_dir
from hpchub.schedulers.slurm_directives import quote_directive

_SERVER_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)

# Control characters, line and paragraph separators, lone surrogates, unassigned.
_REFUSED_CATEGORIES = {"Cc", "Zl", "Zp", "Cs", "Cn"}


def render_notebook_script(
    cluster: Cluster, options: ServerOptions, *, server_id: str, server_name: str, folder: str
) -> str:
    """The whole `notebook.sh` of one server.

    Args:
        cluster: Where it runs. Its own `templates` folder is searched before ours.
        options: What was asked for, checked.
        server_id: Names the server's folder on the node.
        server_name: JupyterHub's name of the server, for the name in the queue.
        folder: The server's folder on the cluster, absolute.

    Raises:
        InvalidRequest: A value cannot stand in a script: control characters, an unknown environment.
        ConfigError: A template of the site is missing something.
    """
    environment = cluster.environments.get(options.environment)
    if environment is None:
        raise InvalidRequest(
            f"There is no environment {options.environment!r} on {cluster.title}.",
            fields={"environment": f"Choose {', '.join(cluster.environments)}."},
        )
    if not _SERVER_ID.fullmatch(server_id):
        raise InvalidRequest(f"{server_id[:40]!r} is no server id.")
    if not folder.startswith("/") or "\\" in folder:  # Slurm gives a backslash in --output a meaning
        raise InvalidRequest(f"{folder[:80]!r} cannot be a server's folder.")
    compute = options.placement is Placement.COMPUTE
    if compute != (options.resources is not None):
        raise InvalidRequest("A job needs resources, and a server on a login node takes none.")
    home = "login" if options.placement is Placement.LOGIN else cluster.scheduler
    try:
        return (
            _templates(cluster.templates)
            .get_template(f"{home}/notebook.sh.j2")
            .render(
                cluster=cluster,
                options=options,
                resources=options.resources,
                environment=environment,
                job_name=job_name(server_name, server_id),
                folder=folder,
                runtime_root=cluster.runtime_dir(options.placement),
                runtime_dir=cluster.server_runtime_dir(options.placement, server_id),
                tcp=compute and cluster.compute is not None and cluster.compute.attach is Attach.TCP,
            )
        )
    except jinja2.TemplateError as error:
        raise ConfigError(
            f"A batch script template of {cluster.name} is wrong: {type(error).__name__}: {error}"
        ) from error


def render_kernel_script(templates: Path | None, **values: Any) -> str:
    """The batch script of a job for kernels.

    Args:
        templates: The site's own folder of templates, searched before ours.
        values: `settings`, `job_name`, and `folder`, the job's, absolute.

    Raises:
        InvalidRequest: A value cannot stand in a script.
        ConfigError: A template of the site is missing something.
    """
    try:
        return _templates(templates).get_template("slurm/kernel.sh.j2").render(**values)
    except jinja2.TemplateError as error:
        raise ConfigError(
            f"The batch script template of kernels is wrong: {type(error).__name__}: {error}"
        ) from error


def quote_for_shell(value: str) -> str:
    """One shell word. InvalidRequest where no script can hold the text."""
    _refuse_unprintable(value)
    return shlex.quote(value)


def quote_for_directive(value: str) -> str:
    """One word of a directive's line. InvalidRequest on anything that could end the line."""
    _refuse_unprintable(value)
    return quote_directive(value)


def _refuse_unprintable(value: str) -> None:
    for char in value:
        if unicodedata.category(char) in _REFUSED_CATEGORIES:
            raise InvalidRequest(f"{value[:40]!r} holds a character that no script may hold: {char!r}.")


@functools.cache  # compiling them takes 9 ms of every start
def _templates(site: Path | None) -> jinja2.Environment:
    """The site's templates before ours; its own may extend ours by the name `hpchub/…`.

    A file that changes counts from the next start on; one that is new and hides another's, from the
    next restart.
    """
    ours = jinja2.FileSystemLoader(templates_dir())
    loaders: list[jinja2.BaseLoader] = [ours, jinja2.PrefixLoader({"hpchub": ours})]
    if site is not None:
        loaders.insert(0, jinja2.FileSystemLoader(site))
    templates = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  a shell script, not a page; every value passes a filter of ours
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters.update(
        sh=quote_for_shell, directive=quote_for_directive, slurm_time=render_time, slurm_memory=render_memory
    )
    return templates
