"""What is written while a network learns: a table, a page with the curves, and, if asked for, TensorBoard's events."""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from nextsession.config import Runtime
from nextsession.errors import ConfigError
from nextsession.files import whole_file
from nextsession.learning_curve import page

CURVE = ("epoch", "loss", "validation", "cpu_seconds", "seconds", "positives", "learning_rate")
"""Columns of a curve: one row an epoch; validation is None (or NaN) where there was none."""


class Writer(Protocol):
    """What we use of a writer of TensorBoard's."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Add a number to a curve."""

    def close(self) -> None:
        """Write what is left."""


class TrainingLog:
    """Where the curve goes after each epoch.

    Args:
        folder: Of `curve.csv` and `curve.html`; None: they are not written.
        name: Of the model.
        metric: Of the validation.
        writer: For TensorBoard; None: no events.
    """

    def __init__(self, folder: Path | None, name: str, metric: str, writer: Writer | None = None) -> None:
        """Write nothing yet."""
        self.folder, self.name, self.metric, self.writer = folder, name, metric, writer
        self.written = 0
        """Epochs that TensorBoard knows."""

    @classmethod
    @contextmanager
    def of(cls, runtime: Runtime, name: str, metric: str, first: bool) -> Iterator["TrainingLog"]:
        """Open the logs that the runtime asks for; none in processes that are not the first.

        Raises:
            ConfigError: TensorBoard is asked for and not installed.
        """
        folder = Path(runtime.checkpoints) / name if runtime.checkpoints is not None and first else None
        writer = _tensorboard(Path(runtime.logs) / name) if runtime.logs is not None and first else None
        try:
            yield cls(folder, name, metric, writer)
        finally:
            if writer is not None:
                writer.close()

    def write(self, curve: Sequence[Sequence[Any]]) -> None:
        """Write the curve as it is now: all epochs, so that a run that was resumed has a whole one."""
        if self.folder is not None:
            with whole_file(self.folder / "curve.csv") as scratch:
                scratch.write_text(table(curve), encoding="utf-8")
            with whole_file(self.folder / "curve.html") as scratch:
                scratch.write_text(page(self.name, CURVE, curve, self.metric), encoding="utf-8")
        if self.writer is not None:
            for row in curve[self.written :]:
                for column, value in zip(CURVE[1:], row[1:], strict=True):
                    if value is not None:
                        self.writer.add_scalar(self.metric if column == "validation" else column, value, int(row[0]))
            self.written = len(curve)


def table(curve: Sequence[Sequence[Any]]) -> str:
    """Return the curve as CSV, with a line of names.

    >>> print(table([[1, 2.5, None, 0.1, 0.2, 30, 0.001]]).strip())
    epoch,loss,validation,cpu_seconds,seconds,positives,learning_rate
    1,2.5,,0.1,0.2,30,0.001
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(CURVE)
    lines.writerows(curve)
    return text.getvalue()


def _tensorboard(folder: Path) -> Writer:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "runtime: logs asks for TensorBoard's events, and tensorboard is not installed: `pip install tensorboard`, "
            "or leave logs out; the curve is in curve.csv among the checkpoints either way."
        ) from None
    writer: Writer = SummaryWriter(str(folder))
    return writer
