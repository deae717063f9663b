"""A unix socket that only our own account, or one group, can reach, and who is at its other end."""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path

from hpchub.errors import ConfigError
from hpchub.local_api.accounts import share_with_group
from hpchub.private_files import make_folder

# How many may wait to be let in. Where as many do, connect(2) fails at once on a unix socket (EAGAIN),
# while TCP would have the caller try again. Linux allows no more than net.core.somaxconn, 4096.
BACKLOG = 4096

_MAX_PATH_BYTES = 107  # unix(7): sun_path holds 108, and a NUL ends it
_UCRED = struct.Struct("3i")  # unix(7), SO_PEERCRED: pid, uid, gid


def listen_privately(path: Path, group: int | None = None) -> socket.socket:
    """A listening socket that only our own account can reach, or a group too; a stale one is removed.

    Raises:
        ConfigError: The folder is open to others, the path is too long or taken, or somebody listens.
    """
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise ConfigError(f"The socket's path {path} is longer than {_MAX_PATH_BYTES} bytes.")
    make_folder(path.parent, group)
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # bind(2) makes the file with what the umask leaves; a later chmod would come too late.
    umask = os.umask(0o177)
    try:
        listener.bind(str(path))
        share_with_group(path, group)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"Nothing can listen on {path}: {error.strerror}.") from error
    finally:
        os.umask(umask)
    listener.setblocking(False)
    return listener


def peer_uid(connection: socket.socket) -> int:
    """The user id of the process that connected, as the kernel says."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(found)[1])


def _remove_stale(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ConfigError(f"{path} is in the way: it is no socket.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise ConfigError(f"{path} is in the way: {error}.") from error
    raise ConfigError(f"Another process listens on {path} already.")
