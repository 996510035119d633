"""Pieces of the report: what is made visible, which words differ, where plots put their marks."""

from __future__ import annotations

import math
import random
import re
import time
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.report import plots
from slipway.report.figures import Bound, bound_of
from slipway.report.texts import cut, milliseconds, percent, signed, usd, visible
from slipway.report.words import LEAST_SHARED, MAX_WORDS, differences, segments


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\r\nand lines", "plain\ttext\nand lines"),
        ("pay\u202e100\u202c", "pay[U+202E]100[U+202C]"),
        ("a\u200bb\u2060c\ufeffd\u00ade", "a[U+200B]b[U+2060]c[U+FEFF]d[U+00AD]e"),
        ("x\x00\x1b[1m\x7f\x85", "x[U+0000][U+001B][1m[U+007F][U+0085]"),
        ("cut \ud83d in two", "cut [U+D83D] in two"),
        ("\U000e0068\U000e0069", "[U+E0068][U+E0069]"),
        ("\u3164\u115f", "[U+3164][U+115F]"),
        ("\ufffe\U0001ffff", "[U+FFFE][U+1FFFF]"),
        ("\U0001f469\u200d\U0001f680 and \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", None),
        ("a\u200db", "a[U+200D]b"),
        ("\u0645\u0631\u062d\u0628\u0627, \u4f60\u597d, na\u00efve \u00bd", None),
    ],
)
def test_what_deceives_the_eye_is_named_and_the_rest_is_left(text, shown):
    """Joiners inside emoji and scripts that need them stay; between Latin letters they only hide something."""
    assert visible(text) == (text if shown is None else shown)


@given(st.text(max_size=60))
def test_visible_text_is_stable_and_can_be_encoded(text):
    once = visible(text)
    assert visible(once) == once
    once.encode("utf-8")


def test_numbers_are_written_for_people():
    assert (percent(0.975), percent(1.0), percent(0.0)) == ("97.5\xa0%", "100\xa0%", "0\xa0%")
    assert (signed(-0.05), signed(0.0005), signed(-0.0004)) == ("\N{MINUS SIGN}0.050", "+0.001", "0.000")
    assert [milliseconds(value) for value in (0, 4.25, 380.8, 12_345, math.inf, math.nan)] == [
        *("0 ms", "4.2 ms", "381 ms", "12.3 s", "?", "?")
    ]
    assert [usd(value) for value in (0.0, 2.5e-5, 0.0123, 1234.5)] == ["$0", "25 µ$", "$0.0123", "$1,234"]
    assert cut("abcdef", 3) == "abc\N{HORIZONTAL ELLIPSIS} [3 more characters]"
    assert cut("abc", 3) == "abc"


def marked(ours, theirs):
    left, right = differences(ours, theirs)
    return [ours[start:end] for start, end in left], [theirs[start:end] for start, end in right]


@pytest.mark.parametrize(
    ("ours", "theirs", "left", "right"),
    [
        ("the red house", "the red house", [], []),
        ("the red old house", "the blue old house", ["red"], ["blue"]),
        ("one two three four", "one three four", ["two"], []),
        ("one two three", "one two, three!", [], [",", "!"]),
        ("a b c d e f", "a b x y e f", ["c d"], ["x y"]),
        ("same words here", "same  words here", [], [" "]),
        ("nothing alike at all", "every word is another", [], []),
        ("", "something", [], []),
        ("今天天气很好", "今天天气不好", ["很"], ["不"]),
    ],
)
def test_words_that_differ_are_marked(ours, theirs, left, right):
    assert marked(ours, theirs) == (left, right)


@given(st.text("ab ,\n", max_size=40), st.text("ab ,\n", max_size=40))
def test_what_is_not_marked_is_common_to_both(ours, theirs):
    left, right = differences(ours, theirs)
    if left or right:
        kept = [
            [text for text, is_marked in segments(*one) if not is_marked] for one in ((ours, left), (theirs, right))
        ]
        assert re.findall(r"\S", "".join(kept[0])) == re.findall(r"\S", "".join(kept[1]))
    assert "".join(text for text, _ in segments(ours, left)) == ours


def test_marks_begin_and_end_at_the_least_share():
    """Just below the share that texts must have in common nothing is marked, just above it all that differs."""
    words = [f"word{number}" for number in range(100)]
    for common, is_marked in ((LEAST_SHARED - 0.01, False), (LEAST_SHARED + 0.01, True)):
        kept = round(100 * common)
        other = words[:kept] + [f"other{number}" for number in range(100 - kept)]
        assert bool(differences(" ".join(words), " ".join(other))[0]) is is_marked


def test_long_texts_are_compared_in_bounded_time():
    generator = random.Random(1)  # test data
    ours, theirs = (" ".join(generator.choice("abcdefgh") for _ in range(60_000)) for _ in range(2))
    started = time.perf_counter()
    assert differences("start " + ours, "start " + theirs) == ([], [])  # all but one word counts as changed
    assert time.perf_counter() - started < 2
    tail = " same" * (3 * MAX_WORDS)
    left, right = differences("x" + tail, "y" + tail)
    assert (left, right) == ([(0, 1)], [(0, 1)])


@pytest.mark.parametrize(
    ("rule", "bound"),
    [
        ("pass_rate at_least 0.9", Bound(value=0.9, is_floor=True, unit="share")),
        ("pass_rate tag at_least 1 at_least 0.8", Bound(value=0.8, is_floor=True, unit="share")),
        ("latency_ms.p95 at_most 800", Bound(value=800, is_floor=False, unit="ms")),
        ("cost_usd.mean at_most 1e-05", Bound(value=1e-5, is_floor=False, unit="usd")),
        ("score against champion margin 0.02", Bound(value=-0.02, is_floor=True, unit="difference")),
        ("score against base better_by 0", Bound(value=0, is_floor=True, unit="difference")),
        ("latency_ms against champion ratio_at_most 1.2", Bound(value=1.2, is_floor=False, unit="ratio")),
        ("attachment", None),
    ],
)
def test_a_rules_limit_is_read_from_its_name(rule, bound):
    assert bound_of(rule) == bound


def test_axes_have_round_ticks_and_hold_all_values():
    axis = plots.Axis.around([-0.369, 0.488, None, math.inf], str)
    assert axis.low < -0.369 < 0.488 < axis.high
    assert [round(tick, 9) for tick in axis.ticks] == [-0.4, -0.2, 0.0, 0.2, 0.4]
    assert plots.Axis.between(0.0, 1.0, str).ticks == pytest.approx((0, 0.2, 0.4, 0.6, 0.8, 1.0))
    assert plots.Axis.around([5.0], str).at(5.0) == "50.00%"
    assert plots.Axis.around([], str).low < 0
    assert axis.at(99.0) == "100.00%"


def lines(drawn, kind):
    return [line.attrib for line in ET.fromstring(drawn).iter("line") if line.attrib["class"].startswith(kind)]


def test_a_missing_bound_reaches_the_edge_and_is_dashed():
    axis = plots.Axis(low=0, high=10, ticks=(), label=str)
    drawn = plots.whisker(axis, kind="candidate", estimate=4, low=2, high=None, limit=5)
    bar, cap = lines(drawn, "whisker")
    assert (bar["x1"], bar["x2"], bar["class"]) == ("20.00%", "100.00%", "whisker candidate endless")
    assert cap["x1"] == "20.00%"
    assert lines(drawn, "limit")[0]["x1"] == "50.00%"
    assert "mark" not in plots.whisker(axis, kind="base", estimate=None, low=None, high=None)


def test_arms_differ_in_shape():
    shapes = [next(iter(ET.fromstring(plots.swatch(arm)))) for arm in ("candidate", "champion", "base")]
    assert [next(iter(shape)).tag for shape in shapes] == ["circle", "rect", "path"]


def test_a_cumulative_distribution_rises_from_nothing_to_all():
    values = sorted(random.Random(2).lognormvariate(5, 1) for _ in range(5_000))  # test data
    axis = plots.Axis.between(0.0, max(values), str)
    drawn = plots.ecdf(axis, [plots.Curve(kind="base", label="base", values=values)], 'a "title" <b>')
    path = next(node for node in ET.fromstring(drawn).iter("path") if node.attrib["class"] == "curve base")
    heights = [float(y) for y in re.findall(r"V([\d.]+)", path.attrib["d"])]
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] == 0
    assert len(heights) == plots.CURVE_POINTS
    assert ET.fromstring(drawn).attrib["aria-label"] == 'a "title" <b>'


def test_shares_fill_the_width():
    parts = [plots.Part(kind=kind, label=kind, count=count) for kind, count in (("a", 1), ("b", 0), ("c", 3))]
    rects = [node.attrib for node in ET.fromstring(plots.shares(parts)).iter("rect")]
    assert [(rect["x"], rect["width"]) for rect in rects] == [("0.00%", "25.00%"), ("25.00%", "75.00%")]
