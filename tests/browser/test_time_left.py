"""What people see of the queue and of the time they have left."""

from __future__ import annotations

import re

import pytest
from browser.conftest import PersonOf
from browser.person import DESK, PHONE, Person
from selenium.webdriver.common.keys import Keys

from support.demo import Demo
from support.slurm import job_id_of, jobs_of

pytestmark = [pytest.mark.browser, pytest.mark.live]

_BUSY = ["sbatch", "--parsable", "--nodes=2", "--exclusive", "--chdir=/tmp", "--output=/dev/null"]
_LEFT = re.compile(r"Time left: (?:[1-4] min|\d+ s)")


def _right_edge(person: Person) -> float:
    script = "return document.querySelector('.Toastify__toast--warning').getBoundingClientRect().right"
    return float(person.driver.execute_script(script))


def test_waiting(demo: Demo, person_of: PersonOf) -> None:
    """While a job waits, the progress page and the home page say where and why, without a reload."""
    busy = demo.exec("login1", [*_BUSY, "--wrap=sleep 300"], user="bob", check=True).stdout.strip()
    try:
        alice = person_of("alice")
        alice.login(to="hub/spawn?placement=compute&partition=cpu&time=00:04:00")
        alice.find("#hpchub-form")
        alice.start()
        alice.watch(["Pending: waiting"])
        alice.wait("where it waits", lambda: "partition cpu, job" in alice.text("#hpchub-servers"))
        alice.fits("progress")
        alice.open_home()
        job = job_id_of(demo, "alice")
        assert f"Demo cluster, partition cpu, job {job}" in alice.text("#hpchub-servers")
        assert alice.text("#hpchub-servers .badge") == "waiting"
        alice.fits("home")
        assert alice.console() == []
    finally:
        demo.exec("ctl", ["scancel", busy], check=True)
    alice.wait("the job runs", lambda: alice.text("#hpchub-servers .badge") in {"starting", "running"})
    alice.wait("the time left", lambda: _LEFT.search(alice.text("#hpchub-servers")))
    alice.stop_from_home()
    alice.wait("an empty list", lambda: alice.text("#hpchub-servers") == "")
    assert jobs_of(demo, "alice") == {}


def test_near_the_end(demo: Demo, person_of: PersonOf) -> None:
    """A job of four minutes: JupyterLab warns without a reload, shows the time left, and leads by its
    button to the form of a successor with the same options; the home page does too, by keyboard.
    """
    alice = person_of("alice")
    alice.login(to="hub/spawn?placement=compute&partition=short&time=00:04:00&cpus=2")
    alice.find("#hpchub-form")
    alice.start()
    alice.find(".jp-LabShell")
    said = alice.find(".Toastify__toast--warning .jp-toast-message").text
    alice.wait("the warning in its place", lambda: _right_edge(alice) <= DESK[0])
    alice.picture("warning")
    assert re.match(r"This server ends at \d\d:\d\d.*, in (3 min|\d+ s): its job's time is up then", said), (
        said
    )
    assert _LEFT.fullmatch(alice.find("#hpchub-time-left").text)
    for size in (DESK, PHONE):
        alice.resize(size)
        alice.picture(f"JupyterLab {size[0]}")
    alice.resize(DESK)

    button = next(b for b in alice.all(".Toastify__toast--warning button") if b.text == "Start a successor")
    # The toast may still be sliding in, so not where it was a moment ago.
    alice.driver.execute_script("arguments[0].click()", button)
    alice.wait("a new tab", lambda: len(alice.driver.window_handles) == 2)
    alice.driver.switch_to.window(alice.driver.window_handles[1])
    alice.find("#hpchub-form")
    assert alice.path == "/hub/spawn/alice/next"
    values = alice.values()
    assert (values["partition"], values["time"], values["cpus"]) == ("short", "00:04:00", "2")

    alice.open_home()
    assert _LEFT.search(alice.text("#hpchub-servers"))
    alice.fits("home")
    while alice.focused.get_attribute("id") != "hpchub-successor-":
        alice.tab()
    alice.keys(Keys.ENTER)
    alice.wait("the form", lambda: alice.path == "/hub/spawn/alice/next")
    alice.stop_from_home()
