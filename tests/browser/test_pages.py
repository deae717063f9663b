"""What the pages say when they are not the straight way to a server."""

from __future__ import annotations

import re

import pytest
from browser.conftest import PersonOf
from browser.person import Person

from hpchub.demo.accounts import ADMIN
from support.demo import Demo
from support.slurm import job_id_of, jobs_of

pytestmark = [pytest.mark.browser, pytest.mark.live]

# What a browser notes of every answer that is a refusal: true, and no fault of the page.
_REFUSAL = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d")


def _faults(person: Person) -> list[str]:
    return [line for line in person.console() if not _REFUSAL.search(line)]


def test_wrong_password(person_of: PersonOf) -> None:
    """A refused login says so where a screen reader reads it out, and keeps the name."""
    bob = person_of("bob")
    bob.login("wrong")
    said = bob.find(".login_error[role=alert]")
    assert said.text == "Invalid username or password"
    assert bob.find("#username_input").get_attribute("value") == "bob"
    assert bob.find("#password_input").get_attribute("value") == ""
    bob.fits("login")
    assert _faults(bob) == []


def test_link_fills_the_form(demo: Demo, person_of: PersonOf) -> None:
    """A link's values are in the form, the cluster's own in the other fields, and nothing starts."""
    bob = person_of("bob")
    bob.login(to="hub/spawn?partition=short&time=00:10:00")
    bob.find("#hpchub-form")
    values = bob.values()
    assert (values["partition"], values["time"], values["placement"]) == ("short", "00:10:00", "compute")
    assert not bob.all(".alert, .is-invalid")
    bob.fits("form")
    assert jobs_of(demo, "bob") == {}
    bob.open("hub/home")
    assert bob.find("#start").text == "Start My Server"
    assert not bob.all("#stop")
    assert _faults(bob) == []


def test_refused_values_come_back(demo: Demo, person_of: PersonOf) -> None:
    """A value that the server refuses comes back as typed, its field marked, focused and explained; typing
    takes the mark away again.
    """
    bob = person_of("bob")
    bob.login(to="hub/spawn?placement=compute&partition=cpu")
    bob.find("#hpchub-form")
    bob.choose("Time", "00:10:00")
    bob.choose("Memory", "640G")
    bob.choose("CPUs", "77")
    # The browser's own check comes first; the server's must hold without it.
    bob.start()
    assert (
        bob.driver.execute_script("return document.querySelectorAll(':invalid:not(form, fieldset)').length")
        == 2
    )
    assert bob.path == "/hub/spawn"
    bob.driver.execute_script("document.getElementById('spawn_form').noValidate = true")
    bob.start()
    alert = bob.find("p.alert-danger[role=alert]")
    assert "cpus" in alert.text
    assert "memory" in alert.text
    for name, typed, allowed in (
        ("cpus", "77", "Allowed: 1 to 8."),
        ("memory", "640G", "Allowed: 64M to 16G."),
    ):
        field = bob.find(f"#hpchub-{name}")
        assert field.get_attribute("value") == typed
        assert field.get_attribute("aria-invalid") == "true"
        words = " ".join(bob.text(f"#{one}") for one in field.get_attribute("aria-describedby").split())
        assert allowed in words
    assert bob.values()["time"] == "00:10:00"
    assert bob.focused.get_attribute("name") == "cpus"
    assert not bob.all("#hpchub-time.is-invalid")
    bob.fits("refused")
    assert jobs_of(demo, "bob") == {}

    bob.choose("CPUs", "2")
    assert not bob.all("#hpchub-cpus.is-invalid, #hpchub-cpus-error")
    assert _faults(bob) == []


def test_gpus_only_where_there_are_some(person_of: PersonOf) -> None:
    """The field for GPUs is there on a partition that has some, and its limits are the partition's."""
    bob = person_of("bob")
    bob.login(to="hub/spawn?placement=compute&partition=cpu")
    assert not bob.find("#hpchub-form").find_element("id", "hpchub-gpus").is_displayed()
    bob.choose("Partition", "GPU (gpu)")
    assert bob.find("#hpchub-gpus").get_attribute("max") == "2"
    assert "04:00:00" in bob.text("#hpchub-time-help")
    bob.fits("gpu")


def test_waits_and_fails(demo: Demo, person_of: PersonOf) -> None:
    """While a job waits the page says why; when it dies there the page says so at once, with the last lines
    of its log, the log's place and a way back to the form.
    """
    bob = person_of("bob")
    partition = ["scontrol", "update", "PartitionName=short"]
    demo.exec("ctl", [*partition, "State=DOWN"], check=True)
    try:
        bob.login(to="hub/spawn?partition=short&environment=broken")
        bob.find("#hpchub-form")
        bob.start()
        lines = bob.watch(["Pending"])
        job = job_id_of(demo, "bob")
        assert f"Submitted as job {job}" in lines
        assert "partition is down" in lines[-1]
        assert bob.find("#progress-message").get_attribute("role") == "status"
        bob.fits("pending")
    finally:
        demo.exec("ctl", [*partition, "State=UP"], check=True)
    assert bob.find("#hpchub-failed").text == "Your server did not start"
    _check_failure(bob, job)
    bob.fits("failed")
    assert "starting up" not in bob.text()
    assert bob.find("a.btn-primary").get_attribute("href") == f"{demo.url}hub/spawn/bob"
    bob.driver.refresh()
    bob.find("#start")
    assert bob.text("h1") == "Your server did not start"
    _check_failure(bob, job)
    bob.fits("not running")
    bob.open("hub/spawn")
    bob.find("#hpchub-form")
    assert bob.values()["partition"] == "short", "the form keeps the choices"
    assert _faults(bob) == []


def _check_failure(person: Person, job: str) -> None:
    said = person.text("body")
    assert f"Job {job} ended" in said
    assert "has no jupyterhub and no jupyterlab" in person.find("code[role=region]").text
    assert said.count("The last lines of its log:") == 1
    assert re.search(r"/home/bob/\.hpchub/servers/\w+/server\.log", said)


def test_fails_before_the_page_is_left(person_of: PersonOf) -> None:
    """A start that fails within a second comes back to the form, with the log's last lines on it too."""
    bob = person_of("bob")
    bob.login(to="hub/spawn")
    bob.find("label[for=hpchub-placement-login]").click()
    bob.choose("Environment", "Broken on purpose: no Jupyter in it")
    bob.start()
    assert "has no jupyterhub and no jupyterlab" in bob.find("code[role=region]").text
    bob.picture("failed")
    assert _faults(bob) == []


def test_what_was_smuggled_in_does_not_run(person_of: PersonOf) -> None:
    """The hub's pages work under their policy; a script, handler or frame put into one does nothing."""
    admin = person_of(ADMIN)
    admin.login()
    for path in ("hub/home", "hub/token", "hub/admin", "hub/spawn"):
        admin.open(path)
        admin.wait(f"{path} by its scripts", lambda: admin.driver.execute_script("return !!window.jhdata"))
        assert _faults(admin) == [], path
    admin.find("#hpchub-form")
    admin.driver.execute_script(
        """
        const box = document.createElement("div");
        box.innerHTML = '<img src="data:,x" onerror="window.smuggled = 1"><a id="smuggled" '
          + 'href="javascript:window.smuggled = 2">x</a><iframe src="/hub/home"></iframe>';
        document.body.append(box);
        document.getElementById("smuggled").click();
        document.write('<script>window.smuggled = 3</' + 'script>');
        """
    )
    said = admin.wait("the browser's complaints", lambda: " ".join(admin.console()))
    assert "Content Security Policy" in said
    assert admin.driver.execute_script("return window.smuggled") is None
