"""Downloads against a real server on this machine: whole, resumed, cut, changed, wrong, refused, absent."""

import gzip
import hashlib
import http.server
import io
import socket
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nextsession.data.fetch import Address, cache_folder, download, unpack
from nextsession.errors import DataError

CONTENT = np.random.default_rng(1).bytes(3_000_000)


class Shelf:
    """A server of one file with ranges, that can be told to cut connections or to change the file."""

    def __init__(self):
        self.content = CONTENT
        self.etag = '"one"'
        self.cut_after: list[int] = []  # bytes to send before cutting, one entry an answer
        self.status = 200
        self.ranges: list[str | None] = []
        shelf = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked = self.headers.get("Range")
                shelf.ranges.append(asked)
                if shelf.status != 200:
                    self.send_error(shelf.status)
                    return
                body, start = shelf.content, 0
                if asked and self.headers.get("If-Range") == shelf.etag:
                    start = int(asked.removeprefix("bytes=").removesuffix("-"))
                    if start >= len(body):
                        self.send_response(416)
                        self.send_header("Content-Range", f"bytes */{len(body)}")
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                        return
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                else:
                    self.send_response(200)
                if shelf.etag:
                    self.send_header("ETag", shelf.etag)
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                stop = start + shelf.cut_after.pop(0) if shelf.cut_after else len(body)
                self.wfile.write(body[start:stop])

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *who: None  # a client that hangs up is no news
        self.url = f"http://127.0.0.1:{self.server.server_port}/sets/log%201.zip"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def shelf():
    it = Shelf()
    yield it
    it.close()


def address(shelf: Shelf, **more) -> Address:
    return Address(shelf.url, **more)


def checked(shelf: Shelf) -> Address:
    return Address(shelf.url, len(CONTENT), "sha256:" + hashlib.sha256(CONTENT).hexdigest())


def test_a_file_comes_whole_with_progress_and_once(shelf, tmp_path):
    seen = []
    path = download(checked(shelf), tmp_path / "a", progress=lambda *told: seen.append(told))
    assert path == tmp_path / "a" / "log 1.zip"
    assert path.read_bytes() == CONTENT
    assert seen[0] == ("log 1.zip", 0, len(CONTENT))
    assert seen[-1] == ("log 1.zip", len(CONTENT), len(CONTENT))
    assert [d for _, d, _ in seen] == sorted(d for _, d, _ in seen)
    assert download(checked(shelf), tmp_path / "a") == path
    assert len(shelf.ranges) == 1
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["log 1.zip"]


def test_cut_connections_are_resumed_where_they_broke(shelf, tmp_path):
    shelf.cut_after = [1_100_000, 700_000]
    path = download(checked(shelf), tmp_path, pause=0)
    assert path.read_bytes() == CONTENT
    assert shelf.ranges == [None, "bytes=1100000-", "bytes=1800000-"]


def test_a_part_of_an_earlier_run_is_gone_on_with(shelf, tmp_path):
    shelf.cut_after = [1_000_000, 0, 0]
    with pytest.raises(DataError, match="the connection was cut"):
        download(checked(shelf), tmp_path, attempts=1, pause=0)
    assert (tmp_path / "log 1.zip.part").stat().st_size == 1_000_000
    shelf.cut_after = []
    assert download(checked(shelf), tmp_path).read_bytes() == CONTENT
    assert shelf.ranges[-1] == "bytes=1000000-"


def test_a_part_of_another_version_is_begun_anew(shelf, tmp_path):
    shelf.cut_after = [1_000_000, 0]
    with pytest.raises(DataError):
        download(address(shelf), tmp_path, attempts=1, pause=0)
    shelf.content, shelf.etag, shelf.cut_after = CONTENT[::-1], '"two"', []
    assert download(address(shelf), tmp_path).read_bytes() == CONTENT[::-1]


def test_without_a_validator_a_part_is_begun_anew(shelf, tmp_path):
    shelf.etag, shelf.cut_after = "", [1_000_000]
    assert download(address(shelf), tmp_path, pause=0).read_bytes() == CONTENT
    assert shelf.ranges == [None, None]


def test_a_part_that_is_complete_already_is_taken(shelf, tmp_path):
    (tmp_path / "log 1.zip.part").write_bytes(CONTENT)
    (tmp_path / "log 1.zip.part.tag").write_text('"one"', encoding="utf-8")
    assert download(checked(shelf), tmp_path).read_bytes() == CONTENT
    assert shelf.ranges == [f"bytes={len(CONTENT)}-"]


def test_a_part_longer_than_the_file_is_begun_anew(shelf, tmp_path):
    (tmp_path / "log 1.zip.part").write_bytes(CONTENT + b"more")
    (tmp_path / "log 1.zip.part.tag").write_text('"one"', encoding="utf-8")
    assert download(checked(shelf), tmp_path, pause=0).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"checksum": "md5:" + "0" * 32},
            "the md5 of the file must be 0{32}, it is [0-9a-f]{32}. What came was thrown",
        ),
        ({"size": 5}, "the file must have 5 bytes, it has 3000000"),
    ],
)
def test_what_is_not_what_was_promised_is_thrown_away(shelf, tmp_path, wanted, message):
    with pytest.raises(DataError, match=message):
        download(address(shelf, **wanted), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_told_at_once(shelf, tmp_path):
    shelf.status = 404
    with pytest.raises(DataError, match=r"answers 404 Not Found. Without a network: get log 1.zip elsewhere and put"):
        download(address(shelf), tmp_path)
    assert len(shelf.ranges) == 1


def test_a_passing_trouble_is_tried_again(shelf, tmp_path):
    shelf.status = 503
    with pytest.raises(DataError, match="Service Unavailable"):
        download(address(shelf), tmp_path, attempts=3, pause=0)
    assert len(shelf.ranges) == 3


def test_offline_names_the_address_and_the_place(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/ml-1m.zip"
    with pytest.raises(DataError) as caught:
        download(Address(url), tmp_path / "sets", attempts=1, pause=0)
    assert url in str(caught.value)
    assert f"get ml-1m.zip elsewhere and put it into {tmp_path / 'sets'}" in str(caught.value)


def test_a_place_that_cannot_be_written_is_named(shelf, tmp_path):
    (tmp_path / "log 1.zip.part").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        download(address(shelf), tmp_path, attempts=1, pause=0)


def _zip(path: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(path, "w") as pack:
        for name in names:
            pack.writestr(name, name)
    return path


def test_a_single_top_folder_is_left_out(tmp_path):
    unpack([_zip(tmp_path / "a.zip", ["ml-1m/ratings.dat", "ml-1m/x/movies.dat"])], tmp_path / "out")
    assert (tmp_path / "out/ratings.dat").read_text() == "ml-1m/ratings.dat"
    assert (tmp_path / "out/x/movies.dat").is_file()


def test_several_entries_stay_where_they_are(tmp_path):
    unpack([_zip(tmp_path / "a.zip", ["a/x.csv", "b.csv"])], tmp_path / "out")
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.csv")) == [
        "a/x.csv",
        "b.csv",
    ]


def test_tars_and_plain_files_are_unpacked_too(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tape:
        info = tarfile.TarInfo("top/log.csv")
        info.size = 3
        tape.addfile(info, io.BytesIO(b"abc"))
    unpack([tmp_path / "a.tar.gz"], tmp_path / "tar")
    assert (tmp_path / "tar/log.csv").read_bytes() == b"abc"
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"abc"))
    unpack([tmp_path / "b.csv.gz"], tmp_path / "plain")
    assert gzip.decompress((tmp_path / "plain/b.csv.gz").read_bytes()) == b"abc"


def test_a_damaged_archive_leaves_nothing_behind(tmp_path):
    whole = _zip(tmp_path / "a.zip", ["x" * 50]).read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[:60])
    with pytest.raises(DataError, match="is damaged"):
        unpack([tmp_path / "a.zip"], tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_a_tar_that_would_write_outside_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tape:
        info = tarfile.TarInfo("../evil")
        info.size = 3
        tape.addfile(info, io.BytesIO(b"abc"))
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack([tmp_path / "a.tar"], tmp_path / "x" / "out")
    assert not list(tmp_path.rglob("evil"))


def test_a_tar_that_holds_a_link_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tape:
        info = tarfile.TarInfo("passwords")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tape.addfile(info)
    with pytest.raises(DataError, match="'passwords' is no plain file inside it"):
        unpack([tmp_path / "a.tar"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_cache_is_where_the_variable_says_else_in_the_platforms_place(monkeypatch, tmp_path):
    monkeypatch.setenv("NEXTSESSION_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("NEXTSESSION_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "nextsession"
