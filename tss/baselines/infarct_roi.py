"""The infarct found without a drawn mask: where the ADC is low and the DWI bright (Lee 2020's rule).

In:  DWI, T2w (= b0) and FLAIR (X, Y, Z) on the atlas grid in medians of healthy brain, the brain mask, voxel sizes.
Out: Maps: ADC, DWI and FLAIR, each with its ratio to the mirrored voxel, white matter; and the infarct as a mask.
Paper: 3 and 4 (Lee et al. 2020, whose "threshold method ... was used to create the ROI").
See: tests/baselines/test_infarct_roi.py

Written from the description of the method (Lee 2020, Stroke 51:860) and a reading of its code. What differs from it:
- the ADC is log(b0 / DWI) of the registered, matched volumes. Matching removes the absolute level, so the healthy
  level, which Lee's rule finds in any case, is set to REFERENCE_ADC. Matching may change a contrast by 4 % in each of
  the two (tss.preprocessing.intensity), so the ADC by 0.08 x 10^-3 mm^2/s at worst: two thirds of the distance that
  the rule asks of an infarct;
- brain and midline are the suite's own (in the atlas space the mirrored voxel is the flipped one), not SPM's;
- white matter is healthy tissue of low ADC whose b0 is under the median, not SPM's segmentation;
- no minimum size but the 0.2 ml of the rule: Lee's code excludes small infarcts from training and test.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tss.errors import InputError

REFERENCE_ADC = 0.75  # 10^-3 mm^2/s, our choice: healthy tissue is 0.7 to 0.85, and a real ADC map's bend lay at 0.747
ADC_SHARE = 0.835  # Lee 2020: of the reference, "optimised on 27 patients"
QUANTILES = np.arange(0.05, 0.505, 0.01)  # Lee 2020
DWI_SD = 1.5  # Lee 2020: the infarct's DWI lies so many SD above white matter's mean
LEAST_ML = 0.2  # Lee 2020
MOST_ADC_OF_TISSUE = 1.15 * REFERENCE_ADC  # our choice: above it lies tissue with CSF in it
FEWEST_VOXELS = 100  # our choice: of a brain that has an ADC
LEAST_SIGNAL = 0.05  # our choice, in medians of healthy brain: below it a logarithm or a ratio is noise
ROUND = ndimage.generate_binary_structure(3, 3)  # components are connected by corners too, as in Lee's code
DIAMOND = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)[:, :, None]  # in the slice: slices are thick


class Maps(NamedTuple):
    """One patient. `images` and `ratios`: "adc", "dwi", "flair" -> (X, Y, Z); masks are (X, Y, Z) bool."""

    images: dict[str, np.ndarray]  # ADC in 10^-3 mm^2/s; DWI and FLAIR in medians of healthy brain
    ratios: dict[str, np.ndarray]  # voxel / mirrored voxel; 1 where there is no mirrored voxel
    brain: np.ndarray
    candidate: np.ndarray  # low ADC
    white: np.ndarray  # healthy white matter, roughly
    voxel_mm: np.ndarray  # (3,)

    @property
    def solid(self) -> np.ndarray:
        """Brain (X, Y, Z) bool without CSF in it, healthy or not."""
        return self.brain & (self.images["adc"] < MOST_ADC_OF_TISSUE)


def make_maps(dwi: np.ndarray, t2w: np.ndarray, flair: np.ndarray, mask: np.ndarray, voxel_mm: np.ndarray) -> Maps:
    """Compute ADC, ratio maps and white matter from volumes (X, Y, Z) in medians of healthy brain.

    Raises InputError: the ADC cannot be computed, or there is no white matter.
    """
    brain = ndimage.binary_erosion(mask, DIAMOND) & (np.minimum(dwi, t2w) > LEAST_SIGNAL)
    if np.count_nonzero(brain) < FEWEST_VOXELS:
        raise InputError(f"only {np.count_nonzero(brain)} brain voxels have signal in both DWI and b0")
    contrast = np.log(np.maximum(t2w, LEAST_SIGNAL) / np.maximum(dwi, LEAST_SIGNAL))
    adc = np.where(mask, REFERENCE_ADC + contrast - healthy_level(contrast[brain]), 0).astype(np.float32)
    candidate = brain & (adc < ADC_SHARE * REFERENCE_ADC)
    tissue = brain & ~candidate & (adc < MOST_ADC_OF_TISSUE)
    if not tissue.any():
        raise InputError("no healthy tissue was found to compare the DWI with")
    white = tissue & (t2w <= np.median(t2w[tissue]))
    images = {"adc": adc, "dwi": dwi, "flair": flair}
    ratios = {name: ratio_map(image, mask) for name, image in images.items()}
    return Maps(images, ratios, mask, candidate, white, np.asarray(voxel_mm))


def find_infarct(maps: Maps) -> np.ndarray:
    """Return the infarct (X, Y, Z) bool: components of low ADC whose mean DWI is bright, and bright voxels of others.

    Raises InputError: nothing is left.
    """
    dwi = maps.images["dwi"]
    healthy = dwi[maps.white]
    bright = healthy.mean() + DWI_SD * healthy.std()
    labels, count = ndimage.label(maps.candidate, ROUND)
    means = ndimage.mean(dwi, labels, np.arange(1, count + 1)) if count else []
    infarct = maps.candidate & (np.append(-np.inf, means)[labels] > bright) | maps.candidate & (dwi > bright)
    infarct = large(ndimage.binary_fill_holes(infarct) & maps.brain, maps.voxel_mm)
    if not infarct.any():
        raise InputError(f"no region of {LEAST_ML} ml has a low ADC and a bright DWI")
    return infarct


def healthy_level(values: np.ndarray) -> float:
    """Return where healthy tissue begins: the curve of quantiles rises steeply, then lies flat; the bend's height.

    A cubic through the quantiles 0.05 to 0.50; its tangent at 0.05 crosses its flattest tangent (Lee 2020).
    """
    heights = np.quantile(values, QUANTILES)
    cubic = np.polynomial.Polynomial.fit(QUANTILES, heights, 3)
    slopes = cubic.deriv()(QUANTILES)
    flat = int(slopes.argmin())
    first, flattest = (cubic(QUANTILES[i]) - slopes[i] * QUANTILES[i] for i in (0, flat))  # heights at quantile 0
    bend = slopes[0] - slopes[flat]  # 0 where nothing bends the curve: then its beginning is healthy already
    crossing = np.clip((flattest - first) / bend if bend > 0 else 0, QUANTILES[0], QUANTILES[-1])
    return float(first + slopes[0] * crossing)


def large(mask: np.ndarray, voxel_mm: np.ndarray) -> np.ndarray:
    """Return the components of a mask (X, Y, Z) that have at least LEAST_ML."""
    labels, _ = ndimage.label(mask, ROUND)
    enough = np.bincount(labels.ravel()) * np.prod(voxel_mm) / 1000 >= LEAST_ML
    enough[0] = False
    return enough[labels]


def widened(region: np.ndarray, mm: float, voxel_mm: np.ndarray) -> np.ndarray:
    """Return a region (X, Y, Z) dilated in its slices by about so many mm, at least one voxel."""
    return ndimage.binary_dilation(region, DIAMOND, max(1, round(mm / float(np.mean(voxel_mm[:2])))))


def mirrored(volume: np.ndarray) -> np.ndarray:
    """Return (X, Y, Z) with left and right exchanged: the grid's midline is its middle (tss.data.nifti.atlas_grid)."""
    return volume[::-1]


def ratio_map(image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Return voxel / mirrored voxel (X, Y, Z); 1 where either is outside the brain or without signal (Lee 2020)."""
    other = mirrored(image)
    both = brain & mirrored(brain) & (other > LEAST_SIGNAL)
    return np.where(both, image / np.where(both, other, 1), 1).astype(np.float32)
