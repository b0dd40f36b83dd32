"""Declared shapes: what fits, and what is said of what does not."""

import pytest

from tss.data.shapes import Row, Within, why_not

SHAPE = {
    "name": str,
    "grid": Row(int, int),
    "share?": Within(0, 1, float),
    "status?": {"ok", "failed"},
    "flags?": [str],
    "values?": {str: float},
    "side?": (str, None),
}


def test_what_fits():
    whole = {"name": "a", "grid": [1, 2], "share": 1, "status": "ok", "flags": [], "values": {"x": 2, "y": 0.5}}
    assert why_not(whole | {"side": None, "more": object()}, SHAPE) == ""
    assert why_not({"name": "", "grid": (0, -1)}, SHAPE) == ""


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": 3}, "name is 3, not text"),
        ({"grid": [1]}, "grid is [1], not a list of 2"),
        ({"grid": [1, True]}, "grid[1] is True, not a whole number"),
        ({"grid": [1, 2.0]}, "grid[1] is 2.0, not a whole number"),
        ({"grid": [1, 2**80]}, "grid[1] is 1208925819614629174706176, not a whole number"),
        ({"share": 1.01}, "share is 1.01, not between 0 and 1"),
        ({"share": float("nan")}, "share is nan, not a finite number"),
        ({"share": "0.5"}, "share is '0.5', not a finite number"),
        ({"status": "done"}, "status is 'done', not one of failed, ok"),
        ({"status": []}, "status is [], not one of failed, ok"),
        ({"flags": ["a", None]}, "flags[1] is None, not text"),
        ({"flags": {}}, "flags is {}, not a list"),
        ({"values": {"x": float("inf")}}, "values.x is inf, not a finite number"),
        ({"values": {1: 2}}, "values.1 is not a name"),
        ({"side": 1}, "side is 1, not text"),
    ],
)
def test_what_does_not_is_said(changed, said):
    assert why_not({"name": "a", "grid": [1, 2]} | changed, SHAPE) == said


def test_what_is_missing_and_what_is_no_object():
    assert why_not({"grid": [1, 2]}, SHAPE) == "name is missing"
    assert why_not([], SHAPE) == "it is [], not an object"
    assert why_not("x" * 99, int, "long") == f"long is '{'x' * 29}..., not a whole number"
