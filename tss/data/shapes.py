"""Declared shapes of what files hold: keys, types and ranges of plain values, checked once, where a file is read.

In:  a value out of JSON or a checkpoint; a shape.
Out: "" where it fits, else what is wrong and where: "reference.landmarks.dwi[3] is NaN, not a finite number".
Paper: none (our choice: whatever lies behind the gate may rely on its types).
See: tests/data/test_shapes.py

A shape is a type (float takes whole numbers too, int takes no True), None, a set of values, Within a range, [shape] for
a list of any length, Row for one of a fixed length, {"key": shape, "key?": shape} for a dict whose keys with ? may be
missing and whose other keys are ignored, {str: shape} for a dict with any names, or a tuple of shapes that are allowed.
"""

import math
from typing import Any, NamedTuple

SHOWN = 30  # characters of a value in a message
WORDS = {
    str: "text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


class Within(NamedTuple):
    """A number from low to high, both included; kind: int or float."""

    low: float
    high: float
    kind: type = int


class Row(tuple):
    """A list with one value of each shape."""

    def __new__(cls, *shapes: Any) -> "Row":
        return super().__new__(cls, shapes)


def why_not(value: object, shape: Any, where: str = "") -> str:
    """Return in what a value does not have a shape, "" where it has. where: the value's name in messages."""
    if isinstance(shape, Row):
        if not isinstance(value, (list, tuple)) or len(value) != len(shape):
            return _wrong(value, f"a list of {len(shape)}", where)
        return next(filter(None, map(why_not, value, shape, [f"{where}[{k}]" for k in range(len(shape))])), "")
    if isinstance(shape, Within):
        if why := why_not(value, shape.kind, where):
            return why
        inside = shape.low <= value <= shape.high  # type: ignore[operator]
        return "" if inside else _wrong(value, f"between {shape.low:g} and {shape.high:g}", where)
    if isinstance(shape, tuple):
        found = [why_not(value, one, where) for one in shape]
        return "" if "" in found else found[0]
    if isinstance(shape, (set, frozenset)):
        fits = isinstance(value, (str, int)) and not isinstance(value, bool) and value in shape
        return "" if fits else _wrong(value, f"one of {', '.join(map(str, sorted(shape)))}", where)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _wrong(value, "a list", where)
        return next(filter(None, (why_not(one, shape[0], f"{where}[{k}]") for k, one in enumerate(value))), "")
    if isinstance(shape, dict):
        return _why_not_dict(value, shape, where)
    if shape is None:
        return "" if value is None else _wrong(value, "nothing", where)
    fits = isinstance(value, (int, float) if shape is float else shape)
    if fits and shape in (int, float):
        fits = not isinstance(value, bool) and abs(value) < 2**63 and math.isfinite(value)  # type: ignore[arg-type]
    return "" if fits else _wrong(value, WORDS.get(shape, shape.__name__), where)


def _why_not_dict(value: object, shape: dict, where: str) -> str:
    if not isinstance(value, dict):
        return _wrong(value, "an object", where)
    dot = f"{where}." if where else ""
    if str in shape:
        if odd := [name for name in value if not isinstance(name, str)]:
            return f"{dot}{odd[0]!r:.{SHOWN}} is not a name"
        return next(filter(None, (why_not(one, shape[str], f"{dot}{name}") for name, one in value.items())), "")
    for key, inner in shape.items():
        name = key.removesuffix("?")
        if name not in value:
            if key == name:
                return f"{dot}{name} is missing"
        elif why := why_not(value[name], inner, f"{dot}{name}"):
            return why
    return ""


def _wrong(value: object, wanted: str, where: str) -> str:
    shown = repr(value) if isinstance(value, (str, int, float, type(None), list, dict)) else type(value).__name__
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    return f"{where or 'it'} is {shown}, not {wanted}"
