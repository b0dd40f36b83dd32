"""The flags that run_train.py, the tumours' training and the study of Table 2 share.

In:  what was typed.
Out: a parser with the flags of one training.
Paper: none.
See: tests/test_run_train.py

torch is not loaded here, so that --help does not wait for it.
"""

import argparse
import math
from pathlib import Path

import tss
from tss.training.phases import FROZEN


class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults printed by argparse, line breaks as written."""


class Parser(argparse.ArgumentParser):
    """A parser in whose result a flag without a default is only if the user gave it."""

    def __init__(self, prog: str, description: str | None, epilog: str = ""):
        given = argparse.SUPPRESS
        super().__init__(
            prog, None, description, epilog, formatter_class=Formatter, allow_abbrev=False, argument_default=given
        )
        self.add_argument("--version", action="version", version=f"tss {tss.__version__}")

    def add_network_flags(self, out: str) -> None:
        """--model, --out and --seed. out: where results go without --out, in words."""
        self.add_argument(
            "--model",
            choices=list(FROZEN),
            help="kind of network; unset = that of the checkpoint, else 3d for phase 0, 2d for the others",
        )
        self.add_argument("--out", type=Path, help=f"folder to write to; unset = {out}")
        self.add_argument("--seed", type=seed, default=0, help="of the first weights and of the order of hemispheres")

    def add_training_flags(self) -> None:
        """The flags that say how a network is trained."""
        self.add_argument(
            "--width",
            type=count,
            metavar="CHANNELS",
            help="channels of the first stage; unset = that of the checkpoint, else the paper's: 64 (2D), 32 (3D)",
        )
        self.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto = a GPU where there is one")
        self.add_argument(
            "--precision",
            choices=["fp32", "bf16"],
            default="fp32",
            help="bf16 halves memory on GPUs; weights and loss stay in float32, and run_eval.py computes in "
            "it: logits then differ by some hundredths of their spread from those of validation",
        )
        self.add_argument("--epochs", type=count, help="the most to train; unset = the phase's")
        self.add_argument("--batch-size", type=count, help="hemispheres per step; unset = the phase's")
        self.add_argument("--lr", type=rate, help="AdaBound's initial learning rate; unset = the phase's")
        self.add_argument("--final-lr", type=rate, help="AdaBound's final learning rate; unset = the phase's")
        self.add_argument(
            "--patience",
            type=count,
            help="epochs to go on without a higher validation score (phase 0: a lower error); unset = the phase's",
        )

    def add_rerun_flags(self) -> None:
        """--resume or --overwrite."""
        rerun = self.add_mutually_exclusive_group()
        rerun.add_argument(
            "--resume",
            action="store_true",
            help="continue from last.pt in --out, to the same bits as if never interrupted; starts where there is "
            "none, leaves finished phases alone, so a job script may always give it",
        )
        rerun.add_argument("--overwrite", action="store_true", help="train again what --out holds already")


def count(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return number


def seed(text: str) -> int:
    """A whole number from 0 that torch takes."""
    number = int(text)
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to 2^63 - 1")
    return number


def rate(text: str) -> float:
    """A number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number
