"""Cost: CPU-seconds, peak memory, memory that is given back, and a limit that interrupts.

CPU time is that of this process, all its threads together: unlike the time on the wall it does not
depend on what else the machine does.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from nextsession.errors import NextSessionError

_PROC = Path("/proc/self")


class OverBudgetError(NextSessionError, RuntimeError):
    """Work took more CPU-seconds than it was given."""


class Watch:
    """CPU-seconds since it was made, beside `used` ones that went before."""

    def __init__(self, used: float = 0.0) -> None:
        self._start = time.process_time() - used

    @property
    def seconds(self) -> float:
        """CPU-seconds so far."""
        return time.process_time() - self._start


@contextmanager
def within(budget: float | None, used: float = 0.0) -> Iterator[Watch]:
    """Give a watch, and raise `OverBudgetError` once `budget` CPU-seconds are used; None: no limit.

    `used` ones were before the block, in processes whose work it goes on with.

    Python is interrupted between two of its instructions, so a long compiled loop is stopped when
    it returns.  Outside the main thread, and where the system has no such timer, the budget is
    checked at the end of the block only.
    """
    watch = Watch(used)
    message = f"it used more than its budget of {budget} CPU-seconds"

    spent = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal spent
        if budget is not None and watch.seconds < budget:  # the timer counts ticks, and is early on a busy machine
            signal.setitimer(signal.ITIMER_PROF, max(budget - watch.seconds, 1e-3))
            return
        spent = True
        raise OverBudgetError(message)

    timed = budget is not None and sys.platform != "win32" and threading.current_thread() is threading.main_thread()
    if timed and budget is not None:
        before = signal.signal(signal.SIGPROF, stop)
        signal.setitimer(signal.ITIMER_PROF, max(budget - used, 1e-3))
    try:
        yield watch
    except Exception:  # compiled code and PyTorch raise errors of their own when the timer interrupts them
        if not spent:
            raise
        raise OverBudgetError(message) from None
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)
    if budget is not None and watch.seconds > budget:
        raise OverBudgetError(message)


def forget_peak() -> None:
    """Let `peak_memory` count from now; where the system cannot, it goes on counting from the start."""
    try:
        (_PROC / "clear_refs").write_text("5")
    except OSError:
        return


def peak_memory() -> float | None:
    """Return the most memory this process has held, in MB; None where the system does not say."""
    try:
        status = (_PROC / "status").read_text(encoding="ascii")
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return None if kilobytes is None else int(kilobytes) / 1000


def give_back_memory() -> None:
    """Return what the C heap holds and does not use to the system.

    Batches are of all sizes, and little fits into the gaps they leave: without this BERT4Rec on ML-1M held 4 GB
    after twenty epochs, of which it used .5.  Only glibc can be asked; elsewhere nothing happens.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
