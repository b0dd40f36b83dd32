"""What each tissue looks like on b0, DWI and FLAIR, and what acute ischaemia does to it.

In:    a Subject (fractions of matter), echo times, lesions
Out:   noise-free signals (3, X, Y, Z) = b0, DWI, FLAIR on the mean head's grid
Paper: 2.1 (TR and TE; b = 1000 s/mm^2)
See:   tests/phantom/test_cohort_phantom.py

    b0 = PD exp(-TE/T2)     DWI = b0 exp(-b ADC)     FLAIR = PD |1 - 2 exp(-TI/T1) + exp(-TR/T1)| exp(-TE/T2)
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tss.phantom.extracranial import TISSUES
from tss.phantom.individual_head import MATTER, Subject
from tss.phantom.mean_head import mean_head

B_VALUE = 1.0  # ms/um^2, that is b = 1000 s/mm^2 with ADC in 10^-3 mm^2/s
FLAIR_TR_MS = 8500.0  # paper 2.1: 8000-9000
EDGE_VOXELS = (0.7, 0.7, 0.5)  # SD of the softening of edges outside the brain


class Substance(NamedTuple):
    """PD relative to water, T1 and T2 in ms, ADC in 10^-3 mm^2/s, at 1.5-3 T."""

    pd: float
    t1: float
    t2: float
    adc: float


# Fat is suppressed in EPI: its PD differs between EPI and FLAIR, and its ADC stands for the suppression.
SUBSTANCES = {
    "air": Substance(0.0, 1000, 50, 1.0),
    "skin": Substance(0.45, 800, 55, 2.2),
    "fat": Substance(0.95, 300, 88, 2.4),
    "muscle": Substance(0.80, 1100, 40, 1.6),
    "bone": Substance(0.08, 500, 25, 1.0),
    "marrow": Substance(0.60, 400, 75, 2.2),
    "mucosa": Substance(0.85, 1400, 130, 2.0),
    "vitreous": Substance(1.00, 4000, 900, 2.7),
    "nerve": Substance(0.70, 850, 80, 0.75),
    "csf": Substance(1.00, 4300, 1500, 3.0),
    "blood": Substance(0.15, 1600, 50, 2.5),
    "grey": Substance(0.83, 1350, 95, 0.83),
    "white": Substance(0.70, 850, 78, 0.72),
    "deep": Substance(0.80, 1150, 83, 0.77),
    "iron": Substance(0.74, 1000, 62, 0.74),
    "gliosis": Substance(0.82, 1250, 125, 1.05),
    "dark": Substance(0.10, 1000, 40, 1.5),
    "meningioma": Substance(0.82, 1150, 92, 0.85),
    "glioma": Substance(0.86, 1500, 130, 1.2),
    "necrosis": Substance(0.95, 2400, 260, 2.0),
    "oedema": Substance(0.85, 1350, 130, 1.3),
    "adenoma": Substance(0.84, 1250, 100, 0.9),
}
FAT_IN_EPI = 0.45  # share of fat that suppression leaves in b0


class Contrast(NamedTuple):
    """Echo times in ms."""

    te_epi: float = 95.0
    te_flair: float = 110.0


def signals(contrast: Contrast, names) -> np.ndarray:
    """(3, K) noise-free signals of the named substances: b0, DWI, FLAIR."""
    rows = np.array([SUBSTANCES[name] for name in names])
    pd, t1, t2, adc = rows.T
    epi_pd = np.where(np.isin(names, ["fat", "marrow"]), pd * FAT_IN_EPI, pd)
    b0 = epi_pd * np.exp(-contrast.te_epi / t2)
    csf = SUBSTANCES["csf"].t1
    inversion = csf * (np.log(2) - np.log1p(np.exp(-FLAIR_TR_MS / csf)))  # nulls CSF
    recovery = np.abs(1 - 2 * np.exp(-inversion / t1) + np.exp(-FLAIR_TR_MS / t1))
    return np.stack([b0, b0 * np.exp(-B_VALUE * adc), pd * recovery * np.exp(-contrast.te_flair / t2)])


class Lesion(NamedTuple):
    """Voxels of the brain box with acute ischaemia and what it does to their signals."""

    voxels: np.ndarray  # (n,) index into the head's N brain voxels
    severity: np.ndarray  # (n,) about 1 on average: deep in the core more, at the rim less
    adc_ratio: float  # mean ADC, lesion / healthy
    flair_ratio: float  # mean FLAIR signal, lesion / healthy


def render_head(subject: Subject, lesions: list[Lesion], contrast: Contrast, texture=None) -> np.ndarray:
    """Noise-free signals (3, X, Y, Z) = b0, DWI, FLAIR on the whole grid of the mean head."""
    image = surroundings().copy()
    inner = signals(contrast, MATTER).astype(np.float32)
    brain = inner @ subject.matter
    if texture is not None:
        brain *= texture
    for lesion in lesions:
        infarct_signal(brain, inner, subject.matter, lesion, contrast)
    put_brain(image, subject, brain)
    return image


def put_brain(image: np.ndarray, subject: Subject, brain: np.ndarray) -> None:
    """Lay the brain's signals (C, N) over what surrounds it (C, X, Y, Z), in place."""
    for channel, signal in zip(image.reshape(len(image), -1), brain, strict=True):
        outside = channel[subject.head.inside]
        channel[subject.head.inside] = outside + subject.brain * (signal - outside)


@lru_cache(maxsize=1)
def surroundings() -> np.ndarray:
    """Signals (3, X, Y, Z) of all but the brain; at one echo time for all, so that it is made once."""
    return outside_brain(signals(Contrast(), TISSUES))


def outside_brain(tissues: np.ndarray) -> np.ndarray:
    """(C, K) signals of TISSUES -> (C, X, Y, Z), with soft edges."""
    image = np.stack([np.take(row, mean_head().label) for row in tissues.astype(np.float32)])
    return ndimage.gaussian_filter(image, (0, *EDGE_VOXELS), truncate=3)


def infarct_signal(brain, inner, matter, lesion: Lesion, contrast: Contrast) -> None:
    """Change signals (3, N) in place. One T2 prolongation makes FLAIR and b0 rise together; DWI adds the ADC."""
    fluid = inner[:, :1] * matter[:1, lesion.voxels]
    solid = brain[:, lesion.voxels] - fluid
    log_ratio = np.log(lesion.flair_ratio) * lesion.severity  # = TE * (1/T2 - 1/T2 in the lesion)
    b0 = np.exp(log_ratio * contrast.te_epi / contrast.te_flair)
    healthy_adc = 0.5 * (SUBSTANCES["grey"].adc + SUBSTANCES["white"].adc)
    diffusion = np.exp(B_VALUE * healthy_adc * (1 - lesion.adc_ratio) * lesion.severity)
    brain[:, lesion.voxels] = fluid + solid * np.stack([b0, b0 * diffusion, np.exp(log_ratio)])
