"""What every table must say beside its numbers: data, protocol, candidates, rules, how many questions."""

import json
from collections.abc import Mapping
from typing import Any

from nextsession.report.leaderboard import Leaderboard, plain

_EXCLUDED = {
    "nothing": "nothing: any item may be listed",
    "session": "items of the last session known",
    "history": "items of the whole history",
}
_TIES = {
    "median": "median: a target stands in the middle of items with its score",
    "optimistic": "optimistic: a target stands before items with its score",
    "conservative": "conservative: a target stands after items with its score",
}


def about(board: Leaderboard) -> list[tuple[str, str]]:
    """Return the facts that all rows share, as pairs of name and text."""
    row = board.first
    data, protocol = row.data, row.protocol
    asked = max((entry.row.questions for entry in board.measured), key=len)
    unknown = [e.row.questions["unknown_share"] for e in board.measured if "unknown_share" in e.row.questions]
    barred = [e.row.questions["barred_share"] for e in board.measured if "barred_share" in e.row.questions]
    facts = [
        ("Data", plain(data.get("name", "log"))),
        ("Protocol", _protocol(protocol)),
        ("Learnt from", _counts(data.get("train", {}))),
        ("Questions", f"{asked.get('n', 0):,.0f}, with {asked.get('targets', 0):,.0f} wanted items"),
        ("Candidates", f"{plain(protocol.get('candidates', 'all'))} items a model knows"),
        ("Left out of lists", _EXCLUDED.get(str(protocol.get("exclude")), plain(protocol.get("exclude")))),
        ("Ties", _TIES.get(str(protocol.get("ties")), plain(protocol.get("ties")))),
        ("k", ", ".join(str(k) for k in protocol.get("k", []))),
        ("Unknown to the model, so missed", _shares(unknown)),
        ("Left out though wanted", _shares(barred)),
    ]
    if data.get("remark"):
        facts.append(("Note", plain(data["remark"])))
    if asked.get("skipped"):
        facts.append(("Questions without an answer, skipped", f"{asked['skipped']:,.0f}"))
    return [(name, text) for name, text in facts if text]


def provenance(board: Leaderboard) -> list[tuple[str, str]]:
    """Return what made the rows: versions, commit."""
    row = board.first
    facts = [(plain(name), plain(value)) for name, value in row.versions.items()]
    commits = sorted({plain(r.commit) for r in board.rows if r.commit})
    return facts + ([("commit", ", ".join(commits))] if commits else [])


def _protocol(protocol: Mapping[str, Any]) -> str:
    settings = protocol.get("settings") or {}
    task = settings.get("task") if isinstance(settings, Mapping) else None
    name = plain(protocol.get("name", "?"))
    return f"{name}, {plain(task)}" if task else name


def _counts(train: object) -> str:
    if not isinstance(train, Mapping):
        return ""
    return ", ".join(f"{n:,} {plain(what)}" for what, n in train.items() if isinstance(n, int))


def _shares(shares: list[float]) -> str:
    if not shares:
        return ""
    low, high = min(shares), max(shares)
    return f"{low:.1%}" if f"{low:.1%}" == f"{high:.1%}" else f"{low:.1%} to {high:.1%}, by model"


def settings_text(settings: Mapping[str, Any]) -> str:
    """Write settings as JSON, one a line."""
    text = json.dumps(settings, indent=1, ensure_ascii=False, default=str)
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
