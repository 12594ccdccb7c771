"""Images: getting them, and what is in the store.

Written once for all ways of waiting. A handle lives as long as the call that waits for it, and
closing it ends the work, so a call that is given up leaves nothing behind.
"""

from __future__ import annotations

import ctypes
from ctypes import byref
from typing import Any, Optional

from . import _abi
from ._backends import Backend
from ._handle import Handle
from ._image_values import ImageInfo, OnProgress, checked_callback
from ._native import call, lib
from ._options import encoded, filled
from ._sandbox import listed, optional, tell, text, texts_of


def _image(raw: Any) -> ImageInfo:
    env = (value.partition("=") for value in texts_of(raw.env, raw.env_len))
    return ImageInfo(
        id=text(raw.id),
        names=texts_of(raw.names, raw.names_len),
        digests=texts_of(raw.digests, raw.digests_len),
        architecture=text(raw.architecture),
        layers=raw.layers,
        size=raw.size,
        download_size=raw.download_size,
        added_at=raw.added_ms / 1000,
        rootfs=text(raw.rootfs),
        env={name: value for name, _, value in env},
        workdir=optional(raw.workdir),
        user=optional(raw.user),
        entrypoint=texts_of(raw.entrypoint, raw.entrypoint_len),
        cmd=texts_of(raw.cmd, raw.cmd_len),
        used_by=texts_of(raw.used_by, raw.used_by_len),
    )


async def pull(io: Backend, name: Any, on_progress: Optional[OnProgress]) -> ImageInfo:
    """Gets an image from its registry."""
    told = checked_callback(on_progress)
    out = ctypes.c_void_p()
    call(lib.msb_image_pull, encoded("the name", name), byref(out))
    return await _got(io, Handle(out.value or 0), told)


async def take(io: Backend, path: Any, name: Any, on_progress: Optional[OnProgress]) -> ImageInfo:
    """Takes an image from a file or directory."""
    told = checked_callback(on_progress)
    out = ctypes.c_void_p()
    called = None if name is None else filled("the name", name)
    call(lib.msb_image_import, filled("the path", path), called, byref(out))
    return await _got(io, Handle(out.value or 0), told)


async def _got(io: Backend, handle: Handle, told: Optional[OnProgress]) -> ImageInfo:
    try:
        while True:
            entries, release = _abi.msb_image_entries(), lib.msb_image_entries_release
            tell(lib.msb_image_progress, handle, told)
            found = listed(entries, release, _image, lib.msb_image_wait, handle.use(), 0)
            if found:
                tell(lib.msb_image_progress, handle, told)
                info: ImageInfo = found[0]
                return info
            await io.readable(handle)
    finally:
        handle.close()


def list_images() -> list[ImageInfo]:
    """All images, the newest first; blocks."""
    release = lib.msb_image_entries_release
    return listed(_abi.msb_image_entries(), release, _image, lib.msb_image_list)


def remove_image(name: Any, force: bool) -> None:
    """Takes a name from an image; blocks."""
    flags = _abi.MSB_REMOVE_FORCE if force else 0
    call(lib.msb_image_remove, encoded("the name", name), flags)


def prune(every: bool) -> int:
    """Removes what nobody uses; blocks. About how many bytes are free again."""
    freed = ctypes.c_uint64()
    call(lib.msb_image_prune, _abi.MSB_PRUNE_ALL if every else 0, byref(freed))
    return freed.value
