"""A BIDS folder as a cohort: which files are a patient's DWI, b0, FLAIR and lesion, and what is missing.

In:  BIDS_DIR with sub-*/[ses-*/]{dwi,anat}, participants.tsv, sub-*/sub-*_sessions.tsv, masks in derivatives.
Out: Patients as read_cohort gives them, paths relative to BIDS_DIR; a printed line for each thing that was not found.
Paper: none (our choice: it is how many labs keep their scans).
See: tests/data/test_bids.py

A .bidsignore is ignored: it is meant for BIDS' validator, and most often lists ADC maps.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tss.data.acquisition import acquisition_of
from tss.data.bids_layout import UNKNOWN, Dataset, File, lesion_rank, read_object, read_table, with_prefix
from tss.data.cohort import (
    DICOM,
    SCANS,
    Patient,
    in_small_letters,
    is_number,
    name_problems,
    onset_problems,
    refuse,
    row_problems,
)
from tss.data.dates import order_in_time
from tss.data.diffusion import shells
from tss.data.files import read_json
from tss.data.text_tables import same_name
from tss.errors import InputError

# Columns that no table may define.
OURS = {*SCANS, DICOM, "patient", "session", "not_found", "status", "reason", "flags"}
CODES = {"stroke_side": ("left", "right", "both"), "sex": ("female", "male")}  # may hold codes that a JSON explains
UNITS = {  # column -> unit -> factor to ours
    "onset_to_mri_min": {"min": 1, "minute": 1, "h": 60, "hr": 60, "hour": 60, "s": 1 / 60, "sec": 1 / 60,
                         "second": 1 / 60, "d": 1440, "day": 1440},
    "age": {"y": 1, "yr": 1, "year": 1, "a": 1, "month": 1 / 12, "week": 7 / 365.25, "day": 1 / 365.25},
}  # fmt: skip
CORRECT = "It says what the table's numbers and codes mean. Correct it."
ACUTE, LATER = r"(?<!sub)(?<!post)acute|base|admi|initial|onset", r"follow|fu|chronic|mo|week|discharge|late|post|sub"


class Session(NamedTuple):
    """What was found of a patient in one session, or in the subject's folder where there are no sessions."""

    folder: Path
    scans: dict[str, Path]  # column of the cohort -> file
    missing: list[str]
    remarks: list[str]
    acquired: dict[str, str]  # columns that the sidecars fill (tss.data.acquisition)


def read(folder: Path, say: Callable[[str], None] = print) -> list[Patient]:
    """Read a BIDS folder as a cohort, a patient for each subject; `say` gets a line for each remark.

    A subject that lacks a needed scan stays in the cohort, with what is missing in column not_found, and fails for that
    reason. One session a patient is read (see `_chosen`), so that no patient is in two splits.

    Raises InputError: not a BIDS dataset, or a table in it cannot be used.
    """
    subjects = sorted((path.name for path in folder.glob("sub-*") if path.is_dir()), key=_natural)
    known = [name for name in subjects if re.fullmatch("sub-[A-Za-z0-9]+", name)]
    if not known:
        raise InputError(_no_dataset(folder))
    description = read_object(folder / "dataset_description.json")
    facts, remarks = _participants(folder)
    if not description:
        remarks.append("there is no readable dataset_description.json, which BIDS requires; reading on")
    remarks += [
        f"{name} is skipped: a subject's folder is named sub- and then letters and digits"
        for name in subjects
        if name not in known
    ]
    if facts:
        remarks += [f"{name}: not in participants.tsv" for name in known if name not in facts]
        known += [name for name in facts if name not in known]

    data, patients = Dataset(folder), []
    for name in known:
        row, said = _row(data, folder / name, facts.get(name, {}))
        remarks += [f"{name}: {remark}" for remark in said]
        patients.append(Patient(in_small_letters(row), folder))
    problems = [
        f"{patient.id}: {problem}"
        for patient in patients
        for problem in name_problems(patient.id) + row_problems(patient.row)
    ]
    folded = [name.casefold() for name in known]
    problems += [
        f"{name}: another subject's name differs in upper and lower case only; rename one"
        for name in known
        if folded.count(name.casefold()) > 1
    ]
    refuse(folder / "participants.tsv", problems or onset_problems(patients))

    def count(known: Callable[[Patient], object]) -> int:
        return sum(bool(known(patient)) for patient in patients)

    title = " ".join(str(description.get("Name", folder)).split())
    say(
        f"BIDS dataset {title}, version {description.get('BIDSVersion', 'unknown')}: {len(patients)} patients; "
        f"DWI, b0 or ADC, and FLAIR of {count(lambda patient: not patient.row['not_found'])}, "
        f"onset of {count(lambda patient: patient.minutes)}, side of {count(lambda patient: patient.side)}, "
        f"lesion mask of {count(lambda patient: patient.row['lesion'])}"
    )
    for remark in remarks:
        say(f"  {remark}")
    return patients


def _no_dataset(folder: Path) -> str:
    hints = [f" Did you mean {folder / 'cohort.csv'}?"] if (folder / "cohort.csv").is_file() else []
    hints += sorted(
        f" There are such folders in {path.parent}: is that the dataset?"
        for path in folder.glob("*/sub-*")
        if path.is_dir() and path.parent.name != "derivatives"
    )
    return (
        f"{folder} is not a BIDS dataset: there is no folder sub-<label> in it.{hints[0] if hints else ''} Give a "
        "BIDS folder (sub-*/[ses-*/]dwi and anat), or a cohort.csv."
    )


def _participants(folder: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return participants.tsv as subject -> column -> value, and remarks on it."""
    path = folder / "participants.tsv"
    if not path.is_file():
        return {}, ["there is no participants.tsv: onset times and sides are unknown"]
    facts = read_table(path, "participant_id", "sub-")
    columns = {name for row in facts.values() for name in row}
    remarks = [
        f"participants.tsv has no column {name}: unknown, except for what sessions.tsv files say"
        for name in ("onset_to_mri_min", "stroke_side")
        if name not in columns
    ]
    remarks += [
        f"participants.tsv: column {name} is ignored: its name has another meaning here"
        for name in sorted(columns & OURS - {"session"})
    ]
    _apply_description(facts, path.with_suffix(".json"))
    return facts, remarks


def _apply_description(facts: dict[str, dict[str, str]], *paths: Path) -> None:
    """Bring codes into words and numbers into our units, as the JSON files beside a table say what they are.

    paths: from the top folder down; what a lower one says of a column takes the place of what a higher one says.

    Raises InputError: one is no JSON object, or gives a unit that is none of UNITS.
    """
    described: dict[str, tuple[Path, object]] = {}
    for path in paths:
        if path.is_file():
            described |= {same_name(name): (path, said) for name, said in read_json(path, remedy=CORRECT).items()}
    for row in facts.values():
        for column, words in CODES.items():
            if column in row and column in described:
                row[column] = _in_words(row[column], described[column][1], words)
        for column, factors in UNITS.items():
            source, said = described.get(column, (None, None))
            unit = said.get("Units") if isinstance(said, dict) else None
            if not row.get(column) or not isinstance(unit, str) or unit.strip() in UNKNOWN:
                continue
            factor = factors.get(unit.strip().lower()) or factors.get(unit.strip().lower().removesuffix("s"))
            if factor is None:
                raise InputError(
                    f"{source}: {column} is in {unit!r}, which is none of {', '.join(factors)}. Correct the unit, or "
                    "convert the column."
                )
            if factor != 1 and is_number(row[column]):
                row[column] = f"{float(row[column]) * factor:g}"


def _in_words(value: str, described: object, words: tuple[str, ...]) -> str:
    """Return a code as the word that the JSON beside the table gives for it under Levels, if it is one of `words`."""
    levels = described.get("Levels") if isinstance(described, dict) else None
    word = levels.get(value) if isinstance(levels, dict) else None
    word = word.get("Description") if isinstance(word, dict) else word
    return word.lower() if isinstance(word, str) and word.lower() in words else value


def _row(data: Dataset, subject: Path, facts: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the subject's row of the cohort, and remarks on it."""
    sessions = sorted(
        (path for path in subject.glob("ses-*") if path.is_dir()), key=lambda path: _session_key(path.name)
    )
    of_sessions = read_table(subject / f"{subject.name}_sessions.tsv", "session_id", "ses-")
    _apply_description(of_sessions, data.root / "sessions.json", subject / f"{subject.name}_sessions.json")
    times = [of_sessions.get(path.name, {}).get("acq_time", "") or _first_scan(path) for path in sessions]
    remarks = []
    if len(sessions) > 1 and any(times):
        if (order := order_in_time(times)) is None:
            said = ", ".join(time or "n/a" for time in times)
            remarks.append(
                f"the sessions' acq_time ({said}) give no order in time: they are taken in that of their names"
            )
        else:
            sessions = [sessions[k] for k in order]
    wanted = with_prefix(facts.get("session", ""), "ses-")
    chosen = _chosen(data, [_session(data, path) for path in sessions or [subject]], wanted)
    read = chosen.folder.name if chosen.folder != subject else ""

    row = {
        "patient": subject.name,
        "session": read,
        **dict.fromkeys(SCANS, ""),
        "onset_to_mri_min": "",
        "stroke_side": "",
        "not_found": "; ".join(chosen.missing),
    }
    row |= {column: path.relative_to(data.root).as_posix() for column, path in chosen.scans.items()}
    row |= chosen.acquired
    row |= {
        column: value
        for known in (facts, of_sessions.get(read, {}))
        for column, value in known.items()
        if value and column not in OURS | {"participant_id", "session_id"}
    }
    remarks += [*chosen.missing, *chosen.remarks]
    if others := [path.name for path in sessions if path.name != read]:
        advice = "" if wanted else "; a column session in participants.tsv chooses another"
        remarks.append(f"{read} is read, {', '.join(others)} not: one session a patient{advice}")
    return row, remarks


def _session_key(name: str) -> tuple:
    """Order sessions by name where no times are known: ses-acute before ses-2 before ses-10 before ses-3mo."""
    word = name.removeprefix("ses-").lower()
    return 0 if re.search(ACUTE, word) else 2 if re.search(LATER, word) else 1, _natural(name)


def _first_scan(session: Path) -> str:
    """Return the acq_time of a session's first line in its scans.tsv; "" where there is none."""
    table = session / f"{session.parent.name}_{session.name}_scans.tsv"
    try:
        times = [row.get("acq_time", "") for row in read_table(table, "filename", "").values()]
    except InputError:  # nothing else is read from it
        return ""
    return next(filter(None, times), "")


def _chosen(data: Dataset, sessions: list[Session], wanted: str) -> Session:
    """Return the session to read: the one asked for, else the first with any MRI.

    First is first in time where that is known, else by name: the acute scan. Where that one lacks a file, the patient
    fails; a complete follow-up does not take its place, since onset, side and labels are of the acute one.
    """
    if wanted and wanted not in (session.folder.name for session in sessions):
        folder = sessions[0].folder.with_name(wanted)
        return Session(folder, {}, [f"there is no folder {wanted}, which participants.tsv names"], [], {})
    if wanted:
        return next(session for session in sessions if session.folder.name == wanted)
    scanned = (s for s in sessions if any(data.images(s.folder / kind) for kind in ("dwi", "anat")))
    return next(scanned, sessions[0])


def _session(data: Dataset, folder: Path) -> Session:
    """Find the scans of a session."""
    here = folder.relative_to(data.root)
    if not folder.is_dir():
        return Session(folder, {}, [f"there is no folder {here}"], [], {})
    scans: dict[str, Path] = {}
    missing: list[str] = []
    remarks: list[str] = []
    read: dict[str, File] = {}
    kinds: dict[str, list[File]] = {"dwi": [], "trace": [], "b0": [], "adc": [], "": []}
    for stray in (*data.strays(folder / "dwi"), *data.strays(folder / "anat")):
        remarks.append(f"{stray.path.name} is not read: it lies in {here}, and its name is another's")
    for image in data.images(folder / "dwi"):
        kinds[data.kind(image)].append(image)

    ranked: dict[tuple, list[File]] = {}
    for image in kinds["dwi"] + kinds["trace"]:
        ranked.setdefault(_drawbacks(data, image), []).append(image)
    if ranked:
        drawbacks = min(ranked)
        dwi = read["dwi"] = _best(ranked[drawbacks], remarks)
        scans |= {"dwi": dwi.path} | ({"dwi_bval": bval} if (bval := data.bval(dwi)) else {})
        second = next((kind for kind in ("b0", "adc") if kinds[kind]), None)
        if drawbacks[1] and second:
            scans[second] = _best(kinds[second], remarks, dwi).path
        elif drawbacks[1]:
            missing.append(f"no b0: {dwi.path.name} has no .bval with b = 0, and {here / 'dwi'} has no b0 and no ADC")
    else:
        missing.append(f"no DWI in {here / 'dwi'}")

    anatomical = [image for image in data.images(folder / "anat") if image.suffix.lower() == "flair"]
    if flairs := [image for image in anatomical if image.part is not None]:
        read["flair"] = _best(flairs, remarks)
        scans["flair"] = read["flair"].path
    else:
        alike = [image.path.name for image in data.images(folder / "anat") if "flair" in image.path.name.lower()]
        hint = f" ({', '.join(alike)}: BIDS names one sub-<label>_FLAIR.nii.gz)" if alike and not anatomical else ""
        missing.append(f"no FLAIR in {here / 'anat'}{hint}")
    if lesion := _lesion(data, folder, remarks):
        scans["lesion"] = lesion
    sidecars = {name: data.sidecar(image) for name, image in read.items()}
    bvals = data.bvals(read["dwi"]) if "dwi" in read else None
    acquired = acquisition_of(sidecars, None if bvals is None else bvals.tolist())
    return Session(folder, scans, missing, remarks, acquired)


def _drawbacks(data: Dataset, image: File) -> tuple[bool, bool, int, bool]:
    """Return what counts against an image as the DWI: no b1000 in it, no b0 in it, only the real part of complex data,
    not named a trace image."""
    bvals, part = data.bvals(image), image.part or 0
    if bvals is None:
        return False, True, part, data.kind(image) != "trace"
    weighted, unweighted = shells(bvals)
    return not weighted.any(), not unweighted.any(), part, False


def _best(images: list[File], remarks: list[str], like: File | None = None) -> File:
    """Return one of several images of a kind, and remark on the others.

    Magnitude comes before a real part, then without contrast agent (ce-), then what shares most of its name with
    `like`, then the plainest name, then the last run (a scan is repeated because the one before was bad), then
    alphabetical order.
    """

    def key(image: File) -> tuple:
        entities = image.entities
        shared = len(entities.items() & like.entities.items()) if like else 0
        run = int(entities["run"]) if entities.get("run", "").isdigit() else 0
        return image.part, "ce" in entities, -shared, len(entities.keys() - {"run"}), -run, image.path.name

    first, *others = sorted(images, key=key)
    if others:
        remarks.append(f"{first.path.name} is read, {', '.join(image.path.name for image in others)} not")
    return first


def _lesion(data: Dataset, folder: Path, remarks: list[str]) -> Path | None:
    """Return the mask of the acute lesion on the DWI's grid, from dwi or derivatives; None where there is none."""
    derived, here = data.root / "derivatives", folder.relative_to(data.root)
    pipelines = sorted(path for path in derived.iterdir() if path.is_dir()) if derived.is_dir() else []
    places = [folder / "dwi"]
    for pipeline in (derived, *pipelines):
        places += [pipeline / here, pipeline / here / "dwi"]
    masks = [
        image
        for place in places
        for image in data.images(place)
        if lesion_rank(image) is not None and f"sub-{image.entities.get('sub')}" == here.parts[0]
    ]

    def key(image: File) -> tuple:
        agreed = "consensus" in image.path.name.lower()
        return lesion_rank(image), not agreed, len(image.entities), image.path

    if not masks:
        return None
    first, *others = sorted(masks, key=key)
    if rivals := [str(image.path.relative_to(data.root)) for image in others if key(image)[:2] == key(first)[:2]]:
        remarks.append(
            f"lesion mask {first.path.relative_to(data.root)} is read, {', '.join(rivals)} not: by another rater?"
        )
    return first.path


def _natural(name: str) -> list:
    """Return a sorting key by which sub-2 comes before sub-10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
