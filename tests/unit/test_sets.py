"""Every named data set on small files in exactly its format, the registry, finding, fetching, caching."""

import gzip
import http.server
import io
import json
import os
import re
import threading
import zipfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.feather as feather
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextsession.data import sets
from nextsession.data.cleaning import ROW
from nextsession.data.dataset import DataSet, Layout, item_feature, item_table
from nextsession.data.fetch import Address
from nextsession.data.format import Columns, Filters, Labels, LogFormat, SessionRule
from nextsession.data.sets import ebnerd
from nextsession.data.sets._sessionrec import per_event
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import DataError, UnknownNameError


@pytest.fixture(autouse=True)
def _own_places(monkeypatch, tmp_path):
    monkeypatch.setenv("NEXTSESSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NEXTSESSION_DATA", raising=False)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def put(folder: Path, files: dict[str, object]) -> Path:
    """Write text (`str`), bytes, frames (parquet, feather) under their names; text of a `.gz` name is packed."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pl.DataFrame):
            if path.suffix == ".feather":
                feather.write_feather(content.to_arrow(), path)
            else:
                content.write_parquet(path)
            continue
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return folder


def sessions(log) -> list[tuple[object, list[list[object]]]]:
    """All users with their sessions as ids."""
    ids = log.vocabulary.decode(log.items).tolist()
    found = []
    for u, user in enumerate(log.users.tolist()):
        runs = range(log.user_offsets[u], log.user_offsets[u + 1])
        found.append((user, [ids[log.session_offsets[s] : log.session_offsets[s + 1]] for s in runs]))
    return found


def lists(log) -> list[list[object]]:
    return sorted(session for _, mine in sessions(log) for session in mine)


def prepared(name: str, folder: Path, files: dict[str, object], **more):
    return sets.get(name).prepare(folder=put(folder, files), **more)


# -- the registry ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sets.names())
def test_every_set_declares_itself(name):
    one = sets.get(name)
    assert one.name == name
    for text in (one.title, one.about, one.licence):
        assert text
        assert text == text.strip()
    assert one.homepage.startswith("https://")
    assert one.addresses or one.by_hand
    assert one.filters == Filters()
    assert all(a.url.startswith("https://") for a in one.addresses)
    assert all(a.checksum is None or re.fullmatch(r"(md5:\w{32}|sha256:\w{64})", a.checksum) for a in one.addresses)
    assert one.layouts
    assert one.name in one.missing()
    assert one.homepage in one.terms()
    assert one.licence in one.terms()


def test_all_promised_sets_are_there():
    assert set(sets.names()) >= {
        "globo", "ebnerd", "mind", "kuaisar", "recflow", "kuairand", "ml-100k", "ml-latest-small", "ml-1m", "ml-20m",
        "amazon", "yoochoose", "rsc15-100k", "rsc15-64", "serenade-toy", "diginetica", "diginetica-gce", "tmall-gce",
        "retailrocket", "otto", "taobao", "tmall", "steam", "text", "beauty", "tafeng", "ml-1m-order",
    }  # fmt: skip


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"There is no data set 'ml-1n'. Did you mean 'ml-1m'\? Data sets: amazon"
    ):
        sets.get("ml-1n")


# -- news -----------------------------------------------------------------------------------------


def test_globo(tmp_path):
    head = (
        "user_id,session_id,session_start,session_size,click_article_id,click_timestamp,click_environment,"
        "click_deviceGroup,click_os,click_country,click_region,click_referrer_type\n"
    )
    found = prepared(
        "globo",
        tmp_path,
        {
            "clicks/clicks_hour_000.csv.gz": head
            + "0,1506825423271737,1506825423000,2,157541,1506826828020,4,3,20,1,20,2\n"
            + "0,1506825423271737,1506825423000,2,68866,1506826858020,4,3,20,1,20,2\n",
            "clicks/clicks_hour_001.csv.gz": head
            + "1,1506825426267738,1506825426000,2,235840,1506827017951,4,1,17,1,16,2\n"
            + "0,1506829999999999,1506829999000,1,68866,1506830000000,4,1,17,1,16,2\n",
        },
    )
    assert sessions(found.log) == [(0, [[157541, 68866], [68866]]), (1, [[235840]])]
    assert found.log.times.tolist() == [1506826828020, 1506826858020, 1506830000000, 1506827017951]


def test_ebnerd(tmp_path):
    at = datetime(2023, 5, 21, 21, 6, 50)
    frame = pl.DataFrame(
        {
            "impression_id": [48401, 48402, 48403],
            "article_id": [None, 5, None],
            "impression_time": [at, at.replace(minute=7), at.replace(minute=1)],
            "read_time": [21.0, 1.0, 2.0],
            "article_ids_inview": [[30, 10, 20], [10, 40], [50]],
            "article_ids_clicked": [[20, 20], [60], []],
            "user_id": [7, 7, 8],
            "session_id": [21, 21, 22],
        },
        schema_overrides={
            "impression_id": pl.UInt32, "article_id": pl.Int32, "user_id": pl.UInt32, "session_id": pl.UInt32,
            "article_ids_inview": pl.List(pl.Int32), "article_ids_clicked": pl.List(pl.Int32),
        },
    )  # fmt: skip
    found = prepared("ebnerd", tmp_path, {"train/behaviors.parquet": frame})
    # The second click on 20 and the click on 60, which was not in view, are events of their own.
    assert sessions(found.log) == [(7, [[30, 10, 20, 20, 10, 40, 60]]), (8, [[50]])]
    assert found.log.labels.tolist() == [0, 0, 1, 1, 0, 0, 1, 0]
    assert found.log.features["impression_id"].tolist() == [48401] * 4 + [48402] * 3 + [48403]
    assert found.log.times[0] == ms("2023-05-21T21:06:50")
    notes = found.manifest["notes"]
    assert (notes["impressions"], notes["shown"], notes["clicks"]) == (3, 6, 3)


def test_mind(tmp_path):
    line = "1\tU8\t11/12/2019 2:14:46 PM\tN7 N9\tN3-0 N1-1 N2-0\n2\tU8\t11/12/2019 2:14:46 PM\t\tN1-1 N4-0\n"
    other = "1\tU8\t11/15/2019 12:00:01 AM\tN1\tN5-1\n"
    news = "N1\tsports\tgolf\tA, title\tabstract\turl\t[]\t[]\nN3\tnews\tworld\tThree\t\turl\t[]\t[]\n"
    found = prepared(
        "mind",
        tmp_path,
        {
            "MINDsmall_train/behaviors.tsv": line,
            "MINDsmall_train/news.tsv": news,
            "MINDsmall_dev/behaviors.tsv": other,
            "MINDsmall_dev/news.tsv": news,
        },
    )
    assert sessions(found.log) == [("U8", [["N3", "N1", "N2"], ["N1", "N4"], ["N5"]])]
    assert found.log.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert found.log.times.tolist() == [ms("2019-11-12T14:14:46")] * 5 + [ms("2019-11-15T00:00:01")]
    table = found.log.item_table
    assert table.titles.tolist() == ["A, title", "", "Three", "", ""]
    assert table.features["category"].rows() == [["sports"], [], ["news"], [], []]
    assert table.features["subcategory"].rows() == [["golf"], [], ["world"], [], []]


def test_mind_names_the_line_that_is_damaged(tmp_path):
    with pytest.raises(DataError, match=r"behaviors.tsv, row 2.*must have five columns"):
        prepared("mind", tmp_path, {"behaviors.tsv": "1\tU\t11/12/2019 2:14:46 PM\t\tN1-1\n2\tU8\n"})


# -- videos ---------------------------------------------------------------------------------------


def test_kuaisar(tmp_path):
    head = (
        "user_id,item_id,playing_time,duration_ms,time,timestamp,click,forward,like,follow,search,search_item_related\n"
    )
    rows = [
        "3,90,1.0,45400.0,2023-05-22 15:53:20,1684742000000.0,1,0,0,0,0,0",
        "3,80,0.0,45400.0,2023-05-22 15:53:20,1684742000000.0,0,0,0,0,0,0",
        "3,70,9.0,45400.0,2023-05-22 15:53:21,1684742001000.0,1,0,0,0,0,0",
        "4,90,9.0,45400.0,2023-05-22 15:53:20,1684742000000.0,0,0,0,0,0,0",
    ]
    features = (
        "item_id,caption,author_id,first_level_category_name_en,second_level_category_name_en\n"
        '90,"[1, 2]",5,Funny,Funny joke\n70,"[3]",5,Food,\n'
    )
    found = prepared("kuaisar", tmp_path, {"rec_inter.csv": head + "\n".join(rows), "item_features.csv": features})
    assert sessions(found.log) == [(3, [[90, 80], [70]]), (4, [[90]])]
    assert found.log.labels.tolist() == [1, 0, 1, 0]
    assert found.log.times[0] == 1684742000000
    assert found.log.item_table.features["category"].rows() == [["Food"], [], ["Funny"]]
    assert found.log.item_table.features["subcategory"].rows() == [[], [], ["Funny joke"]]


def test_recflow(tmp_path):
    day = pl.DataFrame(
        {
            "request_id": [5, 5, 6],
            "request_timestamp": [1705104000000, 1705104000000, 1705104060000],
            "user_id": [1, 1, 1],
            "device_id": [0, 0, 0],
            "video_id": [100, 200, 100],
            "rerank_index": [1, 0, 0],
            "realshow": [1, 1, 1],
            "effective_view": [0, 1, 1],
        }
    )
    later = day.with_columns(request_id=pl.lit(9), request_timestamp=pl.col("request_timestamp") + 86_400_000)
    files = {"realshow/2024-01-13.feather": day, "realshow/2024-01-14.feather": later}
    found = prepared("recflow", tmp_path, files)
    assert sessions(found.log) == [(1, [[200, 100], [100], [200, 100, 100]])]
    assert found.log.labels.tolist() == [1, 0, 1, 1, 0, 1]


def test_recflow_says_what_a_day_must_hold(tmp_path):
    with pytest.raises(
        DataError, match=r"2024-01-13.feather must be a feather file with the columns user_id, video_id"
    ):
        prepared("recflow", tmp_path, {"realshow/2024-01-13.feather": pl.DataFrame({"request_id": [1]})})
    with pytest.raises(DataError, match="must be a feather file"):
        prepared("recflow", tmp_path, {"realshow/2024-01-13.feather": b"nothing of the kind"})


def test_kuairand_original_and_processed(tmp_path):
    head = "user_id,video_id,date,hourmin,time_ms,is_click,is_like,long_view,play_time_ms,duration_ms,is_rand,tab\n"
    found = prepared(
        "kuairand",
        tmp_path / "a",
        {
            "data/log_standard_4_08_to_4_21_pure.csv": head + "0,7,20220408,100,1649347800000,1,0,0,5,9,0,1\n",
            "data/log_standard_4_22_to_5_08_pure.csv": head
            + "0,8,20220422,100,1650557400000,0,0,0,5,9,0,1\n0,9,20220422,100,1650559200000,1,0,0,5,9,0,1\n",
            "data/log_random_4_22_to_5_08_pure.csv": head + "0,6,20220422,100,1650557500000,1,0,0,5,9,1,1\n",
        },
    )
    assert sessions(found.log) == [(0, [[7], [8, 9]])]
    assert found.log.labels.tolist() == [1, 0, 1]
    processed = (
        "user_id\tvideo_id\tdate\thourmin\ttime_ms\tis_click\tlabel\ttimestamp\n"
        "111\t3892024\t20220410\t1700\t1649581149287\t1\t0\t2022-04-10 08:59:09\n"
    )
    found = prepared("kuairand", tmp_path / "b", {"processed_standard_kcore_15.tsv.gz": processed})
    assert (sessions(found.log), found.log.labels.tolist()) == ([(111, [[3892024]])], [0])


# -- ratings --------------------------------------------------------------------------------------


def test_ml_100k_original(tmp_path):
    bits = "|".join("1" if g in (1, 3) else "0" for g in range(4))
    found = prepared(
        "ml-100k",
        tmp_path,
        {
            "u.data": "196\t242\t3\t881250949\n196\t51\t4\t881250950\n22\t242\t5\t878887116\n",
            "u.item": f"242|Kolya (1996)|24-Jan-1997||http://x|{bits}\n51|Les Misérables (1935)|||u|0|0|0|0\n".encode(
                "latin-1"
            ),
            "u.genre": "unknown|0\nAction|1\nAdventure|2\nAnimation|3\n\n",
        },
    )
    assert sessions(found.log) == [(22, [[242]]), (196, [[242, 51]])]
    assert found.log.labels.tolist() == [1, 0, 1]
    assert found.log.times[0] == 878887116000
    assert found.log.item_table.titles.tolist() == ["Les Misérables (1935)", "Kolya (1996)"]
    assert found.log.item_table.features["genre"].rows() == [[], ["Action", "Animation"]]
    assert found.log.item_table.features["year"].rows() == [["1935"], ["1996"]]


def test_ml_100k_atomic(tmp_path):
    found = prepared(
        "ml-100k",
        tmp_path,
        {
            "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t1\t3\t881250949\n",
            "ml-100k.item": (
                "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
                "1\tToy Story\t1995\tAnimation Children's Comedy\n"
            ),
        },
    )
    assert (sessions(found.log), found.log.labels.tolist()) == ([(196, [[1]])], [0])
    assert found.log.item_table.titles.tolist() == ["Toy Story (1995)"]
    assert found.log.item_table.features["genre"].rows() == [["Animation", "Children's", "Comedy"]]


def test_ml_latest_small_and_20m_share_files_but_not_labels(tmp_path):
    files = {
        "ratings.csv": "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n1,1029,4.0,1260779179\n",
        "movies.csv": (
            'movieId,title,genres\n31,"Dangerous Minds (1995)",Drama\n1029,"Dumbo, the (1941)",Animation|Musical\n'
        ),
    }
    small, large = prepared("ml-latest-small", tmp_path, files).log, prepared("ml-20m", tmp_path, files).log
    assert sessions(small) == [(1, [[31], [1029]])]
    assert small.labels.tolist() == [0, 1]
    assert sessions(large) == [(1, [[31, 1029]])]
    assert large.labels.tolist() == [1, 1]
    assert large.item_table.titles.tolist() == ["Dangerous Minds (1995)", "Dumbo, the (1941)"]
    assert large.item_table.features["genre"].rows() == [["Drama"], ["Animation", "Musical"]]


def test_ml_1m(tmp_path):
    found = prepared(
        "ml-1m",
        tmp_path,
        {
            "ratings.dat": "1::1193::5::978300760\n1::661::3::978300760\n1::914::3::978300000\n2::1193::1::978299999\n",
            "movies.dat": (
                "1193::Cuckoo's Nest, One Flew Over the (1975)::Drama\n661::Misérables, Les (1995)::Animation|Drama\n"
            ).encode("latin-1"),
        },
    )
    assert sessions(found.log) == [(1, [[914, 1193, 661]]), (2, [[1193]])]
    assert found.log.labels.tolist() == [1, 1, 1, 1]
    assert found.log.item_table.titles.tolist() == [
        "Misérables, Les (1995)",
        "",
        "Cuckoo's Nest, One Flew Over the (1975)",
    ]


def test_another_label_can_be_asked_for(tmp_path):
    form = sets.get("ml-1m").layouts[0].form
    liked = form.model_copy(
        update={"columns": form.columns.model_copy(update={"label": "rating"}), "labels": Labels(at_least=4)}
    )
    files = {"ratings.dat": "1::1193::5::978300760\n1::661::3::978300761\n"}
    assert prepared("ml-1m", tmp_path, files, form=liked).log.labels.tolist() == [1, 0]
    assert prepared("ml-1m", tmp_path, files).log.labels.tolist() == [1, 1]


def test_amazon_ratings_and_reviews(tmp_path):
    ratings = "A39H,0205616461,5.0,1369699200\nA3JM,B00001,3.0,1355443200\nA39H,B00001,1.0,1355443200\n"
    found = prepared("amazon", tmp_path / "a", {"ratings_Beauty.csv": ratings})
    assert sessions(found.log) == [("A39H", [["B00001", "0205616461"]]), ("A3JM", [["B00001"]])]
    lines = "".join(
        json.dumps({"reviewerID": "A1", "asin": asin, "overall": 2.0, "reviewText": "x, y", "unixReviewTime": t}) + "\n"
        for asin, t in (("B2", 1400371200), ("B1", 1400371100))
    )
    found = prepared("amazon", tmp_path / "b", {"Beauty_5.json.gz": lines})
    assert sessions(found.log) == [("A1", [["B1", "B2"]])]


def test_a_file_can_be_named_instead_of_a_folder(tmp_path):
    put(tmp_path, {"ratings_A.csv": "u,i,5.0,1369699200\n", "ratings_B.csv": "v,j,5.0,1369699200\n"})
    amazon = sets.get("amazon")
    assert sessions(amazon.prepare(folder=tmp_path / "ratings_B.csv").log) == [("v", [["j"]])]
    assert len(amazon.prepare(folder=tmp_path).log) == 2
    with pytest.raises(DataError, match=r"is not in .*ratings_C.csv"):
        amazon.prepare(folder=tmp_path / "ratings_C.csv")


def test_steam(tmp_path):
    lines = (
        "{u'username': u'Chaos Syren', u'hours': 0.1, u'product_id': u'725280', u'date': u'2017-12-17', "
        "u'text': u'It\\'s'}\n"
        '{"username": "Ariman1", "product_id": "328100", "date": "2017-08-02", "text": "yes"}\n'
        "{u'username': u'Chaos Syren', u'product_id': u'35140', u'date': u'2010-01-04'}\n"
    )
    found = prepared("steam", tmp_path, {"steam_reviews.json.gz": lines})
    assert sessions(found.log) == [("Ariman1", [[328100]]), ("Chaos Syren", [[35140, 725280]])]
    assert found.log.times[0] == ms("2017-08-02T00:00:00")
    with pytest.raises(DataError, match=r"steam_new.json, row 2.*no review"):
        prepared("steam", tmp_path / "b", {"steam_new.json": lines.splitlines()[1] + "\n{'username': 'x'}\n"})


# -- shops ----------------------------------------------------------------------------------------


def test_yoochoose(tmp_path):
    rows = (
        "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,0\n"
        "2,2014-04-07T13:56:37.614Z,214662742,S\n"
    )
    found = prepared("yoochoose", tmp_path, {"yoochoose-clicks.dat": rows})
    assert lists(found.log) == [[214536502, 214536500], [214662742]]
    assert len(found.log) == 2
    assert ms("2014-04-07T10:51:09.277") in found.log.times.tolist()


def test_diginetica(tmp_path):
    rows = (
        "sessionId;userId;itemId;timeframe;eventdate\n"
        "1;NA;81766;86700000;2016-05-10\n"
        "1;NA;31331;86000000;2016-05-09\n"
        "2;5;81766;100;2016-01-01\n"
    )
    found = prepared(
        "diginetica",
        tmp_path,
        {"train-item-views.csv": rows, "product-categories.csv": "itemId;categoryId\n81766;13\n"},
    )
    assert lists(found.log) == [[31331, 81766], [81766]]
    assert sorted(found.log.times.tolist()) == [
        ms("2016-01-01T00:00:00") + 100,
        ms("2016-05-09T00:00:00") + 86_000_000,
        ms("2016-05-09T00:00:00") + 86_700_000,
    ]
    assert found.log.item_table.features["category"].rows() == [[], ["13"]]
    with pytest.raises(DataError, match="must have the columns sessionId;userId"):
        prepared("diginetica", tmp_path / "b", {"train-item-views.csv": "a,b\n1,2\n"})


def test_retailrocket(tmp_path):
    rows = (
        "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,257597,view,355908,\n1433224214164,257597,transaction,248676,4000\n1433221999827,111016,addtocart,318965,\n"
    )
    found = prepared("retailrocket", tmp_path, {"events.csv": rows})
    assert sessions(found.log) == [(111016, [[318965]]), (257597, [[355908], [248676]])]
    names = found.log.action_names
    assert [names[a] for a in found.log.actions] == ["addtocart", "view", "transaction"]
    views = LogFormat(
        columns=Columns(user="visitorid", item="itemid", label="event"),
        labels=Labels(values=("view",), otherwise="dropped"),
    )
    assert sessions(prepared("retailrocket", tmp_path, {}, form=views).log) == [(257597, [[355908]])]


def test_otto(tmp_path):
    lines = (
        '{"session":0,"events":[{"aid":1517085,"ts":1659304800025,"type":"clicks"},{"aid":2,"ts":1659304904511,"type":"carts"}]}\n'
        '{"session":7,"events":[{"aid":2,"ts":1659304800000,"type":"orders"}]}\n'
    )
    found = prepared("otto", tmp_path, {"otto-recsys-train.jsonl": lines})
    assert lists(found.log) == [[2], [1517085, 2]]
    assert sorted(found.log.action_names) == ["carts", "clicks", "orders"]
    with pytest.raises(DataError, match=r"train.jsonl, rows 1 to 1: each line must be a JSON session"):
        prepared("otto", tmp_path / "b", {"train.jsonl": "not json\n"})
    (tmp_path / "c").mkdir()
    (tmp_path / "c/train.jsonl.gz").write_bytes(gzip.compress(lines.encode() * 50)[:-30])
    with pytest.raises(DataError, match=r"train.jsonl.gz is cut off or damaged after row 0"):
        sets.get("otto").prepare(folder=tmp_path / "c")


def test_taobao_and_tmall(tmp_path):
    rows = "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,buy,1511561733\n"
    found = prepared("taobao", tmp_path, {"UserBehavior.csv": rows})
    assert sessions(found.log) == [(1, [[2268318], [2333346]])]
    assert [found.log.action_names[a] for a in found.log.actions] == ["pv", "buy"]
    rows = (
        "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type\n"
        "328862,323294,833,2882,2661.0,829,0\n328862,844400,1271,2882,2661.0,829,2\n328862,1,1271,2882,,1111,0\n"
    )
    found = prepared("tmall", tmp_path, {"user_log_format1.csv": rows})
    assert sessions(found.log) == [(328862, [[323294, 844400], [1]])]
    assert found.log.times[-1] == ms("2014-11-11T00:00:00")
    assert [found.log.action_names[a] for a in found.log.actions] == ["click", "buy", "click"]


# -- order only, and ready questions --------------------------------------------------------------


def test_text_in_both_forms(tmp_path):
    many = prepared(
        "text", tmp_path / "a", {"Beauty.txt": "1 10 20 10\n2 30 10\n", "B_item2attributes.json": '{"20": [5, 6]}'}
    )
    assert sessions(many.log) == [(1, [[10, 20, 10]]), (2, [[30, 10]])]
    assert not many.log.timed
    assert many.log.item_table.features["attribute"].rows() == [[], ["5", "6"], []]
    pairs = prepared("text", tmp_path / "b", {"ml-1m.txt": "1 10\n1 20\n1 10\n2 30\n2 10\n"})
    assert sessions(pairs.log) == sessions(many.log)
    with pytest.raises(DataError, match=r"x.txt, row 2.*a user and at least one item"):
        prepared("text", tmp_path / "c", {"x.txt": "1 10\n2\n"})


def test_tafeng(tmp_path):
    baskets = pl.DataFrame({"user_id": [1, 1, 1, 2], "basket": [0, 0, 1, 0], "item_id": [5, 6, 5, 5]})
    found = prepared("tafeng", tmp_path, {"baskets.parquet": baskets})
    assert sessions(found.log) == [(1, [[5, 6], [5]]), (2, [[5]])]
    assert not found.log.timed


def test_ml_1m_order_from_parquet_and_from_text(tmp_path):
    frame = pl.DataFrame({"user_id": [1, 1, 2], "pos": [0, 1, 0], "item_id": [3, 1, 3]})
    table = prepared("ml-1m-order", tmp_path / "a", {"ml1m_sasrec_order.parquet": frame}).log
    text = prepared("ml-1m-order", tmp_path / "b", {"ml-1m.txt": "1 3\n1 1\n2 3\n"}).log
    assert sessions(table) == sessions(text) == [(1, [[3, 1]]), (2, [[3]])]
    assert table.item_table is None


@pytest.mark.parametrize("name", ["diginetica-gce", "tmall-gce"])
def test_gce(name, tmp_path):
    train = pl.DataFrame({"seq": [[1, 2], [3, 2, 3]]}, schema={"seq": pl.List(pl.Int32)})
    test = pl.DataFrame(
        {"prefix": [[2, 1, 2], [2, 1], [2], [1], [9]], "target": [3, 2, 1, 2, 1]},
        schema={"prefix": pl.List(pl.Int32), "target": pl.Int32},
    )
    found = prepared(name, tmp_path, {"train_sessions.parquet": train, "test_prefixes.parquet": test})
    assert lists(found.log) == [[1, 2], [3, 2, 3]]
    assert not found.log.timed
    cases = found.questions
    own = cases.histories.vocabulary
    assert lists(cases.histories) == sorted([[2, 1, 2], [2, 1], [2], [1], [9]])
    assert own.decode(cases.targets).tolist() == [3, 2, 1, 2, 1]
    assert cases.groups.tolist() == [0, 0, 0, 1, 2]
    assert np.array_equal(own.ids[: len(found.log.vocabulary)], found.log.vocabulary.ids)
    assert np.all(cases.asked_at > cases.histories.last_times)


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("rsc15-100k", "yoochoose-clicks-100k_train_full.txt", "yoochoose-clicks-100k_test.txt"),
        ("rsc15-64", "rec15_train_full.txt.gz", "rec15_test.txt.gz"),
        ("serenade-toy", "train.txt", "test.txt"),
    ],
)
def test_session_rec(name, train, test, tmp_path):
    head = "SessionId\tItemId\tTime\n"
    files = {
        train: head + "3\t20\t1396437466.94\n3\t10\t1396438212.318\n1\t10\t1396430000.0\n",
        test: head
        + "8\t30\t1396766998.728\n8\t10\t1396766990.5\n8\t10\t1396767132.647\n"
        + "9\t10\t1396767000.0\n9\t20\t1396767001.0\n",
    }
    found = prepared(name, tmp_path, files)
    assert lists(found.log) == [[10], [20, 10]]
    assert 1396437466940 in found.log.times.tolist()
    cases = found.questions
    own = cases.histories.vocabulary
    asked = [[own.ids[i] for i in cases.histories.rows(q, q + 1).items] for q in range(len(cases))]
    assert asked == [[10], [10, 30], [10]]
    assert own.decode(cases.targets).tolist() == [30, 10, 20]
    assert cases.groups.tolist() == [0, 0, 1]
    assert cases.asked_at.tolist() == [1396766990501, 1396766998729, 1396767000001]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 3)), max_size=20))
def test_questions_of_every_event_agree_with_loops(rows):
    events = pl.DataFrame(rows, schema={"SessionId": pl.Int64, "ItemId": pl.Int64, "time": pl.Int64}, orient="row")
    cases = per_event(events, Vocabulary([2, 0]))
    expected = []
    for session in sorted({s for s, _, _ in rows}):
        mine = sorted(((t, n, i) for n, (s, i, t) in enumerate(rows) if s == session), key=lambda x: x[:2])
        for e in range(1, len(mine)):
            expected.append(([i for _, _, i in mine[:e]], mine[e - 1][0] + 1, mine[e][2], session))
    own = cases.histories.vocabulary
    found = []
    for q in range(len(cases)):
        known = own.decode(cases.histories.rows(q, q + 1).items).tolist()
        found.append((known, int(cases.asked_at[q]), int(own.ids[cases.targets[q]])))
    assert found == [x[:3] for x in expected]
    places = sorted({session for _, _, _, session in expected})
    assert np.unique(cases.groups, return_inverse=True)[1].tolist() == [places.index(x[3]) for x in expected]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(1, 5), unique=True, max_size=4), st.lists(st.integers(1, 6), max_size=4)),
        max_size=6,
    )
)
def test_impressions_agree_with_loops(impressions):
    frame = pl.DataFrame(
        {
            "impression_id": range(len(impressions)),
            "impression_time": [0] * len(impressions),
            "user_id": [1] * len(impressions),
            "session_id": [1] * len(impressions),
            "article_ids_inview": [v for v, _ in impressions],
            "article_ids_clicked": [c for _, c in impressions],
        },
        schema_overrides={"article_ids_inview": pl.List(pl.Int32), "article_ids_clicked": pl.List(pl.Int32)},
    ).with_row_index(ROW, 1)
    expected = []
    for n, (view, clicks) in enumerate(impressions):
        expected += [(n, item, int(item in clicks)) for item in view]
        left = list(clicks)
        for item in set(view) & set(clicks):
            left.remove(item)
        expected += [(n, item, 1) for item in left]
    found = ebnerd._events(frame).select("impression_id", "article_id", "clicked")
    assert sorted(found.rows()) == sorted(expected)


# -- finding --------------------------------------------------------------------------------------

RATINGS = "1::1193::5::978300760\n"


@pytest.mark.parametrize("place", ["", "ml-1m"])
def test_sets_are_found_in_the_data_folder_itself_and_under_their_names(monkeypatch, tmp_path, place):
    put(tmp_path / "data" / place, {"ratings.dat": RATINGS})
    assert sets.get("ml-1m").find() is None
    monkeypatch.setenv("NEXTSESSION_DATA", str(tmp_path / "data"))
    assert sets.get("ml-1m").find() == tmp_path / "data" / place
    assert sets.get("ml-100k").find() is None


def test_the_data_folder_comes_before_the_cache(monkeypatch, tmp_path):
    cached = put(tmp_path / "cache/sets/ml-1m", {"ratings.dat": RATINGS})
    assert sets.get("ml-1m").find() == cached
    own = put(tmp_path / "data/ml-1m", {"ratings.dat": RATINGS})
    monkeypatch.setenv("NEXTSESSION_DATA", str(tmp_path / "data"))
    assert sets.get("ml-1m").find() == own


def test_names_that_anybody_uses_are_looked_for_only_where_they_are_meant(monkeypatch, tmp_path):
    put(tmp_path / "data", {"requirements.txt": "numpy\n"})
    monkeypatch.setenv("NEXTSESSION_DATA", str(tmp_path / "data"))
    assert sets.get("text").find() is None
    place = put(tmp_path / "data/text", {"log.txt": "1 2\n"})
    assert sets.get("text").find() == place
    assert sets.get("text").find(tmp_path / "data" / "requirements.txt") is not None


def test_a_layout_needs_all_its_files(tmp_path):
    put(tmp_path, {"train.txt": "SessionId\tItemId\tTime\n"})
    assert sets.get("serenade-toy").find(tmp_path) is None


def test_a_missing_set_says_what_was_looked_for_and_how_to_get_it(tmp_path):
    with pytest.raises(DataError) as caught:
        sets.get("ml-1m").prepare()
    message = str(caught.value)
    assert "MovieLens 1M is not in $NEXTSESSION_DATA (not set) or the cache: there is no ratings.dat." in message
    assert "`nextsession data fetch ml-1m` gets it" in message
    with pytest.raises(DataError, match=r"By hand: download it from Kaggle"):
        sets.get("globo").prepare(folder=tmp_path)
    with pytest.raises(DataError, match=r"By hand: download it from Kaggle"):
        sets.get("globo").fetch(agree=lambda terms: True)


# -- the cache of prepared logs -------------------------------------------------------------------


def test_what_was_prepared_comes_from_the_cache_until_something_changes(tmp_path, monkeypatch):
    folder = put(tmp_path / "x", {"ratings.dat": RATINGS})
    one = sets.get("ml-1m")
    first = one.prepare(folder=folder)
    kept = tmp_path / "cache/prepared"
    assert len(list(kept.iterdir())) == 1
    calls = []
    import nextsession.data.dataset as module

    real = module.prepare
    monkeypatch.setattr(module, "prepare", lambda *a, **k: calls.append(1) or real(*a, **k))
    again = one.prepare(folder=folder)
    assert calls == []
    assert np.array_equal(again.log.items, first.log.items)
    assert again.log.item_table is None
    one.prepare(folder=folder, sessions=SessionRule(by="gap"))
    one.prepare(folder=folder, filters=Filters(session_events=1))
    assert len(calls) == 2
    put(folder, {"ratings.dat": RATINGS * 2})
    assert one.prepare(folder=folder).log.n_events == 2
    put(folder, {"movies.dat": "1193::One (1975)::Drama\n"})
    assert one.prepare(folder=folder).log.item_table.titles.tolist() == ["One (1975)"]
    os.utime(folder / "ratings.dat", (1, 1))
    one.prepare(folder=folder)
    assert len(calls) == 5


def test_a_damaged_entry_of_the_cache_is_made_again(tmp_path):
    folder = put(tmp_path / "x", {"ratings.dat": RATINGS})
    one = sets.get("ml-1m")
    one.prepare(folder=folder)
    [entry] = (tmp_path / "cache/prepared").iterdir()
    (entry / "manifest.json").write_text("{", encoding="utf-8")
    assert one.prepare(folder=folder).log.n_events == 1


def test_bad_rows_can_be_set_aside(tmp_path):
    files = {"ratings.dat": RATINGS + "2::661::3::soon\n"}
    with pytest.raises(DataError, match=r"ratings.dat, row 2"):
        prepared("ml-1m", tmp_path / "x", files)
    found = prepared("ml-1m", tmp_path / "x", files, bad_rows="quarantine")
    assert (found.log.n_events, found.manifest["quarantined"]) == (1, 1)


def test_out_says_where_to(tmp_path):
    folder = put(tmp_path / "x", {"ratings.dat": RATINGS})
    found = sets.get("ml-1m").prepare(tmp_path / "out", folder=folder)
    assert (tmp_path / "out/manifest.json").is_file()
    assert not (tmp_path / "cache").exists()
    notes = found.manifest["notes"]
    assert (notes["set"], notes["title"]) == ("ml-1m", "MovieLens 1M")
    assert "GroupLens" in notes["licence"]


# -- fetching -------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path):
    """A toy set, its archive on a real server of this machine, and the list of what was asked for."""
    pack = io.BytesIO()
    with zipfile.ZipFile(pack, "w") as file:
        file.writestr("toy/log.csv", "user_id,item_id,timestamp\n1,2,1500000000\n")
    put(tmp_path / "www", {"toy.zip": pack.getvalue()})
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "www")))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    toy = DataSet(
        name="toy",
        title="A toy",
        about="",
        homepage="https://example.org",
        licence="anything goes",
        citation="",
        layouts=(Layout(files=("log.csv",), form=LogFormat()),),
        addresses=(Address(f"http://127.0.0.1:{server.server_port}/toy.zip", len(pack.getvalue())),),
    )
    yield toy, asked
    server.shutdown()
    server.server_close()


def test_a_set_is_fetched_once_its_terms_are_agreed_to(served, tmp_path):
    toy, asked = served
    shown = []
    with pytest.raises(DataError, match="toy was not fetched: its terms were not agreed to"):
        toy.fetch(agree=lambda terms: bool(shown.append(terms)))
    assert asked == []
    assert "anything goes" in shown[0]
    assert toy.addresses[0].url in shown[0]
    folder = toy.fetch(agree=lambda terms: True)
    assert folder == tmp_path / "cache/sets/toy"
    assert toy.fetch(agree=lambda terms: False) == folder
    assert len(asked) == 1
    assert not list((tmp_path / "cache/downloads").rglob("*.zip"))
    assert sessions(toy.prepare().log) == [(1, [[2]])]


def test_prepare_fetches_only_with_consent(served):
    toy, asked = served
    with pytest.raises(DataError, match="nextsession data fetch toy"):
        toy.prepare()
    assert asked == []
    assert toy.prepare(agree=lambda terms: True).log.n_events == 1


def test_an_archive_without_the_files_is_told(served, tmp_path):
    toy, _ = served
    other = DataSet(
        **{**{f: getattr(toy, f) for f in toy.__dataclass_fields__}, "layouts": (Layout(("no.csv",), LogFormat()),)}
    )
    with pytest.raises(DataError, match=r"holds what was fetched, but not no.csv"):
        other.fetch(agree=lambda terms: True)


# -- item tables ----------------------------------------------------------------------------------


def test_item_tables_follow_the_vocabulary():
    words = item_table(Vocabulary(["b", "a"]), {"a": "A"}, {"kind": {"a": ["x", "y"]}})
    assert words.titles.tolist() == ["", "A"]
    assert words.features["kind"].rows() == [[], ["x", "y"]]
    assert item_table(Vocabulary([3]), {}, {}).titles is None
    feature = item_feature(
        Vocabulary([30, 10, 20]), pl.Series([10, 30, 40, 10, 20]), pl.Series(["x", "a", "q", "z", None])
    )
    assert feature.rows() == [["a"], ["x"], []]
    assert feature.labels == ("a", "x")
