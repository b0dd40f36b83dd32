"""Whom a network has learned from: known by the content of their scans, whatever they are called elsewhere.

In:  DATA with the patients' records; the hashes that a checkpoint carries.
Out: patient -> SHA-256 of each of its scans; the patients of one collection that are also in another.
Paper: 2.1 (the test patients are in no other split); by content, since names differ between hospitals (decision 20).
See: tests/data/test_patients_seen.py
"""

import os
from collections.abc import Mapping, Sequence

from tss.data.cohort import Patient
from tss.data.prepared import read_stored_record

Hashes = Mapping[str, Sequence[str]]  # patient -> SHA-256 of each scan's voxels; empty where they are not known


def hashes_of(data: str | os.PathLike, patients: Sequence[Patient]) -> dict[str, list[str]]:
    """Return the hashes of the patients' scans, as preprocessing put them into their records."""
    return {patient.id: sorted(read_stored_record(data, patient.id).get("voxels", {}).values()) for patient in patients}


def together(one: Hashes, other: Hashes) -> dict[str, list[str]]:
    """Return the patients of both; where two have one name, with the hashes of both."""
    return {name: sorted({*one.get(name, ()), *other.get(name, ())}) for name in {**one, **other}}


def find_seen(here: Hashes, seen: Hashes) -> dict[str, str]:
    """Return patient here -> its name among those seen, for those that share a scan with one of them."""
    names = {scan: name for name, scans in seen.items() for scan in scans}
    return {
        patient: names[scan]
        for patient, scans in here.items()
        if (scan := next((scan for scan in scans if scan in names), None))
    }


def why_not_new(here: Hashes, seen: Hashes, same_split: bool) -> str:
    """Say which of the patients here a network has learned from, or that it cannot be told; "" where it is none.

    same_split: do both come from one split of one cohort? Then none is taken to be seen where hashes are not known.
    """
    if found := find_seen(here, seen):
        named = ", ".join(name if name == other else f"{name} (there {other})" for name, other in found.items())
        return f"learned from {len(found)} of these patients: {named}"
    known = seen and all(seen.values()) and all(here.values())
    return "" if known or same_split else "may have learned from these patients: not all their scans' hashes are known"
