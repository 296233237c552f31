"""Plans: which models stand in each table of the study, with which settings; on any log, from one small table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from nextsession.config import Settings
from nextsession.data.log import SessionLog
from nextsession.errors import DataError

Kind: TypeAlias = Literal["sessions", "items", "counting", "oracle"]
"""What a model reads one by one: whole sessions, events; or it counts; or it knows the truth."""

Name: TypeAlias = Literal["overall", "backbones", "encoders", "alpha", "time", "scaling", "ablation", "intent"]

TITLES: Mapping[str, str] = {
    "overall": "Overall comparison",
    "backbones": "The same backbone over sessions and over items",
    "encoders": "Encoders of sessions",
    "alpha": "Weight of the rank loss",
    "time": "Quality against time of training",
    "scaling": "Scaling with data and with the width of the model",
    "ablation": "What each part is worth",
    "intent": "What sessions are worth where a wish lasts, and where it does not",
}
"""The studies by name; of the paper Table 2, 3 and 4, Figure 4, 3 and 5; the last two are ours."""

METRICS = tuple(f"{name}@{k}" for name in ("ndcg", "recall") for k in (10, 100, 500))
"""What every table holds."""

ALPHAS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
WHOLE = "all of it"
"""SessionRec with all that it can know of a log: what an ablation takes parts away from."""
DRAWN = 512
"""Items that are drawn for a batch where an ablation does not look at all of them."""
BEST_OF_ITEMS = "the best over items"
"""Stands for the item-level network of the same column that is best over the six metrics."""


class StudySettings(Settings):
    """What all networks of a study share: equal size, equal budget."""

    dim: int = Field(default=64, ge=1)
    """Width of the vectors."""
    layers: int = Field(default=4, ge=1)
    """Layers of what reads the sequence."""
    heads: int = Field(default=2, ge=1)
    """Its heads."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the numbers set to 0 while training."""
    epochs: int = Field(default=50, ge=1)
    """Passes at most; in `scaling` those of the greatest size, and smaller ones take as many steps."""
    patience: int = Field(default=5, ge=0)
    """Validations without a better score before training ends."""
    batch_size: int = Field(default=64, ge=1)
    """People in a step."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Of Adam."""
    max_length: int = Field(default=200, ge=1)
    """Wanted events that are read of a person."""
    negatives: int = Field(default=0, ge=0)
    """Items drawn for each batch that the retrieval loss pushes down; 0: all items."""
    within: str = "separate"
    """How SessionRec pools the events of a session, where the study is not about that."""
    alpha: float = Field(default=0.2, ge=0)
    """Weight of the rank loss, where the study is not about that."""
    seeds: int = Field(default=3, ge=1)
    """Trainings of each network, from as many random starts."""
    share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the people whose second-last session chooses the epoch."""
    timed: bool = True
    """Are there rows that know the instant of the question, in a column of their own?"""
    steps: int = Field(default=5, ge=3)
    """Of `scaling`: sizes of the data, each twice the one before; the law is fitted on all but the last."""
    widths: tuple[int, ...] = (8, 16, 32, 64)
    """Of `scaling`: widths of the model."""
    lasting: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(default=(0.0, 0.3, 0.6, 0.9), min_length=1)
    """Of `intent`: the `persistence` of each shop, how often who returns at once still wants what he wanted."""
    law_metric: str = "recall@100"
    """Of `scaling`: one minus this is what the law describes."""


@dataclass(frozen=True)
class Arm:
    """One model of a table."""

    name: str
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind = "sessions"
    against: str = ""
    """The arm that it is compared with, question by question; empty: none."""
    x: float | None = None
    """Its place across, where the arms are the points of a line."""

    @property
    def timed(self) -> bool:
        """Does it know the instant of the question?  Such rows have a column of their own."""
        moment = self.settings.get("moment")
        reads = moment is not None and bool(moment.get("windows", True))
        return self.model in ("recent", "oracle") or reads or self.settings.get("time") == "relative"

    @property
    def trained(self) -> bool:
        """Is it a network, which other random numbers would have made another one?"""
        return self.kind in ("sessions", "items")


@dataclass(frozen=True)
class Known:
    """What a plan must know of the log."""

    timed: bool
    ignored: bool
    """Does it say what was shown and ignored?"""
    shop: Mapping[str, Any] | None = None
    """The settings of the simulated shop that it comes from."""

    @classmethod
    def of(cls, log: SessionLog, shop: Mapping[str, Any] | None = None) -> "Known":
        """Look at a log."""
        return cls(log.timed, bool((log.labels == 0).any()), shop)


DATA: Mapping[str, Mapping[str, Any]] = {
    "ebnerd": {},
    "globo": {
        "filters": {"item_events": 5, "user_sessions": 3, "user_events": 5, "passes": 3},
        "users": 20_000,
        "study": {"negatives": 512, "batch_size": 256},
    },
    "tafeng": {"study": {"negatives": 512, "batch_size": 256}},
    "kuaisar": {
        "filters": {"item_events": 5, "user_sessions": 3, "user_events": 5, "passes": 3},
        "study": {"negatives": 512},
    },
    "recflow": {
        "filters": {"item_events": 5, "user_sessions": 3, "user_events": 5, "passes": 3},
        "study": {"negatives": 512, "max_length": 400},
    },
    "shop": {"shop": {"users": 2000, "items": 2000}},
}
"""What is special about the logs of the study; any other is read as it is."""


def arms(name: Name, settings: StudySettings, known: Known) -> list[Arm]:
    """Return the models of a table.

    Raises:
        DataError: The study is about what was shown and ignored, and this log does not say.
    """
    make = {
        "overall": _overall,
        "backbones": _backbones,
        "encoders": _encoders,
        "alpha": _alpha,
        "time": _time,
        "ablation": _ablation,
        "intent": _intent,
    }
    if name == "alpha" and not known.ignored:
        raise DataError(
            "The study 'alpha' weighs what was shown and ignored, and this log holds only what was wanted. "
            "Choose a log with exposures, such as ebnerd or shop."
        )
    return make[name](settings, known)


def named(arm: Arm, lasts: float) -> str:
    """Return the name of a model in one of these shops."""
    return f"{lasts:g}: {arm.name}"


def bare(name: str) -> str:
    """Return the name of the model alone.

    >>> bare("0.3: HSTU"), bare("HSTU")
    ('HSTU', 'HSTU')
    """
    return name.partition(": ")[2] or name


def session_level(settings: StudySettings, **others: Any) -> dict[str, Any]:
    """Return the settings of SessionRec, blind to the time."""
    return {
        **_common(settings),
        "layers": settings.layers,
        "heads": settings.heads,
        "within": settings.within,
        "alpha": settings.alpha,
        "time": "none",
        "open": "never",
        **others,
    }


def _common(settings: StudySettings) -> dict[str, Any]:
    negatives = {"kind": "uniform", "n": settings.negatives, "per": "batch"}
    loss = {"kind": "sampled_softmax", "negatives": negatives} if settings.negatives else {"kind": "softmax"}
    shared = ("dim", "dropout", "epochs", "patience", "batch_size", "learning_rate", "max_length")
    return {**{x: getattr(settings, x) for x in shared}, "validation_metric": "ndcg@100", "loss": loss}


def _overall(settings: StudySettings, known: Known) -> list[Arm]:
    ours = [Arm("SessionRec, mean", "sessionrec", session_level(settings, within="mean"), against=BEST_OF_ITEMS)]
    if settings.within != "mean":
        own = session_level(settings)
        ours.append(Arm(f"SessionRec, {settings.within}", "sessionrec", own, against=BEST_OF_ITEMS))
    found = [*ours, *_over_items(settings, known)]
    chosen = found[len(ours) - 1 :]
    if settings.timed and known.timed:
        found += [_with_time(arm) for arm in chosen]
    if not known.timed:
        found += [_with_repeats(arm) for arm in chosen]
    return [*found, *_counting(known)]


def _over_items(settings: StudySettings, known: Known) -> list[Arm]:
    common, size = _common(settings), {"layers": settings.layers, "heads": settings.heads}
    found = [
        Arm("SessionRec over items", "sessionrec", session_level(settings, tokens="items"), "items"),
        Arm("HSTU", "hstu", {**common, **size, "time": "none"}, "items"),
    ]
    if known.ignored:
        plus = {**common, **size, "time": "none", "max_length": 4 * settings.max_length}
        found.append(Arm("HSTU+", "hstuplus", plus, "items"))
    found.append(Arm("SASRec+", "sasrec", {"preset": "sasrec+", **common, **size}, "items"))
    found.append(Arm("GRU", "gru", {**common, "layers": min(2, settings.layers)}, "items"))
    return found


def _with_time(arm: Arm) -> Arm:
    """Return the form of a network that knows the instant of the question."""
    more: dict[str, Any] = {"moment": {"asks": "next-session"}, "loss": {"kind": "softmax"}}
    if "time" in arm.settings:
        more["time"] = "relative"
    return Arm(f"{arm.name}, time-aware", arm.model, {**arm.settings, **more}, arm.kind, arm.against)


def _with_repeats(arm: Arm) -> Arm:
    """Return the form of a network that scores what the person had before; all it needs is the order of events."""
    more = {"moment": {"asks": "next-session", "windows": []}, "loss": {"kind": "softmax"}}
    return Arm(f"{arm.name}, with repeats", arm.model, {**arm.settings, **more}, arm.kind, arm.against)


def _counting(known: Known) -> list[Arm]:
    found = [
        Arm("popular", "popular", {}, "counting"),
        Arm("frequent", "frequent", {}, "counting"),
        Arm("tifuknn", "tifuknn", {}, "counting"),
        Arm("vsknn", "vsknn", {"reads": "history"}, "counting"),
    ]
    if known.timed:
        found += [Arm(f"recent, {w}", "recent", {"window": w}, "counting") for w in ("1h", "1d", "7d")]
    if known.shop is not None:
        found.append(Arm("oracle", "oracle", known.shop, "oracle"))
    return found


def _backbones(settings: StudySettings, known: Known) -> list[Arm]:
    found: list[Arm] = []
    published = {arm.name: arm for arm in _over_items(settings, known)}
    for across, title, other in (
        ("gru", "GRU", "GRU"),
        ("transformer", "Transformer", "SASRec+"),
        ("hstu", "HSTU", "HSTU+" if known.ignored else "HSTU"),
    ):
        layers = min(2, settings.layers) if across == "gru" else settings.layers
        found.append(published[other])
        own = session_level(settings, across=across, layers=layers)
        twin = {**own, "tokens": "items"}
        found.append(Arm(f"{title} over items, all else equal", "sessionrec", twin, "items", against=other))
        found.append(Arm(f"SessionRec, {title}", "sessionrec", own, against=other))
    return found


ENCODERS: Mapping[str, Mapping[str, Any]] = {
    "mean": {"within": "mean"},
    "max": {"within": "max"},
    "max after ReLU": {"within": "max-relu"},
    "GRU, 1 layer": {"within": "gru"},
    "GRU, 2 layers": {"within": "gru", "within_layers": 2},
    "Transformer, 1 head, 1 layer": {"within": "transformer"},
    "Transformer, 1 head, 2 layers": {"within": "transformer", "within_layers": 2},
    "Transformer, 2 heads, 1 layer": {"within": "transformer", "within_heads": 2},
    "Transformer, 4 heads, 2 layers": {"within": "transformer", "within_heads": 4, "within_layers": 2},
    "means of wanted and ignored, mixed": {"within": "separate"},
    "weighed mean": {"within": "weighed"},
}
"""Those of the paper's Table 4, then our own."""


def _encoders(settings: StudySettings, known: Known) -> list[Arm]:
    found = []
    for name, own in ENCODERS.items():
        against = "" if name == "mean" else "mean"
        found.append(Arm(name, "sessionrec", session_level(settings, **own), against=against))
    if known.ignored:
        clicks = session_level(settings, within="mean", reads_ignored=False, alpha=0.0)
        found.append(Arm("mean of the wanted alone", "sessionrec", clicks, against="mean"))
    return found


def _alpha(settings: StudySettings, known: Known) -> list[Arm]:
    return [
        Arm(f"{a:g}", "sessionrec", session_level(settings, alpha=a), against="0" if a else "", x=a) for a in ALPHAS
    ]


def _time(settings: StudySettings, known: Known) -> list[Arm]:
    ours = Arm(f"SessionRec, {settings.within}", "sessionrec", session_level(settings))
    return [ours, *(arm for arm in _over_items(settings, known) if arm.name != "GRU")]


def _intent(settings: StudySettings, known: Known) -> list[Arm]:
    ours = {within: session_level(settings, within=within) for within in dict.fromkeys(("mean", settings.within))}
    ours["latest, open visits"] = session_level(settings, within="latest", open="always")
    sessions = [Arm(f"SessionRec, {x}", "sessionrec", own, against=BEST_OF_ITEMS) for x, own in ours.items()]
    return [*sessions, *(arm for arm in _over_items(settings, known) if arm.model not in ("sessionrec", "gru"))]


def _ablation(settings: StudySettings, known: Known) -> list[Arm]:
    moment: dict[str, Any] = {"asks": "next-session"}
    if not known.timed:
        moment |= {"windows": [], "habits": True}
    full = {"loss": {"kind": "softmax"}, "time": "relative" if known.timed else "none"}
    drawn = {"loss": {"kind": "sampled_softmax", "negatives": {"kind": "uniform", "n": DRAWN, "per": "batch"}}}
    whole = session_level(settings, **full, moment=moment)

    def other(name: str, against: str = WHOLE, **changed: Any) -> Arm:
        return Arm(name, "sessionrec", {**whole, **changed}, against=against)

    found = [Arm(WHOLE, "sessionrec", whole)]
    if known.timed:
        found.append(other("without counts of everybody", moment={**moment, "windows": []}))
        found.append(other("without the times between sessions", time="none"))
        found.append(other("with audiences", moment={**moment, "audience": 32}))
    else:
        found.append(other("without everybody's habits", moment={**moment, "habits": False}))
    found.append(other("without what the person had before", moment={**moment, "habits": False, "repeats": False}))
    if known.ignored:
        found.append(other("without reading what was ignored", reads_ignored=False, alpha=0.0))
        found.append(other("without the rank loss", alpha=0.0))
    found.append(other("events and sessions as tokens", tokens="both"))
    found.append(other("events as tokens", tokens="items"))
    blind = "without the moment"
    return [*found, other(blind, moment=None), other(f"the same, {DRAWN} drawn", blind, moment=None, **drawn)]
