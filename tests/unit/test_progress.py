"""Progress is a function."""

from nextsession.progress import Progress, silent


def test_a_function_is_enough_and_silence_is_the_default():
    told = []

    def record(task: str, done: int, total: int | None) -> None:
        told.append((task, done, total))

    def work(progress: Progress = silent) -> None:
        progress("reading", 1, None)

    work()
    work(record)
    assert told == [("reading", 1, None)]
