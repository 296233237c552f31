"""`nextsession data prepare`: from raw files, or a named set, to a prepared log."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nextsession.cli.request import agree, data_table
from nextsession.cli.terminal import DryRun, Json, Overrides, bars, examples, remark, show, show_json, show_table
from nextsession.errors import ConfigError

if TYPE_CHECKING:
    from nextsession.data.prepared import Prepared
    from nextsession.experiment import Experiment

EXAMPLES = examples(
    "nextsession data prepare clicks.csv --user visitor --item product --time at --gap 30m --out prepared/shop",
    "nextsession data prepare globo --min-item-events 5",
    "nextsession data prepare clicks.csv --items goods.csv --items-title name --items-number price",
    "nextsession data prepare 'clicks/*.csv.gz' --config recipes/start.toml --dry-run",
)

_COLUMNS = "Columns"
_SESSIONS = "Sessions"
_ITEMS = "What is known of the items"
_FILTERS = "Filters, repeated until nothing changes"


def prepare(
    logs: Annotated[list[str], typer.Argument(metavar="LOG|SET", help="Files, patterns, -, or one data set.")],
    out: Annotated[Path | None, typer.Option("--out", help="Where it goes; into the cache if not given.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Read its tables data.format, data.items, sessions and filters.")
    ] = None,
    overrides: Overrides = None,
    user: Annotated[str | None, typer.Option("--user", help="'': there is none.", rich_help_panel=_COLUMNS)] = None,
    item: Annotated[str | None, typer.Option("--item", rich_help_panel=_COLUMNS)] = None,
    time: Annotated[str | None, typer.Option("--time", help="'': there is none.", rich_help_panel=_COLUMNS)] = None,
    session: Annotated[str | None, typer.Option("--session", rich_help_panel=_COLUMNS)] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="What says if an event was wanted.", rich_help_panel=_COLUMNS)
    ] = None,
    at_least: Annotated[
        float | None, typer.Option("--label-at-least", help="Wanted from this on.", rich_help_panel=_COLUMNS)
    ] = None,
    label_values: Annotated[
        list[str] | None, typer.Option("--label-value", help="Wanted if it is this; repeat.", rich_help_panel=_COLUMNS)
    ] = None,
    action: Annotated[str | None, typer.Option("--action", rich_help_panel=_COLUMNS)] = None,
    position: Annotated[str | None, typer.Option("--position", rich_help_panel=_COLUMNS)] = None,
    features: Annotated[
        list[str] | None, typer.Option("--feature", help="Kept beside each event; repeat.", rich_help_panel=_COLUMNS)
    ] = None,
    time_unit: Annotated[
        str | None, typer.Option("--time-unit", help="auto, s, ms, us, ns or iso.", rich_help_panel=_COLUMNS)
    ] = None,
    delimiter: Annotated[str | None, typer.Option("--delimiter", help="Of a csv.", rich_help_panel=_COLUMNS)] = None,
    items: Annotated[
        Path | None, typer.Option("--items", help="A file with a row an item.", rich_help_panel=_ITEMS)
    ] = None,
    item_id: Annotated[
        str | None, typer.Option("--items-id", help="Its column of ids.", rich_help_panel=_ITEMS)
    ] = None,
    title: Annotated[str | None, typer.Option("--items-title", rich_help_panel=_ITEMS)] = None,
    categories: Annotated[
        list[str] | None, typer.Option("--items-category", help="Values parted by |; repeat.", rich_help_panel=_ITEMS)
    ] = None,
    numbers: Annotated[
        list[str] | None, typer.Option("--items-number", help="Binned; repeat.", rich_help_panel=_ITEMS)
    ] = None,
    by: Annotated[str | None, typer.Option("--by", help="gap, id, time or user.", rich_help_panel=_SESSIONS)] = None,
    gap: Annotated[
        str | None, typer.Option("--gap", help="Silence that ends a session: 30m.", rich_help_panel=_SESSIONS)
    ] = None,
    item_events: Annotated[int | None, typer.Option("--min-item-events", rich_help_panel=_FILTERS)] = None,
    user_events: Annotated[int | None, typer.Option("--min-user-events", rich_help_panel=_FILTERS)] = None,
    user_sessions: Annotated[int | None, typer.Option("--min-user-sessions", rich_help_panel=_FILTERS)] = None,
    session_events: Annotated[int | None, typer.Option("--min-session-events", rich_help_panel=_FILTERS)] = None,
    session_positives: Annotated[int | None, typer.Option("--min-session-positives", rich_help_panel=_FILTERS)] = None,
    longest_session: Annotated[int | None, typer.Option("--longest-session", rich_help_panel=_FILTERS)] = None,
    bad_rows: Annotated[
        str | None, typer.Option("--bad-rows", help="fail, or quarantine them with a count and a list.")
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Read a raw log, cut it into sessions, filter it, and keep it in a form that opens at once.

    Sessions come of a silence of 30 minutes unless told otherwise; with --session, of that column.
    """
    columns = {
        "user": user, "item": item, "time": time, "session": session, "label": label, "action": action,
        "position": position, "features": features,
    }  # fmt: skip
    filters = {
        "item_events": item_events, "user_events": user_events, "user_sessions": user_sessions,
        "session_events": session_events, "session_positives": session_positives, "longest_session": longest_session,
    }  # fmt: skip
    form = {
        "columns": _given(columns),
        "labels": _given({"at_least": at_least, "values": label_values}),
        "time_unit": time_unit,
        "delimiter": delimiter,
    }
    known = {"path": items and str(items), "id": item_id, "title": title, "categories": categories, "numbers": numbers}
    rule = _given({"by": by or ("id" if session else None), "gap": gap})
    read = _given({"format": _given(form), "bad_rows": bad_rows, "items": _given(known)})
    wanted = _experiment(logs, config, overrides or [], read, rule, _given(filters))
    if dry_run:
        _say_what_would_be_done(wanted, json)
        return
    with bars() as progress:
        from nextsession import sources

        prepared = sources.prepare(wanted, out, agree=agree, progress=progress)
    if json:
        show_json({"path": str(prepared.path), **prepared.manifest})
    else:
        _account(prepared)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, {}, [])}


def _experiment(
    logs: list[str],
    config: Path | None,
    overrides: list[str],
    read: dict[str, Any],
    rule: dict[str, Any],
    filters: dict[str, Any],
) -> "Experiment":
    """Make an experiment of the file, if there is one, and of the flags, which win."""
    from nextsession.experiment import Experiment, read_toml

    tables = {} if config is None else read_toml(config)
    source = data_table(logs[0]) if len(logs) == 1 else {"path": logs}
    if "prepared" in source or "shop" in source:
        raise ConfigError(f"{logs[0]} is prepared already.")
    how = {name: x for name, x in tables.get("data", {}).items() if name in ("format", "bad_rows", "items")}
    found: dict[str, Any] = {"data": _merged(how, read) | source}
    for name, flags in (("sessions", rule), ("filters", filters)):
        table = _merged(tables.get(name, {}), flags)
        if table:
            found[name] = table
    return Experiment.load(None, overrides, **found)


def _merged(table: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(table)
    for name, value in flags.items():
        inner = merged.get(name, {})
        merged[name] = _merged(inner, value) if isinstance(value, Mapping) and isinstance(inner, Mapping) else value
    return merged


def _say_what_would_be_done(experiment: "Experiment", as_json: bool) -> None:
    from nextsession.sources import preview

    seen = preview(experiment)
    files = [{"file": str(file), "bytes": size} for file, size in seen.files]
    if as_json:
        settings = {name: x.model_dump(mode="json") for name, x in seen.settings.items()}
        show_json({"files": files, **settings, "rows": seen.rows})
        return
    size = sum(size for _, size in seen.files)
    show(f"Would read {len(files):,} file{'' if len(files) == 1 else 's'}, {size:,} bytes:")
    for file in files[:10]:
        show(f"  {file['file']}  {file['bytes']:,} bytes")
    if len(files) > 10:
        show(f"  and {len(files) - 10:,} more")
    for name, part in seen.settings.items():
        text = ", ".join(f"{k}={v!r}" for k, v in part.model_dump(mode="json", exclude_defaults=True).items())
        show(f"{name}: {text or 'defaults'}")
    show("First rows as understood:")
    show_table(list(seen.rows[0]) if seen.rows else ["no usable row"], [list(row.values()) for row in seen.rows])
    for line in seen.rejected:
        show(f"cannot be used: {line}")


def _account(prepared: "Prepared") -> None:
    log, manifest = prepared.log, prepared.manifest
    account = manifest.get("filters")
    if account:
        sizes = ("users", "sessions", "events", "items")
        rows = [["before", *(f"{account['before'][x]:,}" for x in sizes)]]
        for step in account["removals"]:
            removed = (f"-{step['removed'][x]:,}" if step["removed"][x] else "" for x in sizes)
            rows.append([f"round {step['round']}: {step['rule']} {step['least']}", *removed])
        rows.append(["after", *(f"{account['after'][x]:,}" for x in sizes)])
        show_table(["filters", *sizes], rows)
    show(f"{log.n_events:,} events, {len(log):,} users, {log.n_sessions:,} sessions, {log.n_items:,} items")
    wanted = manifest["counts"]["wanted"]
    if wanted < log.n_events:
        show(f"{wanted:,} events were wanted, {log.n_events - wanted:,} shown and ignored")
    if manifest.get("quarantined"):
        show(f"{manifest['quarantined']:,} rows could not be used: {prepared.path / 'rejected.csv'}")
    if manifest.get("unwanted"):
        show(f"{manifest['unwanted']:,} events were not wanted and are left out")
    if prepared.questions is not None:
        show(f"{len(prepared.questions):,} questions come with it (split.protocol = 'prefixes')")
    for name, value in manifest.get("notes", {}).items():
        if isinstance(value, int):
            show(f"{name}: {value:,}")
    show(str(prepared.path))
    remark(f"Next: nextsession data describe {prepared.path}")
