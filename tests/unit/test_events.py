import datetime
import gzip
import io
import json
import sys
import tracemalloc
import types

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nextsession.data import events as reading
from nextsession.data.events import read_events
from nextsession.data.format import Columns, LogFormat
from nextsession.data.times import LATEST, Clock
from nextsession.errors import ConfigError, DataError

ROWS = [("u1", "a", "15"), ("u2", "b", "16"), ("u1", "c", "17")]
NAMES = ("user_id", "item_id", "timestamp")


def text(delimiter=",", header=True, rows=ROWS):
    return "".join(delimiter.join(row) + "\n" for row in ([NAMES] if header else []) + list(rows))


def read(source, form=None, **options):
    """All rows of all batches, and the batches."""
    batches = list(read_events(source, form or LogFormat(), **options))
    frames = [batch.frame.select(NAMES) for batch in batches if len(batch.frame)]
    return pl.concat(frames).rows() if frames else [], batches


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("a.csv", text(), None),
        ("a.tsv", text("\t"), None),
        ("a.csv", text(";"), None),
        ("a.txt", text("|"), LogFormat(delimiter="|")),
        ("a.dat", text("::"), LogFormat(delimiter="::")),
        ("a.dat", text("::", header=False), LogFormat(delimiter="::", header=NAMES)),
        ("a.csv", text(header=False), LogFormat(header=NAMES)),
        ("clicks.log", text(), LogFormat(kind="csv")),
        ("a.jsonl", "".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in ROWS), None),
        ("a.ndjson", "".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in ROWS), None),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_text_in_every_form_gives_text(name, content, form, packed, tmp_path):
    path = tmp_path / (f"{name}.gz" if packed and "log" not in name else name)
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    rows, batches = read(path, form)
    assert rows == ROWS
    assert {batch.source for batch in batches} == {str(path)}


def test_small_blocks_give_the_same_rows_and_numbers(tmp_path, monkeypatch):
    rows = [(f"u{k}", f"i{k}" if k % 7 else "a\nb", str(k)) for k in range(500)]
    lines = [",".join(NAMES)] + [f'{u},"{i}",{t}' for u, i, t in rows]
    lines[100:100] = ["", "broken"]
    lines[300:300] = ["broken,too", ""]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines))
    whole, few = read(path)
    monkeypatch.setattr("nextsession.data.delimited.BLOCK", 64)
    parts, many = read(path)
    assert whole == parts == rows
    assert len(many) > 50 > len(few)
    for batches in (few, many):
        numbers = [n for batch in batches for n in number(batch)]
        assert numbers == [k + 1 for k, line in enumerate(lines) if line.startswith("u") and k]
        rejected = [(r.row, r.value) for batch in batches for r in batch.rejected]
        assert rejected == [(102, "broken"), (301, "broken,too")]


def number(batch):
    if "__row__" in batch.frame.columns:
        return batch.frame["__row__"].to_list()
    return list(range(batch.first_row, batch.first_row + len(batch.frame)))


def test_small_blocks_of_double_colons_and_json(tmp_path, monkeypatch):
    rows = [(f"u{k}", f"i{k}", str(k)) for k in range(300)]
    (tmp_path / "a.dat").write_text(text("::", rows=rows).rstrip("\n"))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(dict(zip(NAMES, row, strict=True))) for row in rows))
    for module in ("delimited", "jsonlines", "streams"):
        monkeypatch.setattr(f"nextsession.data.{module}.BLOCK", 90)
    assert read(tmp_path / "a.dat", LogFormat(delimiter="::"))[0] == rows
    assert read(tmp_path / "a.jsonl")[0] == rows


def test_small_blocks_cut_no_character(tmp_path, monkeypatch):
    rows = [(f"ü{k}", "日本" + "🦊" * (k % 5), str(k)) for k in range(200)]
    (tmp_path / "a.csv").write_bytes(text(rows=rows).encode() + b"u,\xf0\x9f\xa6,1\n")
    monkeypatch.setattr("nextsession.data.delimited.BLOCK", 61)
    items = [item for batch in read_events(tmp_path / "a.csv", LogFormat()) for item in batch.frame["item_id"]]
    assert items[-1] == b"\xff"
    assert [i if isinstance(i, str) else i.decode() for i in items[:-1]] == [item for _, item, _ in rows]


def test_many_files_come_in_natural_order(tmp_path):
    for k in (10, 9, 100):
        (tmp_path / f"hour_{k}.csv").write_text(text(rows=[(f"u{k}", "a", "1")]))
    assert [user for user, _, _ in read(tmp_path / "hour_*.csv")[0]] == ["u9", "u10", "u100"]
    files = [tmp_path / "hour_100.csv", str(tmp_path / "hour_9.csv")]
    assert [user for user, _, _ in read(files)[0]] == ["u100", "u9"]


def test_a_name_that_only_looks_like_a_glob(tmp_path):
    path = tmp_path / "clicks[1].csv"
    path.write_text(text())
    assert read(path)[0] == ROWS


def test_only_the_columns_that_play_a_part_are_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("user_id,age,item_id,timestamp,device\nu,7,a,5,phone\n")
    form = LogFormat(columns=Columns(features=("device",)))
    (_, batch) = read_events(path, form)
    assert batch.frame.rows(named=True) == [{"user_id": "u", "item_id": "a", "timestamp": "5", "device": "phone"}]


def test_a_key_of_json_may_be_missing_from_the_first_events(tmp_path):
    lines = ['{"user_id":1,"item_id":2,"timestamp":3}', '{"user_id":1,"item_id":2,"timestamp":3,"device":"phone"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    form = LogFormat(columns=Columns(features=("device",)))
    frame = pl.concat([batch.frame for batch in read_events(tmp_path / "a.jsonl", form)])
    assert frame["device"].to_list() == [None, "phone"]
    with pytest.raises(DataError, match=r"there is no column 'devise' \(for features\)\. Did you mean 'device'\?"):
        read(tmp_path / "a.jsonl", LogFormat(columns=Columns(features=("devise",))))


def test_standard_input(monkeypatch):
    stdin = types.SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(text().encode())))
    monkeypatch.setattr(sys, "stdin", stdin)
    rows, batches = read("-")
    assert rows == ROWS
    assert batches[0].source == "standard input"


def test_parquet_cannot_come_from_a_pipe(monkeypatch):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=Pipe(b"PAR1")))
    with pytest.raises(ConfigError, match="cannot be read from a pipe"):
        read("-", LogFormat(kind="parquet"))


def test_parquet_keeps_its_types(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "ROWS", 2)
    table = pa.table({"user_id": [1, 2, 3], "item_id": ["a", "b", "c"], "x": [0, 0, 0], "timestamp": [5, 6, 7]})
    pq.write_table(table, tmp_path / "a.parquet")
    rows, batches = read(tmp_path / "a.parquet")
    assert rows == [(1, "a", 5), (2, "b", 6), (3, "c", 7)]
    assert [batch.first_row for batch in batches] == [1, 3]
    assert batches[0].frame.columns == list(NAMES)


def test_a_large_parquet_is_not_kept_while_it_is_read(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2**62, 600_000)
    table = pa.table({"user_id": noise, "item_id": noise, "timestamp": noise})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=50_000, use_dictionary=False, compression="none")
    tracemalloc.start()
    for _ in read_events(tmp_path / "a.parquet", LogFormat()):
        pass
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < (tmp_path / "a.parquet").stat().st_size / 2


@pytest.mark.parametrize("frame", [pa.table, pl.DataFrame])
def test_any_frame_that_speaks_arrow(frame, monkeypatch):
    monkeypatch.setattr(reading, "ROWS", 2)
    rows, batches = read(frame({"user_id": [1, 2, 3], "item_id": ["a", "b", "c"], "timestamp": [5, 6, 7]}))
    assert rows == [(1, "a", 5), (2, "b", 6), (3, "c", 7)]
    assert [(batch.source, batch.first_row) for batch in batches] == [("the frame", 1), ("the frame", 3)]
    with pytest.raises(DataError, match="the frame: there is no column 'timestamp'"):
        read(frame({"user_id": [1], "item_id": [2]}))


def test_progress_counts_bytes_of_all_files(tmp_path):
    sizes = []
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(text())
        sizes.append((tmp_path / name).stat().st_size)
    heard = []
    read(tmp_path / "*.csv", progress=lambda *said: heard.append(said))
    assert heard[-1] == ("read", sum(sizes), sum(sizes))
    done = [done for _, done, _ in heard]
    assert done == sorted(done)


# -- times ---------------------------------------------------------------------------------------


def times(values, unit="auto", dtype=None):
    column = pl.Series("t", values, dtype=dtype)
    ms, known = Clock(unit).read(column, "log", np.arange(len(values)))
    return [int(value) if ok else None for value, ok in zip(ms, known, strict=True)]


MS = 1_396_860_669_277


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1396860669"], [1_396_860_669_000]),
        (["1396860669.277"], [MS]),
        (["1396860669.277", "1396860670"], [MS, 1_396_860_670_000]),
        (["1396860669277"], [MS]),
        (["1396860669277123"], [MS]),
        (["1396860669277999999"], [MS]),
        ([1396860669.277], [MS]),
        ([MS], [MS]),
        ([MS * 1000 + 999], [MS]),
        ([MS * 1_000_000], [MS]),
        (["2014-04-07T08:51:09.277Z", "2014-04-07T08:51:09.277"], [MS, MS]),
        (["2014-04-07 08:51:09.277", "2014-04-07 10:51:09.277+02:00"], [MS, MS]),
        (["2014-04-07 08:51:09.277 UTC", "2014-04-07T08:51"], [MS, MS - 9277]),
        (["2014-04-07"], [1_396_828_800_000]),
        ([datetime.datetime(2014, 4, 7, 8, 51, 9, 277000)], [MS]),
        ([datetime.date(2014, 4, 7)], [1_396_828_800_000]),
        (["", "x", "2014-02-30", None], [None] * 4),
        ([1.5, float("nan"), None], [1500, None, None]),
        ([None, None], [None, None]),
        (["0"], [0]),
    ],
)
def test_times_are_read_by_their_magnitude(values, expected):
    assert times(values) == expected


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [("s", "15", 15_000), ("ms", "15", 15), ("us", "15000", 15), ("ns", "15000000", 15), ("s", "1.5", 1500)],
)
def test_a_unit_that_is_given_holds(unit, value, expected):
    assert times([value], unit) == times([float(value)], unit) == [expected]


def test_times_out_of_range_are_clipped_to_marks():
    assert times(["-5", "1e300"], "s")[0] < 0
    assert times(["-5", "1e300"], "s")[1] == LATEST
    assert times(["9" * 18], "ms") == [LATEST]
    assert times([2**62], "s") == [LATEST]
    assert times([-(2**62)], "s")[0] < 0


def test_the_unit_is_decided_once_for_all_batches():
    clock, rows = Clock(), np.arange(1)
    clock.read(pl.Series("t", ["1500000000"]), "a.csv", rows)
    clock.read(pl.Series("t", ["-7"]), "a.csv", rows)  # out of range in any unit, so no second unit
    with pytest.raises(DataError, match=r"a\.csv, row 0: 1500000000 looks like seconds; b\.csv, row 0: .* millisecond"):
        clock.read(pl.Series("t", ["1500000000000"]), "b.csv", rows)


def test_iso_is_not_mistaken_for_numbers_if_it_was_asked_for():
    assert times(["15", "2014-04-07"], "iso") == [None, 1_396_828_800_000]
    assert times(["2014-04-07"], "s") == [None]
