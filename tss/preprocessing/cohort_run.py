"""A whole cohort through preprocessing: what is done, what is left, on how many cores, and what came of it.

In:  cohort.csv or a BIDS folder, the atlas, the choices of run_preprocess.py.
Out: DATA: cohort.csv with split and status, hemispheres/, registered/, transforms/, qc/, settings.json.
Paper: 2.1 (split 64/16/20 % by patient; histogram matching to one reference study).
See: tests/preprocessing/test_cohort_run.py

The table and the page are put together from the patients' records (tss.preprocessing.patient_record), so a run may be killed at any
moment, continued by the same line, or shared out over shards.
"""

import platform
import re
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import nibabel
import numpy as np
import scipy

import tss
from tss.data import bids, nifti
from tss.data.cohort import SPLITS, VERDICT_COLUMNS, Patient, as_table, read_cohort, write_cohort
from tss.data.files import read_json, sha256, write_json, write_text
from tss.data.prepared import GRID, record_file
from tss.data.splits import assign_splits
from tss.display.tables import table1
from tss.errors import InputError
from tss.preprocessing import patient_record, pipeline, qc_page

FORMAT = "tss data 2"  # to be counted up with each change of what a step makes: nobody may be finished by two laws
MOST_NAMES = 8  # our choice: patients named for one reason in the summary; cohort.csv names them all
ROUNDS = 3  # our choice: so often a shard writes table and page while other shards go on


@dataclass(frozen=True)
class Choices:
    """What run_preprocess.py was told. Everything that a worker needs, and small enough to send to it."""

    cohort: Path
    out: Path
    atlas: Path
    tools: str  # "fsl", "literal" or "builtin"
    grid: tuple[int, int, int] = GRID
    reference: str | None = None
    jobs: int = 1
    shard: tuple[int, int] = (1, 1)
    overwrite: bool = False
    seed: int = 0


def run(choices: Choices, dry_run: bool = False) -> int:
    """Preprocess every patient of the shard that is not finished. Returns 0, or 1 where patients failed.

    Raises:
        InputError: the table, the atlas or DATA cannot be used, or DATA was made with other settings.
    """
    patients = bids.read(choices.cohort) if choices.cohort.is_dir() else read_cohort(choices.cohort)
    tools = pipeline.find_tools(choices.tools)
    atlas = pipeline.load_atlas(choices.atlas, choices.grid)
    settings = {
        "format": FORMAT,
        "tools": tools.describe(),
        "grid": list(choices.grid),
        "atlas": str(choices.atlas),
        "atlas_sha256": sha256(choices.atlas),
        "atlas_skull": atlas.skull,
        "seed": choices.seed,
        "versions": {
            "tss": tss.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "nibabel": nibabel.__version__,
        },  # of this run; a record has its own
    }
    stored = _stored_settings(choices, settings)
    _settle_splits(patients, choices)
    print(table1(patients), end="\n\n", flush=True)
    print(
        f"tools {settings['tools']}   grid {' x '.join(map(str, choices.grid))} voxels of "
        f"{' x '.join(f'{s:.2f}' for s in nifti.voxel_sizes(atlas.affine))} mm   atlas {choices.atlas}",
        flush=True,
    )

    first, shards = choices.shard
    mine = patients[first - 1 :: shards]
    if stored:
        settings["reference"] = stored["reference"]
    if dry_run:
        left = [p for p in mine if choices.overwrite or not patient_record.is_finished(p, choices.out, settings)]
        print(
            f"dry run: {len(left)} of {len(mine)} patients would be preprocessed into {choices.out}; "
            "nothing was written."
        )
        return 0

    if not stored:
        settings["reference"] = _find_reference(patients, choices, atlas)
    print(f"histogram reference: {settings['reference']['patient']}", flush=True)
    judged = _verdicts(choices.out / "cohort.csv")
    if choices.overwrite:
        for patient in mine:
            record_file(choices.out, patient.id).unlink(missing_ok=True)
    write_json(choices.out / "settings.json", settings)
    table = _assemble(patients, choices.out, settings)
    _say_lost_verdicts(judged, table)
    rejected = [patient.id for patient in table if patient.status == "rejected"]
    if rejected:
        print(
            f"{len(rejected)} of {len(patients)} patients are rejected at quality control (column verdict of "
            f"{choices.out / 'cohort.csv'}): they take no part in training and evaluation",
            flush=True,
        )
    if settings["reference"]["patient"] in rejected:
        print(
            "the histogram reference is one of them, and all others are matched to it: name a better one with "
            "--reference PATIENT --overwrite",
            flush=True,
        )

    left = [p for p in mine if not patient_record.is_finished(p, choices.out, settings)]
    if len(left) < len(mine):
        print(f"{len(mine) - len(left)} of {len(mine)} patients are finished already and skipped", flush=True)
    started = time.monotonic()
    for number, (record, seconds) in enumerate(_preprocessed(left, choices, settings), 1):
        remaining = (time.monotonic() - started) / number * (len(left) - number)
        verdict = record["status"] if not record["flags"] else "flagged"
        remark = record["reason"] or "; ".join(record["flags"])
        print(
            f"{number:4d}/{len(left)}  {record['patient']:<12}  {verdict:<7}  {seconds:4.1f} s  "
            f"{_minutes(remaining)} left  {remark}".rstrip(),
            flush=True,
        )
    rejected = {patient.id for patient in _assemble(patients, choices.out, settings) if patient.status == "rejected"}
    return _summary(mine, choices, settings, rejected)


def _stored_settings(choices: Choices, settings: dict) -> dict | None:
    """Return DATA/settings.json, or None where DATA is new or --overwrite is given."""
    out = choices.out
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file. Name a folder with --out.")
    file = out / "settings.json"
    if choices.overwrite or not out.exists():
        return None
    if not file.exists():
        if any(not entry.name.startswith(".") for entry in out.iterdir()):  # .123.settings.json: another shard's
            raise InputError(
                f"{out} exists, is not empty and was not made by run_preprocess.py. "
                "Name another folder with --out, or add --overwrite to use it."
            )
        return None
    stored = read_json(file)
    names = {
        "tools": "tools",
        "grid": "grid",
        "atlas_sha256": "atlas",
        "atlas_skull": "skull of the atlas taken off",
        "seed": "seed",
        "format": "format",
    }
    differing = [
        f"{said} was {stored.get(name)}, now {settings[name]}"
        for name, said in names.items()
        if stored.get(name) != settings[name]
    ]
    if choices.reference and choices.reference != stored["reference"]["patient"]:
        differing.append(f"reference was {stored['reference']['patient']}, now {choices.reference}")
    if differing:
        raise InputError(
            f"{out} was made with other settings: {'; '.join(differing)}. "
            "Name another folder with --out, or add --overwrite to do every patient again."
        )
    return stored


def _settle_splits(patients: list[Patient], choices: Choices) -> None:
    """Give each patient its split: the table's own, else the one DATA has given it before, else a new one.

    --overwrite does the scans again, not the split: whoever was tested on may not be trained on. Another --seed draws
    it anew, for those whose split the table leaves open.
    """
    table, settings = choices.out / "cohort.csv", choices.out / "settings.json"
    drawn_anew = choices.overwrite and not (settings.is_file() and read_json(settings).get("seed") == choices.seed)
    if table.is_file() and not drawn_anew:
        before = {patient.id: patient.split for patient in read_cohort(table)}
        for patient in patients:
            given = before.get(patient.id, "")
            if given and patient.split and patient.split != given and not choices.overwrite:
                raise InputError(
                    f"{choices.cohort}: patient {patient.id} is in split {patient.split}, but in {given} "
                    f"in {table}. Correct the table, or name another --out."
                )
            patient.row["split"] = patient.split or given
    assign_splits(patients, np.random.default_rng(choices.seed))


def _find_reference(patients: list[Patient], choices: Choices, atlas: pipeline.Atlas) -> dict:
    """Return {"patient", "landmarks", "histograms"} of --reference, else of the first training patient that can be
    preprocessed. Histograms are lines of numbers, so that settings.json stays short.

    Each shard finds it for itself, and finds the same.
    """
    training = [patient for patient in patients if patient.split == "train"]
    if choices.reference:
        training = [patient for patient in training if patient.id == choices.reference]
        if not training:
            raise InputError(
                f"--reference {choices.reference} is not a training patient of {choices.cohort}. The "
                "reference may not be seen in validation or test: name one whose split is train."
            )
    for patient in training:
        prepared, reason = patient_record.attempt(patient, atlas, choices.tools, None)
        if prepared:
            histograms = {
                name: " ".join(f"{share:.4f}" for share in matched)
                for name, (_, matched) in prepared.histograms.items()
            }
            return {"patient": patient.id, "landmarks": prepared.landmarks, "histograms": histograms}
        if choices.reference:
            raise InputError(f"--reference {choices.reference} cannot be preprocessed: {reason}")
        print(
            f"{patient.id} cannot be the histogram reference ({reason}); trying the next training patient", flush=True
        )
    raise InputError(
        f"{choices.cohort}: no training patient can be preprocessed, so there is no histogram reference. "
        "The reasons are above."
    )


def _preprocessed(patients: list[Patient], choices: Choices, settings: dict) -> Iterator[tuple[dict, float]]:
    """Preprocess patients on `jobs` cores and yield each record with its seconds as it is finished."""
    if choices.jobs == 1 or len(patients) < 2:
        for patient in patients:
            yield patient_record.make(patient, choices.out, choices.tools, settings)
        return
    # spawn: a fork of a process that has run threaded libraries may hang.
    with ProcessPoolExecutor(choices.jobs, get_context("spawn"), _start_worker) as pool:
        tasks = [
            pool.submit(patient_record.make, patient, choices.out, choices.tools, settings) for patient in patients
        ]
        try:
            for task in as_completed(tasks):
                yield task.result()
        except BrokenProcessPool as error:
            raise InputError(
                "a worker was killed, most often for want of memory. Run the same line again, with "
                "fewer --jobs; finished patients are kept."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer; workers end their patient


def _assemble(patients: list[Patient], out: Path, settings: dict) -> list[Patient]:
    """Write cohort.csv and qc/index.html from the records there are; returns the patients as written.

    Read again after writing: another shard may have finished a patient meanwhile, and whoever writes last must
    have seen every record. While patients are still missing a shard gives up after some ROUNDS: the others finish
    patients faster than 422 pictures are put on a page, and write again when they end.

    Verdicts are those in DATA/cohort.csv, where quality control puts them; one whose picture is gone, since the
    patient is being done again or fails now, goes too.
    """
    seen, written, rounds = None, [], 0
    while (found := [patient_record.read(patient, out, settings) for patient in patients]) != seen and (
        rounds < ROUNDS or None not in found
    ):
        seen, written, rounds, verdicts = found, [], rounds + 1, _verdicts(out / "cohort.csv")
        for patient, record in zip(patients, found, strict=True):
            outcome = {
                "status": record["status"] if record else "",
                "reason": record["reason"] if record else "",
                "flags": "; ".join(record["flags"]) if record else "",
            }
            if outcome["status"] == "ok":
                outcome |= verdicts.get(patient.id, {})
            written.append(Patient(patient.row | outcome, patient.folder))
        write_cohort(out / "cohort.csv", written)
        write_text(out / "qc" / "index.html", qc_page.index_page(as_table(written, out), found, out / "qc"))
    return written


def _say_lost_verdicts(judged: dict[str, dict[str, str]], table: list[Patient]) -> None:
    """Say who has no verdict any more, since the picture that was judged is gone or made anew."""
    lost = judged.keys() & {patient.id for patient in table if not any(map(patient.row.get, VERDICT_COLUMNS))}
    if lost:
        rejected = sorted(name for name in lost if judged[name]["verdict"] == "reject")
        whom = f" Rejected were {', '.join(rejected)}: judge them again." if rejected else ""
        print(
            f"{len(lost)} verdicts of quality control go with the pictures that they were of, which are made anew."
            f"{whom}",
            flush=True,
        )


def _verdicts(table: Path) -> dict[str, dict[str, str]]:
    """Return patient -> verdict and remark, of those that somebody judged."""
    given = {
        patient.id: {name: patient.row.get(name, "") for name in VERDICT_COLUMNS}
        for patient in (read_cohort(table) if table.is_file() else ())
    }
    return {name: verdict for name, verdict in given.items() if any(verdict.values())}


def _summary(patients: list[Patient], choices: Choices, settings: dict, rejected: set[str]) -> int:
    found = [patient_record.read(patient, choices.out, settings) for patient in patients]
    failed = [record for record in found if record["status"] != "ok"]
    flagged = [record for record in found if record["flags"]]
    part = "" if choices.shard == (1, 1) else f" (part {choices.shard[0]} of {choices.shard[1]})"
    print(
        f"\n{len(patients)} patients in{part}, {len(patients) - len(failed)} finished, {len(flagged)} of them "
        f"flagged, {len(failed)} failed"
    )
    splits = Counter(patient.split for patient, record in zip(patients, found, strict=True) if record["status"] == "ok")
    print("  finished " + ", ".join(f"{splits[split]} {split}" for split in SPLITS))
    if thrown_out := [patient.id for patient in patients if patient.id in rejected]:
        print(f"  rejected at quality control {len(thrown_out)}, who take no part in what follows")
    _print_kinds("flagged", [(flag, record["patient"]) for record in flagged for flag in record["flags"]])
    _print_kinds("failed", [(record["reason"], record["patient"]) for record in failed])
    print(
        f"look at {choices.out / 'qc' / 'index.html'}; next: python run_train.py --phase all --data {choices.out}",
        flush=True,
    )
    return 1 if failed else 0


def _print_kinds(verdict: str, said: list[tuple[str, str]]) -> None:
    """Count the remarks that differ in numbers and file names only; print the first of each kind and the patients."""
    kinds = defaultdict(list)
    for remark, patient in said:
        kinds[re.sub(r"\S*(/|\.nii)\S*|\d[\d.,]*", "", remark)].append((remark, patient))
    for alike in sorted(kinds.values(), key=len, reverse=True):
        names = [patient for _, patient in alike]
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        print(f"  {verdict:8} {len(names):4d}  {alike[0][0]}  [{', '.join(names[:MOST_NAMES])}{more}]")


def _minutes(seconds: float) -> str:
    return f"{seconds:3.0f} s" if seconds < 90 else f"{seconds / 60:3.0f} min"
