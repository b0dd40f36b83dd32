"""A whole cohort through preprocessing: what is done, what is left, on how many cores, and what came of it.

In:  cohort.csv or a BIDS folder, the atlas, the options of run_preprocess.py.
Out: DATA: cohort.csv with split and status, hemispheres/, registered/, transforms/, qc/, settings.json.
Paper: 2.1 (split 64/16/20 % by patient; histogram matching to one reference study).
See: tests/preprocessing/test_cohort_run.py

The table and the page are put together from the patients' records (patient_record), so a run may be killed at any
moment, continued by the same command, or shared out over shards.
"""

import platform
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import scipy

import tss
from tss.data import bids, nifti
from tss.data.cohort import EXTERNAL, SPLITS, VERDICT_COLUMNS, Patient, as_table, read_cohort, write_cohort
from tss.data.files import sha256, write_json, write_text
from tss.data.prepared import (
    GRID,
    PICTURE_COLUMN,
    Reference,
    Settings,
    cohort_file,
    converted_folder,
    hash_of_picture,
    qc_page,
    read_settings,
    record_file,
    settings_file,
)
from tss.data.shards import Shard
from tss.data.splits import assign_splits
from tss.data.tasks import POSITIVE, samples
from tss.data.workers import workers
from tss.display.tables import table1
from tss.errors import InputError
from tss.preprocessing import dicom
from tss.preprocessing.atlas import Atlas, load_atlas
from tss.preprocessing.patient_record import Record, is_finished, make_record, read_record, refuse_twins, try_to_prepare
from tss.preprocessing.pattern import Pattern
from tss.preprocessing.qc_page import index_page
from tss.preprocessing.tools import find_tools

FORMAT = "tss data 8"  # bump when any step's output changes: no patient may count as finished by an older rule
MOST_NAMES = 8  # our choice: patients named for one reason in the summary; cohort.csv names them all
MADE_AGAIN = "Name another folder with --out, or add --overwrite to do every patient again."
SAME_REFERENCE = 0.002  # our choice: relative; what two kinds of processor find in the same scans differs by 10^-5
ROUNDS = 3  # our choice: so often a shard writes table and page while other shards go on


@dataclass(frozen=True)
class Options:
    """What was typed after run_preprocess.py."""

    cohort: Path
    out: Path
    atlas: Path
    tools: str  # one of tools.NAMES
    grid: tuple[int, int, int] = GRID
    reference: str | None = None
    jobs: int = 1
    shard: Shard = Shard()
    overwrite: bool = False
    seed: int = 0
    qc_inline: bool = False  # the page of quality control holds its pictures
    pattern: Pattern | None = None  # prepare like the patients of this checkpoint; no split is drawn


def preprocess_cohort(options: Options, dry_run: bool = False) -> int:
    """Preprocess every patient of the shard that is not finished. Returns 0, or 1 where patients failed.

    Raises InputError: the table, the atlas or DATA cannot be used, or DATA was made with other settings.
    """
    patients = _read(options.cohort)
    atlas, settings = _settings(options)
    if options.pattern:
        settings = _settings_like(options.pattern, settings)
    stored = _stored_settings(options, settings)
    _settle_splits(patients, options)
    _announce(patients, options, settings, atlas)
    if not options.pattern:
        _say_small_splits(patients)

    mine = options.shard.of(patients)
    if stored and not options.pattern:
        settings["reference"] = stored["reference"]
    if dry_run:
        left = [p for p in mine if options.overwrite or not is_finished(p, options.out, settings)]
        print(
            f"dry run: {len(left)} of {len(mine)} patients would be preprocessed into {options.out}; "
            "nothing was written."
        )
        return 0

    if "reference" not in settings:
        settings["reference"] = _find_reference(patients, options, atlas)
    of = f" of {options.pattern.checkpoint}" if options.pattern else ""
    print(f"histogram reference: {settings['reference']['patient']}{of}", flush=True)
    judged = _verdicts(options.out)
    if options.overwrite:
        for patient in mine:
            record_file(options.out, patient.id).unlink(missing_ok=True)
    settings["reference"] = _agreed_reference(options, settings)
    begun = settings_file(options.out).exists()
    if not begun:  # by this file a folder is known as DATA
        write_json(settings_file(options.out), settings)
    table = _assemble(patients, options, settings)
    if begun:  # after the split that was drawn by its seed: between the two a run may be killed, or another shard begin
        write_json(settings_file(options.out), settings)
    settings["reference"] = _agreed_reference(options, settings)
    _say_lost_verdicts(judged, table)
    _say_rejected(table, options, settings)

    left = [p for p in mine if not is_finished(p, options.out, settings)]
    if len(left) < len(mine):
        print(f"{len(mine) - len(left)} of {len(mine)} patients are already finished and skipped", flush=True)
    if any(map(dicom.folders_of, left)):
        dicom.program()  # refused now, not after hours
    _preprocess(left, options, settings)
    table = _assemble(patients, options, settings)
    return _summary(
        patients, mine, options, settings, {patient.id for patient in table if patient.status == "rejected"}
    )


def _read(cohort: Path) -> list[Patient]:
    """Read a table, a BIDS folder, or a folder with a folder of DICOM files for each patient."""
    if not cohort.is_dir():
        return read_cohort(cohort)
    is_bids = any(cohort.glob("sub-*")) or not any(dicom.is_dicom(path) for path in cohort.iterdir() if path.is_dir())
    return bids.read(cohort) if is_bids else dicom.read_folder(cohort)


def _settings(options: Options) -> tuple[Atlas, Settings]:
    """Return the atlas, and what DATA is to be made with but for the reference patient."""
    tools = find_tools(options.tools)
    atlas = load_atlas(options.atlas, options.grid)
    return atlas, {
        "format": FORMAT,
        "tools": tools.describe(),
        "grid": list(options.grid),
        "atlas": str(options.atlas),
        "atlas_sha256": sha256(options.atlas),
        "atlas_skull": atlas.skull,
        "seed": options.seed,
        "versions": {
            "tss": tss.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "nibabel": nibabel.__version__,
        },  # of this run; a record has its own
    }


def _settings_like(pattern: Pattern, settings: Settings) -> Settings:
    """Return the settings with the reference intensities of a checkpoint, which must have the same otherwise."""
    pattern.check(settings)
    return settings | {
        "reference": pattern.preprocessing["reference"],
        "like": {"checkpoint": str(pattern.checkpoint), "sha256": pattern.sha256},
    }


def _stored_settings(options: Options, settings: Settings) -> Settings | None:
    """Return DATA/settings.json, or None where DATA is new or --overwrite is given."""
    out = options.out
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file. Name a folder with --out.")
    if options.overwrite or not out.exists():
        return None
    if not settings_file(out).exists():
        # .123.settings.json: another shard's; converted: of a run that ended before it had its histogram reference.
        ours = [converted_folder(out)] if dicom.is_converted(converted_folder(out)) else []
        if any(not entry.name.startswith(".") and entry not in ours for entry in out.iterdir()):
            raise InputError(
                f"{out} exists, is not empty and was not made by run_preprocess.py. "
                "Name another folder with --out, or add --overwrite to use it."
            )
        return None
    stored = read_settings(out)
    if "reference" not in stored or "patient" not in stored["reference"] or "landmarks" not in stored["reference"]:
        raise InputError(f"{settings_file(out)} names no histogram reference. {MADE_AGAIN}")
    compared: list[tuple[str, object, object]] = [
        ("tools", stored.get("tools"), settings["tools"]),
        ("grid", stored.get("grid"), settings["grid"]),
        ("atlas", stored.get("atlas_sha256"), settings["atlas_sha256"]),
        ("skull of the atlas removed", stored.get("atlas_skull"), settings["atlas_skull"]),
        ("seed", stored.get("seed"), settings["seed"]),
        ("format", stored.get("format"), settings["format"]),
        ("--like", "given" if "like" in stored else "not given", "given" if options.pattern else "not given"),
        ("reference", stored["reference"]["patient"], options.reference or stored["reference"]["patient"]),
    ]
    if "like" in stored and options.pattern:
        compared[-1] = ("reference", _in_words(stored["reference"]), _in_words(settings["reference"]))
    if differing := [f"{name} was {then}, now {now}" for name, then, now in compared if then != now]:
        raise InputError(
            f"{out} was made with other settings: {'; '.join(differing)}. "
            "Name another folder with --out, or add --overwrite to do every patient again."
        )
    return stored


def _settle_splits(patients: list[Patient], options: Options) -> None:
    """Give each patient its split: the table's own, else the one DATA has given it before, else a new one.

    --overwrite does the scans again, not the split: no patient that was tested on may be trained on. Another --seed
    draws the split again, for those whose split the table leaves open. A split that has been drawn is not drawn into
    again: patients who come later are external, as all are with --like (decision 20).
    """
    if options.pattern:
        _make_external(patients)
        return
    table = cohort_file(options.out)
    drawn_again = options.overwrite and _seed_before(options) != options.seed
    if table.is_file() and not drawn_again:
        before = {patient.id: patient.split for patient in read_cohort(table)}
        for patient in patients:
            given = before.get(patient.id, "")
            if given not in ("", EXTERNAL) and patient.split not in ("", given) and not options.overwrite:
                raise InputError(
                    f"{options.cohort}: patient {patient.id} is in split {patient.split}, but in {given} "
                    f"in {table}. Correct the table, or name another --out."
                )
            patient.row["split"] = patient.split or given
        if any(before.values()) and (added := _make_external(patients)):
            print(
                f"{len(added)} patients without a split have come since it was drawn ({', '.join(added[:MOST_NAMES])}"
                f"{', ...' if len(added) > MOST_NAMES else ''}): they are {EXTERNAL}. Write their split into "
                f"{options.cohort} to train on them.",
                flush=True,
            )
    assign_splits(patients, np.random.default_rng(options.seed))


def _seed_before(options: Options) -> int | None:
    """Return the seed by which DATA's split was drawn, None where there was none; where none can be read, this run's:
    damaged settings are no reason to draw a split again.
    """
    if not settings_file(options.out).exists():
        return None
    try:
        return read_settings(options.out).get("seed")
    except InputError:
        return options.seed


def _make_external(patients: list[Patient]) -> list[str]:
    """Put those without a split into none; returns their names."""
    without = [patient for patient in patients if not patient.split]
    for patient in without:
        patient.row["split"] = EXTERNAL
    return [patient.id for patient in without]


def _in_words(reference: Reference) -> str:
    medians = (f"{name} {values[len(values) // 2]:.5g}" for name, values in reference["landmarks"].items())
    return f"{reference['patient']} (medians {', '.join(medians)})"


def _announce(patients: list[Patient], options: Options, settings: Settings, atlas: Atlas) -> None:
    print(table1(patients), end="\n\n", flush=True)
    print(
        f"tools {settings['tools']}   grid {' x '.join(map(str, options.grid))} voxels of "
        f"{' x '.join(f'{size:.2f}' for size in nifti.voxel_sizes(atlas.affine))} mm   atlas {options.atlas}",
        flush=True,
    )


def _say_small_splits(patients: list[Patient]) -> None:
    """Say which tasks cannot be trained or judged, for lack of one of the two classes in a split, before any work."""
    every = [Patient(patient.row | {"status": "ok", "verdict": ""}, patient.folder) for patient in patients]
    for task, positive in POSITIVE.items():
        lacking = []
        for split in SPLITS:
            labels = [sample.label for sample in samples(every, task, split)]
            if not 0 < sum(labels) < len(labels):
                lacking.append(f"{split} has {sum(labels)} positive of {len(labels)} hemispheres")
        if lacking:
            print(
                f"too few for {positive!r}: {'; '.join(lacking)}. Both classes are needed to train (train, val) and to "
                "evaluate (test)",
                flush=True,
            )


def _find_reference(patients: list[Patient], options: Options, atlas: Atlas) -> Reference:
    """Return --reference, else the first training patient that can be preprocessed. Histograms become lines of
    numbers, so that settings.json stays short.

    Each shard finds it for itself, and finds the same.
    """
    training = [patient for patient in patients if patient.split == "train"]
    if not training:
        raise InputError(
            f"{options.cohort}: no patient is in split 'train', so none can be the histogram reference. Put at least "
            "one there, or empty the column split; to score these patients with a network trained on others, add "
            "--like CKPT."
        )
    if options.reference:
        training = [patient for patient in training if patient.id == options.reference]
        if not training:
            raise InputError(
                f"--reference {options.reference} is not a training patient of {options.cohort}. The "
                "reference may not be seen in validation or test: name one whose split is train."
            )
    for patient in training:
        patient = dicom.convert(patient, converted_folder(options.out))
        prepared, reason = try_to_prepare(patient, atlas, options.tools, None)
        if prepared:
            histograms = {
                name: " ".join(f"{share:.4f}" for share in matched)
                for name, (_, matched) in prepared.histograms.items()
            }
            return {"patient": patient.id, "landmarks": prepared.landmarks, "histograms": histograms}
        if options.reference:
            raise InputError(
                f"--reference {options.reference} cannot be preprocessed: {reason} Or name another patient."
            )
        print(
            f"{patient.id} cannot be the histogram reference ({reason}); trying the next training patient", flush=True
        )
    raise InputError(
        f"{options.cohort}: no training patient can be preprocessed, so there is no histogram reference. "
        "The reasons are above: mend these scans, or put other patients into split 'train'."
    )


def _agreed_reference(options: Options, settings: Settings) -> Reference:
    """Return the reference as another shard of the same run has written it, if one has, else this shard's own.

    The shards of an array start at once, and each finds it for itself. On another kind of processor it differs by some
    10^-5, and then each shard would take the others' patients for those of other settings.
    """
    own = settings["reference"]
    if not settings_file(options.out).exists():
        return own
    try:
        written = read_settings(options.out)
    except InputError:  # damaged, and written anew by --overwrite
        return own
    theirs = written.get("reference", own)
    alike = {**written, "reference": own} == settings and theirs.get("patient") == own["patient"]
    found, landmarks = theirs.get("landmarks", {}), own["landmarks"]
    alike = alike and found.keys() == landmarks.keys()
    return theirs if alike and all(np.allclose(found[name], landmarks[name], SAME_REFERENCE) for name in found) else own


def _preprocess(patients: list[Patient], options: Options, settings: Settings) -> None:
    """Preprocess patients, with a line for each as it is finished."""
    started = time.monotonic()
    for number, (record, seconds) in enumerate(_records(patients, options, settings), 1):
        remaining = (time.monotonic() - started) / number * (len(patients) - number)
        verdict = record["status"] if not record["flags"] else "flagged"
        remark = record["reason"] or "; ".join(record["flags"])
        print(
            f"{number:4d}/{len(patients)}  {record['patient']:<12}  {verdict:<7}  {seconds:4.1f} s  "
            f"{_minutes(remaining)} left  {remark}".rstrip(),
            flush=True,
        )


def _records(patients: list[Patient], options: Options, settings: Settings) -> Iterator[tuple[Record, float]]:
    """Preprocess patients on `jobs` cores and yield each record with its seconds as it is finished."""
    if options.jobs == 1 or len(patients) < 2:
        for patient in patients:
            yield make_record(patient, options.out, options.tools, settings, options.pattern)
        return
    with workers(options.jobs) as pool:
        more = options.out, options.tools, settings, options.pattern
        for task in as_completed([pool.submit(make_record, patient, *more) for patient in patients]):
            yield task.result()


def _assemble(patients: list[Patient], options: Options, settings: Settings) -> list[Patient]:
    """Write cohort.csv and qc/index.html from the records there are; returns the patients as written.

    Read again after writing: another shard may have finished a patient meanwhile, and whichever writes last must
    have seen every record. While patients are still missing a shard gives up after some ROUNDS: the others finish
    patients faster than the page of a large cohort is written, and write again when they end.

    Verdicts are those in DATA/cohort.csv, where quality control puts them, each beside the hash of the picture that
    was judged; one whose picture is gone or another, since the patient is preprocessed again or fails now, goes too.
    """
    seen: list[Record | None] | None = None
    written: list[Patient] = []
    out, rounds = options.out, 0
    while (found := _read_records(patients, out, settings)) != seen and (rounds < ROUNDS or None not in found):
        seen, written, rounds, verdicts = found, [], rounds + 1, _verdicts(out)
        for patient, record in zip(patients, found, strict=True):
            outcome = {
                "status": record["status"] if record else "",
                "reason": record["reason"] if record else "",
                "flags": "; ".join(record["flags"]) if record else "",
                PICTURE_COLUMN: "",
            }
            if outcome["status"] == "ok":
                outcome[PICTURE_COLUMN] = hash_of_picture(out, patient.id)
                given = verdicts.get(patient.id, {})
                outcome |= given if given.get(PICTURE_COLUMN) == outcome[PICTURE_COLUMN] else {}
            read = dicom.found(patient, converted_folder(out)).row
            row = {name: cell for name, cell in read.items() if name not in VERDICT_COLUMNS}
            written.append(Patient(row | outcome, patient.folder))
        write_cohort(cohort_file(out), written)
        write_text(qc_page(out), index_page(as_table(written, out), found, out, options.qc_inline))
    return written


def _read_records(patients: list[Patient], out: Path, settings: Settings) -> list[Record | None]:
    return refuse_twins([read_record(patient, out, settings) for patient in patients])


def _say_lost_verdicts(judged: dict[str, dict[str, str]], table: list[Patient]) -> None:
    """Say which patients have lost their verdict, since the picture that was judged is gone or is drawn again."""
    lost = judged.keys() & {patient.id for patient in table if not any(map(patient.row.get, VERDICT_COLUMNS))}
    if lost:
        rejected = sorted(name for name in lost if judged[name]["verdict"] == "reject")
        whom = f" Rejected were {', '.join(rejected)}: judge them again." if rejected else ""
        print(
            f"{len(lost)} verdicts of quality control are dropped with the pictures that they judged, which are drawn "
            f"again.{whom}",
            flush=True,
        )


def _say_rejected(table: list[Patient], options: Options, settings: Settings) -> None:
    rejected = [patient.id for patient in table if patient.status == "rejected"]
    if rejected:
        print(
            f"{len(rejected)} of {len(table)} patients are rejected at quality control (column verdict of "
            f"{cohort_file(options.out)}): they are excluded from training and evaluation",
            flush=True,
        )
    if settings["reference"]["patient"] in rejected and not options.pattern:
        print(
            "the histogram reference is one of them, and all others are matched to it: name a better one with "
            "--reference PATIENT --overwrite",
            flush=True,
        )


def _verdicts(out: Path) -> dict[str, dict[str, str]]:
    """Return patient -> verdict, remark and the picture's hash in DATA/cohort.csv, of those that have been judged."""
    table = cohort_file(out)
    given = {
        patient.id: {name: patient.row.get(name, "") for name in (*VERDICT_COLUMNS, PICTURE_COLUMN)}
        for patient in (read_cohort(table) if table.is_file() else ())
    }
    return {name: verdict for name, verdict in given.items() if any(verdict[column] for column in VERDICT_COLUMNS)}


def _summary(
    patients: list[Patient], part: list[Patient], options: Options, settings: Settings, rejected: set[str]
) -> int:
    """Print what came of the shard's part of the patients; returns the exit code."""
    mine = {patient.id for patient in part}
    found = [
        (patient, record)
        for patient, record in zip(patients, _read_records(patients, options.out, settings), strict=True)
        if record and patient.id in mine
    ]
    failed = [record for _, record in found if record["status"] != "ok"]
    flagged = [record for _, record in found if record["flags"]]
    which = "" if options.shard == Shard() else f" (part {options.shard})"
    print(
        f"\n{len(part)} patients in{which}, {len(part) - len(failed)} finished, {len(flagged)} of them "
        f"flagged, {len(failed)} failed"
    )
    splits = Counter(patient.split for patient, record in found if record["status"] == "ok")
    shown = [name for name in (*SPLITS, EXTERNAL) if splits[name] or (name in SPLITS and not options.pattern)]
    print("  finished " + ", ".join(f"{splits[split]} {split}" for split in shown))
    if excluded := sorted(rejected & mine):
        print(f"  rejected at quality control {len(excluded)}, excluded from what follows")
    _print_kinds("flagged", [(flag, record["patient"]) for record in flagged for flag in record["flags"]])
    _print_kinds("failed", [(record["reason"], record["patient"]) for record in failed])
    after = "run_train.py --phase all" if not options.pattern else f"run_eval.py {options.pattern.checkpoint}"
    print(f"look at {qc_page(options.out)}; next: python {after} --data {options.out}", flush=True)
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
