"""Images: pulling, importing and listing them.

The handle of a pull or import lives as long as the call that waits for it, and closing it cancels
the work: a cancelled call leaves nothing behind.
"""

from __future__ import annotations

import ctypes
from ctypes import byref
from typing import Any, Optional

from . import _abi
from ._backend import Backend
from ._exec import text
from ._handle import Handle
from ._image_values import ImageInfo, OnProgress, check_callback
from ._native import call, lib
from ._options import encode, encode_nonempty
from ._sandbox import copy_list, optional, report_progress, texts_of


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


async def pull_image(
    io: Backend, name: Any, platform: Any, on_progress: Optional[OnProgress]
) -> ImageInfo:
    """Pull an image from its registry."""
    callback = check_callback(on_progress)
    out = ctypes.c_void_p()
    reference = encode("the name", name)
    if platform is None:
        call(lib.msb_image_pull, reference, byref(out))
    else:
        wanted = encode_nonempty("the platform", platform)
        call(lib.msb_image_load_platform, None, reference, wanted, byref(out))
    return await _finish(io, Handle(out.value or 0), callback)


async def import_image(
    io: Backend, path: Any, name: Any, platform: Any, on_progress: Optional[OnProgress]
) -> ImageInfo:
    """Import an image from a file or directory."""
    callback = check_callback(on_progress)
    out = ctypes.c_void_p()
    reference = None if name is None else encode_nonempty("the name", name)
    source = encode_nonempty("the path", path)
    if platform is None:
        call(lib.msb_image_import, source, reference, byref(out))
    else:
        wanted = encode_nonempty("the platform", platform)
        call(lib.msb_image_load_platform, source, reference, wanted, byref(out))
    return await _finish(io, Handle(out.value or 0), callback)


async def _finish(io: Backend, handle: Handle, callback: Optional[OnProgress]) -> ImageInfo:
    """Wait for the end of a pull or import."""
    try:
        while True:
            entries, release = _abi.msb_image_entries(), lib.msb_image_entries_release
            report_progress(lib.msb_image_progress, handle, callback)
            found = copy_list(entries, release, _image, lib.msb_image_wait, handle.use(), 0)
            if found:
                report_progress(lib.msb_image_progress, handle, callback)
                info: ImageInfo = found[0]
                return info
            await io.readable(handle)
    finally:
        handle.close()


def list_images() -> list[ImageInfo]:
    """Return all images, newest first; blocks."""
    release = lib.msb_image_entries_release
    return copy_list(_abi.msb_image_entries(), release, _image, lib.msb_image_list)


def remove_image(name: Any, force: bool) -> None:
    """Remove a name from an image; blocks."""
    flags = _abi.MSB_REMOVE_FORCE if force else 0
    call(lib.msb_image_remove, encode("the name", name), flags)


def prune_images(all_unused: bool) -> int:
    """Remove unused images; return about how many bytes were freed; blocks."""
    freed = ctypes.c_uint64()
    call(lib.msb_image_prune, _abi.MSB_PRUNE_ALL if all_unused else 0, byref(freed))
    return freed.value
