"""The law of scaling: what is missed falls as a power of the events learnt and of the width of the model.

```
missed(n, w) = floor + a * (n / n0)^-alpha + b * (w / w0)^-beta
```

`missed` is 1 minus a metric such as Recall@100; `floor` is what no size would find, and `n0`, `w0`
the greatest sizes of the fit, so that `a` and `b` are what is missed there for want of data and of width.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

from nextsession.errors import DataError

Floats: TypeAlias = NDArray[np.float64]

_STARTS = (0.1, 0.5, 1.5)  # powers from which the fit sets out
_STEEPEST = 3.0


@dataclass(frozen=True)
class Law:
    """A fitted law."""

    floor: float
    a: float
    alpha: float
    b: float
    beta: float
    n0: float
    w0: float

    def missed(self, events: Floats | float, width: Floats | float) -> Floats:
        """Return what is missed at these sizes."""
        n, w = np.asarray(events, float) / self.n0, np.asarray(width, float) / self.w0
        found: Floats = np.asarray(self.floor + self.a * n**-self.alpha + self.b * w**-self.beta, float)
        return found


def fit(events: Floats, widths: Floats, missed: Floats) -> Law:
    """Fit the law by least squares; its parts are not below 0, its powers at most 3.

    Where all widths are the same, or all numbers of events, that part is left out.

    Raises:
        DataError: There are fewer different sizes than the law has unknowns that they could tell.
    """
    n0, w0 = float(events.max()), float(widths.max())
    n, w = np.log(events / n0), np.log(widths / w0)
    parts = [len(np.unique(x)) > 1 for x in (n, w)]
    points = len(np.unique(np.stack([n, w], axis=1), axis=0))
    unknown = 1 + 2 * sum(parts)
    if not any(parts) or points < unknown:
        raise DataError(f"A law with {unknown} unknowns needs as many different sizes, got {points}: add steps.")
    # at a given pair of powers the rest is linear and solved exactly, so that only powers are searched
    best: tuple[float, Floats] | None = None
    for start in _STARTS:
        found = least_squares(
            _residuals, np.full(sum(parts), start), bounds=(1e-3, _STEEPEST), args=(n, w, missed, parts)
        )
        if best is None or found.cost < best[0]:
            best = float(found.cost), found.x
    assert best is not None
    floor, a, b = _linear(best[1], n, w, missed, parts)
    powers = _spread(best[1], parts)
    return Law(floor, a, float(powers[0]), b, float(powers[1]), n0, w0)


def _spread(powers: Floats, parts: list[bool]) -> Floats:
    full = np.zeros(2)
    full[np.flatnonzero(parts)] = powers
    return full


def _columns(powers: Floats, n: Floats, w: Floats, parts: list[bool]) -> Floats:
    alpha, beta = _spread(powers, parts)
    columns = [np.ones_like(n), np.exp(-alpha * n) * parts[0], np.exp(-beta * w) * parts[1]]
    return np.stack(columns, axis=1)


def _linear(powers: Floats, n: Floats, w: Floats, missed: Floats, parts: list[bool]) -> Floats:
    found: Floats = nnls(_columns(powers, n, w, parts), missed)[0]
    return found


def _residuals(powers: Floats, n: Floats, w: Floats, missed: Floats, parts: list[bool]) -> Floats:
    found: Floats = _columns(powers, n, w, parts) @ _linear(powers, n, w, missed, parts) - missed
    return found
