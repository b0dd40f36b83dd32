"""TODO"""

import os
from pathlib import Path

import numpy as np

from tss.data.cohort import SIDES, Patient, read_cohort
from tss.errors import InputError


def read_prepared(data: str | os.PathLike) -> list[Patient]:
    """Read DATA/cohort.csv as run_preprocess.py leaves it: with split, status, reason and flags.

    Raises:
        InputError: there is none, or it is a raw cohort table.
    """
    path = Path(data) / "cohort.csv"
    if not path.is_file():
        raise InputError(f"{path} does not exist. Make it first: python run_preprocess.py COHORT_CSV --out {data}")
    patients = read_cohort(path)
    if missing := [name for name in ("split", "status") if name not in patients[0].row]:
        raise InputError(
            f"{path} has no column {', '.join(missing)}: it is a raw table. "
            f"Run: python run_preprocess.py {path} --out DATA"
        )
    return patients


def read_hemispheres(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return DATA/hemispheres/<patient>.npy, (2, C, D, H, W) float16.

    Raises:
        InputError: missing, damaged, of another grid, or with an empty hemisphere.
    """
    try:
        hemispheres = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} is missing or damaged ({error}). Run run_preprocess.py again on this cohort."
        ) from error
    if hemispheres.shape != shape:
        raise InputError(
            f"{path} has the shape {hemispheres.shape}, the grid in settings.json needs {shape}. "
            "Run run_preprocess.py --overwrite, with one --grid for all patients."
        )
    for side, hemisphere in zip(SIDES, hemispheres, strict=True):
        if not np.isfinite(hemisphere).all() or not hemisphere.any():
            record = path.parent.parent / "transforms" / f"{path.stem}.json"
            raise InputError(
                f"{path}: the {side} hemisphere is empty or not finite. Delete {record} and run "
                "run_preprocess.py again: it does this patient anew."
            )
    return hemispheres


def path_of(out: Path, patient: Patient) -> Path:
    return out / "transforms" / f"{patient.id}.json"


def otherwise_prepared(one: dict, other: dict) -> str:
    """Say in what two settings.json differ that hemispheres depend on; "" where in nothing that both know of."""

    def parts(settings: dict) -> dict[str, str]:
        reference = settings.get("reference", {})
        return {
            "tools": settings.get("tools", ""),
            "grid": " x ".join(map(str, settings.get("grid", ()))),
            "atlas": settings.get("atlas_sha256", "")[:12],
            "skull of the atlas taken off": settings.get("atlas_skull", "")[:20],
            "histogram reference": reference.get("patient", ""),
            # Of two cohorts the patient may have the same name.
            "its medians": ", ".join(
                f"{name} {values[len(values) // 2]:.5g}" for name, values in reference.get("landmarks", {}).items()
            ),
        }

    there = parts(other)
    return "; ".join(
        f"{name} {value}, there {there[name]}"
        for name, value in parts(one).items()
        if value and there[name] and value != there[name]
    )


GRID = (224, 224, 26)  # paper 2.1
