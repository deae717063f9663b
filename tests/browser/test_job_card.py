"""A job's card in JupyterLab, as a person sees it."""

from __future__ import annotations

import pytest
from browser.conftest import PersonOf

from support.demo import Demo
from support.magics_folder import FOLDER, install
from support.slurm import jobs_of

pytestmark = [pytest.mark.browser, pytest.mark.live]

_CARD = ".slurm-magics-card"


def test_a_card_follows_its_job(demo: Demo, person_of: PersonOf) -> None:
    """It shows state, time left and output as they change, while the kernel is busy; its button ends the
    job, and then the buttons are gone.
    """
    install(demo, "settings.py", "")
    alice = person_of("alice")
    alice.login(to="hub/spawn")
    alice.find("label[for=hpchub-placement-login]").click()
    alice.choose("Environment", "Data analysis")
    alice.start()
    alice.find(".jp-LabShell")
    alice.open_notebook()
    alice.run_cell(f"import sys; sys.path.insert(0, '{FOLDER}')")
    alice.run_cell("%load_ext slurm_magics")
    alice.run_cell(f"%%sbatch -t 5 -o {FOLDER}/card.txt\necho one; sleep 1; echo two; sleep 300")
    alice.run_cell("import time; time.sleep(4)")
    alice.wait("two lines", lambda: "one\ntwo" in alice.text(_CARD))
    alice.picture("card")
    card = alice.text(_CARD)
    assert "Running on c" in card
    assert "Time left: 04:" in card
    alice.find(".widget-button").click()
    alice.wait("its end", lambda: "Cancelled" in alice.text(_CARD))
    alice.wait("no buttons", lambda: not alice.all(".widget-button"))
    alice.picture("cancelled")
    assert jobs_of(demo, "alice") == {}
