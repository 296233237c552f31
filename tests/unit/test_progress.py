"""Progress is a function."""

from nextsession.cli import terminal
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


def test_without_a_terminal_long_work_writes_a_line_now_and_then(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    with terminal.bars() as report:
        for step in range(1, 101):
            now[0] = float(step)
            report("sasrec: training", step, 200, "loss 2.5")
            report("reading", step, None)
    assert capsys.readouterr().err.splitlines() == [
        "sasrec: training: 30 of 200 · loss 2.5 · 0:02:50 left",
        "sasrec: training: 60 of 200 · loss 2.5 · 0:02:20 left",
        "sasrec: training: 90 of 200 · loss 2.5 · 0:01:50 left",
    ]
