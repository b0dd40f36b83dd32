"""Broken inputs by the thousand: what a file can hold must end in a sentence, never in a traceback, a hang or a loss.

In:  seconds and a seed; the suite's programs, called through main(argv), each in a process of its own.
Out: a line for each finding, counts by family; exit code 1 where there are findings.
Paper: none (our choice: files come from scanners, spreadsheets, other programs, and damaged disks).
See: tests/campaign/test_campaign.py

    python tests/campaign/mutate.py --seconds 3600 --seed 7
    python tests/campaign/mutate.py --seed 7 --only checkpoints:31        one input again, its messages printed

Registration answers at once and pictures are not drawn: this is about reading. An input is (seed, family, number).
What an input costs goes into reading it: its folder lies in memory, whole files are links, and the parent loads what
every fork would load again.
"""

import argparse
import contextlib
import csv
import gc
import gzip
import hashlib
import io
import json
import os
import pickle
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import heads  # noqa: E402
import nibabel  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from tiny_data import write_tiny_data  # noqa: E402
from untrained import save_checkpoint  # noqa: E402

import run_eval  # noqa: E402
import run_preprocess  # noqa: E402
import run_train  # noqa: E402
import tss.evaluation.evaluate  # noqa: E402, F401  # loaded once, before the forks
from tss.data import files  # noqa: E402
from tss.display import roc_plots, slice_plots, training_plots  # noqa: E402
from tss.preprocessing import registration, tools  # noqa: E402
from tss.training import epoch, tumour_pretraining  # noqa: E402

HANG_SECONDS, MOST_BYTES = 60, 4 * 2**30
GRID = ["16", "16", "8"]
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # waiting for a disk finds no fault
PROGRAMS: dict[str, Callable[[Sequence[str]], int]] = {
    "preprocess": run_preprocess.main,
    "train": run_train.main,
    "eval": run_eval.main,
    "tumours": tumour_pretraining.main,
}
ODD = [
    None, True, False, 0, -1, 1, 2, 3.5, 5.0, 1e300, -1e-300, 2**70, float("nan"), float("inf"), "", "x", "0", "../x",
    "x" * 300, "a\0b", "é", [], [[]], {}, [1, 2], [0, 0, 0], [1, 2, 3], [8, 8, 8], [-8, 16, 8], [16.0, 16, 8],
    ["a"], {"a": 1}, {"": None}, [None] * 3, [1e9, 1e9, 1e9], [2**40, 2, 2],
]  # fmt: skip
WORDS = [
    "", " ", "nan", "inf", "-1", "0", "1e999", "0x10", "1_0", "3,5", "٣", "\0", '"', "'", ";", "\t", "ok", "failed",
    "left", "right", "both", "Left ", "train", "test", "external", "reject", "..", "../..", "/", "/dev/zero",
    "/dev/stdin", "x" * 300, "x" * 70000, "é", "\u202e", "\ufeff", "p0", "p1", "=1+1", "-", "None", "12:30", "a\nb",
]  # fmt: skip


@dataclass
class Trial:
    """One broken input: what was done to it, what is run on it, and what must hold of the outcome."""

    what: str
    commands: list[tuple[str, list[str]]]
    losses: Callable[[list[tuple[int, str]]], list[str]]  # exit codes and outputs -> sentences on what was lost


@dataclass
class Outcome:
    """What came of a trial: kind -> sentence, of those that may not be; the messages."""

    findings: list[tuple[str, str]] = field(default_factory=list)
    said: str = ""


class Sources(NamedTuple):
    """Good inputs, which every trial copies from."""

    raw: Path  # p0, p1: scans, cohort.csv, atlas.nii.gz
    data: Path  # both prepared
    bids: Path  # the same as BIDS, 4-D DWI with .bval
    bids_data: Path
    tiny: Path  # DATA to train on
    checkpoints: Path  # phase1/best.pt, phase3/best.pt, like.pt
    tumours: Path  # tumours.csv and its scans, resnet18.pt, genesis.pt


# Good inputs


# What make_sources() replaces, in this process.
REPLACED = (
    (heads, "DWI_GRID"),
    (heads, "FLAIR_GRID"),
    (heads, "ATLAS_GRID"),
    (tools, "BUILTIN"),
    (registration, "find_affine"),  # the quality control's own
    (slice_plots, "draw_qc"),
    (roc_plots, "draw_roc"),
    (training_plots, "draw_curves"),
    (training_plots, "draw_restoration"),
)


def make_sources(folder: Path) -> Sources:
    heads.DWI_GRID, heads.FLAIR_GRID = ((28, 34, 24), (7.0, 7.0, 6.5)), ((36, 42, 23), (5.4, 5.4, 6.8))
    heads.ATLAS_GRID = (30, 36, 30), (6.0, 6.0, 6.0)
    registration.find_affine = lambda *_, **__: np.eye(4)
    tools.BUILTIN = replace(tools.BUILTIN, find_affine=registration.find_affine)
    for module, name in REPLACED:
        if name.startswith("draw_"):
            setattr(module, name, lambda path, *_: files.write_text(path, "picture"))
    sources = Sources(*(folder / name for name in Sources._fields))
    sources.raw.mkdir()
    rows = [heads.write_patient(sources.raw, f"p{k}", k) | {"split": ("train", "test")[k]} for k in (0, 1)]
    mask = heads.sample("dwi", heads.DWI_GRID[0], heads.grid(*heads.DWI_GRID), side="left") > 180
    heads.save(sources.raw / "p1_lesion.nii.gz", mask.astype(np.uint8), heads.grid(*heads.DWI_GRID))
    rows[0]["lesion"], rows[1]["lesion"] = "", "p1_lesion.nii.gz"
    heads.write_table(sources.raw, rows)
    atlas = heads.write_atlas(sources.raw / "atlas.nii.gz")
    write_bids(sources)
    for source, out in ((sources.raw / "cohort.csv", sources.data), (sources.bids, sources.bids_data)):
        with contextlib.redirect_stdout(io.StringIO()):
            assert run_preprocess.main(preprocess_command(source, out, atlas)[1]) == 0
    write_tiny_data(sources.tiny)
    for phase in (1, 3):
        save_checkpoint(sources.checkpoints / f"phase{phase}" / "best.pt", phase, sources.tiny)
    save_checkpoint(sources.checkpoints / "like.pt", 3, sources.data)
    write_tumours(sources.tumours)
    epoch.build_optimizer(torch.nn.Linear(1, 1), 1e-3, 1e-2)  # the first optimizer loads two seconds' worth of modules
    return sources


def write_bids(sources: Sources) -> None:
    folder = sources.bids
    for k, name in enumerate(("sub-p0", "sub-p1")):
        stem = folder / name / "dwi" / f"{name}_dwi"
        dwi, b0 = (nibabel.load(sources.raw / f"p{k}_{kind}.nii.gz") for kind in ("dwi", "b0"))
        series = [b0.get_fdata(), *(dwi.get_fdata() * factor for factor in (1.2, 1, 1 / 1.2))]
        heads.save(stem.with_suffix(".nii.gz"), np.stack(series, -1).astype(np.float32), dwi.affine)
        stem.with_suffix(".bval").write_text("0 1000 1000 1000\n")
        stem.with_suffix(".json").write_text(json.dumps({"Modality": "MR", "ImageType": ["ORIGINAL"]}))
        (folder / name / "anat").mkdir()
        shutil.copy(sources.raw / f"p{k}_flair.nii.gz", folder / name / "anat" / f"{name}_FLAIR.nii.gz")
        (folder / name / "anat" / f"{name}_FLAIR.json").write_text(json.dumps({"ImageType": ["ORIGINAL"]}))
    table = "participant_id\tonset_to_mri_min\tstroke_side\tsplit\nsub-p0\t100\tright\ttrain\nsub-p1\t300\tleft\ttest\n"
    (folder / "participants.tsv").write_text(table)
    units = {"onset_to_mri_min": {"Units": "min"}, "stroke_side": {"Levels": {"left": "left", "right": "right"}}}
    (folder / "participants.json").write_text(json.dumps(units))
    (folder / "dataset_description.json").write_text(json.dumps({"Name": "two", "BIDSVersion": "1.10.0"}))


def write_tumours(folder: Path) -> None:
    rng, rows = np.random.default_rng(0), []
    x, y, z = np.indices((16, 16, 6))
    head = ((x - 7.5) / 7) ** 2 + ((y - 7.5) / 7) ** 2 + ((z - 2.5) / 4) ** 2 < 1
    affine = np.diag([182 / 16, 218 / 16, 182 / 6, 1])
    for k in range(10):
        ball = (x - 5 - k % 2 * 5) ** 2 + (y - 8) ** 2 + 4 * (z - 3) ** 2 < 9
        row = {"patient": f"t{k}", "type": ("glioma", "meningioma")[k % 2]}
        for name in ("flair", "tumour"):
            row[name] = f"t{k}_{name}.nii.gz"
        heads.save(
            folder / row["flair"], (head * (100 + 5 * rng.normal(size=x.shape)) * (1 + ball)).astype("f4"), affine
        )
        heads.save(folder / row["tumour"], (ball & head).astype(np.uint8), affine)
        rows.append(row)
    table = heads.write_table(folder, rows)
    table.rename(folder / "tumours.csv")
    from tss.models.resnet2d import SliceClassifier

    torch.manual_seed(0)
    own = SliceClassifier(4, 4, False).state_dict()
    torch.save(
        {name.removeprefix("backbone."): tensor for name, tensor in own.items() if name.startswith("backbone.")},
        folder / "resnet18.pt",
    )


def preprocess_command(source: Path, out: Path, atlas: Path, *more: str) -> tuple[str, list[str]]:
    flags = [str(source), "--out", str(out), "--atlas", str(atlas), "--tools", "builtin", "--grid", *GRID, *more]
    return "preprocess", flags


def train_command(data: Path, out: Path, phase: int, *more: str) -> tuple[str, list[str]]:
    flags = ["--phase", str(phase), "--data", str(data), "--out", str(out), "--epochs", "1", "--device", "cpu", *more]
    return "train", flags


def eval_command(checkpoint: Path, data: Path, out: Path, *more: str) -> tuple[str, list[str]]:
    return "eval", [str(checkpoint), "--data", str(data), "--out", str(out), "--gradcam", "0", "--device", "cpu", *more]


# What is done to any file


def pick(rng: np.random.Generator, choices: Sequence):
    return choices[int(rng.integers(len(choices)))]


def break_place(rng: np.random.Generator, path: Path) -> str:
    """Put something else where the file was."""
    how = pick(rng, ["folder", "fifo", "loop", "/dev/zero", "/dev/null", "/dev/urandom", "dangling", "missing"])
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "loop":
        path.symlink_to(path.name)
    elif how.startswith("/dev"):
        path.symlink_to(how)
    elif how == "dangling":
        path.symlink_to("nowhere")
    return how


def break_bytes(rng: np.random.Generator, path: Path) -> str:
    content = bytearray(path.read_bytes())
    how = pick(rng, ["flip", "flips", "cut", "empty", "zeros", "insert", "append", "noise", "gzip", "text", "pickle"])
    at = int(rng.integers(max(1, len(content))))
    if how in ("flip", "flips"):
        for _ in range(1 if how == "flip" else 40):
            at = int(rng.integers(max(1, min(len(content), 10 ** int(rng.integers(1, 8))))))
            content[at : at + 1] = bytes([(content[at] if content else 0) ^ (1 << int(rng.integers(8)))])
    elif how == "cut":
        del content[at:]
    elif how == "empty":
        content.clear()
    elif how == "zeros":
        content[at : at + 64] = bytes(64)
    elif how == "insert":
        content[at:at] = rng.bytes(17)
    elif how == "append":
        content += rng.bytes(1000)
    elif how == "noise":
        content[:] = rng.bytes(len(content))
    elif how == "gzip":
        content[:] = gzip.compress(bytes(content))
    elif how == "text":
        content[:] = "Ceci n'est pas une image é\n".encode("latin-1") * 20
    elif how == "pickle":
        content[:] = pickle.dumps(Code(str(path.parent / "EXECUTED")))
    path.write_bytes(content)
    return f"bytes {how}"


class Code:
    """A pickle of it writes a file where it is loaded: nobody may load it."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def break_table(rng: np.random.Generator, path: Path, delimiter: str = ",") -> str:
    lines = [line.split(delimiter) for line in path.read_text().splitlines()]
    row, column = int(rng.integers(len(lines))), int(rng.integers(len(lines[0])))
    how = pick(rng, [
        "cell", "cell", "cell", "cell", "part of a cell", "header", "row twice", "row lost", "column lost",
        "column twice", "rows turned", "short", "long", "utf-16", "latin-1", "crlf", "blanks", "semicolons", "quotes",
        "empty line", "header only", "comment",
    ])  # fmt: skip
    word = pick(rng, WORDS)
    if how == "cell":
        lines[row][column] = word
    elif how == "part of a cell":
        cell = lines[row][column]
        at = int(rng.integers(len(cell) + 1))
        lines[row][column] = cell[:at] + word + cell[at:]
    elif how == "header":
        lines[0][column] = pick(rng, [lines[0][column].upper(), lines[0][column] + " ", word, lines[0][0]])
    elif how == "row twice":
        lines.append(list(lines[row]))
    elif how == "row lost":
        del lines[row]
    elif how == "column lost":
        for line in lines:
            del line[column]
    elif how == "column twice":
        lines = [[*line, line[column]] for line in lines]
    elif how == "rows turned":
        lines = [lines[0], *lines[:0:-1]]
    elif how == "short":
        lines[row] = lines[row][:column]
    elif how == "long":
        lines[row] = [*lines[row], word]
    elif how == "blanks":
        lines = [[f"  {cell} " for cell in line] for line in lines]
    elif how == "quotes":
        lines[row][column] = f'"{lines[row][column]}"' + pick(rng, ["", '"', "x"])
    elif how == "empty line":
        lines.insert(row, pick(rng, [[""], ["", "", ""], ["#"]]))
    elif how == "header only":
        del lines[1:]
    elif how == "comment":
        lines.insert(0, ["# of the lab"])
    separator = ";" if how == "semicolons" else delimiter
    text = "\n".join(separator.join(line) for line in lines) + "\n"
    if how == "crlf":
        text = text.replace("\n", "\r\n")
    encoding = {"utf-16": "utf-16", "latin-1": "latin-1"}.get(how, "utf-8")
    path.write_bytes(text.encode(encoding, "replace"))
    return f"table: {how}, {word[:20]!r} at {row}, {column}"


def break_json(rng: np.random.Generator, path: Path) -> str:
    """Retype, remove or add somewhere in the tree."""
    if rng.random() < 0.08:
        text = pick(rng, ["[" * 100000, '{"a":' * 50000, "NaN", "null", '"x"', "{}", "[]", '{"a": 1e999}', "\ufeff{}"])
        path.write_text(text)
        return f"json text {text[:8]}"
    tree = json.loads(path.read_text())
    what = break_tree(rng, tree)
    path.write_text(json.dumps(tree))
    return f"json {what}"


def break_tree(rng: np.random.Generator, tree, odd: Sequence = ODD) -> str:
    node, trail = tree, []
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = pick(rng, keys) if keys else None
        if key is None:
            return f"{trail} empty"
        trail.append(key)
        child = node[key]
        if isinstance(child, (dict, list)) and child and rng.random() < 0.6:
            node = child
            continue
        if rng.random() < 0.25:
            del node[key]
            return f"{trail} removed"
        node[key] = pick(rng, odd)
        return f"{trail} = {str(node[key])[:30]}"


def break_npy(rng: np.random.Generator, path: Path) -> str:
    array = np.load(path)
    how = pick(rng, [
        "npz", "struct", "string", "big-endian", "reshaped", "empty", "nan", "inf", "int", "object", "zero side",
        "transposed", "complex", "bool", "claims more", "0-d", "float64", "fortran", "out of range", "zero-size",
    ])  # fmt: skip
    if how == "npz":
        with open(path, "wb") as file:
            np.savez(file, a=array)
        return f"npy {how}"
    if how == "claims more":
        content = path.read_bytes()
        path.write_bytes(re.sub(rb"\(2, 3, \d+,", b"(2, 3, 9,", content, count=1))
        return f"npy {how}"
    if how in ("nan", "inf"):
        array.flat[int(rng.integers(array.size))] = np.nan if how == "nan" else -np.inf
    if how == "zero side":
        array[int(rng.integers(2))] = 0
    changed = {
        "struct": lambda: np.zeros(array.shape, [("a", "f4")]), "string": lambda: array.astype("U8"),
        "big-endian": lambda: array.astype(">f2"), "reshaped": lambda: array.reshape(array.shape[::-1]),
        "empty": lambda: array[:0], "int": lambda: (array * 100).astype(int), "0-d": lambda: np.float16(1),
        "object": lambda: array.astype(object), "transposed": lambda: array.swapaxes(-1, -2),
        "complex": lambda: array.astype(complex), "bool": lambda: array > 0, "float64": lambda: array.astype(float),
        "fortran": lambda: np.asfortranarray(array), "out of range": lambda: array * 1000 - 5,
        "zero-size": lambda: np.zeros((2, 3, 0, 0, 0), np.float16),
    }.get(how, lambda: array)()  # fmt: skip
    with open(path, "wb") as file:
        np.save(file, changed, allow_pickle=True)
    return f"npy {how}"


HEADER_ENTRIES = {
    "dim": [0, 1, 2, 5, 7, 8, -3, 32767], "pixdim": [0, -1, np.nan, np.inf, 1e-30, 1e30, 1000, 2],
    "datatype": [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1536, 1792, 2304, 9999],
    "bitpix": [0, 1, 8, 16, 64, 999], "vox_offset": [0, -5, 1, 353, 1e9, np.nan, np.inf],
    "scl_slope": [0, -1, np.nan, np.inf, 1e30, 1e-40], "scl_inter": [np.nan, np.inf, 1e38, 5],
    "qform_code": [0, 1, 7, -1, 32000], "sform_code": [0, 1, 7, -1, 32000],
    "quatern_b": [5, 0.9, np.nan, np.inf], "quatern_c": [5, 0.9, np.nan], "quatern_d": [5, 0.9, np.nan],
    "srow_x": [0, np.nan, np.inf, 1e30], "srow_y": [0, np.nan, 1e30], "srow_z": [0, np.nan, 1e30],
    "magic": [b"", b"ni1", b"xxx"], "sizeof_hdr": [0, 349, 540, -1], "qoffset_x": [np.nan, 1e30],
    "xyzt_units": [0, 1, 3, 255], "dim_info": [255], "intent_code": [1007, 9999], "slice_code": [99],
}  # fmt: skip


def break_nifti(rng: np.random.Generator, path: Path) -> str:
    """Change header fields as bytes, or the voxels."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    kind = nibabel.Nifti1Header().structarr.dtype
    header = np.frombuffer(bytes(content[:348]), kind).copy()[0:1]
    said = []
    if rng.random() < 0.3:
        shape = tuple(int(n) for n in header["dim"][0][1 : 1 + header["dim"][0][0]])
        voxels = np.frombuffer(bytes(content[352:]), "<f4" if header["datatype"] == 16 else "u1")[
            : np.prod(shape)
        ].copy()
        how = pick(rng, ["nan", "inf", "zero", "constant", "huge", "tiny", "negative", "one", "noise", "half"])
        if how in ("nan", "inf", "one", "huge") and voxels.dtype.kind == "f":
            number = 1 if how == "one" else int(rng.integers(1, voxels.size))
            voxels[rng.integers(voxels.size, size=number)] = {"nan": np.nan, "inf": np.inf, "huge": 3e38}.get(how, 1e9)
        else:
            voxels = {
                "zero": voxels * 0, "constant": voxels * 0 + 7, "tiny": voxels * np.float32(1e-38).astype(voxels.dtype),
                "negative": -voxels, "noise": rng.permutation(voxels),
                "half": np.where(np.arange(voxels.size) < voxels.size // 2, 0, voxels),
            }.get(how, voxels)  # fmt: skip
        content[352 : 352 + voxels.nbytes] = voxels.astype(voxels.dtype).tobytes()
        said.append(how)
    else:
        for _ in range(int(rng.integers(1, 4))):
            name = pick(rng, list(HEADER_ENTRIES))
            value = pick(rng, HEADER_ENTRIES[name])
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                if header[name].ndim > 1:
                    at = int(rng.integers(min(header[name].shape[1], 5)))
                    header[name][0, at] = value
                    name = f"{name}[{at}]"
                else:
                    header[name] = value
            said.append(f"{name} = {value}")
        content[:348] = header.tobytes()
    if rng.random() < 0.1:
        del content[int(rng.integers(len(content))) :]
        said.append("cut")
    path.write_bytes(gzip.compress(bytes(content), 1))
    return f"nifti {', '.join(said)}"


def break_tensors(rng: np.random.Generator, tensors: dict) -> str:
    name = pick(rng, list(tensors))
    tensor = tensors[name]
    how = pick(rng, [
        "nan", "inf", "sparse", "quantised", "meta", "list", "complex", "int", "double", "half", "reshaped", "removed",
        "extra", "huge", "number", "none", "empty", "transposed", "renamed", "all nan", "not a name", "strided",
    ])  # fmt: skip
    if not tensor.is_floating_point() and how in ("nan", "inf", "quantised"):
        how = "int"
    if how in ("nan", "inf") and tensor.numel():
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        tensor.view(-1)[int(rng.integers(tensor.numel()))] = float(how)
        tensors[name] = tensor
        return f"{name} {how}"
    if how == "all nan":
        for each in tensors:
            if tensors[each].is_floating_point():
                tensors[each] = tensors[each] * float("nan")
    elif how == "removed":
        del tensors[name]
    elif how == "extra":
        tensors["extra"] = tensor
    elif how == "renamed":
        tensors[name + "x"] = tensors.pop(name)
    elif how == "not a name":
        tensors[7] = tensor
    else:
        tensors[name] = {
            "sparse": lambda: tensor.to_sparse(), "meta": lambda: tensor.to("meta"),
            "quantised": lambda: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
            "list": lambda: tensor.tolist(), "complex": lambda: tensor.to(torch.complex64), "int": lambda: tensor.int(),
            "double": lambda: tensor.double(), "half": lambda: tensor.half(), "reshaped": lambda: tensor.reshape(-1),
            "huge": lambda: tensor * 1e30, "number": lambda: 3.0, "none": lambda: None,
            "empty": lambda: torch.empty(0), "transposed": lambda: tensor.T if tensor.ndim == 2 else tensor[None],
            "strided": lambda: tensor.reshape(-1)[:1].expand(tensor.shape) if tensor.ndim else tensor,
        }[how]()  # fmt: skip
    return f"{name} {how}"


def break_checkpoint(rng: np.random.Generator, path: Path) -> str:
    content = torch.load(path, weights_only=True)
    how = rng.random()
    if how < 0.35:
        what = break_tensors(rng, content["state_dict"])
    elif how < 0.75 or "settings" not in content:
        key = pick(rng, list(content))
        if rng.random() < 0.2:
            del content[key]
            what = f"{key} removed"
        else:
            more = [
                -5,
                10**6,
                65,
                "3d",
                "2d",
                "stroke",
                "tss<3h",
                "tss<4.5h",
                "restore",
                "tumour type",
                "extended",
                "paper",
            ]
            content[key] = pick(rng, [*ODD, *more, torch.zeros(2), torch.tensor(float("nan"))])
            what = f"{key} = {str(content[key])[:30]}"
    elif how < 0.95:
        what = break_tree(rng, content["settings"]) if content["settings"] else "settings empty"
    else:
        content = pick(rng, [[], content["state_dict"], [content], 5, "x", {}, {"format": 5}, None, torch.zeros(3)])
        what = f"is {type(content).__name__}"
    torch.save(content, path)
    return f"checkpoint {what}"


def break_file(rng: np.random.Generator, path: Path, own: Callable[[np.random.Generator, Path], str]) -> str:
    """Break a file in a way of its kind, most often, or as any file can be broken. Returns what was done."""
    content = path.read_bytes()
    path.unlink()  # a link to the source
    path.write_bytes(content)
    kind = rng.random()
    way = break_place if kind < 0.1 else break_bytes if kind < 0.25 else own
    return f"{path.name}: {way(rng, path)}"


# Families


def tables(rng: np.random.Generator, sources: Sources, folder: Path) -> Trial:
    raw = copied(sources.raw, folder / "raw")
    table, out = raw / "cohort.csv", folder / "data"
    what = break_file(rng, table, break_table)
    rows_in = count_rows(table)

    def losses(ended: list[tuple[int, str]]) -> list[str]:
        code, said = ended[0]
        found = re.search(r"of (\d+) patients would", said)
        rows_out = int(found[1]) if found else None
        return [f"rows in {rows_in}, out {rows_out}"] if code == 0 and rows_out not in rows_in else []

    return Trial(what, [preprocess_command(table, out, raw / "atlas.nii.gz", "--dry-run")], losses)


def count_rows(table: Path) -> set[int | None]:
    """How many patients a person may count in a table: by lines, and by records of CSV."""
    if not table.is_file():
        return {None}
    content = table.read_bytes()
    text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace")
    lines = [line for line in text.splitlines() if re.sub(r"[\s,;\t\"]", "", line)]
    counts: set[int | None] = {len(lines) - 1}
    with contextlib.suppress(csv.Error):
        for delimiter in ",;\t":
            records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            counts.add(sum(any(cell.strip() for cell in record) for record in records) - 1)
    return counts


def nifti(rng: np.random.Generator, sources: Sources, folder: Path) -> Trial:
    raw, data = copied(sources.raw, folder / "raw"), copied(sources.data, folder / "data")
    name = pick(rng, ["p1_dwi", "p1_b0", "p1_flair", "p1_lesion", "p1_dwi", "p1_flair", "atlas"])
    what = break_file(rng, raw / f"{name}.nii.gz", break_nifti)
    command = preprocess_command(raw / "cohort.csv", data, raw / "atlas.nii.gz")
    return Trial(what, [command], lambda ended: lost_patients(data, ["p0", "p1"], ended))


def bids(rng: np.random.Generator, sources: Sources, folder: Path) -> Trial:
    source, data = copied(sources.bids, folder / "bids"), copied(sources.bids_data, folder / "data")
    (data / "transforms" / "sub-p1.json").unlink()
    ways = {
        "sub-p1/dwi/sub-p1_dwi.bval": lambda rng, path: break_table(rng, path, " "),
        "sub-p1/dwi/sub-p1_dwi.json": break_json, "sub-p1/anat/sub-p1_FLAIR.json": break_json,
        "participants.json": break_json, "dataset_description.json": break_json,
        "participants.tsv": lambda rng, path: break_table(rng, path, "\t"),
        "sub-p1/dwi/sub-p1_dwi.nii.gz": break_nifti,
    }  # fmt: skip
    name = pick(rng, list(ways))
    what = break_file(rng, source / name, ways[name])
    command = preprocess_command(source, data, sources.raw / "atlas.nii.gz")
    return Trial(what, [command], lambda ended: lost_patients(data, ["sub-p0", "sub-p1"], ended))


def data_folder(rng: np.random.Generator, sources: Sources, folder: Path) -> Trial:
    if rng.random() < 0.5:
        raw, data = copied(sources.raw, folder / "raw"), copied(sources.data, folder / "data")
        ways = {
            "settings.json": break_json, "transforms/p1.json": break_json, "transforms/p0.json": break_json,
            "cohort.csv": break_table, "hemispheres/p1.npy": break_npy, "registered/p1_dwi.nii.gz": break_nifti,
        }  # fmt: skip
        name = pick(rng, list(ways))
        what = break_file(rng, data / name, ways[name])
        command = preprocess_command(raw / "cohort.csv", data, raw / "atlas.nii.gz")
        return Trial(f"again, {what}", [command], lambda ended: lost_patients(data, ["p0", "p1"], ended))
    data, runs = copied(sources.tiny, folder / "data"), folder / "runs"
    ways = {
        "settings.json": break_json, "cohort.csv": break_table, "hemispheres/p00.npy": break_npy,
        "hemispheres/p30.npy": break_npy, "transforms/p01.json": break_json,
    }  # fmt: skip
    name = pick(rng, list(ways))
    if name.startswith("transforms"):
        files.write_json(data / name, {"voxels": {"dwi": "0" * 64}, "measures": {"a": 1.0}, "acquired": {"b": 2.0}})
    what = break_file(rng, data / name, ways[name])
    commands = [
        train_command(data, runs, 1, "--width", "4"),
        eval_command(sources.checkpoints / "phase3" / "best.pt", data, folder / "eval"),
    ]
    start = int(rng.integers(2))
    return Trial(what, commands[start : start + 1], lambda ended: broken_results(folder))


def checkpoints(rng: np.random.Generator, sources: Sources, folder: Path) -> Trial:
    if rng.random() < 0.2:
        path = folder / "like.pt"
        shutil.copy(sources.checkpoints / "like.pt", path)
        what = break_file(rng, path, break_checkpoint)
        flags = [str(sources.raw / "cohort.csv"), "--out", str(folder / "data"), "--like", str(path), "--dry-run"]
        command = ("preprocess", [*flags, "--atlas", str(sources.raw / "atlas.nii.gz")])
        return Trial(f"like, {what}", [command], lambda _: [])
    phase = int(pick(rng, [1, 3]))
    shutil.copytree(sources.checkpoints / f"phase{phase}", folder / f"phase{phase}")
    path = folder / f"phase{phase}" / "best.pt"
    what = break_file(rng, path, break_checkpoint)
    command = (
        eval_command(path, sources.tiny, folder / "eval")
        if rng.random() < 0.6
        else train_command(sources.tiny, folder / "runs", phase + 1, "--init", str(path))
    )
    return Trial(f"{command[0]}, {what}", [command], lambda ended: broken_results(folder))


def weights(rng: np.random.Generator, sources: Sources, folder: Path) -> Trial:
    tumours = copied(sources.tumours, folder / "tumours")
    out = folder / "runs"
    if rng.random() < 0.4:
        path = tumours / "resnet18.pt"

        def own(rng: np.random.Generator, path: Path) -> str:
            tensors = torch.load(path, weights_only=True)
            what = break_tensors(rng, tensors)
            torch.save(tensors, path)
            return what

        what = break_file(rng, path, own)
        command = train_command(sources.tiny, out, 1, "--init", str(path))
        return Trial(what, [command], lambda ended: broken_results(folder))
    name = pick(rng, ["tumours.csv", "t1_flair.nii.gz", "t1_tumour.nii.gz"])
    what = break_file(rng, tumours / name, break_table if name.endswith("csv") else break_nifti)
    model = pick(rng, ["2d", "3d"])
    flags = ["--model", model, "--out", str(out), "--width", "4", "--grid", "16", "16", "6", "--epochs", "1"]
    command = ("tumours", [str(tumours / "tumours.csv"), *flags, "--device", "cpu"])
    return Trial(f"{model}, {what}", [command], lambda ended: broken_results(folder))


FAMILIES = {
    "tables": tables, "NIfTI": nifti, "bval and BIDS": bids, "DATA": data_folder, "checkpoints": checkpoints,
    "tumours and weights": weights,
}  # fmt: skip


def copied(source: Path, folder: Path) -> Path:
    """Links: whatever writes into a file and not beside it is found, since the sources are checked at the end."""
    shutil.copytree(source, folder, copy_function=os.link)
    return folder


def hash_of(folder: Path) -> str:
    every = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in every)).hexdigest()


def lost_patients(data: Path, names: list[str], ended: list[tuple[int, str]]) -> list[str]:
    """Is every patient in the table, and every finished one whole?"""
    if ended[0][0] == 2:
        return []
    with open(data / "cohort.csv", newline="") as file:
        rows = {row["patient"]: row for row in csv.DictReader(file)}
    lost = [f"{name} is lost" for name in names if name not in rows]
    for name, row in rows.items():
        if row["status"] not in ("ok", "failed") or (row["status"] == "failed" and not row["reason"]):
            lost.append(f"{name}: status {row['status']!r}, reason {row['reason']!r}")
        if "report it" in row["reason"]:
            lost.append(f"{name}: {row['reason']}")
        if row["status"] == "ok":
            halves = np.load(data / "hemispheres" / f"{name}.npy")
            fine = halves.shape == (2, 3, 8, 16, 8) and halves.dtype == np.float16 and np.isfinite(halves).all()
            if not fine or not all(half.any() for half in halves) or halves.min() < 0 or halves.max() > 1:
                lost.append(f"{name} is finished, but its hemispheres are empty, not finite or of another shape")
    return lost


def broken_results(folder: Path) -> list[str]:
    """Do verdicts rest on numbers, and weights that were written on finite ones?"""
    lost = []
    for table in folder.glob("eval/**/predictions.csv"):
        for row in csv.DictReader(table.open(newline="")):
            chance, threshold = row.get("probability", ""), row.get("threshold", "")
            for name, text in (("probability", chance), ("threshold", threshold)):
                if text and not 0 <= float(text) <= 1:
                    lost.append(f"{row['patient']}: {name} {text}")
    for file in folder.glob("runs/*/best.pt"):
        tensors = torch.load(file, weights_only=True)["state_dict"]
        broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
        lost += [f"{file.name} is written with {broken[0]} not finite"] if broken else []
    return lost


# One trial, in a process of its own


def run_trial(sources: Sources, seed: int, family: str, number: int) -> tuple[str, Outcome]:
    rng = np.random.default_rng([seed, list(FAMILIES).index(family), number])
    folder = Path(tempfile.mkdtemp(prefix="tss-mutated-", dir=IN_MEMORY))
    try:
        trial = FAMILIES[family](rng, sources, folder)
        return trial.what, in_child(trial, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def in_child(trial: Trial, folder: Path) -> Outcome:
    """Run the trial's programs in a fork; it ends when they take too long."""
    result = folder / ".outcome"
    sys.stdout.flush()
    child = os.fork()
    if not child:
        outcome = Outcome()
        try:
            here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (here + MOST_BYTES, -1))
            outcome = run_programs(trial, folder)
        except BaseException:
            outcome.findings.append(("campaign", traceback.format_exc()))
        finally:
            result.write_bytes(pickle.dumps(outcome))
            os._exit(0)
    deadline = time.monotonic() + HANG_SECONDS
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Outcome([("hang", f"more than {HANG_SECONDS} s")])
        time.sleep(0.005)
    if not result.exists():
        return Outcome([("traceback", "the process died")])
    return pickle.loads(result.read_bytes())


def run_programs(trial: Trial, folder: Path) -> Outcome:
    outcome, ended = Outcome(), []
    for program, argv in trial.commands:
        said = io.StringIO()
        code = 2
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                code = PROGRAMS[program](argv)
            except SystemExit as error:
                code = int(error.code or 0)
            except BaseException as error:
                kind = "memory" if "memory" in f"{error!r}".lower() else "traceback"
                last = traceback.extract_tb(error.__traceback__)[-1]
                own = [f for f in traceback.extract_tb(error.__traceback__) if "/tss/" in f.filename]
                at = own[-1] if own else last
                outcome.findings.append((kind, f"{error!r:.200} in {Path(at.filename).name}:{at.lineno} {at.name}"))
        text = said.getvalue()
        outcome.said += text
        ended.append((code, text))
        if line := next((line for line in text.splitlines() if re.search(r"unexpected \w+:|report it", line)), None):
            outcome.findings.append(("unexpected", line[:300]))
        if re.search("too little memory|out of memory|can't allocate|MemoryError", text):
            outcome.findings.append(("memory", text[-300:]))
        if code == 2 and not text.strip():
            outcome.findings.append(("silent", "exit code 2 without a message"))
    if not any(kind == "traceback" for kind, _ in outcome.findings):
        outcome.findings += [("silent", loss) for loss in trial.losses(ended)]
    if list(folder.rglob("EXECUTED")):
        outcome.findings.append(("code", "a pickle was executed"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if peak > MOST_BYTES:
        outcome.findings.append(("memory", f"{peak / 2**30:.1f} GiB"))
    return outcome


def campaign(seconds: float, seed: int, families: Sequence[str] = tuple(FAMILIES), most: int = 10**9) -> list[str]:
    """Try inputs for so many seconds, each family in turn; prints counts and returns a line for each finding."""
    with tempfile.TemporaryDirectory(prefix="tss-campaign-", dir=IN_MEMORY) as folder:
        sources = make_sources(Path(folder))
        whole = hash_of(Path(folder))
        gc.freeze()  # or each fork copies what a collection marks
        started, counts, lines = time.monotonic(), Counter(), []
        kinds: Counter[str] = Counter()
        number = 0
        while time.monotonic() - started < seconds and number < most * len(families):
            family = families[number % len(families)]
            what, outcome = run_trial(sources, seed, family, number // len(families))
            counts[family] += 1
            kinds.update({kind for kind, _ in outcome.findings})
            for kind, text in outcome.findings:
                lines.append(f"{kind}: --seed {seed} --only '{family}:{number // len(families)}'  {what}  ->  {text}")
                print(lines[-1], flush=True)
            number += 1
        if hash_of(Path(folder)) != whole:
            lines.append("a program wrote into a file in place, not beside it")
            print(lines[-1])
    print(f"seed {seed}: {sum(counts.values())} inputs ({', '.join(f'{n} {name}' for name, n in counts.items())})")
    print(f"findings: {', '.join(f'{n} {kind}' for kind, n in kinds.items()) or 'none'}")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--most", type=int, default=10**9, help="inputs of each family")
    parser.add_argument("--only", metavar="FAMILY:NUMBER", help="one input, with its messages")
    given = parser.parse_args(argv)
    if not given.only:
        return 1 if campaign(given.seconds, given.seed, given.families, given.most) else 0
    family, number = given.only.rsplit(":", 1)
    with tempfile.TemporaryDirectory(prefix="tss-campaign-", dir=IN_MEMORY) as folder:
        what, outcome = run_trial(make_sources(Path(folder)), given.seed, family, int(number))
    print(f"{what}\n{outcome.said}\n{outcome.findings}")
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())
