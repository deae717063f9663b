"""Renders hpchub's own pieces of JupyterHub's pages."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from tornado.web import StaticFileHandler

from hpchub.hub.browser_rules import ScriptNonces
from hpchub.paths import templates_dir


def page_templates() -> Path:
    """The folder of HTML templates; JupyterHub's `template_paths` takes it."""
    return templates_dir() / "html"


class ScriptHandler(StaticFileHandler):
    """`/hub/hpchub/static/…`: our scripts, in files of their own, so that pages need none inline."""

    def set_extra_headers(self, path: str) -> None:
        """It is what its name says, and nothing else."""
        self.set_header("X-Content-Type-Options", "nosniff")


def script_handlers() -> list[tuple[str, type[StaticFileHandler], dict[str, str]]]:
    """For an authenticator's `get_handlers`."""
    folder = str(page_templates() / "static")
    return [(r"/hpchub/static/([a-z_]+\.js)", ScriptHandler, {"path": folder})]


def render(template: str, **values: object) -> str:
    """One template, filled in. Every value is escaped."""
    return _environment().get_template(template).render(**values)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(page_templates()),
        autoescape=True,
        undefined=StrictUndefined,
        extensions=[ScriptNonces],
        trim_blocks=True,
        lstrip_blocks=True,
    )
