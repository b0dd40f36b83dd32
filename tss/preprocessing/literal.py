"""The paper's own order with FSL, as it stands there: BET on b0, FLIRT, BET once more, the others brought to b0.

In:  Volumes (X, Y, Z) float32 in RAS; FSL as for tss.preprocessing.fsl.
Out: a brain mask (X, Y, Z) bool, a second one on the atlas grid; a world affine (4, 4) moving -> fixed.
Paper: 2.1 and Fig. 2, to compare with. Not advised: eyes and scalp, bright on b0, lead BET astray (decision 12).
See: tests/preprocessing/test_fsl.py

Same functions as tss.preprocessing.fsl, and `find_brain_again`. Where the paper names no options they are FSL's own; its N4 is our
bias correction, which comes after the first BET, since it is of the brain's tissue.
"""

import numpy as np

from tss.data.nifti import Volume
from tss.preprocessing import fsl
from tss.preprocessing.fsl import find_affine  # noqa: F401  FLIRT in either order

OPTIONS = ()  # BET's own fraction, 0.5


def describe() -> str:
    """Return which FSL is used, and that it is in the paper's literal order.

    Raises:
        InputError: one of the programs is missing.
    """
    return f"{fsl.describe()}, the paper's literal order"


def find_brain(dwi: Volume, b0: Volume) -> np.ndarray:
    """Return BET's mask (X, Y, Z) bool of the b0.

    Raises:
        InputError: BET is missing, fails, hangs, or finds no brain.
    """
    return fsl.bet(b0, OPTIONS)


def find_brain_again(registered: Volume) -> np.ndarray:
    """Return BET's mask (X, Y, Z) bool of the brain-extracted b0 on the atlas grid: "to remove remnant artifacts".

    Raises:
        InputError: BET is missing, fails, hangs, or finds no brain.
    """
    return fsl.bet(registered, OPTIONS)
