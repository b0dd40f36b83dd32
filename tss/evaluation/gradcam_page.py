"""One patient's Grad-CAM on a page: the slices that weigh most, with the evidence for the verdict that was given.

In:  a model, its prediction, the hemispheres (2, C, D, H, W) that it saw, and the patient's scans to draw on.
Out: an Explanation on the atlas grid (X, Y, Z); gradcam/<patient>.png.
Paper: 3 (slices most representative of the lesion), Fig. 9.
See: tests/evaluation/test_gradcam_page.py
"""

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
from tss.evaluation.gradcam import TARGETS, grad_cam
from tss.evaluation.inference import CALLED_POSITIVE, Model, Prediction
from tss.models.resnet2d import SliceClassifier

SLICES_SHOWN = 5  # our choice: what fits a page


class Explanation(NamedTuple):
    """Why one hemisphere got its probability."""

    heat: np.ndarray  # (X, Y, Z) in [0, 1]: evidence for the verdict; 0 in the other hemisphere
    slices: list[int]  # z of those that weigh most, from bottom to top
    contributions: np.ndarray  # (Z,) 2D: what each slice adds to the logit; 3D: its share of the map


def explain(model: Model, prediction: Prediction, hemispheres: torch.Tensor) -> Explanation:
    """Explain the verdict on one hemisphere: evidence for the class where it was called positive, else against it.

    In the 2D model slices weigh by |slice weight * slice output|, in the 3D model, which has no outputs of slices, by
    their share of the map. A slice with nothing of the head in it does not count.
    """
    row = SIDES.index(prediction.side)
    hemisphere = hemispheres[row].to(next(model.network.parameters()).device).float()  # (C, D, H, W)
    both = np.zeros((2, *hemisphere.shape[1:]), dtype=np.float32)  # (2, D, H, W)
    both[row] = grad_cam(model.network, hemisphere, TARGETS[model.checkpoint["model"]], sign=_sign(model, prediction))
    if isinstance(model.network, SliceClassifier):
        with torch.no_grad():
            outputs = model.network.slice_outputs(hemisphere[None])[0].float()  # (D,)
            contributions = (model.network.slice_weights() * outputs).cpu().numpy()
    else:
        contributions = both[row].sum(axis=(1, 2)) / max(both[row].sum(), 1e-12)
    filled = (hemisphere.amax(dim=(0, 2, 3)) > 0).cpu().numpy()  # (D,)
    order = np.argsort(np.where(filled, -np.abs(contributions), np.inf), kind="stable")
    return Explanation(join(both), sorted(order[: min(SLICES_SHOWN, filled.sum())].tolist()), contributions)


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
        explanation.heat,
        explanation.slices,
        [f"slice {z + 1}: {amount(model, explanation.contributions[z])}" for z in explanation.slices],
        title(model, prediction, patient.id, truth(model, prediction, patient)),
        scale(model, prediction),
        nifti.voxel_sizes(volumes["DWI"].affine).tolist(),
        lesion,
    )


def _outline(path: Path) -> np.ndarray | None:
    try:
        return nifti.load(path).data > 0.5
    except InputError as error:  # a lesion too small for the grid leaves nothing; that is no reason for no picture
        print(f"  no outline of the lesion: {error}", flush=True)
        return None


def verdict(model: Model, prediction: Prediction) -> bool:
    """Positive? At the threshold that validation chose."""
    return model.verdict(prediction.chance) == CALLED_POSITIVE


def amount(model: Model, contribution: float) -> str:
    """Write a slice's contribution: to the logit in 2D, a share in 3D."""
    return f"{contribution:+.2f}" if model.checkpoint["model"] == "2d" else f"{contribution:.0%}"


def title(model: Model, prediction: Prediction, name: str, last: str) -> str:
    words = POSITIVE[model.task]
    numbers = "what it adds to the logit" if model.checkpoint["model"] == "2d" else "its share of the map"
    return (
        f"{name}, {prediction.side} hemisphere: probability of {words} {prediction.chance:.3f}, threshold "
        f"{model.threshold:.3f}: {model.verdict(prediction.chance)}\n"
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
    return (
        f"evidence {'for' if verdict(model, prediction) else 'against'} {POSITIVE[model.task]}\n"
        "(1 = the strongest place in this patient)"
    )


def _sign(model: Model, prediction: Prediction) -> int:
    return 1 if verdict(model, prediction) else -1
