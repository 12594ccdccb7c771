"""Named volumes: creating, finding, listing and removing them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from . import _abi
from ._errors import InvalidArgumentError
from ._exec import text
from ._mounts import VolumeInfo
from ._native import call, lib
from ._options import encode, encode_nonempty, env_entries, integer, string_array
from ._sandbox import copy_list, texts_of

_KINDS = {
    "directory": _abi.MSB_VOLUME_DIRECTORY,
    "dir": _abi.MSB_VOLUME_DIRECTORY,
    "disk": _abi.MSB_VOLUME_DISK,
}
_MAX = 2**64 - 1


def _volume(raw: Any) -> VolumeInfo:
    labels = (value.partition("=") for value in texts_of(raw.labels, raw.labels_len))
    return VolumeInfo(
        name=text(raw.name),
        kind="disk" if raw.kind == _abi.MSB_VOLUME_DISK else "directory",
        path=text(raw.path),
        used_bytes=raw.used,
        capacity_bytes=raw.size or None,
        quota_mib=raw.quota_mib or None,
        labels={name: value for name, _, value in labels},
        created_at=raw.created_ms / 1000,
        used_by=texts_of(raw.used_by, raw.used_by_len),
    )


def create_volume(
    name: Any,
    kind: Any,
    size_mib: Optional[int],
    quota_mib: Optional[int],
    labels: Optional[Mapping[str, str]],
) -> VolumeInfo:
    """Create a volume; blocks."""
    if kind not in _KINDS:
        raise InvalidArgumentError(f"kind is {kind!r}; it must be 'directory' or 'disk'")
    raw = _abi.msb_volume_options(name=encode("the name", name), kind=_KINDS[kind])
    if size_mib is not None:
        raw.size_mib = integer("size_mib", size_mib, _MAX)
    if quota_mib is not None:
        raw.quota_mib = integer("quota_mib", quota_mib, _MAX)
    raw.labels, raw.labels_len = string_array(env_entries(labels or {}))
    call(lib.msb_volume_create, raw)
    return get_volume(name)


def get_volume(name: Any) -> VolumeInfo:
    """Find a volume; blocks."""
    wanted = encode_nonempty("the name", name)
    release = lib.msb_volume_entries_release
    entries = _abi.msb_volume_entries()
    found: list[VolumeInfo] = copy_list(entries, release, _volume, lib.msb_volume_get, wanted)
    return found[0]


def list_volumes() -> list[VolumeInfo]:
    """Return all volumes, by name; blocks."""
    release = lib.msb_volume_entries_release
    return copy_list(_abi.msb_volume_entries(), release, _volume, lib.msb_volume_list)


def remove_volume(name: Any) -> None:
    """Remove a volume; blocks."""
    call(lib.msb_volume_remove, encode_nonempty("the name", name))
