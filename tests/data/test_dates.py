"""Dates as people write them, against the moment that they mean."""

from datetime import datetime

import pytest

from tss.data.dates import order_in_time, read_date


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2009-06-15T13:45:30", (13, 45, 30)),
        ("2009-06-15T13:45:30.123456Z", (13, 45, 30)),
        ("2009-06-15T15:45:30+02:00", (13, 45, 30)),
        ("2009-06-15T08:45:30-05", (13, 45, 30)),
        ("2009/6/15 13:45", (13, 45)),
        ("20090615", ()),
        ("20090615T134530.5", (13, 45, 30)),
        ("20090615 1345", (13, 45)),
        ("15.06.2009, 13:45 Uhr", (13, 45)),
        ("15.6.09", ()),
        ("15-Jun-2009 01:45:00 PM", (13, 45)),
        ("Jun 15, 2009", ()),
        ("15. Juni 2009", ()),
        ("15/06/2009", ()),
    ],
)
def test_a_date(text, expected):
    assert read_date(text, day_first=True) == datetime(2009, 6, 15, *expected)


def test_day_or_month_first_and_what_is_no_date():
    assert read_date("3/4/2009", True).month == 4 and read_date("3/4/2009", False).month == 3
    assert read_date("3.4.2009", False).month == 4
    nothing = ("", "n/a", "2009-13-45", "13:00:00", "day one", "3 Nix 2009", "09-06-15")  # the last may be 2009 or 2015
    assert [read_date(text, True) for text in nothing] == [None] * 7


def test_order():
    assert order_in_time(["2009-06-15", "2009-06-14", "2009-06-15"]) == [1, 0, 2]
    assert order_in_time(["25/12/2009", "2/1/2010", "1/12/2009"]) == [2, 0, 1]
    assert order_in_time(["3/4/2009", "2/5/2009"]) is None and order_in_time(["2009-06-15", ""]) is None
