"""One patient's map on a page: the slices that weigh most, with the evidence for the verdict that was given.

In:  a model, its prediction, the hemispheres (2, C, D, H, W) that it saw, and the patient's scans to draw on.
Out: an Explanation on the atlas grid (X, Y, Z); gradcam/<patient>.png.
Paper: 3 (slices most representative of the lesion), Fig. 9.
See: tests/evaluation/test_gradcam_page.py
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tss.data import nifti
from tss.data.cohort import SIDES, Patient
from tss.data.hemispheres import join
from tss.data.prepared import registered_file
from tss.data.tasks import POSITIVE, TASKS
from tss.errors import InputError
from tss.evaluation.gradcam import TARGETS, explained, map_of
from tss.evaluation.inference import CALLED_POSITIVE, UNSURE, Model, Prediction, in_words
from tss.models.ensemble import members_of
from tss.models.evidence import EvidenceClassifier
from tss.models.resnet2d import SliceClassifier

SLICES_SHOWN = 5  # our choice: what fits a page
# Our choice: a map that is worth less than this in logits is drawn as much fainter. At probability 0.5 it is 0.025.
LEAST_WORTH = 0.1
TINY = 1e-12
MIDLINE = 1 / 16  # our choice: share of a hemisphere's width over which a drawn map fades out towards the midline


class Explanation(NamedTuple):
    """Why one hemisphere got its probability."""

    heat: np.ndarray  # (X, Y, Z) in [0, 1]: evidence for the verdict, or for stroke; 0 in the other hemisphere
    slices: list[int]  # z of those that weigh most, from bottom to top
    contributions: np.ndarray  # (Z,) 2D: what each slice adds to the logit; else its share of what is read
    worth: float  # of the Grad-CAM, in logits
    gradcam: np.ndarray | None = None  # (X, Y, Z) as heat, where that is no Grad-CAM but evidence

    def drawn(self) -> dict[str, np.ndarray]:
        """Name -> map (X, Y, Z) as it is drawn: a Grad-CAM that is worth little is faint; not cut at the midline."""
        half = len(self.heat) // 2
        from_midline = np.abs(np.arange(2 * half) - half + 0.5)  # voxels
        fading = np.clip(from_midline / (MIDLINE * half), 0, 1)[:, None, None].astype(self.heat.dtype)
        strength = min(1.0, self.worth / LEAST_WORTH) * fading
        if self.gradcam is None:
            return {"map": self.heat * strength}
        return {"evidence": self.heat, "Grad-CAM": self.gradcam * strength}  # evidence is of single voxels: no smear


def explain(model: Model, prediction: Prediction, hemispheres: torch.Tensor) -> Explanation:
    """Explain the verdict on one hemisphere: evidence for the class where it was called positive, else against it.

    In the 2D model slices weigh by |slice weight * slice output|, in the 3D model, which has no outputs of slices, by
    their share of the map, in the extended recipe by their share of what is read. A slice with nothing of the head in
    it does not count. An ensemble's maps and slices are the mean of its members'.
    """
    members = members_of(model.network)
    if len(members) > 1:
        shown = hemispheres[SIDES.index(prediction.side)]
        return _mean([explain(model._replace(network=one), prediction, hemispheres) for one in members], shown)
    row = SIDES.index(prediction.side)
    hemisphere = hemispheres[row].to(next(model.network.parameters()).device).float()  # (C, D, H, W)
    target, sign = TARGETS[model.checkpoint["model"]], 1 if verdict(model, prediction) else -1
    both, other = np.zeros((2, 2, *hemisphere.shape[1:]), dtype=np.float32)  # (2, D, H, W) each
    both[row], worth = explained(model.network, hemisphere, target, sign)
    if isinstance(model.network, EvidenceClassifier):
        other[row], both[row] = both[row], map_of(model.network, hemisphere, target)
        with torch.no_grad():
            contributions = model.network.looks_at(hemisphere[None])[1][0].float().cpu().numpy()
    elif isinstance(model.network, SliceClassifier):
        with torch.no_grad():
            outputs = model.network.slice_outputs(hemisphere[None])[0].float()  # (D,)
            contributions = (model.network.slice_weights() * outputs).cpu().numpy()
    else:
        contributions = both[row].sum(axis=(1, 2)) / max(both[row].sum(), 1e-12)
    slices = _weightiest(contributions, hemisphere)
    gradcam = join(other) if isinstance(model.network, EvidenceClassifier) else None
    return Explanation(join(both), slices, contributions, worth, gradcam)


def _weightiest(contributions: np.ndarray, hemisphere: torch.Tensor) -> list[int]:
    """The slices of (C, D, H, W) with something of the head that weigh most, from bottom to top."""
    filled = (hemisphere.amax(dim=(0, 2, 3)) > 0).cpu().numpy()  # (D,)
    order = np.argsort(np.where(filled, -np.abs(contributions), np.inf), kind="stable")
    return sorted(order[: min(SLICES_SHOWN, filled.sum())].tolist())


def _mean(parts: Sequence[Explanation], hemisphere: torch.Tensor) -> Explanation:
    """The mean of an ensemble's explanations of (C, D, H, W); a Grad-CAM's strongest place stays 1."""
    heat = np.mean([part.heat for part in parts], axis=0)
    contributions = np.mean([part.contributions for part in parts], axis=0)
    gradcams = [part.gradcam for part in parts if part.gradcam is not None]
    gradcam = np.mean(gradcams, axis=0) if gradcams else None
    if gradcam is not None:
        gradcam = gradcam / max(gradcam.max(), TINY)
    else:
        heat = heat / max(heat.max(), TINY)
    worth = float(np.mean([part.worth for part in parts]))
    return Explanation(heat, _weightiest(contributions, hemisphere), contributions, worth, gradcam)


def scans_to_draw(data: str | Path, patient: Patient) -> dict[str, Path]:
    """Return the scans that a patient of DATA is drawn on; where there is a mask of the lesion, that too."""
    names = {"DWI": "dwi", "FLAIR": "flair"} | ({"lesion": "lesion"} if patient.path("lesion") else {})
    return {name: registered_file(data, patient.id, kind) for name, kind in names.items()}


def draw_on_atlas(
    path: Path,
    model: Model,
    prediction: Prediction,
    hemispheres: torch.Tensor,
    patient: Patient,
    scans: dict[str, Path],
) -> None:
    """Draw a patient of DATA on the registered scans, with the lesion's outline where there is a mask of it."""
    from tss.display import slice_plots

    explanation = explain(model, prediction, hemispheres)
    volumes = {name: nifti.load(scans[name]) for name in ("DWI", "FLAIR")}
    lesion = _outline(scans["lesion"]) if "lesion" in scans else None
    slice_plots.draw_gradcam(
        path,
        {name: volume.data for name, volume in volumes.items()},
        explanation.drawn(),
        explanation.slices,
        [f"slice {z + 1}: {amount(model, explanation.contributions[z])}" for z in explanation.slices],
        title(model, prediction, patient.id, truth(model, prediction, patient)),
        scale(model, prediction),
        nifti.voxel_sizes(volumes["DWI"].affine).tolist(),
        lesion,
        note(model, explanation),
    )


def _outline(path: Path) -> np.ndarray | None:
    try:
        return nifti.load(path).data > 0.5
    except InputError as error:  # a lesion too small for the grid leaves nothing; that is no reason for no picture
        print(f"  no outline of the lesion: {error}", flush=True)
        return None


def verdict(model: Model, prediction: Prediction) -> bool:
    """Positive? Of whom a promise leaves unsure, at the threshold that validation chose."""
    called = model.verdict(prediction.chance)
    return prediction.chance >= model.threshold if called == UNSURE else called == CALLED_POSITIVE


def amount(model: Model, contribution: float) -> str:
    """Write a slice's contribution: to the logit in 2D, a share in 3D and in the extended recipe."""
    return (
        f"{contribution:+.2f}" if isinstance(members_of(model.network)[0], SliceClassifier) else f"{contribution:.0%}"
    )


def title(model: Model, prediction: Prediction, name: str, last: str) -> str:
    words, cuts = POSITIVE[model.task], (model.cuts.lower, model.cuts.upper) if model.cuts else ()
    numbers = "its share of the map"
    if isinstance(members_of(model.network)[0], SliceClassifier):
        numbers = "what it adds to the logit"
    elif isinstance(members_of(model.network)[0], EvidenceClassifier):
        numbers = "its share of the evidence" if model.task == "stroke" else "its share of what is read"
    return (
        f"{name}, {prediction.side} hemisphere: probability of {words} "
        f"{in_words(prediction.chance, model.threshold, model.verdict(prediction.chance), cuts)}\n"
        f"{last}; {model.name}; above each slice: {numbers}"
    )


def truth(model: Model, prediction: Prediction, patient: Patient) -> str:
    """Say what is known of the patient."""
    if prediction.label < 0:
        return "truth unknown"
    answer = "yes" if prediction.label else "no"
    minutes = "" if TASKS[model.task] is None else f" ({patient.minutes:.0f} min from onset to MRI)"
    return f"truth: {answer}{minutes}"


def scale(model: Model, prediction: Prediction) -> str:
    """Say what the map's colours mean."""
    gradcam = (
        f"evidence {'for' if verdict(model, prediction) else 'against'} {POSITIVE[model.task]}\n"
        f"(1 = the strongest place in this patient, if the map is worth {LEAST_WORTH:g} or more)"
    )
    if isinstance(members_of(model.network)[0], EvidenceClassifier):
        return f"evidence for stroke\n(1 = certain, 0 = no likelier than not)\nGrad-CAM: {gradcam}"
    return gradcam


def note(model: Model, explanation: Explanation) -> str:
    """Say what the Grad-CAM is worth; where it is next to nothing, that there is little to show."""
    if not explanation.worth:
        return "The Grad-CAM is zero everywhere: nothing in these scans argued for this verdict."
    worth = f"The Grad-CAM as a whole is worth {explanation.worth:.2g} of the logit"
    return worth + ("" if explanation.worth >= LEAST_WORTH else f", less than {LEAST_WORTH:g}: there is little to show")
