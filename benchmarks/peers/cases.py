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


Mine = tuple[str, int] | None
Peer = tuple[str, str, str, str, int]


def _group(group: str, data: Data, mine: Mine, *peers: Peer) -> list[Case]:
    """Cases of a group: our model and its steps, if there is one, and the peers."""
    found = [] if mine is None else [Case(group, OURS, "ours.py", mine[0], OURS, data, mine[1])]
    return found + [Case(group, peer, script, name, where, data, steps) for peer, script, name, where, steps in peers]


_ANTKLEN = ("antklen/sasrec-bert4rec-recsys23", "antklen.py")
_ASASH = ("asash/gSASRec-pytorch", "gsasrec_pytorch.py")
_PMIXER = ("pmixer/SASRec.pytorch", "sasrec_pytorch.py")
_SRGNN = ("CRIPAC-DIG/SR-GNN", "srgnn_pytorch.py")
_CASER = ("graytowne/caser_pytorch", "caser_pytorch.py")
_RECTOOLS = ("RecTools", "rectools_models.py")
_RECBOLE = ("RecBole", "recbole_models.py")

CASES = [
    *_group(
        "sasrec-ce",
        "ml-1m",
        ("sasrec-ce", 24),
        (*_ANTKLEN, "sasrec-ce", "torch", 6),
        (*_RECTOOLS, "sasrec-ce", "rectools", 3),
        (*_RECBOLE, "sasrec-long", "recbole", 12),
    ),
    Case("sasrec-ce", f"{OURS}, bfloat16", "ours.py", "sasrec-bf16", OURS, "ml-1m", 24),
    *_group("sasrec-3000", "ml-1m", ("sasrec-3000", 24), (*_ANTKLEN, "sasrec-3000", "torch", 4)),
    *_group("sasrec-sampled", "ml-1m", ("sasrec-sampled", 20), (*_RECTOOLS, "sasrec-sampled", "rectools", 2)),
    *_group(
        "sasrec-bce",
        "ml-1m",
        ("sasrec-bce", 47),
        (*_PMIXER, "sasrec-bce", "torch", 16),
        (*_ANTKLEN, "sasrec-bce", "torch", 16),
        (*_RECTOOLS, "sasrec-bce", "rectools", 16),
    ),
    *_group(
        "gsasrec", "ml-1m", ("gsasrec", 24), (*_ASASH, "gsasrec", "torch", 2), (*_RECTOOLS, "gsasrec", "rectools", 2)
    ),
    *_group("esasrec", "ml-1m", ("esasrec", 16), (*_RECTOOLS, "esasrec", "rectools", 2)),
    *_group(
        "bert4rec",
        "ml-1m",
        ("bert4rec", 24),
        (*_ANTKLEN, "bert4rec", "torch", 4),
        (*_RECTOOLS, "bert4rec", "rectools", 3),
        (*_RECBOLE, "bert4rec-long", "recbole", 6),
    ),
    *_group("hstu", "ml-1m", ("hstu", 24), (*_RECTOOLS, "hstu", "rectools", 4)),
    *_group("hstu-time", "ml-1m", ("hstu-time", 24), (*_RECTOOLS, "hstu-time", "rectools", 3)),
    *_group("gru", "ml-1m", ("gru", 24), (*_ANTKLEN, "gru", "torch", 6), (*_RECBOLE, "gru4rec-long", "recbole", 16)),
    *_group("caser", "ml-1m", ("caser", 12), (*_CASER, "caser", "torch", 150)),
    *_group(
        "srgnn", "diginetica", ("srgnn", 120), (*_SRGNN, "srgnn", "torch", 50), (*_RECBOLE, "srgnn", "recbole", 40)
    ),
    *_group("narm", "diginetica", ("narm", 120), (*_RECBOLE, "narm", "recbole", 40)),
    *_group("stamp", "diginetica", ("stamp", 120), (*_RECBOLE, "stamp", "recbole", 60)),
    *_group("gru4rec", "diginetica", None, (*_RECBOLE, "gru4rec", "recbole", 40)),
    *_group("caser-ce", "diginetica", None, (*_RECBOLE, "caser", "recbole", 80)),
]
