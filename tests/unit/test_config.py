"""Settings: typed, closed, frozen; messages that say what to do."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from nextsession.config import Duration, Runtime, Settings, duration_text, milliseconds
from nextsession.errors import ConfigError


class Inner(Settings):
    """A group of settings."""

    dim: int = Field(default=8, gt=0)
    """Width."""


class Outer(Settings):
    """Settings with a group in them."""

    gap: Duration = "30m"  # type: ignore[assignment]
    """Silence."""
    kind: Literal["csv", "parquet"] = "csv"
    """Of file."""
    inner: Inner = Inner()
    """More."""


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("250ms", 250),
        ("1s", 1000),
        ("30m", 1_800_000),
        (" 1.5 h ", 5_400_000),
        ("7d", 604_800_000),
        ("2w", 2 * 604_800_000),
    ],
)
def test_durations(text, ms):
    assert milliseconds(text) == ms


@given(st.integers(0, 10**15))
def test_durations_are_written_as_they_are_read(ms):
    assert milliseconds(duration_text(ms)) == ms


@pytest.mark.parametrize("wrong", ["", "30", "m", "-1h", "1 year", "1e3s", None, 1.5, True])
def test_what_is_no_duration_is_refused(wrong):
    with pytest.raises(ValueError, match="must be a duration such as '30m', '2h' or '7d', got"):
        milliseconds(wrong)


def test_values_are_read():
    outer = Outer.read({"gap": "2h", "inner": {"dim": 3}}, "data")
    assert (outer.gap, outer.inner.dim, outer.kind) == (7_200_000, 3, "csv")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"gapp": 1},
            r"data: gapp: there is no such setting \(got 1\)\. Did you mean 'gap'\? Settings: gap, inner, kind\.",
        ),
        ({"inner": {"dimm": 3}}, r"data: inner\.dimm: there is no such setting \(got 3\)\. Did you mean 'dim'\?"),
        ({"zzz": 3}, r"there is no such setting \(got 3\)\. Settings: gap"),
        ({"inner": {"dim": 0}}, r"data: inner\.dim: must be greater than 0, got 0\."),
        ({"gap": "soon"}, r"data: gap: must be a duration such as '30m', '2h' or '7d', got 'soon'\."),
        ({"gap": -1}, r"data: gap: must be greater than or equal to 0, got -1\."),
        ({"kind": "xls"}, r"data: kind: must be 'csv' or 'parquet', got 'xls'\."),
        ({"kind": "xls", "gapp": 1}, r"kind: .* data: gapp: there is no such setting"),
    ],
)
def test_what_is_wrong_is_said(values, message):
    with pytest.raises(ConfigError, match=message):
        Outer.read(values, "data")


def test_missing_settings_are_named():
    class Needy(Settings):
        """Has a setting without a default."""

        path: str

    with pytest.raises(ConfigError, match=r"data: path: Field required\."):
        Needy.read({}, "data")


def test_settings_without_settings():
    class Nothing(Settings):
        """No settings."""

    with pytest.raises(ConfigError, match="Settings: none"):
        Nothing.read({"x": 1}, "noop")


def test_settings_are_frozen_and_documented():
    with pytest.raises(ValidationError, match="frozen"):
        Outer().gap = 3
    assert Outer.described()["gap"] == "Silence."


def test_changed_settings_are_written_as_people_do():
    class Fading(Settings):
        """Of a model that forgets."""

        window: Duration | None = None
        half_life: Duration = 1000
        power: float = 1.0

    assert Fading().changed() == {}
    assert Fading(window="7d", half_life="20m").changed() == {"window": "1w", "half_life": "20m"}
    assert Fading(window=0, power=2).changed() == {"window": "0ms", "power": 2.0}


def test_the_runtime_is_checked():
    assert Runtime().seed == 0
    with pytest.raises(ConfigError, match="runtime: seed: must be greater than or equal to 0, got -1"):
        Runtime.read({"seed": -1}, "runtime")
