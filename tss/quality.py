"""Figures that say whether a patient's preprocessing can be believed, flags where not, and the page that shows all.

In:  what preprocessing found for one patient, on the atlas grid (X, Y, Z); the records of all patients.
Out: figures (numbers), flags (short sentences), qc/index.html.
Paper: 2.1 ("a visual quality check was manually performed for all cases"; the flags say where to look first).
See: tests/test_quality.py
"""

import html
from collections.abc import Iterable, Mapping

import numpy as np
from scipy.linalg import polar

from tss.nifti import Volume

EVERY = 10  # our choice: of so many voxels one is looked at for the field of view
LEVELS = 32  # our choice: histogram bins of the correlation ratio

# figure: lowest and highest that are believed, and what to say beyond. Our choice, from two real patients and ten
# phantoms: aligned, overlap was 0.91 to 0.95, similarity to the atlas 0.10 to 0.42, of FLAIR and b0 0.29 to 0.85;
# moved by 15 mm or turned by 20 degrees, overlap 0.84 to 0.89, similarity below 0.04 and below 0.06. Turned by right
# angles against the header, similarity below 0.06 and below 0.04. FLAIR as it is resembles b0 better by 0.16 to 0.53
# than with its sides exchanged. A whole head that is mirrored cannot be told by any of this: brains are symmetric.
LIMITS = {
    "brain_ml": (900, 2000, "brain mask of {:.0f} ml: part of the brain is missing, or more than brain is in it"),
    "atlas_overlap": (0.88, 1, "brain and atlas overlap by a Dice of {:.2f} only: mask or registration is wrong"),
    "atlas_similarity": (0.06, 1, "b0 and atlas hardly resemble each other ({:.2f}): registration may be wrong"),
    "flair_similarity": (0.15, 1, "FLAIR and b0 hardly resemble each other ({:.2f}): registration may be wrong"),
    "flair_side": (-0.05, 1, "FLAIR fits b0 better with left and right exchanged ({:+.2f}): one of them is mirrored"),
    "dwi_coverage": (0.93, 1, "the DWI shows {:.0%} of the brain: its field of view is cut"),
    "flair_coverage": (0.93, 1, "the FLAIR shows {:.0%} of the brain: its field of view is cut"),
    "turn_deg": (0, 35, "the head is turned by {:.0f} degrees against the atlas: check left and right"),
    "flair_turn_deg": (0, 30, "FLAIR and b0 are turned by {:.0f} degrees against each other: check left and right"),
    "size": (0.75, 1.3, "the brain had to be scaled by {:.2f} to fit the atlas: mask or registration is wrong"),
}


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Return 2 |A and B| / (|A| + |B|) of two masks; 0 where both are empty."""
    return float(2 * np.count_nonzero(one & other) / max(np.count_nonzero(one) + np.count_nonzero(other), 1))


def similarity(fixed: np.ndarray, moving: np.ndarray) -> float:
    """Return the correlation ratio: the share of moving's variance that fixed explains, 0..1 (Roche 1998)."""
    low, high = np.percentile(fixed, [1, 99])
    bins = ((fixed - low) / max(high - low, 1e-6) * (LEVELS - 1)).clip(0, LEVELS - 1).astype(int)
    moving = np.minimum(moving, np.percentile(moving, 99)).astype(np.float64)
    count = np.bincount(bins, minlength=LEVELS)
    mean = np.bincount(bins, moving, LEVELS) / np.maximum(count, 1)
    return float(np.sum(count * (mean - moving.mean()) ** 2) / max(moving.size * moving.var(), 1e-12))


def turn_deg(affine: np.ndarray) -> float:
    """Return by how many degrees a (4, 4) world affine turns the head about any axis; 180 where it mirrors it."""
    rotation, _ = polar(affine[:3, :3])
    if np.linalg.det(rotation) < 0:
        return 180.0
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))


def size(affine: np.ndarray) -> float:
    """Return the mean scale of a (4, 4) affine."""
    return float(abs(np.linalg.det(affine[:3, :3])) ** (1 / 3))


def coverage(scan: Volume, world: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> float:
    """Return the share of a mask (X, Y, Z) that lies in a scan's field of view.

    world: (4, 4), mm of the scan -> mm of the mask's space; affine: (4, 4), voxel -> mm of the mask.
    """
    matrix = np.linalg.inv(world @ scan.affine) @ affine
    place = matrix[:3, :3] @ np.argwhere(mask)[::EVERY].T + matrix[:3, 3:]
    return float(((place > -0.5) & (place < np.array(scan.data.shape)[:, None] - 0.5)).all(0).mean())


def flags(figures: Mapping[str, float]) -> list[str]:
    """Return a sentence for each figure beyond its limits."""
    return [sentence.format(figures[name]) for name, (low, high, sentence) in LIMITS.items()
            if name in figures and not low <= figures[name] <= high]


def index_page(records: Iterable[dict]) -> str:
    """Return qc/index.html: a row a patient, failed ones first, then flagged ones, with picture, flags and figures.

    records: dicts with patient, status, reason, flags (list) and figures (dict).
    """
    order = sorted(records, key=lambda record: (record["status"] == "ok", not record["flags"]))
    rows = []
    for record in order:
        name = html.escape(record["patient"])
        picture = f'<a href="{name}.png"><img loading="lazy" src="{name}.png" alt="{name}"></a>'
        remarks = [record["reason"]] if record["reason"] else record["flags"]
        figures = "<br>".join(f"{html.escape(key)} {value:.3g}" for key, value in record["figures"].items())
        mark = "failed" if record["status"] != "ok" else "flagged" if record["flags"] else "ok"
        rows.append(f'<tr class="{mark}"><td><b>{name}</b><br>{mark}</td>'
                    f"<td>{'<br>'.join(map(html.escape, remarks))}</td><td>{figures}</td>"
                    f"<td>{picture if record['status'] == 'ok' else ''}</td></tr>")
    counts = ", ".join(f"{sum(f'class={chr(34)}{mark}{chr(34)}' in row for row in rows)} {mark}"
                       for mark in ("ok", "flagged", "failed"))
    return PAGE.format(counts=counts, rows="\n".join(rows))


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Quality control</title>
<style>
body {{ font: 14px sans-serif; margin: 1em }} td {{ vertical-align: top; padding: 4px 8px; border-top: 1px solid #ccc }}
img {{ width: 60vw }} .flagged b {{ color: #b60 }} .failed b {{ color: #c00 }}
</style></head><body>
<h1>Quality control: {counts}</h1>
<p>Look at every picture: brains upright, their outline (green) within the atlas' (red), the fissure on the
yellow line, FLAIR on top of DWI. Patient's right is on the left. Put what you reject on a list before you train.</p>
<table><tr><th>Patient</th><th>Reason or flags</th><th>Figures</th><th>DWI, T2w (b0), FLAIR on the atlas grid</th></tr>
{rows}
</table></body></html>
"""
