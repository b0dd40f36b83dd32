"""Dates as people write them, and the order of scans in time.

In:  texts: 2009-06-15T13:00:00.5Z, 15.6.2009 13:00, 6/15/2009 1:00 PM, 20090615, 15 June 2009, numbers.
Out: the order, or None where the texts allow none or more than one.
Paper: none (our choice: the acute scan is the first in time).
See: tests/data/test_dates.py
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
ELSEWHERE = {"mai": "may", "mär": "mar", "okt": "oct", "dez": "dec"}  # where German differs
CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?(?:[.,]\d+)?\s*([ap])?\.?m?\.?", re.IGNORECASE)
ZONE = re.compile(r"([+-])(\d{2})(?::?(\d{2}))?$")
YEAR_FIRST = re.compile(r"(\d{4})[-/. ](\d{1,2})[-/. ](\d{1,2})(?!\d)")
COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})(?:[T _-]?(\d{2})(\d{2})(\d{2})?(?:\.\d+)?)?")
# Of two digits the year is last with dots and slashes only: 09-06-15 may be 2009.
YEAR_LAST = re.compile(r"(\d{1,2})([-/. ])\s?(\d{1,2})(?:[-/. ]\s?(\d{4})|[/.]\s?(\d{2}))(?!\d)")
DAY_MONTH = re.compile(r"(\d{1,2})(?:st|nd|rd|th|\.)?[ -]*([a-zä]{3,})\.?[ ,-]*(\d{4})", re.IGNORECASE)
MONTH_DAY = re.compile(r"([a-zä]{3,})\.?[ -]*(\d{1,2})(?:st|nd|rd|th)?[ ,-]+(\d{4})", re.IGNORECASE)


def order_in_time(texts: Sequence[str]) -> list[int] | None:
    """Return the places of the texts in the order of time; equal times stay as they are.

    None where one is no date, or where reading 3/4 as the third of April gives another order than the fourth of March.
    """
    if all(re.fullmatch(r"-?\d{1,5}([.,]\d+)?", text.strip()) for text in texts):  # days since something
        numbers = [float(text.replace(",", ".")) for text in texts]
        return sorted(range(len(texts)), key=lambda k: numbers[k])
    orders = []
    for day_first in (True, False):
        times = [time for text in texts if (time := read_date(text, day_first))]
        if len(times) == len(texts):
            orders.append(sorted(range(len(texts)), key=lambda k: times[k]))
    return orders[0] if orders and orders[0] == orders[-1] else None


def read_date(text: str, day_first: bool) -> datetime | None:
    """Return the moment that a text names, in UTC where it names a zone; None where it names none.

    day_first: is 3/4/2009 the third of April? With dots it always is.
    """
    text = text.strip()
    hour = minute = second = 0
    if found := COMPACT.fullmatch(text.rstrip("Zz")):
        year, month, day = map(int, found.groups()[:3])
        hour, minute, second = (int(part or 0) for part in found.groups()[3:])
    elif found := YEAR_FIRST.match(text):
        year, month, day = map(int, found.groups())
    elif found := YEAR_LAST.match(text):
        one, dot, other, year = int(found[1]), found[2] == ".", int(found[3]), int(found[4] or found[5])
        day, month = (one, other) if day_first or dot else (other, one)
        year += 0 if year > 99 else 2000 if year < 70 else 1900
    elif found := DAY_MONTH.match(text) or MONTH_DAY.match(text):
        name, number = (found[2], found[1]) if found[1].isdigit() else (found[1], found[2])
        short = ELSEWHERE.get(name[:3].lower(), name[:3].lower())
        if short not in MONTHS:
            return None
        day, month, year = int(number), MONTHS.index(short) + 1, int(found[3])
    else:
        return None
    zone = None
    if clock := CLOCK.search(text, found.end()):
        hour, minute, second = int(clock[1]), int(clock[2]), int(clock[3] or 0)
        if clock[4]:
            hour = hour % 12 + 12 * (clock[4].lower() == "p")
        zone = ZONE.search(text, clock.end())
    away = (
        timedelta(hours=int(zone[2]), minutes=int(zone[3] or 0)) * (1 if zone[1] == "+" else -1)
        if zone
        else timedelta()
    )
    try:
        return datetime(year, month, day, hour, minute, second) - away
    except (ValueError, OverflowError):
        return None
