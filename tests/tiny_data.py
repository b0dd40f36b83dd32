"""A DATA folder to train on, as run_preprocess.py leaves it: 36 patients, a second to learn."""

import csv
import json
from pathlib import Path

import numpy as np

TINY_GRID = (32, 32, 4)  # X, Y, Z of the whole brain


def write_tiny_data(data: Path) -> Path:
    """Write DATA with 36 patients. The lesion is a bright square in DWI; in FLAIR it is the brighter the longer ago."""
    (data / "hemispheres").mkdir(parents=True)
    rng = np.random.default_rng(0)
    x, y, z = TINY_GRID
    rows = []
    for number in range(36):
        minutes = (60, 150, 200, 250, 400, 900)[number % 6] + number
        side = ("left", "right", "left")[number % 3] if number < 34 else "both"
        hemispheres = rng.normal(0.4, 0.05, (2, 3, z, y, x // 2))
        for index, name in enumerate(("left", "right")):
            if side in (name, "both"):
                row, column = rng.integers(4, 20), rng.integers(1, 7)
                hemispheres[index, 0, 1:3, row : row + 8, column : column + 8] += 0.4
                hemispheres[index, 2, 1:3, row : row + 8, column : column + 8] += min(0.5, minutes / 1000)
        patient = f"p{number:02d}"
        np.save(data / "hemispheres" / f"{patient}.npy", hemispheres.clip(0, 1).astype(np.float16))
        rows.append({
            "patient": patient, "dwi": f"{patient}_dwi.nii.gz", "b0": f"{patient}_b0.nii.gz",
            "flair": f"{patient}_flair.nii.gz", "onset_to_mri_min": minutes, "stroke_side": side,
            "split": "train" if number < 18 else "val" if number < 28 else "test",
            "status": "ok", "reason": "", "flags": "",
        })  # fmt: skip
    with open(data / "cohort.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (data / "settings.json").write_text(json.dumps({"grid": TINY_GRID, "atlas_sha256": "0" * 64, "tools": "builtin"}))
    return data
