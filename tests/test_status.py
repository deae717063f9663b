"""`hpchub status`: its tables, at any width."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpchub.cli import main
from hpchub.core.server import ConnectionView, Phase, ServerView
from hpchub.status import Status, render_json, render_tables

NOW = 1_800_000_000.0


def a_server(number: int, **values: object) -> ServerView:
    usual = {
        "id": f"{number:032x}", "user": "alice", "server_name": "", "cluster": "alpha",
        "placement": "compute", "phase": Phase.READY, "job_id": "4711", "node": "c0123",
        "native_state": "RUNNING", "socket": "",
        "error": None, "created_at": NOW - 3700,
    }  # fmt: skip
    return ServerView(**(usual | values))  # type: ignore[arg-type]


LINE = ConnectionView(
    user="alice", cluster="alpha", node="login1", use="commands", sessions=1, channels=0, idle_s=0.0
)


def test_the_tables() -> None:
    """Each server and connection on a line of its own, sorted, under what it is."""
    status = Status(
        servers=[
            a_server(2, user="bob", phase=Phase.QUEUED, node="", created_at=NOW - 5),
            a_server(1, server_name="gpu"),
        ],
        connections=[LINE],
        tunnels=frozenset({f"{1:032x}"}),
    )
    assert render_tables(status, NOW, 100).splitlines() == [
        "Servers: 2, ready: 1, tunnels open: 1",
        "USER   NAME  CLUSTER  PLACE    PHASE   JOB   NODE   TUNNEL  AGE",
        "alice  gpu   alpha    compute  ready   4711  c0123  open    1h01m",
        "bob    -     alpha    compute  queued  4711  -      -       5s",
        "",
        "Connections to login nodes: 1",
        "USER   CLUSTER  LOGIN NODE  USE       SESSIONS  CHANNELS  IDLE",
        "alice  alpha    login1      commands  1         0         -",
    ]


@pytest.mark.parametrize("width", [80, 120, 400])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Long names are cut at 80 columns and whole where there is room."""
    name = "a-very-long-server-name-that-somebody-chose-for-fun-" + "x" * 80
    status = Status(
        servers=[a_server(1, user="u" * 32, server_name=name, node="node-with-a-long-name-0001")],
        connections=[LINE],
        tunnels=frozenset(),
    )
    shown = render_tables(status, NOW, width)
    assert max(map(len, shown.splitlines())) <= width
    assert (name in shown) == (width == 400)
    assert "4711" in shown and "ready" in shown


def test_a_name_cannot_draw_on_the_terminal() -> None:
    """A server's name is its user's choice: no line end or terminal control comes through."""
    status = Status(servers=[a_server(1, server_name="\x1b[2J\nforged")], connections=[], tunnels=frozenset())
    shown = render_tables(status, NOW, 200)
    assert "\x1b" not in shown and len(shown.splitlines()) == 5


def test_json_for_programs() -> None:
    """One line with everything, each server with whether its tunnel is open."""
    status = Status(servers=[a_server(1)], connections=[LINE], tunnels=frozenset({f"{1:032x}"}))
    body = json.loads(render_json(status))
    assert body["servers"][0]["tunnel"] is True and body["servers"][0]["user"] == "alice"
    assert body["connections"][0]["node"] == "login1"


def test_no_bridge_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody answers, one plain message and exit code 1."""
    config = tmp_path / "bridge.toml"
    config.write_text(
        'runtime_dir = "/run/nowhere"\nsigner_socket = "s"\nagent_socket = "a"\nhub_socket = "h"\n'
        'clusters = "c"\n'
        'database = "sqlite:///b"\n'
    )
    assert main(["status", "--config", str(config)]) == 1
    assert "does not answer" in capsys.readouterr().err
