"""The tissue clock: how bright the infarct is on FLAIR beside its mirror region; one number a patient.

In:  Maps of a patient and a region, found (tss.roi) or drawn.
Out: ratios region / mirror region of FLAIR, DWI and ADC.
Paper: - (FIELD 2c: Petkova 2010, Legge 2017; a network that cannot beat one ratio must be seen not to)
See: tests/test_tissueclock.py

FLAIR brightens over the first hours, DWI hardly changes, the ADC falls at once and returns within a week or two: all
three ratios rise with time or stand still, so the shorter time is where the ratio is lower.
"""

import numpy as np

from tss.files import InputError
from tss.roi import LEAST_SIGNAL, Maps, mirrored

SEQUENCES = ("flair", "dwi", "adc")
CUTOFFS = {1.07: "Petkova 2010 (3 h)", 1.15: "Civrny 2023", 1.18: "Legge 2017 (6 h)",
           1.20: "Legge 2017 (8 h), Galinovic 2014"}  # of the FLAIR ratio; at or below = short time
LEAST_MIRROR = 0.2  # our choice: share of the region that must have healthy brain on the other side


def ratios(maps: Maps, region: np.ndarray) -> dict[str, float]:
    """Return "flair", "dwi", "adc" -> median in the region / median in its mirror region.

    Medians, our choice, since some of the mirrored voxels are CSF or a vessel. Where both sides are ill, what is ill
    is left out of the mirror region.

    Raises:
        InputError: too little healthy brain, or no signal, in the mirror region.
    """
    healthy = mirrored(region) & maps.brain & ~region & ~maps.candidate
    if np.count_nonzero(healthy) < max(1, LEAST_MIRROR * np.count_nonzero(region)):
        raise InputError("the mirror region has too little healthy brain to compare with")
    medians = {name: (np.median(image[region]), np.median(image[healthy])) for name, image in maps.images.items()}
    if dark := [name.upper() for name in SEQUENCES if medians[name][1] <= LEAST_SIGNAL]:
        raise InputError(f"{dark[0]} has no signal in the mirror region")
    return {name: float(here / there) for name, (here, there) in medians.items()}

