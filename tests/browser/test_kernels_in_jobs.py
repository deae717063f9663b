"""Kernels in jobs in JupyterLab, as a person sees them: why one waits, and the form for its resources."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser.conftest import PersonOf
from browser.person import Person
from browser.test_job_card import contrast
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from support.demo import Demo
from support.slurm import job_fields, jobs_of, partition_state

pytestmark = [pytest.mark.browser, pytest.mark.live]

_HPCHUB = "/opt/hpc/data/bin/hpchub"
_NODE = ("virtualenv", "--prefix", "/opt/hpc/data", "--name", "node", "--title", "Node")
_SETTINGS = ("--slurm", "partition=short", "--slurm", "time=00:10:00", "--slurm", "memory=500M")
_MADE = ("node-2-cores-600m-10-min-cpu", "node-again")
_NOTICE = ".Toastify__toast:has(.jp-toast-button[title^='Cancel job'])"


@pytest.fixture
def node(demo: Demo) -> Iterator[None]:
    """A kernel `Node` of alice's that runs in a job; afterwards nothing leads to it, or to what it became."""
    demo.exec("login1", (_HPCHUB, "kernels", "install", *_NODE, *_SETTINGS), user="alice", check=True)
    yield
    made = [f"/home/alice/.local/share/jupyter/kernels/{name}" for name in ("node", *_MADE)]
    demo.exec("login1", ["rm", "-rf", *made, "/home/alice/.jupyter/lab/workspaces"], user="alice", check=True)


def job_ids(demo: Demo) -> list[str]:
    """Of everybody's unfinished jobs."""
    return demo.exec("ctl", ["squeue", "--noheader", "--format=%i"], check=True).stdout.split()


def fill(person: Person, **values: str) -> None:
    """Choose in the form for resources, or type, and send it by the keyboard."""
    for name, value in values.items():
        if name == "partition":
            Select(person.find("#hpchub-resources-partition-list")).select_by_value(value)
            continue
        field = person.find(f"#hpchub-resources-{name}")
        field.clear()
        field.send_keys(value)
    person.keys(Keys.ENTER)


def give_up(person: Person) -> None:
    """Press the button of the notification, once that has come to rest, and wait until it is gone."""
    moves = "return document.querySelector(arguments[0]).getAnimations().length"
    person.wait("it has come in", lambda: person.driver.execute_script(moves, _NOTICE) == 0)
    person.find(f"{_NOTICE} .jp-toast-button").click()
    person.wait("no notice", lambda: not person.all(_NOTICE))


def change_kernel(person: Person, title: str) -> None:
    """By JupyterLab's own dialog."""
    person.menu("Kernel", "Change Kernel…")
    Select(person.find(".jp-Dialog select")).select_by_visible_text(title)
    person.find(".jp-Dialog .jp-mod-accept").click()


def test_a_kernel_that_waits_says_why_and_its_resources_can_be_chosen(
    demo: Demo, node: None, person_of: PersonOf
) -> None:
    """While its partition is down the notebook says that its kernel's job waits, and why; given up there, the
    job is gone from the queue, and no dialog comes up. While another one waits the form lists the partitions
    with what they allow, refuses what Slurm would, and keeps what was typed; at last it makes a larger kernel
    elsewhere, in which the notebook runs. The job that waited is gone then, and no dialog speaks of it; so is
    that of the kernel before, where a change to another one waited. Where such a change is given up the
    kernel before stays, by its own name. The form can be read in the dark, too.
    """
    alice = person_of("alice")
    alice.login(to="hub/spawn")
    alice.find("label[for=hpchub-placement-login]").click()
    alice.choose("Environment", "Data analysis")
    alice.start()
    alice.wait("JupyterLab", lambda: "/lab" in alice.path)
    alice.open("user/alice/lab?reset")
    with partition_state(demo, "short", "DOWN"):
        alice.find(".jp-LauncherCard[data-category=Notebook][title='Node']").click()
        alice.wait("why it waits", lambda: "PartitionDown" in alice.text(_NOTICE))
        (job,) = jobs_of(demo, "alice").values()
        assert alice.text(_NOTICE).splitlines()[0].endswith(".ipynb waits for its kernel.")
        assert f"Job {job}: Pending: " in alice.text(_NOTICE)
        alice.picture("waits")
        give_up(alice)
        alice.wait("no kernel", lambda: alice.text(".jp-Toolbar-kernelName") == "No Kernel")
        alice.wait("no dialog", lambda: not alice.all(".jp-Dialog"))  # one that stays covers the menus
        alice.picture("given up")
        assert jobs_of(demo, "alice") == {}
        alice.dark_jupyterlab()
        alice.open("user/alice/lab?reset")
        alice.find(".jp-LauncherCard[data-category=Notebook][title='Node']").click()
        alice.wait("why it waits", lambda: "PartitionDown" in alice.text(_NOTICE))
        alice.wait("no splash", lambda: not alice.all("#jupyterlab-splash"))
        alice.menu("View", "Activate Command Palette")
        alice.find(".lm-CommandPalette-input").send_keys("resources of the kernel's job", Keys.ENTER)
        partitions = Select(alice.find("#hpchub-resources-partition-list"))
        listed = [option.text for option in partitions.options]
        assert listed[:3] == ["Slurm's default: cpu", "cpu (default)", "short (down)"]
        assert alice.text("#hpchub-resources-partition-hint") == "It is down: jobs wait until it is up."
        fill(alice, partition="cpu", cpus="2", memory="900G")
        assert alice.text("#hpchub-resources-time-hint") == "At most 08:00:00. Empty: 01:00:00."
        alice.wait("Slurm's refusal", lambda: "Slurm would refuse its job" in alice.text(".hpchub-refused"))
        alice.picture("refused")
        for css in (".hpchub-refused", ".hpchub-resources label", ".hpchub-resources small"):
            assert contrast(alice, css) > 4.5, css
        fill(alice, memory="600M")
        title = "Node, 2 cores, 600M, 10 min, cpu"
        alice.wait("the larger kernel", lambda: f"{title} | Idle" in alice.text("#jp-main-statusbar"))
        assert not alice.all(".jp-Dialog")
        (first,) = jobs_of(demo, "alice").values()
        alice.wait("no notice", lambda: not alice.all(_NOTICE))
        change_kernel(alice, "Node")
        alice.wait("why it waits", lambda: "PartitionDown" in alice.text(_NOTICE))
        give_up(alice)
        alice.wait("the kernel before", lambda: f"{title} | Idle" in alice.text("#jp-main-statusbar"))
        assert not alice.all(".jp-Dialog")
        assert list(jobs_of(demo, "alice").values()) == [first]
        alice.menu("Kernel", "Resources of the Kernel's Job…")
        fill(alice, partition="short", cpus="", memory="500M")  # those of `Node`
        alice.wait("why it waits", lambda: "PartitionDown" in alice.text(_NOTICE))
        alice.menu("Kernel", "Resources of the Kernel's Job…")
        fill(alice, title="Again")
        alice.wait("a third kernel", lambda: "Again | Idle" in alice.text("#jp-main-statusbar"))
        alice.wait("the end of the first", lambda: first not in job_ids(demo))
        (job,) = jobs_of(demo, "alice").values()
    assert alice.run_cell("import os; print(os.environ['SLURM_CPUS_PER_TASK'])") == "2"
    alice.picture("larger")
    assert job_fields(demo, job)["MinMemoryNode"] == "600M"
