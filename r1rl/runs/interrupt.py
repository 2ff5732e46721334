"""Ctrl-C: finish the step, save, stop. A second Ctrl-C stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """A context in which the first SIGINT or SIGTERM sets `requested`; the step that is under way ends
    normally.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self.requested = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        # elsewhere signals can't be handled, and Python says so
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self.tell(
            "Stopping after this step, then saving. Press Ctrl-C again to stop at once, without saving."
        )
