"""What JupyterLab asks the notebook server about kernels in jobs: a real server, and a stand-in for Slurm."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.serverapp import ServerApp
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from traitlets.config import Config

from hpchub.schedulers import slurm_partitions
from support.kernel_jobs import OneJob, until

from .conftest import Install

_TOKEN = "secret"
_OWNERS = {"Authorization": f"token {_TOKEN}"}
_SESSION = {"path": "work/9f3a", "name": "train.ipynb", "type": "notebook", "kernel": {"name": "node"}}


class Server:
    """A notebook server in this process, as a browser reaches it."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def ask(
        self, path: str, method: str = "GET", body: object = None, headers: dict[str, str] = _OWNERS
    ) -> HTTPResponse:
        """The answer, whatever its status."""
        request = HTTPRequest(
            self.url + path, method=method, headers=headers,
            body=body if body is None or isinstance(body, bytes) else json.dumps(body), request_timeout=60,
        )  # fmt: skip
        return await AsyncHTTPClient().fetch(request, raise_error=False)

    async def waiting(self) -> list[dict[str, Any]]:
        """The kernels that wait."""
        rows: list[dict[str, Any]] = json.loads((await self.ask("hpchub/kernels/waiting")).body)
        return rows


@pytest.fixture
def root(home: Path, request: pytest.FixtureRequest) -> Path:
    """The server's root: the home, or the folder in it that the parameter names."""
    root = home / getattr(request, "param", "")
    root.mkdir(exist_ok=True)
    return root


@pytest.fixture
async def server(root: Path, request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """One with our extension; its parameter is `use_pending_kernels`."""
    config = Config()
    config.MultiKernelManager.use_pending_kernels = getattr(request, "param", False)
    config.ServerApp.update(
        base_url="/user/alice/", root_dir=str(root), allow_root=True, open_browser=False,
        jpserver_extensions={"hpchub.kernels.server": True},
    )  # fmt: skip
    config.IdentityProvider.token = _TOKEN
    config.KernelManager.shutdown_wait_time = 0.2
    app = ServerApp(config=config)
    app.initialize(argv=[], find_extensions=False, new_httpserver=False)
    socket, port = bind_unused_port()
    http = HTTPServer(app.web_app)
    http.add_socket(socket)
    yield Server(f"http://127.0.0.1:{port}/user/alice/")
    http.stop()
    await app._cleanup()
    ServerApp.clear_instance()


async def _start(server: Server) -> tuple[asyncio.Task[HTTPResponse], dict[str, Any]]:
    """JupyterLab's request for a notebook's kernel, and how the kernel is listed when it waits."""
    starting = asyncio.create_task(server.ask("api/sessions", "POST", _SESSION))
    return starting, await _waiting(server)


async def _waiting(server: Server) -> dict[str, Any]:
    """How the one kernel that waits is listed, once it is."""
    async with asyncio.timeout(30):
        while not (rows := await server.waiting()) or not rows[0]["reason"]:  # noqa: ASYNC110  as a page does
            await asyncio.sleep(0.02)
    (row,) = rows
    return row


async def test_a_kernel_that_waits_is_listed_and_can_be_given_up(
    job: OneJob, kernel: Install, home: Path, server: Server
) -> None:
    """With its notebook as JupyterLab has it, and the queue's reason. Its job is cancelled before that is
    answered, for what is asked for next; the request that started it says why it failed, and nothing is left
    in the list or the home. Twice is once.
    """
    kernel()
    job.hold()
    (home / "work").mkdir()
    starting, row = await _start(server)
    gone = row.pop("id")
    assert row == {
        "kernel": "node", "title": "Node", "notebook": "work/train.ipynb", "session": "work/9f3a",
        "job": "4242", "reason": "Job 4242: Pending: waiting for resources to become free (Resources).",
    }  # fmt: skip
    path = f"hpchub/kernels/waiting/{gone}"
    both = await asyncio.gather(server.ask(path, "DELETE"), server.ask(path, "DELETE"))
    assert [one.code for one in both] == [204, 204]
    assert [line.split()[-1] for line in job.cancelled] == ["4242"]
    answer = await starting
    assert answer.code == 500
    assert _message(answer).startswith("The kernel was given up before its job 4242 began. Pending: ")
    assert await server.waiting() == []
    assert list((home / ".hpchub/kernels").iterdir()) == []
    again = await server.ask(f"hpchub/kernels/waiting/{gone}", "DELETE")
    assert (again.code, _message(again)) == (404, "This kernel does not wait, or no longer.")


async def test_who_asks_again_goes_on_with_the_job_that_waits(
    job: OneJob, kernel: Install, home: Path, server: Server
) -> None:
    """The page was loaded again, say: no second job waits, and the request before it says why it failed."""
    kernel()
    job.hold()
    (home / "work").mkdir()
    first, row = await _start(server)
    again = asyncio.create_task(server.ask("api/sessions", "POST", _SESSION))
    answer = await first
    assert answer.code == 500
    words = "This notebook's kernel has been asked for once more, and job 4242 goes to that request."
    assert _message(answer) == words
    await until(lambda: len(list((home / ".hpchub/kernels").glob("*/kernel-*.json"))) == 1)
    async with asyncio.timeout(30):
        while not (rows := await server.waiting()):  # noqa: ASYNC110  as a page does
            await asyncio.sleep(0.02)
    assert rows[0]["id"] != row["id"]
    assert rows[0]["job"] == "4242"
    assert (job.submitted, job.cancelled) == (1, [])
    assert (await server.ask(f"hpchub/kernels/waiting/{rows[0]['id']}", "DELETE")).code == 204
    assert (await again).code == 500
    assert [line.split()[-1] for line in job.cancelled] == ["4242"]
    assert list((home / ".hpchub/kernels").iterdir()) == []


@pytest.fixture
async def other(kernel: Install, home: Path, server: Server) -> dict[str, Any]:
    """A notebook's session with a kernel on this node, `idler`; the kernelspec `node` is there, too."""
    folder = kernel().parent / "idler"
    folder.mkdir()
    (folder / "kernel.json").write_text(json.dumps({"argv": ["sleep", "600"], "display_name": "Idler"}))
    (home / "work").mkdir()
    body = {**_SESSION, "path": "work/train.ipynb", "kernel": {"name": "idler"}}
    session: dict[str, Any] = json.loads((await server.ask("api/sessions", "POST", body)).body)
    return session


async def test_a_change_that_is_given_up_leaves_the_kernel_that_is_there(
    job: OneJob, home: Path, server: Server, other: dict[str, Any]
) -> None:
    """The request for the change succeeds with that one, so JupyterLab keeps it. The job is cancelled."""
    job.hold()
    path = f"api/sessions/{other['id']}"
    changing = asyncio.create_task(server.ask(path, "PATCH", {"kernel": {"name": "node"}}))
    row = await _waiting(server)
    assert (row["notebook"], row["session"]) == ("work/train.ipynb", "work/train.ipynb")
    assert (await server.ask(f"hpchub/kernels/waiting/{row['id']}", "DELETE")).code == 204
    answer = await changing
    assert (answer.code, json.loads(answer.body)["kernel"]["id"]) == (200, other["kernel"]["id"])
    kept = json.loads((await server.ask("api/kernels")).body)
    assert [one["name"] for one in kept] == ["idler"]
    assert [line.split()[-1] for line in job.cancelled] == ["4242"]
    assert list((home / ".hpchub/kernels").iterdir()) == []


async def test_a_change_whose_session_has_ended_fails(
    job: OneJob, server: Server, other: dict[str, Any]
) -> None:
    """There is no kernel to go back to."""
    job.hold()
    path = f"api/sessions/{other['id']}"
    changing = asyncio.create_task(server.ask(path, "PATCH", {"kernel": {"name": "node"}}))
    row = await _waiting(server)
    assert (await server.ask(path, "DELETE")).code == 204
    assert (await server.ask(f"hpchub/kernels/waiting/{row['id']}", "DELETE")).code == 204
    answer = await changing
    assert (answer.code, "was given up before its job" in _message(answer)) == (501, True)


async def test_a_change_that_fails_says_why_in_lines(
    kernel: Install, server: Server, other: dict[str, Any]
) -> None:
    """As JupyterLab's dialog shows them, with no signs of a program's."""
    kernel(memory="lots", cpus=0)
    path = f"api/sessions/{other['id']}"
    answer = await server.ask(path, "PATCH", {"kernel": {"name": "node"}})
    first, *lines = json.loads(answer.body)["message"].split("\n")
    assert (answer.code, first) == (501, "The 'node' kernel could not be started: ")
    assert [line.partition(":")[0] for line in lines[-2:]] == ["cpus", "memory"]
    assert "\\" not in "".join(lines)


@pytest.mark.parametrize("root", ["my wörk"], indirect=True)
async def test_a_notebook_is_named_from_the_servers_root_on(
    job: OneJob, kernel: Install, root: Path, server: Server
) -> None:
    """Also where that is a folder of the home."""
    kernel()
    job.hold()
    (root / "work").mkdir()
    starting, row = await _start(server)
    assert row["notebook"] == "work/train.ipynb"
    assert (await server.ask(f"hpchub/kernels/waiting/{row['id']}", "DELETE")).code == 204
    assert (await starting).code == 500


async def test_a_page_that_looks_is_nobodys_activity(server: Server) -> None:
    """What stops idle servers does not see it."""
    before = json.loads((await server.ask("api/status")).body)["last_activity"]
    assert await server.waiting() == []
    assert json.loads((await server.ask("api/status")).body)["last_activity"] == before


@pytest.mark.parametrize("server", [True], indirect=True, ids=["pending"])
async def test_a_kernel_that_jupyter_takes_for_started_can_be_given_up(
    job: OneJob, kernel: Install, home: Path, server: Server
) -> None:
    """With `use_pending_kernels` the request that starts it is answered at once."""
    kernel()
    job.hold()
    (home / "work").mkdir()
    starting, row = await _start(server)
    assert (await starting).code == 201
    assert (await server.ask(f"hpchub/kernels/waiting/{row['id']}", "DELETE")).code == 204
    await until(lambda: bool(job.cancelled))
    await until(lambda: not list((home / ".hpchub/kernels").iterdir()))
    assert await server.waiting() == []


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("hpchub/kernels/waiting", "GET"),
        ("hpchub/kernels/partitions", "GET"),
        ("hpchub/kernels/waiting/x", "DELETE"),
        ("hpchub/kernels", "POST"),
    ],
)
async def test_strangers_are_refused(server: Server, path: str, method: str) -> None:
    """As by the server's own requests: without the token there is no answer, and another site's page that has
    the browser send its cookies changes nothing.
    """
    body = {"kernel": "node", "settings": {}} if method == "POST" else None
    for headers in ({}, {"Authorization": "token wrong"}):
        assert (await server.ask(path, method, body, headers)).code == 403
    known = await server.ask("api/me")
    cookies = "; ".join(line.split(";")[0] for line in known.headers.get_list("Set-Cookie"))
    assert (await server.ask("api/me", headers={"Cookie": cookies})).code == 200
    if method != "GET":
        answer = await server.ask(path, method, body, {"Cookie": cookies})
        assert (answer.code, "_xsrf" in _message(answer)) == (403, True)


_ROW = r"cpu\x1fcpu*\x1fup\x1f1-00:00:00\x1f1:00:00\x1fUNLIMITED\x1f64\x1f257500\x1fgpu:a100:4(S:0-1)\n"


def _write_sinfo(job: OneJob, command: str) -> Path:
    """A sinfo that notes that it was asked; the notes."""
    path = job.folder / "sinfo"
    path.write_text(f"#!/bin/bash\necho asked >>{job.folder}/asked\n{command}\n")
    path.chmod(0o755)
    return job.folder / "asked"


async def test_the_partitions_are_listed_with_their_limits(
    job: OneJob, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they may be typed into the form, whatever people have set for their own sinfo. Many pages at once,
    and soon after, ask Slurm once.
    """
    monkeypatch.setenv("SINFO_PARTITION", "other")
    asked = _write_sinfo(job, f"[ -z $SINFO_PARTITION ] && printf '{_ROW}'")
    answers = await asyncio.gather(*(server.ask("hpchub/kernels/partitions") for _ in range(8)))
    answers.append(await server.ask("hpchub/kernels/partitions"))
    assert {one.code for one in answers} == {200}
    assert {one.body for one in answers} == {answers[0].body}
    assert json.loads(answers[0].body) == [
        {"name": "cpu", "is_default": True, "state": "up", "max_time": "1-00:00:00",
         "default_time": "01:00:00", "cpus": 64, "memory": "251G", "gpus": [{"type": "a100", "number": 4}]}
    ]  # fmt: skip
    assert asked.read_text() == "asked\n"


async def test_a_slurm_that_is_away_lists_no_partitions(job: OneJob, server: Server) -> None:
    """It is asked once in a while, and its words are told. A machine without sinfo says so."""
    words = "slurm_load_partitions: Unable to contact slurm controller (connect failure)"
    asked = _write_sinfo(job, f"echo '{words}' >&2; exit 1")
    for _ in range(2):
        answer = await server.ask("hpchub/kernels/partitions")
        assert (answer.code, "connect failure" in _message(answer)) == (503, True)
    assert asked.read_text() == "asked\n"


async def test_a_sinfo_that_is_silent_holds_nobody_up(
    job: OneJob, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answers meanwhile; and after the limit, that there is no answer."""
    monkeypatch.setattr(slurm_partitions, "_LIMIT_S", 0.5)
    asked = _write_sinfo(job, "exec sleep 60")
    asking = asyncio.create_task(server.ask("hpchub/kernels/partitions"))
    await until(asked.exists)
    assert await server.waiting() == []
    answer = await asking
    assert (answer.code, _message(answer)) == (503, "Slurm did not answer sinfo within 0.5 s.")


@pytest.mark.usefixtures("job")
async def test_without_sinfo_no_partitions_are_listed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the form is told so."""
    monkeypatch.setenv("PATH", "/nowhere")
    answer = await server.ask("hpchub/kernels/partitions")
    assert (answer.code, _message(answer).partition(".")[0]) == (409, "There is no sinfo on this machine")


@pytest.fixture
def sbatch(job: OneJob, kernel: Install) -> Path:
    """One that would refuse 900G, and the kernelspec `node` that it would take; in no language, so that it is
    quickly checked.
    """
    folder = kernel(time="02:00:00", memory="4G", options=["--constraint=a"])
    body = json.loads((folder / "kernel.json").read_text())
    (folder / "kernel.json").write_text(json.dumps({**body, "language": "none"}))
    words = "allocation failure: Requested node configuration is not available"
    (job.folder / "sbatch").write_text(
        f"#!/bin/sh\ngrep -q -- --mem=900G || exit 0\necho '{words}' >&2\nexit 1\n"
    )
    return folder


def _config(home: Path, name: str) -> dict[str, Any]:
    path = home / ".local/share/jupyter/kernels" / name / "kernel.json"
    stanza: dict[str, Any] = json.loads(path.read_text())["metadata"]["kernel_provisioner"]
    assert stanza["provisioner_name"] == "hpchub-slurm"
    return dict(stanza["config"])


async def _make(server: Server, kernel: str, title: str = "", **settings: str) -> tuple[int, dict[str, str]]:
    body = {"kernel": kernel, "title": title, "settings": settings}
    answer = await server.ask("hpchub/kernels", "POST", body)
    return answer.code, json.loads(answer.body)


@pytest.mark.usefixtures("sbatch")
async def test_other_resources_make_another_kernel(home: Path, server: Server) -> None:
    """Named after the first one and what is asked for; what the form has not got stays. The same again is the
    same kernel, from whichever one asks; what the first one has anyway is the first one.
    """
    large = {"partition": "cpu", "time": "1-02:30:00", "cpus": "8", "memory": "15G", "gpus": "1"}
    made = {
        "name": "node-8-cores-15g-1-gpu-26-h-30-min-cpu",
        "title": "Node, 8 cores, 15G, 1 GPU, 26 h 30 min, cpu",
    }
    assert await _make(server, "node", **large) == (200, made)
    assert _config(home, made["name"]) == {**large, "cpus": 8, "gpus": 1, "options": ["--constraint=a"]}
    offered = json.loads((await server.ask("api/kernelspecs")).body)["kernelspecs"]
    assert offered[made["name"]]["spec"]["display_name"] == made["title"]
    assert await _make(
        server,
        "node",
        **large,
    ) == (200, made)
    assert await _make(server, made["name"], **large) == (200, made)
    least = {"name": "node-1-core", "title": "Node, 1 core"}
    assert await _make(server, made["name"], cpus=" ", time="") == (200, least)
    assert _config(home, "node-1-core") == {"options": ["--constraint=a"]}
    first = {"name": "node", "title": "Node"}
    assert await _make(server, made["name"], time="02:00:00", memory="4096M") == (200, first)
    assert len(list((home / ".local/share/jupyter/kernels").iterdir())) == 3


@pytest.mark.usefixtures("sbatch")
async def test_two_pages_may_ask_for_the_same_kernel_at_once(server: Server) -> None:
    """Both are told its name."""
    made = {"name": "node-2-cores", "title": "Node, 2 cores"}
    assert await asyncio.gather(*(_make(server, "node", cpus="2") for _ in range(4))) == [(200, made)] * 4


async def test_a_kernel_may_have_a_title_of_its_own(sbatch: Path, home: Path, server: Server) -> None:
    """Then the title says which kernel it is: other settings under it take its place. What was made otherwise
    under that name is left alone.
    """
    big = {"name": "node-big-one", "title": "Big one"}
    assert await _make(server, "node", "Big  one", cpus="8") == (200, big)
    assert await _make(server, "node-big-one", "Big one", cpus="16") == (200, big)
    assert _config(home, "node-big-one")["cpus"] == 16
    assert await _make(server, "node", "大", cpus="8") == (200, {"name": "node-kernel", "title": "大"})
    told = {"message": "There is a kernel 大 already. Give it another title."}
    assert await _make(server, "node", "小", cpus="8") == (422, told)
    shutil.copytree(sbatch, sbatch.parent / "node-mine")
    before = (sbatch.parent / "node-mine/kernel.json").read_text()
    told = {"message": "There is a kernel Node already. Give it another title."}
    assert await _make(server, "node", "Mine", cpus="8") == (422, told)
    assert (sbatch.parent / "node-mine/kernel.json").read_text() == before


@pytest.mark.usefixtures("sbatch")
async def test_what_would_not_start_is_refused_in_words(home: Path, server: Server) -> None:
    """Values that are none, each of them; Slurm's own refusal. Nothing is installed."""
    code, told = await _make(server, "node", memory="lots", cpus="0")
    assert (code, [line.split(":")[0] for line in told["message"].split("\n")]) == (422, ["cpus", "memory"])
    code, told = await _make(server, "node", memory="900G")
    assert (code, told["message"]) == (
        422,
        "It would not start: Slurm would refuse its job: Requested node configuration is not available. "
        "No node of this partition has all of that: ask for fewer CPUs, less memory or fewer GPUs, or choose "
        "a partition with larger nodes.",
    )
    assert (await _make(server, "gone", cpus="2"))[0] == 404
    assert [path.name for path in (home / ".local/share/jupyter/kernels").iterdir()] == ["node"]


@pytest.mark.parametrize(
    "body",
    [[], {"kernel": "node"}, {"kernel": 1, "settings": {}},
     {"kernel": "node", "settings": {"options": "--hold"}}, {"kernel": "node", "settings": {"cpus": 2}},
     {"kernel": "node", "settings": {}, "title": None}],
    ids=["list", "no-settings", "number", "unknown-key", "no-text", "no-title"],
)  # fmt: skip
@pytest.mark.usefixtures("sbatch")
async def test_a_request_that_is_none_is_named(server: Server, body: object) -> None:
    """400, and what is wanted."""
    answer = await server.ask("hpchub/kernels", "POST", body)
    assert (answer.code, "partition, time, cpus, memory, gpus" in _message(answer)) == (400, True)


@pytest.mark.parametrize("body", [b"\xff\xfe{}", b'{"kernel": "\xe9"}', b"", b"no", b"[" * 100_000])
async def test_a_body_that_nobody_can_read_is_refused(server: Server, body: bytes) -> None:
    """In a sentence; it is not repeated."""
    answer = await server.ask("hpchub/kernels", "POST", body)
    assert (answer.code, len(_message(answer)) < 200) == (400, True)


@pytest.mark.parametrize("stanza", [None, 7, "hpchub-slurm", [], {"config": 7}])
async def test_a_kernelspec_that_is_none_is_refused(sbatch: Path, server: Server, stanza: object) -> None:
    """It is the kernel that is wrong, and what of it."""
    body = json.loads((sbatch / "kernel.json").read_text())
    body["metadata"]["kernel_provisioner"] = stanza
    (sbatch / "kernel.json").write_text(json.dumps(body))
    code, told = await _make(server, "node", cpus="2")
    assert (code, told["message"].endswith("metadata.kernel_provisioner must be an object.")) == (422, True)


@pytest.mark.parametrize("text", ["[]", "no", '{"argv": 7}', '{"argv": ["\\ud800"]}', '{"metadata": null}'])
async def test_a_kernel_json_that_is_none_is_refused(sbatch: Path, server: Server, text: str) -> None:
    """As JSON, as Jupyter's, or as ours."""
    (sbatch / "kernel.json").write_text(text)
    code, told = await _make(server, "node", cpus="2")
    assert (code, str(sbatch / "kernel.json") in told["message"]) == (422, True)


@pytest.mark.usefixtures("sbatch")
@pytest.mark.parametrize("name", ["partition", "time", "cpus", "memory", "gpus", "title"])
async def test_a_long_value_is_not_repeated(home: Path, server: Server, name: str) -> None:
    """It is shortened in what is said of it. Nothing is installed."""
    code, told = await _make(server, "node", **{name: "9x" * 100_000})
    assert (code, name in told["message"], len(told["message"]) < 300) == (422, True, True)
    assert [path.name for path in (home / ".local/share/jupyter/kernels").iterdir()] == ["node"]


@pytest.mark.usefixtures("sbatch")
@pytest.mark.parametrize("title", ["a\0b", "\ud800", "\x1b[1m"])
async def test_a_title_that_cannot_be_shown_is_refused(server: Server, title: str) -> None:
    """And not written into a kernel.json."""
    code, told = await _make(server, "node", title)
    assert (code, told["message"]) == (422, "The title holds a character that cannot be shown.")


@pytest.mark.usefixtures("sbatch")
async def test_several_partitions_can_be_asked_for(home: Path, server: Server) -> None:
    """The job goes to the first that has room; however many there are, the kernel has a name."""
    made = {"name": "node-1-core-cpu-gpu", "title": "Node, 1 core, cpu,gpu"}
    assert await _make(server, "node", partition="cpu,gpu") == (200, made)
    assert _config(home, made["name"])["partition"] == "cpu,gpu"
    many = ",".join(f"partition{number}" for number in range(20))
    code, told = await _make(server, "node", partition=many)
    assert (code, len(told["name"]) <= 100) == (200, True)
    code, told = await _make(server, "node", partition="cpu,,gpu")
    words = "partition: 'cpu,,gpu' is not the name of a partition, or of several as a,b"
    assert (code, told["message"]) == (422, words)


async def test_settings_that_are_wrong_can_be_mended(sbatch: Path, server: Server) -> None:
    """In the form; what else became of the kernel that it was made from does not matter."""
    body = json.loads((sbatch / "kernel.json").read_text())
    body["metadata"]["kernel_provisioner"]["config"]["memory"] = "lots"
    (sbatch / "kernel.json").write_text(json.dumps(body))
    made = {"name": "node-2-cores-4g", "title": "Node, 2 cores, 4G"}
    assert await _make(server, "node", cpus="2", memory="4G") == (200, made)
    (sbatch / "kernel.json").write_text(json.dumps({**body, "metadata": {}}))
    assert (await _make(server, made["name"], cpus="3"))[1]["name"] == "node-3-cores"


async def test_a_kernel_that_runs_in_no_job_has_no_resources(sbatch: Path, server: Server) -> None:
    """And says so."""
    body = json.loads((sbatch / "kernel.json").read_text())
    (sbatch / "kernel.json").write_text(json.dumps({**body, "metadata": {}}))
    told = {"message": "The kernel Node does not run in a job."}
    assert await _make(server, "node", cpus="2") == (422, told)


def _message(answer: HTTPResponse) -> str:
    """What it says, on one line."""
    return str(json.loads(answer.body)["message"]).replace("\n", " ")
