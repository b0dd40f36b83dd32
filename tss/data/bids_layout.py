"""The files of a BIDS folder: names parsed, sidecars that apply, kinds of image, tables.

In:  a folder as the Brain Imaging Data Structure lays it out.
Out: File(path, entities, suffix, extension), which sidecars apply to it, and what kind of image it is.
Paper: none (our choice: it is how many labs keep their scans).
See: tests/data/test_bids.py

Specification: bids-specification.readthedocs.io, version 1.10: file names, the inheritance principle, tabular files.
Names outside it that occur in practice are read too: ISLES'22 (_adc, _msk), SOOP (rec-TRACE_dwi, rec-ADC_dwi).
"""

import csv
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tss.data.cohort import KNOWN, refuse
from tss.data.diffusion import B0_MOST, B_RANGE, read_bvals
from tss.data.files import read_bytes
from tss.data.text_tables import same_name
from tss.errors import InputError

UNKNOWN = ("", "n/a", "N/A", "NA")  # BIDS writes n/a, R and pandas the others
IMAGES = (".nii", ".nii.gz")
PARTS = {"mag": 0, "real": 1}  # part- that shows the head: an imaginary part or a phase image does not
DERIVED = re.compile(r"(col|c)?fa|[mra]d|ra|vr|tensor|(exp|e|d)adc.*|exp")  # labels of what is computed from the series
B_LABEL = re.compile(r"(?<![a-z0-9])b(?:val)?(0+(?!\d)|[1-9]\d{2,3}(?!\d)|[1-9](?=k))")  # acq-b1000, acq-b2k53dirs
DWI_SPACES = ("orig", "dwi", "trace", "adc", "b0")  # space- of masks that lie on the DWI's grid; others are not used


class File(NamedTuple):
    """A file whose name is parsed: sub-01_acq-b1000_run-2_dwi.nii.gz."""

    path: Path
    entities: dict[str, str]  # {"sub": "01", "acq": "b1000", "run": "2"}
    suffix: str  # "dwi"
    extension: str  # ".nii.gz"

    @property
    def labels(self) -> list[str]:
        """What the name says of the kind of image, in lower case."""
        return [self.entities.get(key, "").lower() for key in ("acq", "rec", "desc", "label")]

    @property
    def part(self) -> int | None:
        """Which of complex data it is: 0 = magnitude, 1 = real part, None = not the head's image."""
        return PARTS.get(self.entities.get("part", "mag").lower())

    @property
    def b(self) -> float | None:
        """The b-value that a label names, in s/mm^2; None = none does."""
        found = {float(b) * (1000 if 0 < float(b) < 10 else 1) for label in self.labels for b in B_LABEL.findall(label)}
        return found.pop() if len(found) == 1 else None

    def belongs_to(self, folder: Path) -> bool:
        """Is it of the subject and session whose folders it lies in, as far as its name says?"""
        places = dict(part.split("-", 1) for part in folder.parts if re.match("(sub|ses)-", part))
        return all(self.entities.get(key, place) == place for key, place in places.items())


def parse_name(path: Path) -> File:
    """Return a path with the parts of its name."""
    stem, dot, extension = path.name.partition(".")
    *entities, suffix = stem.split("_")
    return File(path, dict(entity.split("-", 1) for entity in entities if "-" in entity), suffix, dot + extension)


class Dataset:
    """A BIDS folder, each of its folders listed once."""

    def __init__(self, root: Path):
        self.root = root
        self._listed: dict[Path, list[File]] = {}

    def files(self, folder: Path) -> list[File]:
        """Return the files of a folder by name; none where there is no such folder."""
        if folder not in self._listed:
            paths = sorted(folder.iterdir()) if folder.is_dir() else []
            self._listed[folder] = [parse_name(path) for path in paths if not path.name.startswith(".")]
        return self._listed[folder]

    def images(self, folder: Path) -> list[File]:
        """Return the NIfTI files of a folder by name, without those of another subject or session."""
        here = folder.relative_to(self.root)
        return [file for file in self.files(folder) if file.extension in IMAGES and file.belongs_to(here)]

    def strays(self, folder: Path) -> list[File]:
        """Return the NIfTI files of a folder that are named for another subject or session."""
        here = folder.relative_to(self.root)
        return [file for file in self.files(folder) if file.extension in IMAGES and not file.belongs_to(here)]

    def metadata(self, image: File, extension: str) -> list[Path]:
        """Return the sidecars that apply to an image, from the top folder down (the inheritance principle).

        A sidecar applies if it lies in the image's folder or above, has the same suffix, and only entities that the
        image has too. Of two in one folder, which the specification forbids, the one with more entities is taken.
        """
        found, folder = [], image.path.parent
        while True:
            fitting = [
                file
                for file in self.files(folder)
                if file.extension == extension
                and file.suffix == image.suffix
                and file.entities.items() <= image.entities.items()
            ]
            found += [max(fitting, key=lambda file: len(file.entities)).path] if fitting else []
            if folder == self.root:
                return found[::-1]
            folder = folder.parent

    def bval(self, image: File) -> Path | None:
        """Return the file of b-values that applies: the one lowest in the tree."""
        found = self.metadata(image, ".bval")
        return found[-1] if found else None

    def bvals(self, image: File) -> np.ndarray | None:
        """Return the b-values (N,), or None where none can be read; `load_dwi` reports what is wrong."""
        path = self.bval(image)
        try:
            return read_bvals(path) if path else None
        except InputError:
            return None

    def sidecar(self, image: File) -> dict:
        """Return the image's JSON: lower files override higher ones, key by key."""
        merged: dict[str, Any] = {}
        for path in self.metadata(image, ".json"):
            merged |= read_object(path)
        return merged

    def kind(self, image: File) -> str:
        """Return what an image of a dwi folder is: "dwi", "trace", "b0", "adc", or "" for what is not used.

        The name decides; where it says dwi alone, as converters name all that a scanner derives, the sidecar's
        ImageType and a .bval of a single b0 count too.
        """
        suffix, labels = image.suffix.lower(), image.labels
        if image.part is None or (suffix == "dwi" and any(map(DERIVED.fullmatch, labels))):
            return ""
        if suffix == "adc" or (suffix == "dwi" and any(label.startswith("adc") for label in labels)):
            return "adc"
        if suffix in ("b0", "s0map"):
            return "b0"
        if suffix in ("trace", "tracew", "b1000"):
            return "trace"
        if suffix != "dwi":
            return ""  # sbref, FA, colFA, expADC
        types = _words(self.sidecar(image).get("ImageType"))
        if "ADC" in types:
            return "adc"
        if types & {"FA", "EADC", "EXPADC"}:
            return ""
        bvals = self.bvals(image)
        if bvals is not None:
            only_b0 = bvals.size == 1 and bvals[0] <= B0_MOST
        else:
            only_b0 = image.b is not None and image.b <= B0_MOST
            if image.b is not None and not only_b0 and not B_RANGE[0] <= image.b <= B_RANGE[1]:
                return ""  # acq-b500: its lesions look different
        if only_b0:
            return "b0"
        b1000 = image.b is not None and B_RANGE[0] <= image.b <= B_RANGE[1]
        is_trace = types & {"TRACE", "TRACEW"} or any(label.startswith("trace") for label in labels)
        return "trace" if is_trace or (b1000 and bvals is None) else "dwi"


def _words(value: object) -> set[str]:
    """Return the words of a sidecar's ImageType in capitals, whether it is a list, one string, or nothing of use."""
    words = re.split(r"[\\,_ ]+", value) if isinstance(value, str) else value if isinstance(value, list) else []
    return {str(word).upper() for word in words}


def lesion_rank(image: File) -> int | None:
    """Return 0 for a mask of the acute lesion on the DWI's grid, 1 for one of the lesion, None for anything else.

    Masks in another space (space-T1w, space-MNI152NLin6Asym, ...) and of old lesions are not used.
    """
    said = [label for label in image.labels if label.startswith("lesion")]
    suffix, space = image.suffix.lower(), image.entities.get("space", "orig").lower()
    is_mask = suffix in ("msk", "lesion", "lesion-msk") or (suffix in ("mask", "roi", "dseg") and bool(said))
    if not is_mask or space not in DWI_SPACES or any("chronic" in label for label in said):
        return None
    return 0 if any("acute" in label for label in said) else 1


def read_table(path: Path, key: str, prefix: str) -> dict[str, dict[str, str]]:
    """Return a .tsv as key -> column -> value, n/a as ""; {} where there is no such file.

    key: the column that names the rows; `prefix` is put before names without it.

    Raises InputError: no such column, a duplicate name or column, or lines that do not fit the header.
    """
    if not path.is_file():
        return {}
    try:
        text = read_bytes(path, "Check who may read it.").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} cannot be read: {error}. Save it as text in UTF-8, with tabs between the columns."
        ) from error
    lines = [(number, _tsv_cells(line)) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, cells) for number, cells in lines if any(cells)]
    header = [ours if (ours := same_name(name)) in (key, *KNOWN) else name for name in (lines or [(0, [])])[0][1]]
    while header and not header[-1]:
        header.pop()
    if key not in header or len(set(header)) < len(header):
        raise InputError(
            f"{path} needs a column {key}, and each column once; its header has {', '.join(header)}. "
            "Separate the columns by tabs."
        )
    table, problems = {}, []
    for number, cells in lines[1:]:
        if len(cells) < len(header) or any(cells[len(header) :]):
            problems.append(f"line {number}: {len(cells)} cells where the header has {len(header)}")
            continue
        row = {name: "" if cell in UNKNOWN else cell for name, cell in zip(header, cells, strict=False)}
        name = with_prefix(row[key], prefix)
        if name in table:
            problems.append(f"line {number}: {name} is on an earlier line too")
        table[name] = row
    refuse(path, problems)
    return table


def _tsv_cells(line: str) -> list[str]:
    """Return the cells of a line. No cell goes over two lines, and a quote that is not closed is a character."""
    try:
        (cells,) = csv.reader([line], delimiter="\t", strict=True)
    except (csv.Error, ValueError):
        cells = line.split("\t")
    return [cell.strip() for cell in cells]


def read_object(path: Path) -> dict:
    """Return a JSON object, or {} where none can be read: nothing here depends on a sidecar alone."""
    try:
        content = json.loads(read_bytes(path, "").decode("utf-8-sig"))
    except (InputError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def with_prefix(label: str, prefix: str) -> str:
    """Return a label as BIDS writes it: 01 as sub-01."""
    return label if not label or label.startswith(prefix) else prefix + label
