"""Who is trained on, validated on and tested on: by patient, drawn once, even in time band and side.

In:  Patients, with or without a split; shares; a random generator or a seed.
Out: a split for each patient; an even order; fewer patients to train on; the hash of the split.
Paper: 2.1 (64/16/20 % by patient, one test set for all tasks).
See: tests/data/test_splits.py
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from tss.data.cohort import EXTERNAL, SPLITS, Patient
from tss.errors import InputError

BANDS_MIN = (180.0, 270.0)  # bands that the split is stratified by: < 3 h, 3-4.5 h, > 4.5 h (decision 7)


def stratum(patient: Patient) -> tuple:
    """Return what the split is stratified by: is the onset known, its band, the side (decision 7)."""
    minutes = patient.minutes
    return minutes is not None, sum(minutes >= bound for bound in BANDS_MIN) if minutes else 0, patient.side


def assign_splits(
    patients: list[Patient],
    rng: np.random.Generator,
    shares: Mapping[str, float] = SPLITS,
    stratum: Callable[[Patient], tuple] = stratum,
) -> None:
    """Give each patient without a split one: 64/16/20 % by patient, even in time band and side (decision 7).

    Patients are shuffled, lined up by stratum and dealt out, each to the split that is furthest behind its share.
    That keeps the shares within one patient overall and close to it in each stratum.
    """
    dealt = {name: sum(patient.split == name for patient in patients) for name in shares}
    without = [patient for patient in patients if not patient.split]
    without = [without[i] for i in rng.permutation(len(without))]
    for patient in sorted(without, key=stratum):
        total = sum(dealt.values()) + 1
        behind = max(shares, key=lambda name: shares[name] * total - dealt[name])
        patient.row["split"] = behind
        dealt[behind] += 1


def in_balance(
    patients: list[Patient], rng: np.random.Generator, stratum: Callable[[Patient], tuple] = stratum
) -> list[Patient]:
    """Shuffle so that the first N hold about their share of each stratum, whatever N: strata are spread evenly."""
    shuffled = [patients[i] for i in rng.permutation(len(patients))]
    size, seen = Counter(map(stratum, patients)), Counter[tuple]()
    places = []
    for patient in shuffled:
        group = stratum(patient)
        places.append((seen[group] + 0.5) / size[group])
        seen[group] += 1
    return [shuffled[i] for i in np.argsort(places, kind="stable")]


def fewer_to_train(patients: list[Patient], n: int, seed: int) -> list[Patient]:
    """Drop all but n of the preprocessed training patients, for learning curves; all other patients stay.

    With one seed the choices are nested, smaller ones within larger ones, and each is even in time band and side.

    Raises InputError: there are fewer.
    """
    there = [patient for patient in patients if patient.split == "train" and patient.status == "ok"]
    if n > len(there):
        raise InputError(
            f"--train-patients {n}: {len(there)} patients in split 'train' are preprocessed. Give so many or fewer."
        )
    left_out = {patient.id for patient in in_balance(there, np.random.default_rng(seed))[n:]}
    return [patient for patient in patients if patient.id not in left_out]


def split_hash(patients: list[Patient]) -> str:
    """Return the SHA-256 of who is in which split: equal hashes mean that no test patient was trained on.

    External patients are in none: more of them change nothing.
    """
    lines = sorted(f"{patient.id},{patient.split}\n" for patient in patients if patient.split != EXTERNAL)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
