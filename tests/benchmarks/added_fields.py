"""Real heads under a field that is added: how much of it is left between the sides, with and without comparing them.

    python tests/benchmarks/added_fields.py SCANS --atlas T2_ATLAS.nii.gz

SCANS as for posed_heads.py: real scans, which are no part of this project, and whose own fields nobody knows. So each
is preprocessed as it came, and again after DWI and b0 were multiplied by smooth fields (SD of the log 0.2, quadratic in
space; three pairs). Where correction is perfect nothing of that is left. Printed: SD over the brain of the change of
log(side / other side), which is what makes a lesion brighter or darker than its mirror image, after each sequence's own
correction (tss/preprocessing/intensity.py), and after the comparison of the sides (tss/preprocessing/symmetry.py).
FLAIR is left out: it has a place of its own. Exit code 1 where the comparison makes it worse in the median.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np  # noqa: E402
from other_anatomy import coil  # noqa: E402
from posed_heads import Head, find, read, register  # noqa: E402

from tss.data.nifti import Volume, load, resample, voxel_sizes  # noqa: E402
from tss.preprocessing import intensity, symmetry  # noqa: E402
from tss.preprocessing.atlas import Atlas, lay_out  # noqa: E402

STRENGTH, FIELDS = 0.2, 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, help="folder of real scans")
    parser.add_argument("--atlas", required=True, help="T2w atlas in MNI space")
    args = parser.parse_args()
    atlas = lay_out(load(args.atlas), (112, 112, 26))
    names = sorted(path.name.removesuffix("_dwi.nii.gz") for path in args.scans.glob("*_dwi.nii.gz"))
    if not names:
        raise SystemExit(f"{args.scans} holds no *_dwi.nii.gz")
    left = np.array([left_between_sides(find(*read(args.scans, name)), atlas) for name in names])
    for name, (alone, compared) in zip(("DWI", "b0"), left.reshape(-1, 2, 2).transpose(1, 2, 0), strict=True):
        print(
            f"{name}: {np.median(alone):.4f} alone (worst {alone.max():.4f}), {np.median(compared):.4f} with the sides "
            f"compared ({compared.max():.4f}), less in {np.sum(compared < alone)} of {len(alone)}"
        )
    medians = np.median(left.reshape(-1, 2, 2), axis=0)
    return int((medians[:, 1] > medians[:, 0]).any())


def left_between_sides(head: Head, atlas: Atlas) -> np.ndarray:
    """Return (FIELDS, 2, 2): for each pair of fields, for DWI and b0, what is left alone and after the comparison."""
    affine = register("ours", head, atlas.brain)
    brain = Volume(head.brain.astype(np.float32), head.dwi.affine)
    mask = (resample(brain, atlas.shape, atlas.affine, affine) > 0.5) & atlas.near
    both = mask & mask[::-1]

    def between_sides(fields: tuple) -> np.ndarray:
        """Return (2, 2, N): for DWI and b0, alone and compared, the log ratio of the sides at the brain's voxels."""
        on_grid = {}
        for name, scan, field in zip(("dwi", "t2w"), (head.dwi, head.b0), fields, strict=True):
            corrected = intensity.correct_bias(np.clip(scan.data, 0, None) * field, head.brain)
            on_grid[name] = resample(scan._replace(data=corrected), atlas.shape, atlas.affine, affine)
        compared = symmetry.balance(on_grid | {"flair": on_grid["t2w"]}, mask, voxel_sizes(atlas.affine))
        logs = [[np.log(np.maximum(volumes[name], 1e-3)) for volumes in (on_grid, compared)] for name in on_grid]
        return np.array([[log[both] - log[::-1][both] for log in pair] for pair in logs])

    as_it_came = between_sides((1.0, 1.0))
    changes = []
    for number in range(FIELDS):
        rng = np.random.default_rng([5, number])
        fields = tuple(coil(head.dwi.data.shape, STRENGTH, rng) for _ in range(2))
        changes.append((between_sides(fields) - as_it_came).std(-1))
    return np.array(changes)


if __name__ == "__main__":
    sys.exit(main())
