"""A handle of the library, and the pollers of its descriptor."""

from __future__ import annotations

import ctypes
import threading
import weakref
from typing import Any, Callable

from ._errors import ClosedError
from ._native import call, lib


class Handle:
    """Closed exactly once: by `close`, or when the object is finalized.

    A descriptor must not be closed while it is polled, as its number may be reused at once. So
    `close` wakes the pollers, and the last of them closes the handle.
    """

    __slots__ = ("__weakref__", "_finalizer", "_lock", "_wakers", "closed", "loops", "value")

    def __init__(self, value: int) -> None:
        self.value = value
        self.closed = False
        self.loops: dict[Any, Any] = {}
        """The waiters of each event loop; only the loop's thread changes its entry."""
        self._wakers: dict[object, Callable[[], None]] = {}
        self._lock = threading.Lock()
        # Harmless in a forked child and after `close`. At exit the handle stays open, as other
        # threads may still use it; the system closes it.
        self._finalizer = weakref.finalize(self, lib.msb_handle_close, value)
        self._finalizer.atexit = False

    def use(self) -> int:
        """Return the value for a call."""
        if self.closed:
            raise ClosedError("the handle is closed")
        return self.value

    def watch(self, token: object, wake: Callable[[], None]) -> int:
        """Return the descriptor to poll until `unwatch`. ``wake`` ends the poll from any thread."""
        with self._lock:
            fd = ctypes.c_int32(-1)
            call(lib.msb_handle_fd, self.use(), ctypes.byref(fd))
            self._wakers[token] = wake
            return fd.value

    def watched(self, token: object) -> bool:
        """Return whether the poll is still pending."""
        return token in self._wakers

    def unwatch(self, token: object) -> None:
        """End a poll."""
        with self._lock:
            self._wakers.pop(token, None)
            if self.closed and not self._wakers:
                self._finalizer()

    def close(self) -> None:
        """Close it. Closing twice is fine."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            if not self._wakers:
                self._finalizer()
            for wake in list(self._wakers.values()):
                wake()

    def leak(self) -> None:
        """Leave it open until the process exits."""
        with self._lock:
            self.closed = True
            self._finalizer.detach()
