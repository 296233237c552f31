"""The words of a `Description`: everything worth reading, aligned for a terminal."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np

from nextsession.config import duration_text
from nextsession.data.describe import AGES, DAY, Description, share


def _moment(ms: int) -> str:
    """Write an instant as people read it, in UTC.

    >>> _moment(1506826828020)
    '2017-10-01 03:00'
    """
    return f"{datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms):%Y-%m-%d %H:%M}"


def lines(d: Description) -> Iterator[str]:
    """Give the lines of a description, one thing a line."""
    yield f"users       {d.users:>14,}"
    yield f"sessions    {d.sessions:>14,}   {share(d.sessions, d.users):.1f} a user"
    per_item = f"{share(d.events, d.items_seen):,.1f} an item"
    yield f"events      {d.events:>14,}   {share(d.events, d.sessions):.1f} a session, {per_item}"
    unused = "" if d.items == d.items_seen else f"   {d.items - d.items_seen:,} of them never occur"
    yield f"items       {d.items:>14,}{unused}"
    if d.first is None or d.last is None:
        yield "time        only the order of the events is known" if d.events else "time        there are no events"
    else:
        days = (d.last - d.first) / DAY
        yield f"time        {_moment(d.first)} to {_moment(d.last)} UTC, {days:,.1f} days"
    yield ""
    yield from _table(d)
    yield ""
    one = f"{d.one_event_sessions:.1%} of the sessions have one event"
    yield f"single      {one}, {d.one_session_users:.1%} of the users one session"
    p = d.popularity
    yield f"popularity  1 % of the items have {p.top_share[0]:.1%} of the events, 10 % have {p.top_share[1]:.1%}"
    yield f"            Gini {p.gini:.3f}"
    r = d.repeats
    yield (
        f"repeats     {r.session:.1%} of the events are on an item of the same session "
        f"({r.before:.1%} on the one just before),"
    )
    yield f"            {r.history:.1%} on an item of the user's history"
    wanted = f"{d.labels.wanted:,} wanted ({share(d.labels.wanted, d.events):.1%})"
    nothing = f"; nothing was wanted in {d.labels.sessions_without:.1%} of the sessions" if d.labels.ignored else ""
    yield f"labels      {wanted}, {d.labels.ignored:,} shown and ignored{nothing}"
    if d.actions:
        parts = [f"{name} {count:,} ({share(count, d.events):.1%})" for name, count in d.actions.items()]
        yield f"actions     {', '.join(parts)}"
    if d.newness is not None:
        ages = zip((duration_text(age) for age in AGES), d.newness.younger_than, strict=True)
        yield f"new items   of the later half of the events, {d.newness.unseen:.1%} are on items not seen in"
        yield "            the earlier half; on items first seen less than"
        yield f"            {', '.join(f'{age} ago: {part:.1%}' for age, part in ages)}"
    if d.timeline is not None:
        hours = np.array(d.timeline.hours)
        yield f"hours       busiest at {hours.argmax():02d}:00, quietest at {hours.argmin():02d}:00 UTC"


def _table(d: Description) -> Iterator[str]:
    heads = ("mean", "least", "25 %", "median", "75 %", "90 %", "99 %", "most")
    yield f"{'':<24}" + "".join(f"{head:>10}" for head in heads)
    rows = (
        ("events of a session", d.session_events),
        ("sessions of a user", d.user_sessions),
        ("events of a user", d.user_events),
        ("events of an item", d.item_events),
        ("minutes of a session", d.session_minutes),
        ("hours to the next one", d.return_hours),
    )
    for name, spread in rows:
        if spread is not None:
            yield f"{name:<24}" + "".join(f"{_number(x):>10}" for x in (spread.mean, *spread.quantiles))


def _number(x: float) -> str:
    if math.isnan(x):
        return "-"
    if x >= 10_000_000:
        return f"{x:.2e}"
    return f"{x:,.0f}" if x == int(x) or x >= 1000 else f"{x:,.2f}"
