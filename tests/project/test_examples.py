"""The files that the install guide tells people to copy are ones that the programs accept."""

from __future__ import annotations

import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from jupyterhub.app import JupyterHub
from traitlets.config import Config

from hpchub.bridge import settings as bridge_settings
from hpchub.cli import main
from hpchub.core.cluster import Attach, Container
from hpchub.core.cluster_file import load_clusters
from hpchub.local_api.metrics import LoopbackAddress
from hpchub.signer import settings as signer_settings
from support.tree import ROOT

EXAMPLES = ROOT / "docs" / "howto" / "examples"
UNITS_FOLDER = ROOT / "deploy" / "systemd"


def _uncommented(text: str) -> str:
    """The file with its optional keys switched on: `#key = value` is a key, `# words` a comment."""
    return re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.M)


def _hub_config() -> Config:
    config = Config()
    source = (EXAMPLES / "jupyterhub_config.py").read_text()
    exec(compile(source, "jupyterhub_config.py", "exec"), {"get_config": lambda: config})  # noqa: S102  our own
    return config


@pytest.mark.parametrize("with_options", [False, True], ids=["as it is", "with every option"])
def test_the_cluster_file_is_accepted(tmp_path: Path, with_options: bool) -> None:
    """As it is, and with each commented key switched on."""
    text = (EXAMPLES / "cluster.toml").read_text()
    (tmp_path / "alpha.toml").write_text(_uncommented(text) if with_options else text)
    (tmp_path / "alpha.known_hosts").touch()
    cluster = load_clusters(tmp_path)["alpha"]
    assert cluster.compute is not None
    assert cluster.login is not None
    assert cluster.compute.attach is Attach.SRUN
    assert cluster.environments["deep"].container is Container.APPTAINER
    assert bool(cluster.defaults.account) == with_options


def test_the_cluster_file_shows_every_way_to_name_an_environment() -> None:
    """A folder, modules, conda, a container image."""
    environments = tomllib.loads((EXAMPLES / "cluster.toml").read_text())["environments"].values()
    shown = {key for environment in environments for key in environment}
    assert {"prefix", "modules", "conda", "conda_root", "container", "image", "binds", "placements"} <= shown


def test_check_accepts_the_cluster_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the guide tells people to run after copying it says `good`."""
    shutil.copy(EXAMPLES / "cluster.toml", tmp_path / "alpha.toml")
    (tmp_path / "alpha.known_hosts").write_text(
        "login1.alpha.example.org,login2.alpha.example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMdl8e3rRX+Acc"
        "gMLO8vEN3vP/Bln+x5hU4QecvsqdRk\n"
    )
    assert main(["check", str(tmp_path)]) == 0
    assert "alpha: good" in capsys.readouterr().out


def test_the_settings_fit_each_other() -> None:
    """Signer, bridge and hub name the same sockets and folders."""
    signer = signer_settings.load_settings(EXAMPLES / "signer.toml")
    bridge = bridge_settings.load_settings(EXAMPLES / "bridge.toml")
    hub = _hub_config()
    assert bridge.signer_socket == signer.socket
    assert hub.HpchubAuthenticator.signer_socket == str(signer.socket)
    assert hub.HpchubAuthenticator.bridge_socket == hub.HpchubSpawner.bridge_socket == str(bridge.socket)
    assert hub.HpchubSpawner.clusters == str(bridge.clusters)
    assert hub.JupyterHub.hub_bind_url == "http+unix://" + str(bridge.hub_socket).replace("/", "%2F")


def test_the_signers_other_proof_is_accepted(tmp_path: Path) -> None:
    """With the commented lines instead of the password file, PAM is asked."""
    text = (EXAMPLES / "signer.toml").read_text()
    kept = [line for line in text.splitlines() if not line.startswith(("kind =", "file ="))]
    (tmp_path / "signer.toml").write_text(_uncommented("\n".join(kept)))
    settings = signer_settings.load_settings(tmp_path / "signer.toml")
    assert settings.proof.kind is signer_settings.ProofKind.PAM
    assert settings.proof.service == "hpchub"


def test_the_bridges_commented_keys_are_accepted(tmp_path: Path) -> None:
    """They show the true defaults, and how metrics are switched on."""
    text = (EXAMPLES / "bridge.toml").read_text()
    (tmp_path / "bridge.toml").write_text(_uncommented(text))
    settings = bridge_settings.load_settings(tmp_path / "bridge.toml")
    assert settings.metrics_listen == LoopbackAddress("127.0.0.1", 9101)
    as_it_is = bridge_settings.load_settings(EXAMPLES / "bridge.toml")
    assert replace(settings, metrics_listen=None) == as_it_is


def test_jupyterhub_knows_every_setting() -> None:
    """Each name in jupyterhub_config.py is a setting of a class that JupyterHub loads."""
    app = JupyterHub(config=_hub_config())
    classes = {kind.__name__: kind for kind in app.classes}
    classes |= {kind.__name__: kind for kind in (app.authenticator_class, app.spawner_class, app.proxy_class)}
    for section, values in _hub_config().items():
        for name in values:
            assert classes[section].class_traits(config=True).get(name) is not None, f"{section}.{name}"


def test_units_name_the_settings_sockets() -> None:
    """The proxy listens where the hub asks it, and sends people to the hub for error pages."""
    text = (UNITS_FOLDER / "hpchub-proxy.service").read_text()
    hub = _hub_config()
    socket = str(hub.ConfigurableHTTPProxy.api_url).removeprefix("http+unix://").replace("%2F", "/")
    assert f"--api-socket {socket}" in text
    assert f"rm -f {socket}" in text
    assert f"{hub.JupyterHub.hub_bind_url}/hub/error".replace("%", "%%") in text
