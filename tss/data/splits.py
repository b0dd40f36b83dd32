"""TODO"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from tss.data.cohort import SPLITS, Patient
from tss.errors import InputError

BANDS_MIN = (180.0, 270.0)  # bands that the split is stratified by: < 3 h, 3-4.5 h, > 4.5 h (decision 7)


def stratum(patient: Patient) -> tuple:
    """Return what the split is even in: is the onset known, its band, the side (decision 7)."""
    known = patient.minutes is not None
    return known, sum(patient.minutes >= bound for bound in BANDS_MIN) if known else 0, patient.side


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
    """Shuffle, so that any first N have of each stratum about N's share: each is spread evenly over the whole list."""
    shuffled = [patients[i] for i in rng.permutation(len(patients))]
    size, seen, places = Counter(map(stratum, patients)), Counter(), []
    for patient in shuffled:
        group = stratum(patient)
        places.append((seen[group] + 0.5) / size[group])
        seen[group] += 1
    return [shuffled[i] for i in np.argsort(places, kind="stable")]


def fewer_to_train(patients: list[Patient], n: int, seed: int) -> list[Patient]:
    """Leave out all but n of the training patients that are prepared, for learning curves; who else is there stays.

    Of one seed fewer are always among more (nested), and every n is even in time band and side.

    Raises:
        InputError: there are not so many.
    """
    there = [patient for patient in patients if patient.split == "train" and patient.status == "ok"]
    if n > len(there):
        raise InputError(
            f"--train-patients {n}: of the patients in split 'train' {len(there)} are prepared. Give at most so many."
        )
    left_out = {patient.id for patient in in_balance(there, np.random.default_rng(seed))[n:]}
    return [patient for patient in patients if patient.id not in left_out]


def split_hash(patients: list[Patient]) -> str:
    """Return the SHA-256 of who is in which split: equal hashes mean that no test patient was trained on."""
    lines = sorted(f"{patient.id},{patient.split}\n" for patient in patients)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
