"""Work shared out over the jobs of a Slurm array: the I-th of N parts.

In:  I/N, as typed after --shard; a list of patients, or of trainings.
Out: Shard(part, parts); the items of this part.
Paper: none (our choice: every N-th item, so that parts take about the same time).
See: tests/data/test_shards.py
"""

import argparse
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Shard(NamedTuple):
    """The part-th of so many parts, counted from 1."""

    part: int = 1
    parts: int = 1

    def of(self, items: Sequence[T]) -> list[T]:
        """Return the items of this part."""
        return list(items[self.part - 1 :: self.parts])

    def __str__(self) -> str:
        return f"{self.part} of {self.parts}"


def read_shard(text: str) -> Shard:
    """Read I/N, 1 <= I <= N: a type for argparse."""
    try:
        part, parts = map(int, text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form I/N, for instance 3/20") from None
    if not 1 <= part <= parts:
        raise argparse.ArgumentTypeError(f"{text}: I counts from 1 to N")
    return Shard(part, parts)
