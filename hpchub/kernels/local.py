"""The kernel provisioner `hpchub-local`: a kernel that cannot start says why, in Jupyter's own dialog.

Jupyter's own shows a dead kernel instead. With `JUPYTER_DEFAULT_PROVISIONER_NAME=hpchub-local`, or
`c.KernelProvisionerFactory.default_provisioner_name`, it serves every kernel that names no other one.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from hpchub.errors import StartFailed
from hpchub.kernels.health import Health, at_a_glance, check
from hpchub.kernels.kernelspec import Kernelspec
from hpchub.kernels.telling import in_lines

# An image may take longer; then Jupyter waits for it as for any kernel.
_WATCHED_S = 20.0
_PAUSE_S = 0.05


class CheckedProvisioner(LocalProvisioner):
    """Looks before a kernel's first launch, and watches until it listens."""

    _launched = False

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """As Jupyter's own.

        Raises:
            StartFailed: The environment, image or program is not there.
        """
        if not self._launched:
            with in_lines():
                refuse(ours(self.kernel_spec), at_a_glance(ours(self.kernel_spec)))
        return await super().pre_launch(**kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """As Jupyter's own, once the kernel listens.

        Raises:
            StartFailed: It ended before; the message says why. Not of a restart, which Jupyter repeats.
        """
        info = await super().launch_kernel(cmd, **kwargs)
        if self._launched:
            return info
        deadline = time.monotonic() + _WATCHED_S
        while not await _listens(info) and time.monotonic() < deadline:
            exit_code = await self.poll()
            if exit_code is not None:
                await self.wait()
                spec = ours(self.kernel_spec)
                with in_lines():
                    refuse(spec, await asyncio.to_thread(check, spec, kwargs.get("env") or os.environ))
                    refuse(
                        spec, Health(f"it ended with exit code {exit_code}", "The server's log may say why.")
                    )
            await asyncio.sleep(_PAUSE_S)
        self._launched = True
        return info


def ours(spec: KernelSpec) -> Kernelspec:
    """Jupyter's kernelspec in our words."""
    folder = Path(spec.resource_dir)
    return Kernelspec(name=spec.name or folder.name, folder=folder, body=spec.to_dict())


def refuse(spec: Kernelspec, health: Health) -> None:
    """StartFailed, unless it is good."""
    if not health.is_good:
        raise StartFailed(f"The kernel {spec.title} cannot start: {health.problem}.", health.hint)


async def _listens(info: KernelConnectionInfo) -> bool:
    """Whether the kernel's last socket is there."""
    place, port = info["ip"], info["hb_port"]
    try:
        if info["transport"] == "ipc":
            _, writer = await asyncio.open_unix_connection(f"{place}-{port}")
        else:
            _, writer = await asyncio.open_connection(str(place), int(port))
    except OSError:
        return False
    writer.close()
    return True
