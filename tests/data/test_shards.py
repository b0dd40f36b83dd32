"""Shards: what --shard takes, and that the parts make up the whole."""

import argparse

import pytest

from tss.data.shards import Shard, read_shard


def test_parts_make_up_the_whole():
    assert read_shard("2/3").of("abcdefgh") == ["b", "e", "h"]
    assert sorted(sum((Shard(part, 3).of(range(8)) for part in (1, 2, 3)), [])) == list(range(8))
    assert Shard().of([1, 2]) == [1, 2] and str(Shard(2, 3)) == "2 of 3"


@pytest.mark.parametrize(
    ("text", "message"),
    [("3/2", "3/2: I counts from 1 to N"), ("0/2", "counts"), ("two", "'two' is not of the form I/N")],
)
def test_anything_else_is_refused(text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        read_shard(text)
