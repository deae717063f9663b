"""The main job in a real browser: log in, choose, wait, work, stop."""

from __future__ import annotations

import re

import pytest
from browser.conftest import PersonOf
from browser.person import Person
from selenium.webdriver.common.keys import Keys

from support.demo import Demo
from support.servers import until
from support.slurm import job_fields, job_id_of, jobs_of

pytestmark = [pytest.mark.browser, pytest.mark.live]

_SHORT = "Short: up to 30 minutes, starts soonest (short)"


def _until_jupyterlab(person: Person) -> list[str]:
    """Follow the progress page to JupyterLab: the lines it showed, each with a picture of it."""
    lines = person.watch(["Starting Jupyter"])
    person.picture("starting Jupyter")
    person.find(".jp-LabShell")
    person.picture("JupyterLab")
    return lines


def test_compute_node(demo: Demo, person_of: PersonOf) -> None:
    """Choices made with the mouse become the job's; the page tells each step of the start; a cell runs on
    the job's own node; after a stop from the home page the job is gone, and no page of ours complained.
    """
    alice = person_of("alice")
    alice.login(to="hub/spawn")
    alice.find("#hpchub-form")
    alice.find("label[for=hpchub-placement-compute]").click()
    alice.choose("Partition", _SHORT)
    alice.choose("Account", "chemistry")
    alice.choose("Time", "00:12:00")
    alice.choose("CPUs", "2")
    alice.choose("Memory", "1G")
    alice.choose("Environment", "Data analysis")
    alice.picture("form")
    assert alice.console() == []
    alice.start()
    lines = _until_jupyterlab(alice)
    # JupyterHub's own last word and the reload can be one blink apart, so `Ready` is not asked for.
    said = iter(lines)
    for step in (
        r"Connecting to .* as alice",
        r"Submitted as job \d+",
        r"Running on c[12]",
        "Starting Jupyter",
    ):
        assert any(re.search(step, line) for line in said), f"no {step!r}, or not in this order: {lines}"

    job = job_fields(demo, job_id_of(demo, "alice"))
    assert any(line == f"Submitted as job {job['JobId']}" for line in lines)
    assert (job["Partition"], job["Account"], job["TimeLimit"]) == ("short", "chemistry", "00:12:00")
    assert job["NumCPUs"] == "2"
    alice.open_notebook()
    host = alice.run_cell("import socket; print(socket.gethostname())")
    alice.picture("cell")
    assert host in {"c1", "c2"}
    assert host == job["NodeList"]
    assert alice.run_cell("import pandas; print(pandas.__name__)") == "pandas", "the environment chosen"
    alice.console()  # JupyterLab's own

    alice.stop_from_home()
    alice.picture("stopped")
    until(lambda: jobs_of(demo, "alice") == {}, "the job is gone", 60)
    assert alice.console() == []


def test_login_node_by_hub_control_panel(demo: Demo, person_of: PersonOf) -> None:
    """On a login node nothing else is to be chosen and there is no job; File leads back to the hub."""
    bob = person_of("bob")
    bob.login(to="hub/spawn")
    bob.find("label[for=hpchub-placement-login]").click()
    assert not bob.find("#hpchub-form").find_element("id", "hpchub-compute").is_displayed()
    bob.choose("Environment", "JupyterLab")
    assert set(bob.values()) == {"cluster", "placement", "environment"}
    bob.picture("form")
    bob.start()
    lines = _until_jupyterlab(bob)
    assert any("Connecting to" in line and line.endswith("as bob") for line in lines), lines
    assert jobs_of(demo, "bob") == {}
    bob.open_notebook()
    assert bob.run_cell("import socket; print(socket.gethostname())") in {"login1", "login2"}
    bob.picture("cell")

    tabs = bob.driver.window_handles
    bob.find(".lm-MenuBar-item[data-command], .lm-MenuBar-item")
    next(item for item in bob.all(".lm-MenuBar-item") if item.text == "File").click()
    bob.find(".lm-Menu-item[data-command='hub:control-panel']").click()
    bob.wait("the hub's tab", lambda: len(bob.driver.window_handles) > len(tabs))
    bob.driver.switch_to.window(next(tab for tab in bob.driver.window_handles if tab not in tabs))
    bob.wait("the home page", lambda: bob.path == "/hub/home")
    bob.stop_from_home()
    bob.picture("stopped")


def test_by_keyboard_alone(demo: Demo, person_of: PersonOf) -> None:
    """From the login page to a running server and back without a mouse: fields come in the order they are
    read, each has a label and a visible focus, and the button that stops the server is in reach.
    """
    alice = person_of("alice")
    alice.open("hub/spawn")
    alice.find("#username_input")
    alice.keys("alice", Keys.TAB, demo.users["alice"], Keys.ENTER)
    alice.find("#hpchub-form")
    while alice.focused.get_attribute("name") != "placement":
        alice.tab()
    order = []
    while alice.focused.get_attribute("type") != "submit":
        field = alice.focused
        order.append((field.get_attribute("name"), alice.label_of(field)))
        looks = "const s = getComputedStyle(arguments[0]); return s.boxShadow + s.outlineStyle"
        assert alice.driver.execute_script(looks, field) != "nonenone", f"no focus to see on {order[-1]}"
        if field.get_attribute("name") == "placement":
            alice.keys(Keys.ARROW_LEFT, Keys.ARROW_RIGHT)
        if field.get_attribute("name") == "partition":
            alice.keys("Short")
        if field.get_attribute("name") == "time":
            alice.chord(Keys.CONTROL, "a")
            alice.keys("00:15:00")
        alice.tab()
    assert order == [
        ("placement", "Compute node"),
        ("partition", "Partition"),
        ("account", "Account"),
        ("time", "Time"),
        ("cpus", "CPUs"),
        ("memory", "Memory"),
        ("environment", "Environment"),
    ]
    assert alice.values()["partition"] == "short"
    alice.picture("form")
    alice.keys(Keys.ENTER)
    _until_jupyterlab(alice)
    assert job_fields(demo, job_id_of(demo, "alice"))["TimeLimit"] == "00:15:00"

    alice.open_home()
    while alice.focused.get_attribute("id") != "stop":
        alice.tab()
    alice.picture("home")
    alice.keys(Keys.ENTER)
    until(lambda: jobs_of(demo, "alice") == {}, "the job is gone", 60)
