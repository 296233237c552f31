"""Promises about the answers of a fitted model."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from nextsession.data.cases import Cases
from nextsession.data.log import SessionLog, offsets_of
from nextsession.scores import top_slowly
from nextsession.testing.subjects import (
    HOUR,
    START,
    Subject,
    arrays_of,
    expect,
    expect_same,
    matrix,
    questions,
    training_log,
)


def check_lists(subject: Subject) -> None:
    """Lists hold `k` items or fewer, none twice, best first, all with a score that is a number."""
    for k in (1, 5):
        answer = subject.fitted.recommend(questions(), k)
        expect(answer.items.shape == answer.scores.shape == (10, k), f"lists have the shape {answer.items.shape}.")
        for row, scores in zip(answer.items.tolist(), answer.scores, strict=True):
            listed = [item for item in row if item >= 0]
            expect(row == listed + [-1] * (k - len(listed)), f"a list has holes: {row}.")
            expect(len(set(listed)) == len(listed), f"a list repeats itself: {row}.")
            expect(max(row) < answer.vocabulary.__len__(), f"a list holds a code that is no item's: {row}.")
            expect(not np.isnan(scores).any(), f"scores are not numbers: {scores.tolist()}.")
            expect(np.all(scores[1:] <= scores[:-1]), f"scores rise along a list: {scores.tolist()}.")
            expect(np.all((scores > -np.inf) == (np.array(row) >= 0)), f"{row} have the scores {scores.tolist()}.")
        for ids in answer:
            expect(set(ids) <= set(answer.vocabulary.ids.tolist()), f"a list holds unknown ids: {ids}.")


def check_scores_below_infinity(subject: Subject) -> None:
    """Scores are float32, below infinity and never NaN; `-inf` stands for an item that cannot be scored."""
    scores = matrix(subject.fitted, questions())
    expect(scores.dtype == np.float32, f"scores are {scores.dtype}.")
    expect(not np.isnan(scores).any(), "a score is NaN.")
    expect(np.all(scores < np.inf), "a score is infinite.")


def check_more_than_there_is(subject: Subject) -> None:
    """Asked for more items than there are, a model lists those it can score and no more."""
    answer = subject.fitted.recommend(questions(), 1000)
    scored = (matrix(subject.fitted, questions()) > -np.inf).sum(axis=1)
    listed = (answer.items >= 0).sum(axis=1)
    expect(np.array_equal(listed, scored), f"{scored.tolist()} items have a score, {listed.tolist()} are listed.")


def check_no_question(subject: Subject) -> None:
    """No question gets no answer, without complaint."""
    answer = subject.fitted.recommend(questions().take([]), 4)
    expect(answer.items.shape == (0, 4), f"the answer has the shape {answer.items.shape}.")


def check_strange_histories(subject: Subject) -> None:
    """Histories may be empty, of unknown items alone, of one event, of one item repeated, or a thousand events long."""
    long = [f"item {i * i % 18:02}" for i in range(1000)]
    strange = [
        [],
        [["?"]],
        [["item 03"]],
        [["item 03"] * 40],
        [long],
        [[i] for i in long[:300]],
        [["?", "item 03"], ["!"]],
    ]
    scores = matrix(subject.fitted, SessionLog.from_lists(strange))
    expect(scores.shape[0] == len(strange), f"{len(strange)} histories got {scores.shape[0]} answers.")
    expect(np.all(scores < np.inf), "a score is not a number below infinity.")  # NaN is not below


def check_unknown_items(subject: Subject) -> None:
    """Items that the model does not know are passed over: a history of them alone is an empty one."""
    asked_at = START + 3000 * HOUR
    histories = SessionLog.from_lists([[["?"]], [], [["item 02"], ["item 04", "?", "item 05"]]])
    scores = matrix(subject.fitted, histories, asked_at)
    expect_same(scores[:1], scores[1:2], "for unknown items alone and for nothing")
    known = replace(histories.events(histories.vocabulary.decode(histories.items) != "?", keep_users=True))
    expect_same(scores[2:], matrix(subject.fitted, known, asked_at)[2:], "once unknown items are taken out")


def check_company(subject: Subject) -> None:
    """A history gets the same answer alone as in company, and wherever it stands."""
    asked = questions()
    together = matrix(subject.fitted, asked)
    alone = np.concatenate([matrix(subject.fitted, asked.take([row])) for row in range(len(asked))])
    expect_same(together, alone, "when each history is asked alone")
    order = np.arange(len(asked))[::-1]
    expect_same(together[order], matrix(subject.fitted, asked.take(order)), "when histories come in another order")
    crowd = matrix(subject.fitted, asked.take(np.tile(np.arange(len(asked)), 5)))
    expect_same(together, crowd[-len(asked) :], "when every history is asked five times")


def check_exclude_history(subject: Subject) -> None:
    """`exclude="history"` leaves out the items of the history, and only them."""
    _check_exclusion(subject, "history")


def check_exclude_session(subject: Subject) -> None:
    """`exclude="session"` leaves out the items of the last session, and only them."""
    _check_exclusion(subject, "session")


def _check_exclusion(subject: Subject, exclude: str) -> None:
    asked = questions()
    everything = subject.fitted.recommend(asked, 1000)
    left = subject.fitted.recommend(asked, 1000, exclude=exclude)  # type: ignore[arg-type]
    for row, (full, kept) in enumerate(zip(everything, left, strict=True)):
        first, last = asked.user_offsets[row], asked.user_offsets[row + 1]
        if exclude == "session":
            first = max(first, last - 1)
        codes = asked.items[asked.session_offsets[first] : asked.session_offsets[last]]
        out = set(asked.vocabulary.decode(codes).tolist())
        expect(kept == [item for item in full if item not in out], f"without {sorted(out)}, {full} became {kept}.")


def check_candidates(subject: Subject) -> None:
    """With `candidates` only they are listed, in the order they have among all; unknown ones are passed over."""
    chosen = ["item 03", "item 04", "item 11", "unknown"]
    everything = subject.fitted.recommend(questions(), 1000)
    for full, kept in zip(everything, subject.fitted.recommend(questions(), 1000, candidates=chosen), strict=True):
        expect(kept == [item for item in full if item in chosen], f"of {chosen}, {full} became {kept}.")


def check_no_trace(subject: Subject) -> None:
    """An answer leaves no trace: neither on the histories, nor on what was learnt, nor on the next answer."""
    asked = questions()
    codes, learnt = asked.items.copy(), dict(arrays_of(subject.fitted))
    before = subject.fitted.recommend(asked, 5)
    subject.fitted.recommend(asked, 1000, exclude="history", candidates=["item 03"])
    subject.fitted.recommend(asked.take([3, 3, 1]), 2, exclude="session")
    after = subject.fitted.recommend(asked, 5)
    expect(np.array_equal(codes, asked.items), "the histories were changed.")
    for name, values in arrays_of(subject.fitted):
        expect(np.array_equal(values, learnt[name], equal_nan=values.dtype.kind == "f"), f"answering changed {name}.")
    expect(np.array_equal(before.items, after.items), "the same question got another list the second time.")
    expect(np.array_equal(before.scores, after.scores), "the same question got other scores the second time.")


def check_rank(subject: Subject) -> None:
    """`recommend` and `rank` say what the scores say, target by target."""
    asked = questions()
    instant = int(asked.times.max()) + HOUR
    scores = matrix(subject.fitted, asked, instant)
    answer = subject.fitted.recommend(asked, 6, asked_at=instant)
    for row, items in enumerate(answer.items):
        slowly = top_slowly(scores[row], 6)
        expect(items[items >= 0].tolist() == slowly, f"by the scores the list is {slowly}, it is {items.tolist()}.")
    targets = np.arange(len(asked) * 2, dtype=np.int32) % asked.n_items
    rows = np.arange(len(asked))
    cases = Cases(asked, np.full(len(asked), instant), targets, offsets_of(np.full(len(asked), 2)), groups=rows)
    ranked = subject.fitted.rank(cases, k=6)
    expect(np.array_equal(ranked.top.items, answer.items), "rank lists other items than recommend.")
    codes = subject.fitted.vocabulary_.encode(asked.vocabulary.ids)[targets]
    for target, code in enumerate(codes.tolist()):
        row, own = scores[target // 2], scores[target // 2, code]
        found = code >= 0 and own > -np.inf
        expected = (int((row > own).sum()), int((row == own).sum())) if found else (scores.shape[1], 0)
        got = int(ranked.counts.greater[target]), int(ranked.counts.equal[target])
        expect(got == expected, f"{expected} items beat and equal target {target} by the scores, {got} by rank.")


def check_threads(subject: Subject) -> None:
    """Threads that ask at once get the answers they would get one after another."""
    asks = [questions(), training_log(seed=6, users=12)] * 4
    expected = [subject.fitted.recommend(asked, 8) for asked in asks]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda asked: subject.fitted.recommend(asked, 8), asks))
    for one, other in zip(expected, found, strict=True):
        expect(np.array_equal(one.items, other.items), "a list differs when four threads ask.")
        expect(np.array_equal(one.scores, other.scores), "a score differs when four threads ask.")
