"""Vocabulary: ids outside, codes inside."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextsession.data.vocabulary import Vocabulary, as_ids
from nextsession.errors import DataError
from nextsession.testing.strategies import vocabularies


@given(vocabularies(least=0), vocabularies(least=0), st.integers(0, 200))
def test_encode_against_a_loop(vocabulary, other, repeats):
    asked = np.tile(other.ids, repeats)  # short and long: a dictionary answers the one, Arrow the other
    place = {x: i for i, x in enumerate(vocabulary.ids.tolist())}
    assert vocabulary.encode(asked).tolist() == [place.get(x, -1) for x in asked.tolist()]
    assert vocabulary.encode(asked).dtype == np.int32


@given(vocabularies(least=0), vocabularies(least=0), vocabularies(least=0))
def test_translate_is_encode_also_when_asked_again_and_in_turns(vocabulary, one, other):
    for asked in (one, one, other, one, vocabulary):
        assert vocabulary.translate(asked).tolist() == vocabulary.encode(asked.ids).tolist()
    assert vocabulary.translate(one) is vocabulary.translate(one)


def test_a_copy_of_a_model_shares_its_vocabulary():
    vocabulary = Vocabulary(["a", "b"])
    assert copy.deepcopy({"vocabulary": vocabulary})["vocabulary"] is vocabulary


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True), st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_integers_in_any_order_are_found(ids, others):
    place = {x: i for i, x in enumerate(ids)}
    asked = np.array([*others, *ids], np.int64)
    assert Vocabulary(np.array(ids, np.int64)).encode(asked).tolist() == [place.get(x, -1) for x in asked.tolist()]


@given(vocabularies())
def test_decode_undoes_encode(vocabulary):
    assert vocabulary.decode(vocabulary.encode(vocabulary.ids)).tolist() == vocabulary.ids.tolist()


@given(vocabularies(), vocabularies())
def test_extend_appends_new_ids_sorted_and_keeps_old_codes(vocabulary, other):
    if vocabulary.ids.dtype != other.ids.dtype:
        with pytest.raises(DataError, match="Ids must all be integers or all strings"):
            vocabulary.extend(other.ids)
        return
    old = vocabulary.ids.tolist()
    assert vocabulary.extend(other.ids).ids.tolist() == old + sorted(set(other.ids.tolist()) - set(old))


def test_extend_with_nothing_new_is_the_same_vocabulary():
    vocabulary = Vocabulary(["b", "a"])
    assert vocabulary.extend(["a"]) is vocabulary
    assert vocabulary.extend([]) is vocabulary
    assert Vocabulary([]).extend(["b", "a"]).ids.tolist() == ["a", "b"]


@given(vocabularies(least=0))
def test_saved_and_loaded(vocabulary):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        vocabulary.save(Path(folder) / "v.arrow")
        assert Vocabulary.load(Path(folder) / "v.arrow") == vocabulary


@given(st.lists(st.text(max_size=4), max_size=8))
def test_of_sorts_and_drops_repeats(ids):
    assert Vocabulary.of(ids).ids.tolist() == sorted(set(ids))


@pytest.mark.parametrize("strange", ["", " ", "a,b", "a\0", "é", "e\u0301", "\U0001f9ac", "x" * 10_000, "1"])
def test_strange_text_stays_as_it_is(tmp_path, strange):
    vocabulary = Vocabulary(["plain", strange])
    vocabulary.save(tmp_path / "v.arrow")
    again = Vocabulary.load(tmp_path / "v.arrow")
    assert again.ids.tolist() == ["plain", strange]
    assert again.encode([strange] * 1000).tolist() == [1] * 1000


def test_integers_of_64_bits():
    most, least = 2**63 - 1, -(2**63)
    assert Vocabulary([least, most]).encode([most, least, 0]).tolist() == [1, 0, -1]


def test_text_and_integers_never_meet():
    assert Vocabulary(["1", "2"]).encode([1, 2]).tolist() == [-1, -1]
    assert Vocabulary([1, 2]) != Vocabulary(["1", "2"])
    assert Vocabulary([1, 2]) != Vocabulary([2, 1])
    assert Vocabulary([1, 2]) != [1, 2]


def test_repr_shows_the_first_ids():
    assert repr(Vocabulary(["a", "b", "c", "d"])) == "Vocabulary(4 ids: 'a', 'b', 'c', …)"


def test_ids_cannot_be_written_and_are_not_the_callers():
    mine = np.array(["a", "b"], dtype=object)
    vocabulary = Vocabulary(mine)
    mine[0] = "z"
    assert vocabulary.ids.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="read-only"):
        vocabulary.ids[0] = "z"


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b", "a"], "Ids of a vocabulary must be distinct; 'a' occurs more than once"),
        ([3, 1, 3], "Ids of a vocabulary must be distinct; .*3.* occurs more than once"),
        (["a", 1], "Ids must all be integers or all strings; the list given mixes them"),
        ([1, None], "Ids must all be integers or all strings, got None"),
        ([1.5, 2.0], r"Ids must all be integers or all strings, got 1\.5"),
        ([True, False], "Ids must all be integers or all strings, got dtype"),
        ([b"a"], "Ids must all be integers or all strings, got b'a'"),
        ([2**63], r"Integer ids must fit 64 signed bits, got 9223372036854775808; pass such ids as strings"),
        ([2**70], "Integer ids must fit 64 signed bits; pass larger ids as strings"),
    ],
)
def test_what_is_no_id_is_refused(ids, message):
    with pytest.raises(DataError, match=message):
        Vocabulary(ids)


@pytest.mark.parametrize("codes", [[-1], [0, 2]])
def test_a_code_that_is_no_items_cannot_be_decoded(codes):
    with pytest.raises(DataError, match=r"Codes must be in 0\.\.1; got"):
        Vocabulary(["a", "b"]).decode(codes)


def test_ids_of_many_kinds_of_arrays():
    assert as_ids(np.array([1, 2], np.uint8)).dtype == np.int64
    assert as_ids(np.array(["a"])).dtype == object
    assert as_ids(np.array([1, 2], object)).dtype == np.int64
    assert as_ids(range(3)).tolist() == [0, 1, 2]
    assert as_ids({"a": 1}.keys()).tolist() == ["a"]
    assert as_ids([]).dtype == np.int64
