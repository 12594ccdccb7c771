"""Values of the image API: properties of an image, and the progress of a pull or import."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Callable, Optional

from . import _abi
from ._errors import InvalidArgumentError
from ._values import StringEnum


class PullPolicy(StringEnum):
    """When to pull the image of a new sandbox. Each member equals its string."""

    MISSING = "missing"
    """If the image is not in the store; the default."""
    ALWAYS = "always"
    """Always; unchanged layers are not downloaded again."""
    NEVER = "never"
    """Never: the image must be in the store."""


class ImagePhase(StringEnum):
    """A phase of a pull, import or creation. Each member equals its string."""

    RESOLVING = "resolving"
    """Resolving the name."""
    DOWNLOADING = "downloading"
    """Downloading the layers."""
    UNPACKING = "unpacking"
    """Unpacking the layers."""
    STARTING = "starting"
    """The image is ready, and the sandbox starts."""


@dataclass(frozen=True)
class Progress:
    """The progress of a pull, import or creation."""

    phase: ImagePhase
    layers: Optional[int]
    """Number of layers; None while unknown."""
    layers_done: int
    """Number of layers finished in this phase."""
    bytes: int
    """Number of bytes finished in this phase."""
    bytes_total: Optional[int]
    """Number of bytes in this phase; None while unknown."""


OnProgress = Callable[[Progress], object]
"""Called in the thread of the call with the latest progress, at most about ten times a second."""


@dataclass(frozen=True)
class ImageInfo:
    """An image in the store."""

    id: str
    """``sha256:`` and 64 digits."""
    names: list[str]
    """Its names, in their shortest form."""
    digests: list[str]
    """Its digests in registries."""
    architecture: str
    """Its CPU architecture, such as ``"amd64"``."""
    layers: int
    """Number of layers."""
    size: int
    """Size of its files in bytes."""
    download_size: int
    """Size of its layers in bytes, as downloaded."""
    added_at: float
    """When it was added to the store, as `time.time` returns it."""
    rootfs: str
    """The directory of its root filesystem, which must not be modified."""
    env: dict[str, str]
    """Its environment variables, the default of its sandboxes."""
    workdir: Optional[str]
    """Its working directory."""
    user: Optional[str]
    """Its user; None means root."""
    entrypoint: list[str]
    """Its entrypoint, which precedes ``cmd``."""
    cmd: list[str]
    """Its default command."""
    used_by: list[str]
    """The sandboxes that use it, running or not."""


_PHASES = {
    _abi.MSB_PHASE_RESOLVING: ImagePhase.RESOLVING,
    _abi.MSB_PHASE_DOWNLOADING: ImagePhase.DOWNLOADING,
    _abi.MSB_PHASE_UNPACKING: ImagePhase.UNPACKING,
    _abi.MSB_PHASE_STARTING: ImagePhase.STARTING,
}
_POLICIES = {
    PullPolicy.MISSING: _abi.MSB_PULL_MISSING,
    PullPolicy.ALWAYS: _abi.MSB_PULL_ALWAYS,
    PullPolicy.NEVER: _abi.MSB_PULL_NEVER,
}


def pull_policy(value: Any) -> int:
    """Return the library's constant for a policy."""
    try:
        return _POLICIES[PullPolicy(value)]
    except ValueError:
        known = ", ".join(repr(str(name)) for name in PullPolicy)
        raise InvalidArgumentError(
            f"unknown pull policy {value!r}; it must be one of {known}"
        ) from None


def progress(raw: Any) -> Optional[Progress]:
    """Copy a progress; return None for an unknown phase."""
    phase = _PHASES.get(raw.phase)
    if phase is None:
        return None
    return Progress(phase, raw.layers or None, raw.layers_done, raw.bytes, raw.bytes_total or None)


def check_callback(value: Any) -> Optional[OnProgress]:
    """Check an optional callback. A coroutine function is rejected, as it is never awaited."""
    if value is not None and (not callable(value) or inspect.iscoroutinefunction(value)):
        raise TypeError("on_progress must be a plain function that takes a Progress")
    callback: Optional[OnProgress] = value
    return callback
