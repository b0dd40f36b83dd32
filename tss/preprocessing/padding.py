"""What of a scan's grid was never measured: the zeros around a scan that has been sampled onto another grid.

In:  DWI and b0 as they came, on one grid, Volumes (X, Y, Z).
Out: (X, Y, Z) bool, True where there is nothing but padding.
Paper: none; there every scan came from the scanner. A head turned upright at the workstation has empty corners, and
where brain ends at them it ends at the edge of the field of view.
See: tests/preprocessing/test_padding.py
"""

import numpy as np
from scipy import ndimage

from tss.data.nifti import Volume

DARK = 0.1  # our choice: of what is bright (95 % of the voxels with signal are darker); air has less
AIR = 0.15  # our choice: share of the voxels with signal that are dark. Real scans of whole heads have 0.20 to 0.70
SPECK = 2  # our choice: zeros that are nowhere wider than so many voxels are no padding


def find_padding(dwi: Volume, b0: Volume) -> np.ndarray:
    """Return where (X, Y, Z) bool both scans are zero, up to the grid's border, though air about the head is not.

    Nowhere where air was set to zero too, by the scanner or by who removed the skull: zeros say nothing then.
    """
    zero = (dwi.data == 0) & (b0.data == 0)
    if not zero.any() or zero.all():
        return zero
    signal = np.abs(dwi.data[~zero])
    if np.mean(signal < DARK * np.percentile(signal, 95)) < AIR:
        return np.zeros(zero.shape, bool)
    # beyond the grid counts as zero, so that thin padding along its faces stays
    deep = ndimage.binary_erosion(zero, iterations=SPECK, border_value=1)
    wide = zero & ndimage.binary_dilation(deep, iterations=SPECK)
    parts, _ = ndimage.label(np.pad(wide, 1, constant_values=True))
    return (parts == parts[0, 0, 0])[1:-1, 1:-1, 1:-1]
