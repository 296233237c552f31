import numpy as np
import pytest

from nextsession.data.cases import Blocks, Cases
from nextsession.data.log import SessionLog
from nextsession.errors import DataError

LOG = SessionLog.from_lists([[["a", "b"], ["c"]], [], [["b", "a", "c"]]])


def cases(**changes) -> Cases:
    values = {
        "histories": LOG,
        "asked_at": np.array([9, 8, 7], np.int64) * 10**7,
        "targets": np.array([0, 1, 2], np.int32),
        "target_offsets": np.array([0, 2, 2, 3]),
        "groups": np.arange(3),
    }
    return Cases(**(values | changes))


def test_positions_are_those_of_the_last_session_unless_given():
    assert cases().positions.tolist() == [1, 0, 3]
    assert cases(positions=np.array([5, 5, 5])).positions.tolist() == [5, 5, 5]


def test_some_questions_are_cut_out_with_their_answers():
    part = cases(ignored=np.array([2, 0, 1], np.int32), ignored_offsets=np.array([0, 1, 1, 3])).rows(1, 3)
    assert len(part) == 2
    assert part.histories.items.tolist() == [1, 0, 2]
    assert (part.targets.tolist(), part.target_offsets.tolist()) == ([2], [0, 0, 1])
    assert (part.ignored.tolist(), part.ignored_offsets.tolist()) == ([0, 1], [0, 0, 2])
    assert part.asked_at.tolist() == [8 * 10**7, 7 * 10**7]
    assert part.positions.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"asked_at": np.zeros(2, np.int64)}, r"asked_at must have one value a question \(3\), it has 2"),
        ({"groups": np.zeros(4, np.int64)}, r"groups must have one value a question \(3\), it has 4"),
        ({"positions": np.zeros(1, np.int64)}, r"positions must have one value a question \(3\), it has 1"),
        ({"target_offsets": np.array([0, 3])}, "target_offsets must have 4 values and end at 3"),
        ({"ignored": np.zeros(2, np.int32)}, "ignored_offsets must have 4 values and end at 2"),
    ],
)
def test_columns_that_speak_of_other_questions_are_refused(changes, message):
    with pytest.raises(DataError, match=message):
        cases(**changes)


def test_blocks_can_be_looped_over_again():
    blocks = Blocks(lambda: iter([cases(), cases()]))
    assert [len(list(blocks)) for _ in range(2)] == [2, 2]
