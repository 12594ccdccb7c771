"""A handle of the library, and who waits for its descriptor."""

from __future__ import annotations

import ctypes
import threading
import weakref
from typing import Any, Callable

from ._errors import ClosedError
from ._native import call, lib


class Handle:
    """Closed once: by whoever is done with it, else with the object.

    A descriptor must not be closed while somebody polls it, since its number may be another file's
    a moment later. So `close` wakes those who poll, and the last of them closes.
    """

    __slots__ = ("__weakref__", "_finalizer", "_lock", "_wakers", "closed", "loops", "value")

    def __init__(self, value: int) -> None:
        self.value = value
        self.closed = False
        self.loops: dict[Any, Any] = {}
        """Who waits in which event loop; each loop's thread keeps its own entry."""
        self._wakers: dict[object, Callable[[], None]] = {}
        self._lock = threading.Lock()
        # Harmless in a forked child and when it was closed before. The end of the program ends what
        # it has open; closing under the feet of its other threads would only confuse them.
        self._finalizer = weakref.finalize(self, lib.msb_handle_close, value)
        self._finalizer.atexit = False

    def use(self) -> int:
        """The value, for a call."""
        if self.closed:
            raise ClosedError("the handle is closed")
        return self.value

    def watch(self, token: object, wake: Callable[[], None]) -> int:
        """The descriptor, to be polled until `unwatch`; `wake` ends that early, from any thread."""
        with self._lock:
            fd = ctypes.c_int32(-1)
            call(lib.msb_handle_fd, self.use(), ctypes.byref(fd))
            self._wakers[token] = wake
            return fd.value

    def watched(self, token: object) -> bool:
        """Whether that poll goes on."""
        return token in self._wakers

    def unwatch(self, token: object) -> None:
        """The descriptor is not polled any more."""
        with self._lock:
            self._wakers.pop(token, None)
            if self.closed and not self._wakers:
                self._finalizer()

    def close(self) -> None:
        """Closes it; again is fine."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            if not self._wakers:
                self._finalizer()
            for wake in list(self._wakers.values()):
                wake()

    def forget(self) -> None:
        """Leaves it open for as long as the program runs."""
        with self._lock:
            self.closed = True
            self._finalizer.detach()
