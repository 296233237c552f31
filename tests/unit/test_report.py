"""Reports: what a page says, that nothing strange in the rows can break it, and that it needs nothing but itself."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextsession.comparison import Cost, Difference, ModelSpec, Row, compare
from nextsession.data.shop import Shop
from nextsession.errors import DataError
from nextsession.evaluation import EvaluationSettings
from nextsession.report import html, markdown, write_html, write_markdown
from nextsession.report.charts import _apart, charts
from nextsession.report.leaderboard import Leaderboard
from nextsession.splits import SplitSettings, split

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> $\\frac{1}{ | `x` 🫖\u202e\x00\n"
METRICS = ["ndcg@10", "ndcg@20", "recall@10", "recall@20", "mrr@10", "coverage@10"]


def row(model: str = "popular", mean: float = 0.1, **changes) -> Row:
    metrics = {name: {"mean": mean, "low": 0.9 * mean, "high": 1.1 * mean} for name in METRICS}
    metrics["recall@20"] = {"mean": 1.5 * mean, "low": 1.4 * mean, "high": 1.6 * mean}
    metrics["coverage@10"] = {"mean": 0.2, "low": 0.2, "high": 0.2}
    groups = [{"group": g, "n": 40, "metrics": dict.fromkeys(METRICS, mean)} for g in ("0", "1", "2")]
    values = {
        "key": f"{model}-{mean}",
        "data": {"name": "globo", "fingerprint": "f00d", "train": {"users": 10, "sessions": 20, "events": 4000}},
        "protocol": {
            "name": "temporal", "settings": {"task": "next-item", "test": "1d"}, "candidates": "all",
            "exclude": "nothing", "ties": "median", "k": [10, 20],
        },
        "model": model, "settings": {}, "seed": 0, "reads_clock": False,
        "cost": Cost(fit_cpu_s=1.5, answer_cpu_ms=0.25 * (1 + mean), peak_rss_mb=300.0, bytes=1_234_567),
        "metrics": metrics,
        "breakdown": {"session_length": groups, "item_popularity": groups},
        "calibration": {"targets": [0.1] * 10, "deciles": [0.19] + [0.09] * 9},
        "questions": {"n": 1234, "targets": 1300, "skipped": 3, "unknown_share": 0.05, "barred_share": 0.0},
        "versions": {"nextsession": "0.1.0"}, "commit": "abc123", "command": "nextsession compare globo.toml",
    }  # fmt: skip
    return Row(**(values | changes))


def table() -> list[Row]:
    leader = Difference("markov", "ndcg@10", 0.05, 0.01, 0.09)
    behind = Difference("vsknn", "ndcg@10", -0.05, -0.09, 0.01)
    return [
        row("popular", 0.1, differences=[replace(behind, high=-0.01)]),
        row("markov", 0.25, differences=[behind]),
        row("vsknn", 0.3, reads_clock=True, differences=[leader]),
        row("oracle", 0.5),
        row("bprmf", 0.0, metrics={}, failure="Over budget: it used more than 3 CPU-seconds."),
    ]


class Page(HTMLParser):
    """Reads a page and keeps what its tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_leader_comes_first_and_the_oracle_and_failures_stand_apart():
    board = Leaderboard(table())
    assert [(e.name, e.place) for e in board.entries] == [("vsknn", 1), ("markov", 2), ("popular", 3)]
    assert board.reference.name == "oracle"
    assert [e.name for e in board.failures] == ["bprmf"]
    assert board.of_reference(board.entries[0]) == pytest.approx(0.6)
    assert board.best("ndcg@10") == 0.3
    assert board.best("coverage@10") is None
    assert board.shown == ["ndcg@10", "recall@10", "mrr@10", "coverage@10"]


def test_only_a_paired_difference_from_the_leader_that_includes_zero_makes_two_alike():
    board = Leaderboard(table())
    assert [board.indistinct(e, "ndcg@10") for e in board.entries] == [False, True, False]
    assert not board.indistinct(board.entries[1], "recall@10")
    assert "cannot be told from markov" in board.verdict()
    other = replace(table()[1], differences=[Difference("popular", "ndcg@10", 0.0, -1.0, 1.0)])
    assert not Leaderboard([table()[2], other]).indistinct(Leaderboard([table()[2], other]).entries[1], "ndcg@10")


def test_the_verdict_says_who_leads_by_how_much_and_how_far_that_is_from_the_possible():
    verdict = Leaderboard(table()).verdict()
    assert verdict.startswith("vsknn leads with NDCG@10 0.300 (0.270 to 0.330), 0.050 above markov")
    assert "60% of what the oracle" in verdict
    assert "oracle" not in Leaderboard(table()[:3]).verdict()


def test_the_page_shows_the_numbers_and_what_they_rest_on():
    page = Page(html(table(), when="2 May 2026"))
    for text in (
        "globo · temporal", "2 May 2026", "1,234, with 1,300 wanted items", "all items a model knows", "median",
        "nothing: any item may be listed", "10 users, 20 sessions, 4,000 events", "10, 20", "0.300", "0.270 – 0.330",
        "1.2 MB", "300 MB", "5.0%", "◷", "≈", "Over budget", "nextsession compare globo.toml", "abc123", "60%",
        "knows the truth of this simulated log", "test", "1d",
    ):  # fmt: skip
        assert text in page.text, text


def test_every_plot_is_drawn_when_the_rows_hold_its_numbers():
    titles = [chart.title for chart in charts(Leaderboard(table()))]
    assert titles == [
        "Paired differences", "Quality and cost", "Recall by length of the list", "By length of the session",
        "By popularity of the item", "Calibration of popularity", "Quality and variety",
    ]  # fmt: skip
    bare = row(metrics={"ndcg@10": {"mean": 0.1, "low": 0.1, "high": 0.1}}, breakdown={}, calibration={}, cost=Cost())
    assert charts(Leaderboard([bare])) == []
    assert "–" in Page(html([bare])).text


def test_curves_of_learning_are_drawn_for_models_that_have_them():
    losses = {"epoch": [1.0, 2.0, 3.0], "loss": [7.5, 6.25, 5.0]}
    rows = [
        row("sasrec", 0.3, curve={**losses, "ndcg@10": [0.1, None, 0.3]}),
        row("caser", 0.2, curve={"epoch": [1.0, 2.0], "loss": [0.6, 0.4]}),
        row("popular", 0.1),
    ]
    found = {chart.title: chart for chart in charts(Leaderboard(rows))}
    loss, validation = found["Loss while learning"].svg, found["Validation while learning"].svg
    assert "sasrec" in loss
    assert "caser" in loss
    assert "popular" not in loss
    assert "$" not in loss  # powers of ten are plain numbers
    assert "sasrec" in validation
    assert "caser" not in validation
    assert "Loss while learning" in html(rows)


def test_the_page_loads_nothing():
    text = html(table())
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"link", "img", "iframe", "object", "embed", "base", "image"}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert value.startswith("#"), (tag, name, value)
    assert set(re.findall(r"https?://[^\s\"')<]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "@import" not in text
    assert "url(" not in re.sub(r"url\(#", "", text)


def test_only_our_script_may_run():
    text = html(table())
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(a["content"] for t, a in Page(text).tags if t == "meta" and "http-equiv" in a)
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_hostile_names_are_only_text():
    rows = [
        row(HOSTILE, 0.3, settings={HOSTILE: HOSTILE}, versions={HOSTILE: HOSTILE}, command=HOSTILE, commit=HOSTILE),
        row("b" * 300, 0.2, differences=[Difference(HOSTILE, "ndcg@10", -0.1, -0.2, 0.1)]),
        row("broken", metrics={}, failure=HOSTILE),
    ]
    rows = [replace(r, data=r.data | {"name": HOSTILE, HOSTILE: [HOSTILE]}) for r in rows]
    text = html(rows, title=HOSTILE, when=HOSTILE, facts={HOSTILE: {HOSTILE: [{HOSTILE: HOSTILE}]}})
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "img" not in {tag for tag, _ in page.tags}
    assert "\x00" not in text
    assert "\u202e" not in text
    assert "alert(1)" in page.text


def test_pictures_take_their_colours_and_letters_from_the_page():
    text = html(table())
    svgs = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(svgs) == 7
    for svg in svgs:
        assert "var(--ink)" in svg or "var(--muted)" in svg
        assert not re.search(r"#0[01]0[0-9a-f]{3}", svg)
        assert "DejaVu" not in svg
        assert re.search(r"<text[^>]*>[^<]*[a-z]", svg)
        assert re.match(r'<svg role="img" aria-label="[^"]+"', svg)
    used = re.findall(r"(?:url\(#|href=\"#)([^\")]+)", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert set(used) <= set(ids)
    assert len(ids) == len(set(ids))


def test_the_same_rows_give_the_same_page():
    assert html(table()) == html(table())


def test_rows_of_different_tables_are_not_mixed():
    for name, value in (("ties", "optimistic"), ("exclude", "history"), ("candidates", "sampled"), ("k", [5])):
        other = row("markov")
        other = replace(other, protocol=other.protocol | {name: value})
        with pytest.raises(DataError, match=f"agree in {name}"):
            html([row(), other])
    with pytest.raises(DataError, match="agree in data"):
        markdown([row(), row("markov", data={"name": "globo", "fingerprint": "beef"})])


def test_nothing_to_show_is_refused():
    with pytest.raises(DataError, match="at least one row"):
        html([])
    with pytest.raises(DataError, match=r"No model .* \(popular: it broke\)"):
        html([row(metrics={}, failure="it broke")])


def test_names_tell_rows_apart_as_briefly_as_they_can():
    rows = [row("markov", 0.3), row("markov", 0.2, settings={"order": 2}), row("popular"), row("popular", 0.05, seed=1)]
    assert [e.name for e in Leaderboard(rows).entries] == [
        "markov",
        "markov(order=2)",
        "popular, seed 0",
        "popular, seed 1",
    ]
    same = [row("popular"), row("popular", 0.05)]
    assert len({e.name for e in Leaderboard(same).entries}) == 2
    assert Leaderboard([row("theirs", settings={"depth": 3})]).entries[0].changed == "depth=3"


def test_more_models_than_colours():
    rows = [row(f"model{i}", 0.1 + 0.01 * i) for i in range(14)]
    text = html(rows)
    assert text.count('class="swatch rest"') > 0
    assert "model0" in Page(text).text


def test_markdown_is_a_table_whatever_the_names():
    lines = markdown([*table()[:3], row(HOSTILE, 0.01)]).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1
    assert len(rows) == 2 + 4
    assert "| 1 | vsknn ◷ | **0.300** [0.270, 0.330] |" in rows[2]
    assert "<script>" not in "".join(lines)
    assert "- Ties: median" in "\n".join(lines)
    assert any("oracle" in line for line in markdown(table()).splitlines())
    assert "Over budget" in markdown(table())


def test_files_appear_whole_or_not_at_all(tmp_path):
    page, text = tmp_path / "report.html", tmp_path / "report.md"
    assert write_html(table(), page) == page
    assert write_markdown(table(), text) == text
    written = page.read_text(encoding="utf-8")
    assert written == html(table())
    with pytest.raises(DataError):
        write_html([], page)
    assert page.read_text(encoding="utf-8") == written
    assert sorted(tmp_path.iterdir()) == [page, text]


def test_missing_baselines_are_named():
    rows = [replace(r, missing_baselines=["session kNN"]) for r in table()]
    assert "lacks simple models" in Page(html(rows)).text
    assert "session kNN" in markdown(rows)
    assert "lacks" not in markdown(table())


heights = st.lists(st.floats(-50, 200), max_size=12).map(sorted)


@given(heights)
def test_labels_keep_their_order_and_do_not_touch(wanted):
    found = _apart(wanted, 10.0, 0.0, 150.0)
    assert len(found) == len(wanted)
    assert all(b - a >= 10.0 - 1e-6 for a, b in pairwise(found))
    free = all(b - a >= 10 for a, b in pairwise(wanted))
    if free and all(0 <= w <= 150 for w in wanted):
        assert found == pytest.approx(wanted)


def test_a_comparison_on_the_shop_becomes_a_page_with_the_oracle_on_top(tmp_path):
    shop = Shop(users=60, items=80, seed=3)
    parts = split(shop.log(), SplitSettings(test="3d"))
    specs = [ModelSpec("popular"), ModelSpec("oracle", shop.settings.model_dump())]
    rows = compare(parts, specs, EvaluationSettings(bootstrap=20), out=tmp_path, data="shop")
    board = Leaderboard(rows)
    assert board.reference.mean(board.primary) > 1.5 * board.entries[0].mean(board.primary)
    assert "of what the oracle" in Page(html(rows)).text
