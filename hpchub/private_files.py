"""Files and folders that only our own account may touch."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from hpchub.errors import ConfigError

_MAX_BYTES = 16 * 1024**2


def check_private_folder(path: Path) -> None:
    """Return where the folder is our own with mode 0700, and no symbolic link.

    Raises:
        ConfigError: It is not; the message names it.
    """
    try:
        status = path.lstat()
    except OSError as error:
        raise ConfigError(f"The folder {path} cannot be used: {error.strerror}.") from error
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{path} must be a folder, and no symbolic link to one.")
    _check_owner_and_mode(path, status, "0700")


def make_private_folder(path: Path) -> None:
    """Make a folder of mode 0700, or accept one that is so already. ConfigError where neither."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"The folder {path} cannot be made: {error.strerror}.") from error
    check_private_folder(path)


def make_folder(path: Path, group: int | None) -> None:
    """Make a folder of mode 0700, or of 0750 for a group, or accept one that is so already.

    Raises:
        ConfigError: It is not so, or cannot be made.
    """
    if group is None:
        make_private_folder(path)
        return
    try:
        path.mkdir(mode=0o700)
        if path.stat().st_gid != group:
            os.chown(path, -1, group)
        path.chmod(0o750)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"The folder {path} cannot be made: {error.strerror}.") from error
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise ConfigError(f"{path} must be a folder of our own account.")
    mode = stat.S_IMODE(status.st_mode)
    if status.st_gid != group or mode != 0o750:
        raise ConfigError(
            f"{path} has mode {mode:04o} and group id {status.st_gid}, not 0750 and {group}.",
            f"Run: chgrp {group} {path}; chmod 0750 {path}",
        )


def check_private_file(path: Path) -> None:
    """Return where the file is our own with mode 0600, and no symbolic link.

    Raises:
        ConfigError: It is not; the message names it.
    """
    try:
        status = path.lstat()
    except OSError as error:
        raise ConfigError(f"The file {path} cannot be used: {error.strerror}.") from error
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} must be a plain file, and no symbolic link to one.")
    _check_owner_and_mode(path, status, "0600")


def read_private_file(path: Path) -> bytes:
    """The content of a file of our own with mode 0600, and no symbolic link.

    Raises:
        ConfigError: It is not there, or is not so; the message names it.
    """
    try:
        # O_NONBLOCK: a named pipe in the file's place would otherwise block us for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"The file {path} cannot be read: {_said(path, error)}.") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path} must be a plain file.")
        _check_owner_and_mode(path, status, "0600")
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{path} is far too long.")
    return content


def write_private_file(path: Path, content: bytes, *, replace: bool, mode: int = 0o600) -> None:
    """Write a whole file that only we may write, or none of it.

    Args:
        path: Where; its folder must exist.
        content: What.
        replace: Whether a file of that name may be replaced.
        mode: The file's, whatever the umask; others may be let in to read.

    Raises:
        ConfigError: It could not be written, or was there already; the message names it.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            if replace:
                draft.replace(path)
            else:
                path.hardlink_to(draft)  # fails where the name is taken, which a rename does not
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise ConfigError(f"The file {path} cannot be written: {error.strerror}.") from error


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check_owner_and_mode(path: Path, status: os.stat_result, wanted: str) -> None:
    if status.st_uid != os.geteuid():
        raise ConfigError(f"{path} belongs to user id {status.st_uid}, not to our own account.")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError(f"{path} has mode {mode:04o}: others can reach it.", f"Run: chmod {wanted} {path}")


def _said(path: Path, error: OSError) -> str:
    return "it is a symbolic link" if path.is_symlink() else str(error.strerror)
