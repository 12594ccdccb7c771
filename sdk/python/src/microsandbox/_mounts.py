"""Mounts of a new sandbox, and what is known of a volume."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional, Union

from . import _abi
from ._errors import InvalidArgumentError

_MODES = {
    "existing": 0,
    "create": _abi.MSB_MOUNT_CREATE,
    "ensure-exists": _abi.MSB_MOUNT_ENSURE_EXISTS,
}


@dataclass(frozen=True)
class Mount:
    """A mount, for ``volumes={"/data": Volume.bind("./data")}``."""

    kind: int
    source: Optional[Union[str, bytes, os.PathLike[str]]]
    flags: int = 0
    size_mib: int = 0
    uid: int = 0
    gid: int = 0


def mount(
    kind: int,
    source: Any,
    readonly: bool,
    noexec: bool,
    uid: Optional[int] = None,
    gid: Optional[int] = None,
    size_mib: Optional[int] = None,
    mode: str = "existing",
) -> Mount:
    """Return a mount with its flags."""
    if mode not in _MODES:
        raise InvalidArgumentError(f"mode is {mode!r}; it must be one of {', '.join(_MODES)}")
    flags = _MODES[mode]
    for what, value, flag in (
        ("readonly", readonly, _abi.MSB_MOUNT_READONLY),
        ("noexec", noexec, _abi.MSB_MOUNT_NOEXEC),
    ):
        if not isinstance(value, bool):
            raise TypeError(f"{what} must be True or False, not {type(value).__name__}")
        flags |= flag if value else 0
    if uid is not None or gid is not None:
        flags |= _abi.MSB_MOUNT_OWNER
    return Mount(kind, source, flags, size_mib or 0, uid or 0, gid or 0)


@dataclass(frozen=True)
class VolumeInfo:
    """A volume."""

    name: str
    kind: str
    """``"directory"`` or ``"disk"``."""
    path: str
    """Its directory, or the file of a disk."""
    used_bytes: int
    """Bytes that its files take, as far as the caller may read them."""
    capacity_bytes: Optional[int]
    """Size of a disk."""
    quota_mib: Optional[int]
    """How much a directory should hold; it is not enforced."""
    labels: Mapping[str, str]
    created_at: float
    """Seconds since 1970."""
    used_by: list[str]
    """The sandboxes that use it, running or stopped."""
