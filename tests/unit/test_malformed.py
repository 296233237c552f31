"""Logs that are not what they must be are refused with one clear message, or bad rows are set aside and counted."""

# ruff: noqa: E501 - a table reads best with a case a line

import csv
import gzip
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nextsession.data.events import read_events
from nextsession.data.format import Columns, Filters, Labels, LogFormat, SessionRule
from nextsession.data.prepared import Prepared, prepare
from nextsession.errors import ArtifactError, ConfigError, DataError

HEADER = "user_id,item_id,timestamp\n"
GOOD = "u1,a,1500000000\n"
LOG = HEADER + GOOD + GOOD
MS = LogFormat(time_unit="ms")
RATED = LogFormat(columns=Columns(label="rating"), labels=Labels(at_least=4))
ORDERED = LogFormat(columns=Columns(position="rank"))
ACTED = LogFormat(columns=Columns(action="type"))
PLAIN = LogFormat(columns=Columns(time=None))


def make(source, out, form, bad_rows="fail", **rule):
    rule = SessionRule(**rule) if rule else SessionRule(by="user" if form.columns.time is None else "gap")
    batches = read_events(source, form)
    return prepare(batches, out, form=form, sessions=rule, filters=Filters(), bad_rows=bad_rows)


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def nothing_left(folder, *names):
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


# name, content, format, how many rows are bad, row of the first, what is said of it
BAD_ROWS = {
    "too few fields": ("a.csv", LOG + "u1,b\n" + GOOD, None, 1, 4, "row has 2 fields, the header 3"),
    "too many fields": ("a.csv", HEADER + "u1,b,1500000000,x\n" + GOOD, None, 1, 2, "row has 4 fields, the header 3"),
    "ragged everywhere": ("a.csv", HEADER + (GOOD + "u\n") * 3, None, 3, 3, "row has 1 fields"),
    "ragged after blank lines": ("a.csv", LOG + "\n\nu\n" + GOOD, None, 1, 6, "row has 1 fields"),
    "ragged, :: between": ("a.dat", "1::2::3\n1::2\n", LogFormat(delimiter="::", header=("user_id", "item_id", "timestamp")), 1, 2, "row has 2 fields"),
    "no item": ("a.csv", LOG + "u1,,1500000000\n", None, 1, 4, "column 'item_id': an id is missing"),
    "no user": ("a.csv", LOG + ",a,1500000000\n", None, 1, 4, "column 'user_id': an id is missing"),
    "blanks for an item": ("a.csv", LOG + "u1,  ,1500000000\n", None, 1, 4, "column 'item_id': an id is missing"),
    "NaN for an item": ("a.csv", LOG + "u1,NaN,1500000000\n", None, 1, 4, "an id is missing (got 'NaN')"),
    "None for a user": ("a.csv", LOG + "None,a,1500000000\n", None, 1, 4, "an id is missing (got 'None')"),
    "no time": ("a.csv", LOG + "u1,a,\n", None, 1, 4, "column 'timestamp': the time is missing"),
    "NaN for a time": ("a.csv", LOG + "u1,a,nan\n", None, 1, 4, "column 'timestamp': the time is missing"),
    "words for a time": ("a.csv", LOG + "u1,a,yesterday\n", None, 1, 4, "a time must be ISO 8601 such as 2024-03-01T12:34:56Z, or a number since 1970 (got 'yesterday')"),
    "an impossible date": ("a.csv", HEADER + "u,a,2014-02-01\nu,a,2014-02-31\n", None, 1, 3, "a time must be ISO 8601 such as 2024-03-01T12:34:56Z, or a number since 1970 (got '2014-02-31')"),
    "negative time": ("a.csv", LOG + "u1,a,-5\n", None, 1, 4, "a time must not be before 1970 (got '-5')"),
    "a time far away": ("a.csv", LOG + "u1,a,99999999999\n", None, 1, 4, "a time must not be after 2100"),
    "a huge float time": ("a.csv", LOG + "u1,a,1e308\n", None, 1, 4, "a time must not be after 2100"),
    "an infinite time": ("a.csv", LOG + "u1,a,inf\n", None, 1, 4, "a time must not be after 2100"),
    "a time of the wrong unit": ("a.csv", HEADER + "u,a,1500000000000\nu,a,1500000000000000\n", MS, 1, 3, "is time_unit right? (got '1500000000000000')"),
    "numbers for ISO": ("a.csv", HEADER + "u,a,2014-02-01\nu,a,15\n", LogFormat(time_unit="iso"), 1, 3, "a time must be ISO 8601 such as 2024-03-01T12:34:56Z (got '15')"),
    "bad UTF-8 in an id": ("a.csv", LOG.encode() + b"u1,\xff\xfe,1500000000\n", None, 1, 4, "column 'item_id': this is not UTF-8 text"),
    "bad UTF-8 in a time": ("a.csv", LOG.encode() + b"u1,a,\xff\n", None, 1, 4, "column 'timestamp': this is not UTF-8 text"),
    "Latin-1": ("a.csv", LOG.encode() + "u1,café,1500000000\n".encode("latin-1"), None, 1, 4, "this is not UTF-8 text"),
    "ragged and not UTF-8": ("a.csv", LOG.encode() + b"u1,\xff\n" + GOOD.encode(), None, 1, 4, "row has 2 fields, the header 3 (got 'u1,\ufffd')"),
    "bad UTF-8 that ends the file": ("a.csv", LOG.encode() + b"u1,a,1500000000\nu1,\xe6\x97", None, 1, 5, "row has 2 fields"),
    "NUL in an id": ("a.csv", LOG + "u1,a\0b,1500000000\n", None, 1, 4, "an id must not hold a NUL byte"),
    "a hole of NULs": ("a.csv", LOG.encode() + bytes(4000) + b"\n" + GOOD.encode(), None, 1, 4, "row has 1 fields"),
    "files joined": ("a.csv", LOG + LOG, None, 1, 4, "the header is repeated here"),
    "files joined, no times": ("a.csv", "user_id,item_id\nu,a\nuser_id,item_id\nu,b\n", PLAIN, 1, 3, "the header is repeated here"),
    "quotes that swallow rows": ("a.csv", HEADER + 'u1,"b,1500000000\n' + GOOD + 'u1,"c,1500000000\n' + GOOD, None, 1, 2, "is a quote unbalanced?"),
    "a label that is none": ("a.csv", "user_id,item_id,timestamp,rating\nu,a,5,4\nu,a,5,good\n", RATED, 1, 3, "column 'rating': the label must be a number (got 'good')"),
    "no position": ("a.csv", "user_id,item_id,timestamp,rank\nu,a,5,4\nu,a,5,\n", ORDERED, 1, 3, "column 'rank': the position must be a number"),
    "no action": ("a.csv", "user_id,item_id,timestamp,type\nu,a,5,click\nu,a,5,\n", ACTED, 1, 3, "column 'type': the action is missing"),
    "JSON with a comma behind": ("a.jsonl", '{"user_id":1,"item_id":2,"timestamp":3}\n{"user_id":1,"item_id":2,"timestamp":3},\n', None, 1, 2, "this is not JSON (Extra data"),
    "JSON cut off": ("a.jsonl", '{"user_id":1,"item_id":2,"timestamp":3}\n{"user_id":1,"item_', None, 1, 2, "this is not JSON"),
    "a JSON array": ("a.jsonl", '{"user_id":1,"item_id":2,"timestamp":3}\n[1,2,3]\n', None, 1, 2, "a line must hold an object"),
    "a nested JSON value": ("a.jsonl", '{"user_id":1,"item_id":2,"timestamp":3}\n{"user_id":1,"item_id":[2],"timestamp":3}\n', None, 1, 2, "column 'item_id': the value must not be nested"),
    "a JSON key missing": ("a.jsonl", '{"user_id":1,"item_id":2,"timestamp":3}\n{"user_id":1,"timestamp":3}\n', None, 1, 2, "column 'item_id': an id is missing"),
    "a JSON null": ("a.jsonl", '{"user_id":1,"item_id":2,"timestamp":3}\n\n{"user_id":1,"item_id":null,"timestamp":3}\n', None, 1, 3, "an id is missing"),
    "JSON of bad UTF-8": ("a.jsonl", b'{"user_id":1,"item_id":2,"timestamp":3}\n{"user_id":1,"item_id":"\xff","timestamp":3}\n', None, 1, 2, "this is not UTF-8 text"),
    "JSON cut off in a Windows line end": ("a.jsonl", '{"user_id":1,"item_id":2,"timestamp":3}\r\n{"user_id":1,"item_\r', None, 1, 2, "this is not JSON"),
    "half a surrogate pair": ("a.jsonl", '{"user_id":1,"item_id":2,"timestamp":3}\n{"user_id":1,"item_id":"\\ud800","timestamp":3}\n', None, 1, 2, "column 'item_id': the text holds half a surrogate pair (got '?')"),
    "JSON nested without end": ("a.jsonl", '{"user_id":1,"item_id":2,"timestamp":3}\n' + "[" * 100_000 + "\n", None, 1, 2, "this is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_bad_rows_are_refused_with_place_and_remedy_or_set_aside_and_counted(case, tmp_path):
    name, content, form, count, row, said = case
    path, form = write(tmp_path, name, content), form or LogFormat()
    with pytest.raises(DataError) as caught:
        make(path, tmp_path / "log", form)
    message = str(caught.value)
    assert message.startswith(f"{path}, row {row}")
    assert said in message
    assert "--bad-rows quarantine" in message
    assert (f"{count:,} rows cannot be used" in message) == (count > 1)
    nothing_left(tmp_path, name)

    prepared = make(path, tmp_path / "log", form, "quarantine")
    assert prepared.manifest["quarantined"] == count
    with (prepared.path / "rejected.csv").open(newline="", encoding="utf-8") as handle:
        rejected = list(csv.DictReader(handle))
    assert len(rejected) == count
    assert (rejected[0]["source"], int(rejected[0]["row"])) == (str(path), row)
    assert rejected[0]["reason"] in message
    assert prepared.log.n_events + count == sum(source["rows"] for source in prepared.manifest["sources"])


# name, content, format, what is said
BAD_FILES = {
    "wrong column": ("a.csv", "user_id,item,timestamp\nu,a,1\n", None, "there is no column 'item_id' (for item). Did you mean 'item'? Columns: user_id, item, timestamp."),
    "wrong column of JSON": ("a.jsonl", '{"user":1,"item_id":2,"timestamp":3}\n', None, "there is no column 'user_id' (for user). Did you mean 'user'? Columns: user, item_id, timestamp. Say which it is: --user COLUMN (columns.user), or that there is none: --user ''."),
    "duplicate header names": ("a.csv", "user_id,item_id,item_id,timestamp\nu,a,b,1\n", None, "the header must name 'item_id' once, it does so 2 times"),
    "empty": ("a.csv", "", None, "is empty"),
    "only a byte order mark": ("a.csv", b"\xef\xbb\xbf", None, "is empty"),
    "only blank lines": ("a.csv", "\n\n\n", None, "is empty"),
    "empty gzip": ("a.csv.gz", gzip.compress(b""), None, "is empty"),
    "header only": ("a.csv", HEADER, None, "must hold an event, it holds none"),
    "header without line end": ("a.csv", HEADER.strip(), None, "must hold an event, it holds none"),
    "times of two units": ("a.csv", HEADER + "u,a,1500000000\nu,a,1500000000000\n", None, "row 2: 1500000000 looks like seconds; "),
    "dates and numbers": ("a.csv", HEADER + "u,a,1500000000\nu,a,2016-01-01\n", None, "Say which is right with time_unit"),
    "truncated gzip": ("a.csv.gz", gzip.compress((HEADER + GOOD * 9999).encode())[:-20], None, "is damaged or cut short: Compressed file ended"),
    "damaged gzip": ("a.csv.gz", gzip.compress(LOG.encode())[:-8] + bytes(8), None, "is damaged or cut short: CRC check failed"),
    "not gzip": ("a.csv.gz", LOG, None, "is named .gz and is not gzipped"),
    "UTF-16": ("a.csv", LOG.encode("utf-16"), None, "must be UTF-8 text, it is UTF-16 text; convert it"),
    "bad UTF-8 in the header": ("a.csv", b"user_id,item_id,timestamp,\xff\n", None, "row 1 must be UTF-8 text"),
    "unclosed quote": ("a.csv", HEADER + GOOD + 'u1,"b,1500000000\n' + GOOD * 9, None, "row 3: a quote is opened and never closed, so 10 lines look like one"),
    "unclosed quote elsewhere": ("a.csv", "user_id,item_id,timestamp,title\nu,a,1,x\n" + 'u,b,2,"x\n' + "u,b,2,x\n" * 9, None, "a quote is opened and never closed"),
    "an endless row": ("a.csv", HEADER + 'u,"' + "x\n" * (10 << 20), None, "a row must not be longer than 8 MB"),
    "an endless line of JSON": ("a.jsonl", '{"user_id":1,"item_id":2,"timestamp":3}\n' + " " * (18 << 20), None, "row 2: a line must not be longer than 8 MB"),
    "JSON that is one array": ("a.json", '[{"user_id":1,"item_id":2,"timestamp":3}]', None, "must hold one JSON object a line; it begins with '['"),
    "Parquet that is none": ("a.parquet", LOG, None, "is not a whole Parquet file"),
    "empty Parquet": ("a.parquet", "", None, "is not a whole Parquet file"),
    "Parquet named csv": ("a.csv", b"PAR1 and more", None, "it is Parquet"),
    "zip named csv": ("a.csv", b"PK\x03\x04 and more", None, "it is a zip archive"),
    "unknown extension": ("a.xlsx", LOG, None, "set kind to csv, jsonl or parquet"),
    "no extension": ("events", LOG, None, "set kind to csv, jsonl or parquet"),
    "all rows bad": ("a.csv", HEADER + ",a,1\n", None, "an id is missing"),
    "wrong delimiter": ("a.csv", LOG, LogFormat(delimiter="|"), "there is no column 'user_id'"),
    "the stand-in byte": ("a.dat", "1::2\x1f::3\n", LogFormat(delimiter="::", header=("user_id", "item_id", "timestamp")), "must not hold the byte"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files_are_refused_and_leave_nothing(case, tmp_path):
    name, content, form, said = case
    path = write(tmp_path, name, content)
    for bad_rows in ("fail", "quarantine"):
        with pytest.raises(DataError) as caught:
            make(path, tmp_path / "log", form or LogFormat(), bad_rows)
        assert said in str(caught.value)
        assert str(path) in str(caught.value)
        nothing_left(tmp_path, name)


def test_truncated_parquet(tmp_path):
    table = pa.table({"user_id": [1] * 1000, "item_id": [2] * 1000, "timestamp": [3] * 1000})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="is not a whole Parquet file"):
        make(path, tmp_path / "log", LogFormat())


def test_parquet_whose_text_is_not_utf8(tmp_path):
    text = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"caf\xe9"]).buffers())  # Arrow does not look
    columns = {"user_id": pa.array([1, 1]), "item_id": text, "timestamp": pa.array([1, 2])}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"row 2, column 'item_id': this is not UTF-8 text"):
        make(tmp_path / "a.parquet", tmp_path / "log", LogFormat())
    prepared = make(tmp_path / "a.parquet", tmp_path / "log", LogFormat(), "quarantine")
    assert prepared.manifest["quarantined"] == prepared.log.n_events == 1


def test_parquet_damaged_in_the_middle(tmp_path):
    table = pa.table({"user_id": list(range(9999)), "item_id": list(range(9999)), "timestamp": list(range(9999))})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[100:3000] = bytes(2900)
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not a whole Parquet file"):
        make(path, tmp_path / "log", LogFormat())
    nothing_left(tmp_path, "a.parquet")


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("item_id", [[1], [2]], "column 'item_id' must hold ids"),
        ("timestamp", [[1], [2]], "column 'timestamp' must hold times"),
        ("timestamp", [True, False], "column 'timestamp' must hold times"),
    ],
)
def test_columns_of_a_kind_that_cannot_be_used(column, values, said, tmp_path):
    columns = {"user_id": [1, 1], "item_id": [1, 2], "timestamp": [3, 4]} | {column: values}
    with pytest.raises(DataError, match=said):
        make(pa.table(columns), tmp_path / "log", LogFormat())
    nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("items", "said"),
    [([1.0, None], "an id is missing"), ([1.0, float("nan")], "an id is missing"), ([1.0, 1.5], "exactly"),
     ([1.0, 1e300], "exactly"), (["a", None], "an id is missing"), ([1, None], "an id is missing")],
)  # fmt: skip
def test_ids_missing_from_typed_columns(items, said, tmp_path):
    table = pa.table({"user_id": [1, 1], "item_id": items, "timestamp": [3, 4]})
    with pytest.raises(DataError, match=f"the frame, row 2, column 'item_id': .*{said}"):
        make(table, tmp_path / "log", LogFormat())
    prepared = make(table, tmp_path / "log", LogFormat(), "quarantine")
    assert prepared.manifest["quarantined"] == 1
    assert prepared.log.vocabulary.ids.tolist() == items[:1]


def test_places_that_hold_no_log(tmp_path):
    (tmp_path / "logs").mkdir()
    for source, said in (
        (tmp_path / "absent.csv", "absent.csv does not exist"),
        (tmp_path / "*.csv", r"No file matches .*\*\.csv"),
        (tmp_path / "logs", "logs is a directory; name its files"),
        ([], "There must be a file to read"),
    ):
        with pytest.raises(DataError, match=said):
            make(source, tmp_path / "log", LogFormat())
    nothing_left(tmp_path, "logs")


def test_a_file_named_twice(tmp_path):
    path = write(tmp_path, "a.csv", LOG)
    with pytest.raises(DataError, match=r"a\.csv is named twice; its events would count twice"):
        make([path, tmp_path / "*.csv"], tmp_path / "log", LogFormat())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = write(tmp_path, "a.csv", LOG)
    path.chmod(0)
    with pytest.raises(DataError, match="permission denied"):
        make(path, tmp_path / "log", LogFormat())


def test_an_output_that_is_something_else(tmp_path):
    (tmp_path / "log").mkdir()
    write(tmp_path, "log/thesis.txt", "years of work")
    with pytest.raises(ArtifactError, match="exists and is not a prepared log"):
        make(write(tmp_path, "a.csv", LOG), tmp_path / "log", LogFormat())
    assert (tmp_path / "log" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("rule", [{"by": "id"}, {"by": "gap"}, {"by": "time"}, {"by": "user"}])
def test_rules_that_need_a_column_the_format_does_not_name(rule, tmp_path):
    form = LogFormat(columns=Columns(user=None, time=None))
    path = write(tmp_path, "a.csv", LOG)
    with pytest.raises(ConfigError, match=f"Sessions by {rule['by']} need a (session|time|user) column"):
        make(path, tmp_path / "log", form, **rule)
    nothing_left(tmp_path, "a.csv")


# name, content, ids of items: odd but right
GOOD_LOGS = {
    "one event": ("a.csv", HEADER + GOOD, ["a"]),
    "byte order mark": ("a.csv", b"\xef\xbb\xbf" + LOG.encode(), ["a"]),
    "Windows line ends": ("a.csv", LOG.replace("\n", "\r\n"), ["a"]),
    "old Mac line ends": ("a.csv", LOG.replace("\n", "\r"), ["a"]),
    "no final line end": ("a.csv", LOG.strip(), ["a"]),
    "blank lines": ("a.csv", "\n" + HEADER + "\n\n" + GOOD + "\n" + GOOD + "\n\n", ["a"]),
    "blank Windows lines": ("a.csv", (HEADER + "\n" + GOOD + "\n").replace("\n", "\r\n"), ["a"]),
    "line ends turned into Windows ones twice": ("a.csv", LOG.replace("\n", "\r\r\n"), ["a"]),
    "blank old Mac lines": ("a.csv", (HEADER + "\n" + GOOD).replace("\n", "\r"), ["a"]),
    "commas in quotes": ("a.csv", HEADER + 'u,"a,b",1\n', ["a,b"]),
    "quotes in quotes": ("a.csv", HEADER + 'u,"a ""b""",1\n', ['a "b"']),
    "a quote inside": ("a.csv", HEADER + 'u,5" pipe,1\n', ['5" pipe']),
    "a line end in quotes": ("a.csv", HEADER + 'u,"a\nb",1\n', ["a\nb"]),
    "accents": ("a.csv", HEADER + "u,café,1\n", ["café"]),
    "emoji": ("a.csv", HEADER + "u,🦊,1\nu,日本,2\n", ["日本", "🦊"]),
    "blanks around ids": ("a.csv", HEADER + "u, a,1\n", [" a"]),
    "leading zeros": ("a.csv", HEADER + "u,007,1\nu,7,2\n", ["007", "7"]),
    "2^63 - 1": ("a.csv", HEADER + f"u,{2**63 - 1},1\n", [2**63 - 1]),
    "2^63": ("a.csv", HEADER + f"u,{2**63},1\nu,1,2\n", ["1", str(2**63)]),
    "-2^63": ("a.csv", HEADER + f"u,{-(2**63)},1\n", [-(2**63)]),
    "numbers as numbers": ("a.csv", HEADER + "u,10,1\nu,9,2\n", [9, 10]),
    "floats are text": ("a.csv", HEADER + "u,1.0,1\n", ["1.0"]),
    "JSON of 2^63": ("a.jsonl", f'{{"user_id":"u","item_id":{2**63},"timestamp":1}}\n', [str(2**63)]),
    "JSON of 30 digits": ("a.jsonl", f'{{"user_id":"u","item_id":{10**29},"timestamp":1}}\n', [str(10**29)]),
    "JSON mixed": ("a.jsonl", '{"user_id":"u","item_id":7,"timestamp":1}\n{"user_id":"u","item_id":"x","timestamp":1.5}\n', ["7", "x"]),
    "JSON with an emoji escaped": ("a.jsonl", '{"user_id":"u","item_id":"\\ud83e\\udd8a","timestamp":1}\n', ["🦊"]),
    "JSON text in brackets": ("a.jsonl", '{"user_id":"u","item_id":"[7]","timestamp":1}\n', ["[7]"]),
    "JSON with half a final line end": ("a.jsonl", '{"user_id":"u","item_id":7,"timestamp":1}\r', [7]),
    "JSON without final line end": ("a.jsonl", '{"user_id":"u","item_id":7,"timestamp":1}', [7]),
    "gzip by content": ("a.csv", gzip.compress(LOG.encode()), ["a"]),
    "gzip in two members": ("a.csv.gz", gzip.compress(LOG.encode()) + gzip.compress(GOOD.encode()), ["a"]),
    "tabs": ("a.tsv", LOG.replace(",", "\t"), ["a"]),
    "semicolons": ("a.csv", LOG.replace(",", ";"), ["a"]),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD_LOGS.values(), ids=GOOD_LOGS.keys())
def test_odd_but_right(case, tmp_path):
    name, content, items = case
    prepared = make(write(tmp_path, name, content), tmp_path / "log", LogFormat())
    assert prepared.log.vocabulary.ids.tolist() == items
    assert prepared.manifest["quarantined"] == 0
    assert Prepared.load(tmp_path / "log").log.vocabulary.ids.tolist() == items
