"""`nextsession new-model`: a file with one blank to fill in."""

import keyword
import re
from pathlib import Path
from typing import Annotated

import typer

from nextsession.cli.terminal import examples, remark, show
from nextsession.errors import ConfigError

EXAMPLES = examples("nextsession new-model bigram", "nextsession new-model bigram --out plugins/bigram.py")

_TEMPLATE = '''"""{title}: say in one sentence what the model believes about people."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nextsession.config import Runtime, Settings
from nextsession.data.log import SessionLog
from nextsession.recommender import Recommender
from nextsession.scores import DotScores


class {class_name}Settings(Settings):
    """Settings of `{class_name}`."""

    power: float = Field(default=1.0, ge=0)
    """Counts are raised to this power."""


class {class_name}(Recommender[{class_name}Settings]):
    """Says in one line how items are ranked."""

    name = "{name}"
    reference = "Authors, Title, Venue Year"
    ordered: ClassVar[bool] = False  # delete this line once the order of events changes the answer

    counts_: NDArray[np.float32]  # (V,) what is learnt: an array whose name ends in an underscore is saved

    def _fit(self, log: SessionLog, runtime: Runtime) -> None:
        self.counts_ = np.bincount(log.items, minlength=log.n_items).astype(np.float32) ** self.config.power

    def _score(self, histories: SessionLog, asked_at: NDArray[np.int64]) -> DotScores:
        # The blank.  Return one score an item for each history, for instance
        #     DotScores(np.ones((len(histories), 1), np.float32), self.counts_[:, None])
        # A history's latest items are histories.items[histories.session_offsets[:-1]...]; rows may be empty.
        raise NotImplementedError("{class_name}._score: return DotScores, DenseScores or SparseScores.")
'''


def new_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower case, a Python name.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The file; among the package's models if not given.")
    ] = None,
) -> None:
    """Write a model with one method left blank; filled in, it passes the contract."""
    from nextsession.registry import names

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ConfigError(f"A model's name is a Python name in lower case such as 'bigram', got {name!r}.")
    if name in names():
        raise ConfigError(f"There is a model {name!r} already; choose another name.")
    place = out or Path(__file__).parents[1] / "models" / f"{name}.py"
    if place.name != f"{name}.py":
        raise ConfigError(f"The file of the model {name!r} must be called {name}.py, got {place.name!r}.")
    if place.exists():
        raise ConfigError(f"{place} exists already; remove it or choose another name.")
    place.parent.mkdir(parents=True, exist_ok=True)
    class_name = "".join(part.capitalize() for part in name.split("_"))
    place.write_text(_TEMPLATE.format(name=name, class_name=class_name, title=class_name), encoding="utf-8")
    show(str(place))
    remark(f"Fill in _score, then: nextsession check {name if out is None else place}")
