"""Options of a start: the cluster file's defaults, what a person asks for, and what the job gets."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from support.demo import Demo
from support.servers import ServerOf
from support.slurm import job_fields, job_id_of, jobs_of

pytestmark = pytest.mark.live


def test_defaults(demo: Demo, server_of: ServerOf) -> None:
    """A start without options takes the cluster file's defaults and the person's default account."""
    server_of("alice").start()
    job = job_fields(demo, job_id_of(demo, "alice"))
    assert (job["Partition"], job["Account"]) == ("cpu", "physics")
    assert (job["TimeLimit"], job["NumCPUs"], job["MinMemoryNode"]) == ("01:00:00", "1", "1G")
    assert "gres" not in job["TRES"]


def test_everything_asked_for(demo: Demo, server_of: ServerOf) -> None:
    """Partition, account, time, CPUs, memory and GPUs are the job's, and the kernel sees its GPU."""
    server = server_of("alice").start(
        cluster="demo",
        placement="compute",
        partition="gpu",
        account="chemistry",
        time="00:20:00",
        cpus=2,
        memory="1500M",
        gpus=1,
        environment="lab",
    )
    job = job_fields(demo, job_id_of(demo, "alice"))
    assert (job["Partition"], job["Account"], job["NodeList"]) == ("gpu", "chemistry", "c2")
    assert (job["TimeLimit"], job["NumCPUs"], job["MinMemoryNode"]) == ("00:20:00", "2", "1500M")
    assert "gres/gpu=1" in job["TRES"]
    seen = server.run("import os; print(os.environ['SLURM_JOB_GPUS'], os.environ['CUDA_VISIBLE_DEVICES'])")
    assert seen == "0 0"


def test_environments_differ(server_of: ServerOf) -> None:
    """`data` has pandas and `lab` has not; `modules` has loaded its module and `lab` has not."""
    look = (
        "import importlib.util, os, sys;"
        "print(importlib.util.find_spec('pandas') is not None,"
        " os.environ.get('LOADEDMODULES', ''), sys.prefix)"
    )
    seen = {}
    for name in ("lab", "data", "modules"):
        # A server called "lab" would have the address of the default one's page, from then on.
        server = server_of("bob", f"with-{name}").start(placement="login", environment=name)
        has_pandas, *rest = server.run(look).split(" ")
        seen[name] = (has_pandas, rest[0], rest[-1])
    assert seen["lab"] == ("False", "", "/opt/hpc/lab")
    assert seen["data"] == ("True", "", "/opt/hpc/data")
    assert seen["modules"][:2] == ("False", "jupyter/demo")


def test_environments_in_a_job(server_of: ServerOf) -> None:
    """An environment is the same in a job: pandas works, a module is loaded."""
    data = server_of("alice", "data").start(environment="data")
    assert data.run("import pandas; print(pandas.DataFrame({'x': [1, 2]}).x.sum())") == "3"
    modules = server_of("alice", "modules").start(environment="modules", partition="short")
    assert modules.run("import os; print(os.environ['LOADEDMODULES'])") == "jupyter/demo"


# `named` is the field that the answer must name, `allowed` what it must offer instead.
BAD_VALUES = [
    ({"cpus": 0}, "cpus", "1 to 8"),
    ({"cpus": -1}, "cpus", "1 to 8"),
    ({"cpus": "9"}, "cpus", "1 to 8"),
    ({"cpus": "1e9"}, "cpus", "1 to 8"),
    ({"cpus": "٣"}, "cpus", "1 to 8"),
    ({"cpus": "2\n#SBATCH --wrap=x"}, "cpus", "1 to 8"),
    ({"cpus": "9" * 400}, "cpus", "1 to 8"),
    ({"cpus": 1.5}, "cpus", ""),
    ({"cpus": True}, "cpus", ""),
    ({"cpus": {"a": 1}}, "cpus", ""),
    ({"partition": "short", "cpus": 5}, "cpus", "1 to 4"),
    ({"partition": "short", "time": "00:31:00"}, "time", "00:30:00"),
    ({"time": "08:00:01"}, "time", "08:00:00"),
    ({"time": "-01:00:00"}, "time", "08:00:00"),
    ({"time": "00:00:00"}, "time", "08:00:00"),
    ({"time": "01:00:00; touch /tmp/pwned"}, "time", "08:00:00"),
    ({"time": "\u0660\u0661:\u0660\u0660:\u0660\u0660"}, "time", "08:00:00"),
    ({"memory": "17G"}, "memory", "16G"),
    ({"memory": "1e9"}, "memory", "16G"),
    ({"memory": "-1G"}, "memory", "16G"),
    ({"memory": "$(touch /tmp/pwned)"}, "memory", "16G"),
    ({"memory": "1G\n"}, "memory", "16G"),
    ({"gpus": 1}, "gpus", "0"),
    ({"partition": "gpu", "gpus": 3}, "gpus", "0 to 2"),
    ({"partition": "cpu;touch /tmp/pwned"}, "partition", "cpu, short, gpu"),
    ({"partition": "root"}, "partition", "cpu, short, gpu"),
    ({"account": "chemistry"}, "account", "physics"),  # alice's, not bob's
    ({"account": "root"}, "account", "physics"),
    ({"account": "$(touch /tmp/pwned)"}, "account", ""),
    ({"account": "physics\n#SBATCH --uid=0"}, "account", ""),
    ({"placement": "controller"}, "placement", "login, compute"),
    ({"environment": "`touch /tmp/pwned`"}, "environment", "lab, data, modules, broken"),
    ({"environment": "../../tmp"}, "environment", "lab, data, modules, broken"),
    ({"cluster": "demo\n"}, "cluster", "demo"),
    ({"reservation": "x"}, "reservation", "partition"),
    ({"--wrap": "touch /tmp/pwned"}, "--wrap", "partition"),
]


def test_bad_values(demo: Demo, server_of: ServerOf) -> None:
    """Every bad value is answered 422 with its field and what is allowed; no job and no file comes of it."""
    server = server_of("bob")
    following = _next_job_id(demo)
    for options, named, allowed in BAD_VALUES:
        answer = server.ask(**options)
        assert answer.status_code == 422, (options, answer.status_code, answer.text)
        message = answer.json()["message"]
        assert named in message, (options, message)
        assert allowed in message, (options, message)
        assert message.isprintable(), (options, message)
    assert jobs_of(demo, "bob") == {}
    assert _next_job_id(demo) == following
    for host in ("login1", "login2", "c1", "c2", "ctl", "hub"):
        assert demo.exec(host, ["test", "-e", "/tmp/pwned"]).returncode == 1, host


def test_all_bad_fields_at_once(server_of: ServerOf) -> None:
    """Several bad values are named together, not one by one."""
    message = server_of("bob").ask(cpus=99, memory="1T", time="never").json()["message"]
    assert all(name in message for name in ("cpus: ", "memory: ", "time: "))


@pytest.mark.parametrize("name", ["a b;c", "$(id)", "x" * 300, "../x"])
def test_bad_server_names(demo: Demo, server_of: ServerOf, name: str) -> None:
    """A server's name that is no slug starts nothing."""
    server = server_of("bob")
    path = f"hub/api/users/bob/servers/{quote(name, safe='')}"
    answer = server.session.post(path)  # no body: the hub refuses before it would read one
    assert 400 <= answer.status_code < 500, answer.text
    assert jobs_of(demo, "bob") == {}


def _next_job_id(demo: Demo) -> str:
    """What the controller calls the next job; the accounting hears of one only some time after it came."""
    shown = demo.exec("ctl", ["scontrol", "show", "config"], check=True).stdout
    return next(line for line in shown.splitlines() if line.startswith("NEXT_JOB_ID"))
