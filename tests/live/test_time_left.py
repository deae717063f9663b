"""When a job ends: told to its own person's page, and to nobody else."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import pytest
import requests

from support.demo import Demo
from support.servers import Server, ServerOf, until
from support.slurm import job_fields, job_id_of

pytestmark = pytest.mark.live


def _page_config(server: Server) -> dict[str, Any]:
    """What JupyterLab's page is told."""
    found = re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', server.open().text, re.DOTALL)
    assert found
    config: dict[str, Any] = json.loads(found[1])
    return config


def _extension(server: Server) -> str:
    """Where the proxy has the extension's files; only the page knows the name."""
    [name] = [e["name"] for e in _page_config(server)["federated_extensions"] if "hpchub" in e["name"]]
    return f"{server.base}lab/extensions/{name}/static"


def test_in_a_job(demo: Demo, server_of: ServerOf) -> None:
    """The page loads the extension, which reads when Slurm will end the job; a stranger finds neither."""
    server = server_of("alice").start(placement="compute", partition="short", time="00:10:00")
    where = _extension(server)
    assert server.session.get(f"{where}/time_left.js").status_code == 200
    until(lambda: server.session.get(f"{where}/end.json").status_code == 200, "the end is told")
    end = server.session.get(f"{where}/end.json").json()
    limit = datetime.fromisoformat(job_fields(demo, job_id_of(demo, "alice"))["EndTime"]).timestamp()
    assert abs(end["ends_at"] - limit) < 20
    assert end["warn_before_s"] == [900, 300]
    guess = re.sub(r"hpchub-[0-9a-f]+", "hpchub-0123456789abcdef", where)
    assert requests.get(f"{demo.url}{guess}/end.json", timeout=10).status_code == 404
    assert "hpchub-" not in requests.get(f"{demo.url}{server.base}lab", timeout=10).text


def test_on_a_login_node(server_of: ServerOf) -> None:
    """Where nothing ends by itself the extension is there and has nothing to tell."""
    server = server_of("bob").start(placement="login")
    assert server.session.get(f"{_extension(server)}/end.json").status_code == 404
