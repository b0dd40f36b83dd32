"""Tissue clocks: how bright the infarct is on FLAIR; one number per patient.

In:  Maps of a patient and a region, found (tss.baselines.infarct_roi) or drawn; for the soft clock, three sequences.
Out: ratios region / mirror region of FLAIR, DWI and ADC; or FLAIR averaged where DWI is bright.
Paper: - (Petkova 2010, Legge 2017; the soft clock is ours: a network that cannot beat one number should be seen not to)
See: tests/baselines/test_tissue_clock.py

FLAIR brightens over the first hours, DWI hardly changes, the ADC falls at once and recovers within a week or two: all
three ratios rise with time or stay constant, so the lower ratio means the shorter time. Within the first days the ADC
is constant, so its clock tells little. On the phantom it tells nothing: the law of an infarct's ADC does not depend on
time (tss.phantom.cohort_phantom.draw_adc_ratio; its AUC is in tests/benchmarks/TSS-PHANTOM.md). On a dozen test
patients chance may look like a clock that runs backwards.

The volumes are histogram-matched, which may change the contrast of two tissues by 4 % (tss.preprocessing.intensity): as
much as lies between the published CUTOFFS.

The soft clock needs no region, so that it fails on nobody: a voxel counts by how far its DWI is above healthy brain. It
is not divided by the mirror region's FLAIR, which would add that region's noise: matching has made healthy brain 1.

CSF is excluded on both sides. It is dark on FLAIR, so its share of a voxel makes tissue look dark, and an infarct
found by its low ADC has no CSF where its mirror region has some.
"""

import numpy as np

from tss.baselines.infarct_roi import LEAST_SIGNAL, Maps, mirrored, widened
from tss.errors import InputError

SEQUENCES = ("flair", "dwi", "adc")
CUTOFFS = {
    1.07: "Petkova 2010 (3 h)",
    1.15: "Civrny 2023",
    1.18: "Legge 2017 (6 h)",
    1.20: "Legge 2017 (8 h), Galinovic 2014",
}  # of the FLAIR ratio; at or below = short time
# Our choice, by the training and validation patients of TSS-Phantom 1: how much wider the mirror region is. Scores of
# its test patients were seen at the same time, so the clock's may be slightly optimistic there.
MARGIN_MM = 5.0
LEAST_MIRROR = 0.2  # our choice: healthy tissue required on the other side, as a share of the region
# The soft clock's, in medians of healthy brain; our choice, by patients of TSS-Phantom 2.
HEALTHY_DWI = 1.15
LEAST_T2W_OF_CSF = 2.2


def clock_ratios(maps: Maps, region: np.ndarray) -> dict[str, float]:
    """Return "flair", "dwi", "adc" -> median in the region / median in its mirror region.

    Medians, our choice, since some voxels belong to a vessel or another tissue. The mirror region is wider than the
    region, since a narrow one on the cortex may have nothing but CSF on the other side. Where both sides have
    infarcts, those are excluded from it.

    Raises InputError: no tissue in the region; too little healthy tissue, or no signal, in the mirror region.
    """
    ill = region & maps.solid
    if not ill.any():
        raise InputError("the region has no tissue without CSF to measure")
    healthy = mirrored(widened(region, MARGIN_MM, maps.voxel_mm)) & maps.solid & ~region & ~maps.candidate
    if np.count_nonzero(healthy) < max(1, LEAST_MIRROR * np.count_nonzero(ill)):
        raise InputError("the mirror region has too little healthy tissue to compare with")
    medians = {name: (np.median(image[ill]), np.median(image[healthy])) for name, image in maps.images.items()}
    if dark := [name.upper() for name in SEQUENCES if medians[name][1] <= LEAST_SIGNAL]:
        raise InputError(f"{dark[0]} has no signal in the mirror region")
    return {name: float(here / there) for name, (here, there) in medians.items()}


def soft_clock(dwi: np.ndarray, t2w: np.ndarray, flair: np.ndarray) -> float:
    """Return FLAIR averaged with weights (DWI's excess over HEALTHY_DWI)^2, without CSF; healthy brain's 1 if none.

    The lower the shorter the time. Nothing is found, drawn or learned.

    dwi, t2w, flair: arrays of one shape, whichever: a hemisphere or both, in medians of healthy brain.
    """
    weights = np.clip(dwi - HEALTHY_DWI, 0, None, dtype=np.float64) ** 2 * (t2w < LEAST_T2W_OF_CSF)
    total = float(weights.sum())
    return float((weights * flair).sum() / total) if total > 0 else 1.0
