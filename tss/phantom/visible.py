"""How bright a made-up infarct is on the raw FLAIR that was written, beside its mirror region: a mismatch for the eye.

In:    the folder of tss.phantom.cohort_phantom and a patient's name: scans/, truth/ (masks, affines)
Out:   the ratio, infarct / mirror region; below CUT the infarct is not seen on FLAIR, which is a mismatch
Paper: 2.1 (DWI-FLAIR mismatch); FIELD 2b (sensitivity and specificity of readers, meta-analysis of 28 studies)
See:   tests/phantom/test_visible.py

No bias correction, no registration to be learned: where infarct, midline and movement are is taken from the truth, the
brightness from the scan. What is left are the errors of an eye: bias field, noise, slices that cut the border, and
that left and right are never quite alike. The ratio is off by 5 % (SD) so, and that is what limits this reader.
"""

from pathlib import Path

import numpy as np
from scipy import ndimage

from tss.data import nifti
from tss.data.files import read_json
from tss.data.nifti import apply_affine

CUT = 1.04  # our choice: on the middle level's 422 patients sensitivity 0.53, specificity 0.82 (FIELD 2b: 0.55, 0.84)


def flair_ratio(folder: Path, patient: str) -> float | None:
    """Return median FLAIR in the infarct / median in its mirror region's healthy brain; None where that is empty."""
    truth = read_json(folder / "truth" / f"{patient}.json")
    flair = nifti.load(folder / "scans" / f"{patient}_flair.nii.gz")
    brain, infarct = (
        nifti.load(folder / "truth" / f"{patient}_{name}.nii.gz", mask=True) for name in ("brain", "lesion")
    )
    to_atlas = np.array(truth["b0_to_atlas"]) @ infarct.affine
    to_flair = np.linalg.inv(np.array(truth["flair_to_b0"]) @ flair.affine) @ infarct.affine  # voxels to voxels

    here = np.argwhere(infarct.data > 0.5).T.astype(float)
    there = apply_affine(np.linalg.inv(to_atlas) @ np.diag([-1, 1, 1, 1]) @ to_atlas, here)
    healthy = (brain.data > 0.5) & (infarct.data <= 0.5)
    there = there[:, ndimage.map_coordinates(healthy.astype(np.uint8), there, order=0) > 0]
    inside, mirror = (
        ndimage.map_coordinates(flair.data, apply_affine(to_flair, place), order=1) for place in (here, there)
    )
    return float(np.median(inside) / np.median(mirror)) if mirror.size and np.median(mirror) > 0 else None
