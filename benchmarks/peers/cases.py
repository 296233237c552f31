"""What is compared with what, and how long each is watched."""

from dataclasses import dataclass
from typing import Literal

OURS = "nextsession"
Data = Literal["ml-1m", "diginetica"]


@dataclass(frozen=True)
class Case:
    """One model of one code base."""

    group: str
    peer: str
    script: str
    model: str
    environment: str
    data: Data
    steps: int
    """About ten CPU-seconds of them on the machine where this was written."""
    warm_up: int = 2

    @property
    def key(self) -> str:
        """Name of the case in the results."""
        return f"{self.group}/{self.peer}/{self.model}"


GROUPS = {
    "sasrec-ce": "SASRec+, softmax over all items",
    "sasrec-3000": "SASRec+, 3000 negatives a history",
    "sasrec-sampled": "SASRec, softmax over 256 negatives of each position",
    "sasrec-bce": "SASRec, binary cross-entropy, one negative",
    "gsasrec": "gSASRec, 256 negatives of each position",
    "esasrec": "eSASRec (LiGR blocks), softmax over 256 negatives of each position",
    "bert4rec": "BERT4Rec, a fifth of the events hidden",
    "hstu": "HSTU, softmax over all items, biases by distance",
    "hstu-time": "HSTU, softmax over all items, biases by distance and time",
    "gru": "GRU, softmax over all items",
    "caser": "Caser, windows of 5 events, 3 targets",
    "srgnn": "SR-GNN on Diginetica",
    "narm": "NARM on Diginetica",
    "stamp": "STAMP on Diginetica",
    "gru4rec": "GRU on Diginetica, softmax over all items",
    "caser-ce": "Caser on Diginetica, softmax over all items",
}


def _long(group: str, model: str | None, *rows: tuple[str, str, str, str, int]) -> list[Case]:
    """Cases on MovieLens-1M: ours, if there is one, and the peers."""
    mine = [] if model is None else [Case(group, OURS, "ours.py", model, OURS, "ml-1m", 47)]
    return mine + [Case(group, peer, script, name, where, "ml-1m", steps) for peer, script, name, where, steps in rows]


def _short(group: str, model: str | None, *rows: tuple[str, str, str, str, int]) -> list[Case]:
    """Cases on sessions of Diginetica."""
    mine = [] if model is None else [Case(group, OURS, "ours.py", model, OURS, "diginetica", 200)]
    return mine + [
        Case(group, peer, script, name, where, "diginetica", steps) for peer, script, name, where, steps in rows
    ]


_ANTKLEN = ("antklen/sasrec-bert4rec-recsys23", "antklen.py")
_ASASH = ("asash/gSASRec-pytorch", "gsasrec_pytorch.py")
_PMIXER = ("pmixer/SASRec.pytorch", "sasrec_pytorch.py")
_SRGNN = ("CRIPAC-DIG/SR-GNN", "srgnn_pytorch.py")
_CASER = ("graytowne/caser_pytorch", "caser_pytorch.py")
_RECTOOLS = ("RecTools", "rectools_models.py")
_RECBOLE = ("RecBole", "recbole_models.py")

CASES = [
    *_long(
        "sasrec-ce",
        "sasrec-ce",
        (*_ANTKLEN, "sasrec-ce", "torch", 6),
        (*_RECTOOLS, "sasrec-ce", "rectools", 3),
        (*_RECBOLE, "sasrec-long", "recbole", 12),
    ),
    Case("sasrec-ce", f"{OURS}, bfloat16", "ours.py", "sasrec-bf16", OURS, "ml-1m", 47),
    *_long("sasrec-3000", "sasrec-3000", (*_ANTKLEN, "sasrec-3000", "torch", 4)),
    *_long("sasrec-sampled", "sasrec-sampled", (*_RECTOOLS, "sasrec-sampled", "rectools", 2)),
    *_long(
        "sasrec-bce",
        "sasrec-bce",
        (*_PMIXER, "sasrec-bce", "torch", 16),
        (*_ANTKLEN, "sasrec-bce", "torch", 16),
        (*_RECTOOLS, "sasrec-bce", "rectools", 16),
    ),
    *_long("gsasrec", "gsasrec", (*_ASASH, "gsasrec", "torch", 2), (*_RECTOOLS, "gsasrec", "rectools", 2)),
    *_long("esasrec", "esasrec", (*_RECTOOLS, "esasrec", "rectools", 2)),
    *_long(
        "bert4rec",
        "bert4rec",
        (*_ANTKLEN, "bert4rec", "torch", 4),
        (*_RECTOOLS, "bert4rec", "rectools", 3),
        (*_RECBOLE, "bert4rec-long", "recbole", 6),
    ),
    *_long("hstu", "hstu", (*_RECTOOLS, "hstu", "rectools", 4)),
    *_long("hstu-time", "hstu-time", (*_RECTOOLS, "hstu-time", "rectools", 3)),
    *_long("gru", None, (*_ANTKLEN, "gru", "torch", 6), (*_RECBOLE, "gru4rec-long", "recbole", 16)),
    *_long("caser", "caser", (*_CASER, "caser", "torch", 150)),
    *_short("srgnn", "srgnn", (*_SRGNN, "srgnn", "torch", 50), (*_RECBOLE, "srgnn", "recbole", 40)),
    *_short("narm", "narm", (*_RECBOLE, "narm", "recbole", 40)),
    *_short("stamp", "stamp", (*_RECBOLE, "stamp", "recbole", 60)),
    *_short("gru4rec", None, (*_RECBOLE, "gru4rec", "recbole", 40)),
    *_short("caser-ce", None, (*_RECBOLE, "caser", "recbole", 80)),
]
