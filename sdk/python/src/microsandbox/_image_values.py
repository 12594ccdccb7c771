"""What users get and give about images: what is known of one, and how far getting it is."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Callable, Optional

from . import _abi
from ._errors import InvalidArgumentError
from ._values import Words


class PullPolicy(Words):
    """When the registry is asked for the image of a new sandbox. Each member equals its string."""

    MISSING = "missing"
    """When the image is not in the store; the default."""
    ALWAYS = "always"
    """Each time; what has not changed is not fetched again."""
    NEVER = "never"
    """Not at all: the image has to be in the store."""


class ImagePhase(Words):
    """What is being done to get an image. Each member equals its string."""

    RESOLVING = "resolving"
    """Finding out what the name means."""
    DOWNLOADING = "downloading"
    """Getting the layers."""
    UNPACKING = "unpacking"
    """Unpacking them."""
    STARTING = "starting"
    """The image is there, and the sandbox starts."""


@dataclass(frozen=True)
class Progress:
    """How far getting an image is."""

    phase: ImagePhase
    layers: Optional[int]
    """How many layers there are; None while that is not known."""
    layers_done: int
    """How many of them are finished in this phase."""
    bytes: int
    """How many bytes are finished in this phase."""
    bytes_total: Optional[int]
    """How many there are; None while that is not known."""


OnProgress = Callable[[Progress], object]
"""Called in the thread of the call, with the newest progress, about ten times a second at most."""


@dataclass(frozen=True)
class ImageInfo:
    """What is known about an image in the store."""

    id: str
    """``sha256:`` and 64 digits."""
    names: list[str]
    """Its names, as short as they can be written."""
    digests: list[str]
    """The digests by which registries know it."""
    architecture: str
    """The processor's architecture that it is for, as in ``"amd64"``."""
    layers: int
    """How many layers it has."""
    size: int
    """How many bytes its files have."""
    download_size: int
    """How many bytes its layers have as they came."""
    added_at: float
    """When it came into the store, as `time.time` counts."""
    rootfs: str
    """Its root filesystem, a directory that must not be written."""
    env: dict[str, str]
    """Its variables, which sandboxes of it have unless they are given others."""
    workdir: Optional[str]
    """Its working directory."""
    user: Optional[str]
    """Its user; None is root."""
    entrypoint: list[str]
    """What runs in front of a command of its own."""
    cmd: list[str]
    """Its own command."""
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


def policy(value: Any) -> int:
    """The library's number of a policy."""
    try:
        return _POLICIES[PullPolicy(value)]
    except ValueError:
        known = ", ".join(repr(str(name)) for name in PullPolicy)
        raise InvalidArgumentError(
            f"there is no pull policy {value!r}; there are {known}"
        ) from None


def progress(raw: Any) -> Optional[Progress]:
    """A copy of a progress; None of a phase that is not known yet."""
    phase = _PHASES.get(raw.phase)
    if phase is None:
        return None
    return Progress(phase, raw.layers or None, raw.layers_done, raw.bytes, raw.bytes_total or None)


def checked_callback(value: Any) -> Optional[OnProgress]:
    """A callback, if one is given. Nobody would await what a coroutine function returns."""
    if value is not None and (not callable(value) or inspect.iscoroutinefunction(value)):
        raise TypeError("on_progress is a plain function that takes a Progress")
    callback: Optional[OnProgress] = value
    return callback
