"""A job's card in JupyterLab, as a person sees it."""

from __future__ import annotations

import pytest
from browser.conftest import PersonOf
from browser.person import Person

from support.demo import Demo
from support.slurm import jobs_of

pytestmark = [pytest.mark.browser, pytest.mark.live]

_CARD = ".slurm-magics-card"


# WCAG's contrast of an element's text and what is behind it; half transparent layers are put on each other.
_CONTRAST = """
const found = document.querySelector(arguments[0]);
const parse = (text) => text.match(/[0-9.]+/g).map(Number);
let back = [0, 0, 0], layers = [];
for (let e = found; e; e = e.parentElement) layers.unshift(parse(getComputedStyle(e).backgroundColor));
for (const [r, g, b, a = 1] of layers) back = back.map((below, i) => below * (1 - a) + [r, g, b][i] * a);
const light = (colour) => {
  const [r, g, b] = colour.map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const two = [light(parse(getComputedStyle(found).color).slice(0, 3)), light(back)];
return (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05);
"""


def contrast(person: Person, css: str) -> float:
    """Of the text of the first element that fits, 1 to 21."""
    person.find(css)  # waits for it; the card may draw another one before the script runs
    return float(person.driver.execute_script(_CONTRAST, css))


def test_a_card_follows_its_job(demo: Demo, person_of: PersonOf) -> None:
    """It shows state, time left and output as they change, while the kernel is busy, readable in the dark,
    too; its button ends the job, and then the buttons are gone.

    The magics are the demo's own: nobody had to load them.
    """
    alice = person_of("alice")
    alice.login(to="hub/spawn")
    alice.find("label[for=hpchub-placement-login]").click()
    alice.choose("Environment", "Data analysis")
    alice.start()
    alice.find(".jp-LabShell")
    alice.open_notebook()
    alice.run_cell("%%sbatch -t 5 -o %j.txt\necho one; sleep 1; echo two; sleep 300")
    alice.run_cell("import time; time.sleep(4)")
    alice.wait("two lines", lambda: "one\ntwo" in alice.text(_CARD))
    alice.picture("card")
    card = alice.text(_CARD)
    assert "Running on c" in card
    assert "Time left: 04:" in card
    alice.dark_jupyterlab()
    alice.picture("card in the dark")
    for css in (_CARD, f"{_CARD} pre", ".widget-button"):
        assert contrast(alice, css) > 4.5, css
    alice.find(".widget-button").click()
    alice.wait("its end", lambda: "Cancelled" in alice.text(_CARD))
    alice.wait("no buttons", lambda: not alice.all(".widget-button"))
    alice.picture("cancelled")
    assert jobs_of(demo, "alice") == {}
