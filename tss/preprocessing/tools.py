"""Who finds the brain and the affines: the suite's own tools, FSL, or FSL in the paper's order.

In:  the name of the tools, as typed after --tools.
Out: Tools, a value whose functions take Volumes (X, Y, Z) in RAS.
Paper: 2.1 and Fig. 2 (BET, FLIRT, a second BET); decision 12 says why BET sees the DWI in our order.
See: tests/preprocessing/test_tools.py
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import tss
from tss.data.nifti import Volume
from tss.preprocessing import brain_extraction, fsl, registration


@dataclass(frozen=True)
class Tools:
    """The steps of preprocessing that can be done by more than one program."""

    name: str
    describe: Callable[[], str]  # program and version; raises InputError where it is missing
    find_brain: Callable[[Volume, Volume], np.ndarray]  # DWI, b0 -> (X, Y, Z) bool
    find_affine: Callable[..., np.ndarray]  # moving, fixed, 12 or 6, fixed_mask -> world affine (4, 4)
    second_brain: Callable[[Volume, np.ndarray], np.ndarray]  # registered b0, brain of the atlas and a margin -> bool
    registers_dwi: bool = False  # else DWI and b0, of one acquisition, are taken to lie on each other


def _atlas_brain(registered: Volume, near: np.ndarray) -> np.ndarray:
    """What our order has in place of the second BET: no brain lies far outside the atlas'."""
    return near


BUILTIN = Tools(
    "builtin",
    lambda: f"built-in (tss {tss.__version__})",
    brain_extraction.find_brain,
    registration.find_affine,
    _atlas_brain,
)
FSL = Tools("fsl", fsl.describe, fsl.find_brain, fsl.find_affine, _atlas_brain)
# The paper's order, to compare with. Not advised: eyes and scalp, bright on b0, mislead BET (decision 12). Where the
# paper names no options they are FSL's own; its N4 is our bias correction, which comes after the first BET, since it
# is of the brain's tissue.
LITERAL = Tools(
    "literal",
    lambda: f"{fsl.describe()}, the paper's literal order",
    lambda dwi, b0: fsl.bet(b0, fsl.DEFAULTS),
    fsl.find_affine,
    lambda registered, near: fsl.bet(registered, fsl.DEFAULTS),
    registers_dwi=True,
)
NAMES = ("auto", "fsl", "literal", "builtin")


def find_tools(name: str) -> Tools:
    """Return the tools of one of NAMES; auto is FSL where it is installed.

    Raises InputError: FSL is asked for and missing.
    """
    if name == "builtin" or (name == "auto" and not fsl.available()):
        return BUILTIN
    fsl.describe()
    return LITERAL if name == "literal" else FSL
