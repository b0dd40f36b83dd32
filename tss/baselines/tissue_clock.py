"""The tissue clock: how bright the infarct is on FLAIR beside its mirror region; one number a patient.

In:  Maps of a patient and a region, found (tss.baselines.infarct_roi) or drawn.
Out: ratios region / mirror region of FLAIR, DWI and ADC.
Paper: - (FIELD 2c: Petkova 2010, Legge 2017; a network that cannot beat one ratio must be seen not to)
See: tests/baselines/test_tissue_clock.py

FLAIR brightens over the first hours, DWI hardly changes, the ADC falls at once and returns within a week or two: all
three ratios rise with time or stand still, so the shorter time is where the ratio is lower. Within the first days the
ADC stands still, so that its clock tells little. On the phantom it tells nothing: the law of an infarct's ADC does not
know the time (tss.phantom.cohort_phantom.draw_adc_ratio; README, TSS-Phantom, has its AUC). On a dozen test patients chance may look
like a clock that runs backwards.

The volumes are histogram-matched, which may move the contrast of two tissues by 4 % (tss.preprocessing.intensity): as much as lies
between the published CUTOFFS.

CSF is left out on both sides. It is dark on FLAIR, so what it takes up of a voxel makes tissue look dark, and an
infarct found by its low ADC has none where its mirror region has some.
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
MARGIN_MM = 5.0  # our choice, by the training and validation patients of TSS-Phantom 1: how much wider the mirror
# region is. The test patients' figures were seen beside theirs: the clock's may be a little optimistic there
LEAST_MIRROR = 0.2  # our choice: healthy tissue that there must be on the other side, as a share of the region


def ratios(maps: Maps, region: np.ndarray) -> dict[str, float]:
    """Return "flair", "dwi", "adc" -> median in the region / median in its mirror region.

    Medians, our choice, since some voxels are of a vessel or another tissue. The mirror region is wider than the
    region, since a narrow one on the cortex may have nothing but CSF on the other side. Where both sides are ill, what
    is ill is left out of it.

    Raises:
        InputError: no tissue in the region; too little healthy tissue, or no signal, in the mirror region.
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
