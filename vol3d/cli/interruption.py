"""Stop on Ctrl-C and SIGTERM, at once where possible and otherwise before the next step.

Python raises ``KeyboardInterrupt`` wherever it is, and forgets it when that is a destructor or a weak reference's
callback; torch has many of them when a case ends. Hence the flag, which is asked between steps.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

EXIT_CODE = 130
_requested = threading.Event()


def stop_on_signals() -> None:
    """Let SIGINT and SIGTERM end the program by ``KeyboardInterrupt``."""
    _requested.clear()
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, _stop)
    sys.unraisablehook = _report_unraisable


def raise_if_interrupted() -> None:
    """Raise ``KeyboardInterrupt`` if a signal has come; called between steps."""
    if _requested.is_set():
        raise KeyboardInterrupt


def _stop(_number: int, _frame: FrameType | None) -> None:
    _requested.set()
    raise KeyboardInterrupt


def _report_unraisable(unraisable: Any) -> None:
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)
