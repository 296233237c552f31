"""The tables of the docs, from the rows of `run.py`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from cases import GROUPS, OURS

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "docs" / "explanation" / "neural-speed.md", ROOT / "benchmarks" / "peers" / "README.md")
MARKS = ("<!-- peers: {} -->", "<!-- end of peers -->")
Row = Mapping[str, dict]


def write(rows: Mapping[str, dict], *, check: bool) -> int:
    """Put the tables between their marks; return 1 if `check` finds a page that is not what the rows say."""
    tables = {"throughput": throughput(rows), "facts": facts(rows)}
    stale = 0
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = before
        for name, table in tables.items():
            after = between(after, MARKS[0].format(name), table)
        if after != before:
            stale = 1
            if check:
                print(f"{page.relative_to(ROOT)} is not what the rows say: run python benchmarks/peers/run.py --table")
            else:
                page.write_text(after, encoding="utf-8")
    return stale if check else 0


def between(text: str, mark: str, table: str) -> str:
    head, found, rest = text.partition(mark)
    if not found:
        return text
    return f"{head}{mark}\n{table}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}"


def throughput(rows: Mapping[str, dict]) -> str:
    parts = []
    for group, title in GROUPS.items():
        found = [row for row in rows.values() if row["group"] == group and row["measurements"]]
        if found:
            parts.append(f"**{title}**\n\n{comparison(found)}")
    return "\n\n".join(parts) or "Not measured yet."


def comparison(rows: Sequence[dict]) -> str:
    head = ["code", "as shipped", "with the cheap fixes", "ours is, times", "peak MB", "events read"]
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    by_code: dict[tuple[str, str], dict[str, dict]] = {}
    for row in rows:
        by_code.setdefault((row["peer"], row["model"]), {})[row["variant"]] = row
    ours = next((found for (peer, _), found in by_code.items() if peer == OURS), None)
    for (peer, _), found in sorted(by_code.items(), key=lambda pair: not pair[0][0].startswith(OURS)):
        lines.append(
            [
                peer,
                *(shown(found.get(variant)) for variant in ("shipped", "fixes")),
                "" if ours is None or peer.startswith(OURS) else ratios(ours, found),
                " / ".join(f"{peak(found[variant]):,}" for variant in ("shipped", "fixes") if variant in found),
                inputs(found.get("shipped")),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rates(row: dict) -> list[float]:
    return [measured["positions"] / measured["cpu_s"] for measured in row["measurements"]]


def shown(row: dict | None) -> str:
    """Best and median, in positions a CPU-second."""
    return "" if row is None else f"{max(rates(row)):,.0f} ({median(rates(row)):,.0f})"


def peak(row: dict) -> int:
    return max(measured["peak_mb"] for measured in row["measurements"])


def inputs(row: dict | None) -> str:
    """Events a CPU-second that are read again and again for a position, where a code base does that."""
    found = (
        [] if row is None else [m["inputs"] / m["cpu_s"] for m in row["measurements"] if m["inputs"] > m["positions"]]
    )
    return f"{max(found):,.0f}" if found else ""


def ratios(ours: Mapping[str, dict], peer: Mapping[str, dict]) -> str:
    """Best to best: against the peer as shipped, and with the fixes; ours is as shipped in both."""
    mine = max(rates(ours["shipped"]))
    return " / ".join(f"{mine / max(rates(peer[variant])):.1f}" for variant in ("shipped", "fixes") if variant in peer)


def facts(rows: Mapping[str, dict]) -> str:
    """What each model is, as its own code says once it is built."""
    head = ["model", "code", "parameters", "layers", "heads", "width", "loss", "first and last loss", "versions"]
    lines = [head, ["---"] * len(head)]
    for row in rows.values():
        if row["variant"] != "shipped" or not row["measurements"]:
            continue
        found, losses = row["facts"], row["measurements"][-1]["losses"]
        lines.append(
            [
                GROUPS[row["group"]],
                row["peer"],
                f"{found['parameters']:,}",
                *(str(found.get(name) or "") for name in ("layers", "heads", "width", "loss")),
                " ".join(map(str, losses)),
                ", ".join(f"{name} {version}" for name, version in row["versions"].items()),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if len(lines) > 2 else "Not measured yet."
