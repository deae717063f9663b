"""OpenSSH's own way to a notebook in a job, through the same two hops as ours."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.private_demo import Demo
from hpchub.core.certificate import Profile
from hpchub.core.cluster import Cluster, Placement
from hpchub.core.cluster_file import load_clusters
from hpchub.core.job_sshd import inner_sshd_argv
from hpchub.core.secret import Secret
from hpchub.core.server import ServerView
from hpchub.remote.launcher import NOTEBOOK
from hpchub.schedulers.registry import scheduler_for
from hpchub.signer.client import SignerClient
from hpchub.ssh.inner_sshd import InnerKeys, inner_files, new_keys

_OPEN_LIMIT_S = 20.0
_FOLDER = ".bench-sshd"

# What our own connections use; ssh itself prefers chacha20-poly1305.
SAME_CIPHER = "aes128-gcm@openssh.com"

_CONFIG = """
BatchMode yes
IdentityAgent none
IdentitiesOnly yes
StrictHostKeyChecking yes
GlobalKnownHostsFile /dev/null
LogLevel ERROR
User {user}
{cipher}
Host login
    HostName {address}
    HostKeyAlias {login_node}
    UserKnownHostsFile {known_hosts}
    IdentityFile {folder}/key
    CertificateFile {folder}/key-cert.pub
Host job
    HostKeyAlias job
    UserKnownHostsFile {folder}/job_hosts
    IdentityFile {folder}/job_key
    ProxyCommand ssh -F {config} login {srun}
"""


@dataclass(frozen=True, slots=True)
class SshTunnel:
    """Files for `ssh -L` to one running server."""

    demo: Demo
    folder: Path
    notebook: str

    @contextmanager
    def open(self, config: str) -> Iterator[Path]:
        """The local socket of `ssh -L`, while the block runs. `config` is one of those in the folder."""
        local = self.folder / f"{config}.sock"
        network = f"--net=/proc/{self.demo.host_pid('hub')}/ns/net"
        argv = ["nsenter", network, "--", "ssh", "-F", str(self.folder / config), "-N",
                "-o", "ExitOnForwardFailure=yes", "-L", f"{local}:{self.notebook}", "job"]  # fmt: skip
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + _OPEN_LIMIT_S
            while not local.exists():
                if child.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"`{shlex.join(argv)}` opened no tunnel")
                time.sleep(0.05)
            yield local
        finally:
            child.terminate()
            child.wait()
            local.unlink(missing_ok=True)


def lay_out(demo: Demo, user: str, server: ServerView) -> SshTunnel:
    """Mint a certificate, write the job's sshd files and ssh's configurations `same` and `default`."""
    cluster = load_clusters(Path(demo.info["clusters_folder"]))["demo"]
    folder = demo.folder / "ssh"
    folder.mkdir(mode=0o700)
    public_key = _make_key(folder / "key")
    _private(folder / "key-cert.pub", asyncio.run(_certificate(demo, user, public_key)))
    keys = new_keys()
    _private(folder / "job_key", keys.client.export_private_key().decode())
    _private(folder / "job_hosts", f"job {keys.host_public.export_public_key().decode()}")
    _put_sshd(demo, user, keys)
    for name, cipher in (("same", f"Ciphers {SAME_CIPHER}"), ("default", "")):
        _private(folder / name, _config(demo, cluster, user, server, folder, name, cipher))
    runtime_dir = cluster.server_runtime_dir(Placement.COMPUTE, server.id)
    return SshTunnel(demo, folder, f"{runtime_dir}/{NOTEBOOK}")


def _config(
    demo: Demo, cluster: Cluster, user: str, server: ServerView, folder: Path, name: str, cipher: str
) -> str:
    assert cluster.compute is not None
    sshd = inner_sshd_argv(cluster.compute.sshd, f"/home/{user}/{_FOLDER}")
    srun = scheduler_for(cluster).attach_argv(str(server.job_id), str(server.node), sshd)  # type: ignore[arg-type]
    node = cluster.login_nodes[0]
    return _CONFIG.format(
        user=user, cipher=cipher, address=node.address, login_node=node.name, known_hosts=cluster.known_hosts,
        folder=folder, config=folder / name, srun=shlex.join(srun).replace("%", "%%"),
    )  # fmt: skip


def _put_sshd(demo: Demo, user: str, keys: InnerKeys) -> None:
    home = demo.homes / user
    owner = home.stat()
    folder = home / _FOLDER
    folder.mkdir(mode=0o700)
    os.chown(folder, owner.st_uid, owner.st_gid)
    for name, content in inner_files(keys, f"/home/{user}/{_FOLDER}").items():
        _private(folder / name, content.decode())
        os.chown(folder / name, owner.st_uid, owner.st_gid)


def _make_key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_name("key.pub").read_text(encoding="ascii").strip()


async def _certificate(demo: Demo, user: str, public_key: str) -> str:
    signer = SignerClient(demo.sockets / "signer.sock")
    login = await signer.grant(user, Secret(demo.info["users"][user]), public_key, "127.0.0.1")
    return (await signer.certificate(login.grant, public_key, Profile.CONTROL)).certificate + "\n"


def _private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
