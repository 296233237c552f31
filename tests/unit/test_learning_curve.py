"""Pictures of how a network learns."""

import re
import xml.etree.ElementTree as ET

import pytest

from nextsession.learning_curve import Line, page, picture
from nextsession.training_log import CURVE


def numbers(svg):
    return [float(x) for x in re.findall(r">(-?[\d.]+(?:e[+-]?\d+)?)</text>", svg)]


def curve(*rows):
    return [[i + 1, loss, score, 0.5, 1.0, 200, rate] for i, (loss, score, rate) in enumerate(rows)]


@pytest.mark.parametrize(
    "values", [[3.0], [2.0, 2.0], [0.0, 0.0, 0.0], [5.0, 4.0, 3.5], [1e-9, 2e-9], [1e6, 3.0], [-1.0, 1.0], [None, 2.0]]
)
def test_every_curve_is_drawn_inside_its_picture(values):
    svg = picture([Line(list(range(1, len(values) + 1)), values)], "loss")
    ET.fromstring(svg)
    width, height = (float(x) for x in re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())
    for pair in re.search(r'points="([^"]*)"', svg)[1].split():
        x, y = map(float, pair.split(","))
        assert 0 <= x <= width
        assert 0 <= y <= height
    known = [v for v in values if v is not None]
    assert min(numbers(svg)) <= min(known)
    assert max(numbers(svg)) >= max(known)


def test_nothing_to_draw():
    assert picture([Line([1, 2], [None, float("nan")])], "loss") == ""


def test_powers_of_ten_at_equal_distances():
    svg = picture([Line([1, 2, 3], [100.0, 10.0, 1.0])], "rate", log=True)
    heights = [float(pair.split(",")[1]) for pair in re.search(r'points="([^"]*)"', svg)[1].split()]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1])


def test_names_are_text():
    svg = picture([Line([1, 2], [1.0, 2.0], name="<b>&")], 'a "quoted" <label>')
    ET.fromstring(svg)
    assert "&lt;b&gt;&amp;" in svg


def test_the_page_says_where_training_stands():
    text = page("sasrec", CURVE, curve((7.5, None, 0.001), (6.25, 0.2, 0.001), (5.0, 0.1, 0.0005)), "ndcg@10")
    assert "3 epochs, the last with a loss of 5.0000; best ndcg@10 0.2000 after epoch 2" in text
    assert "200 positions a second" in text
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Loss of training", "ndcg@10", "Learning rate"]
    assert "1 epoch," in page("<x>", CURVE, curve((7.5, None, 0.001)), "ndcg@10")
    assert "No epoch is finished yet." in page("sasrec", CURVE, [], "ndcg@10")
    assert "<x>" not in page("<x>", CURVE, [], "ndcg@10")
