"""Whether time and memory of each step stay the same for a patient, however many there are.

    python tests/benchmarks/many_patients.py train --patients 400 3000 --width 4
    python tests/benchmarks/many_patients.py score --patients 50 200 --grid 112 112 13
    python tests/benchmarks/many_patients.py phantoms --patients 1000 --jobs 2
    python tests/benchmarks/many_patients.py page --patients 422 3000

In:  nothing. For `train`, `score` and `page` hemispheres, records and pictures are made up and checkpoints untrained:
     time and memory do not depend on what is in them. `phantoms` makes raw scans, which takes longer than scoring them.
Out: a line or two for each number of patients.
     train:    seconds until the first step, milliseconds a hemisphere of the last epoch, peak memory of run_train.py,
               of phase 1 and then of phase 2 on frozen layers
     score:    minutes, seconds of a core a patient, peak memory of run_eval.py
     phantoms: the same of run_preprocess.py --like and of run_eval.py, from raw scans to probabilities
     page:     seconds until qc/index.html is written, its size, seconds until it is open in Chromium

`train` writes 7.8 MB a patient at the paper's grid, 23 GB for 3,000, and removes it afterwards. Peak memory is what one
process had at most (ru_maxrss), pages of the files that it had mapped included.
"""

import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
FILES = 8  # different hemispheres; the others are copies of them
SPLITS = ("train", "val", "test")  # 16, 4 and 5 of 25


class Ran(NamedTuple):
    """What a program printed and used."""

    lines: list[tuple[float, str]]  # seconds since its start
    seconds: float
    core_seconds: float
    peak_gib: float


def run(*words: str | Path) -> Ran:
    """Run a program of the suite to its end, its lines with the times at which they came."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    started, lines = time.monotonic(), []
    process = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout
    for line in process.stdout:
        lines.append((time.monotonic() - started, line.rstrip()))
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode > 1:
        raise SystemExit(f"{words[0]} ended with {process.returncode}")
    return Ran(lines, time.monotonic() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20)


def make_data(folder: Path, patients: int, grid: list[int], split: str, linked: bool) -> Path:
    """Write DATA as run_preprocess.py leaves it. Returns its path.

    split: "external", as with --like, side and onset unknown; or "": 64/16/20 %, both known. linked: hemispheres are
    links to a few files, not copies of their own, which the system cannot all keep in memory.
    """
    data, (x, y, z) = folder / f"data{patients}", grid
    (data / "hemispheres").mkdir(parents=True)
    (data / "transforms").mkdir()
    rng, rows = np.random.default_rng(0), []
    for number in range(patients):
        name = f"p{number:05d}"
        file, first = (data / "hemispheres" / f"p{n:05d}.npy" for n in (number, number % FILES))
        if number < FILES:
            np.save(file, rng.uniform(0, 1, (2, 3, z, y, x // 2)).astype(np.float16))
        elif linked:
            os.link(first, file)
        else:
            shutil.copyfile(first, file)
        (data / "transforms" / f"{name}.json").write_text(json.dumps({"voxels": {"dwi": name}}))
        known = {"onset_to_mri_min": 100 + 31 * number % 500, "stroke_side": ("left", "right")[number % 2]}
        rows.append({
            "patient": name, "dwi": f"{name}_dwi.nii", "b0": f"{name}_b0.nii", "flair": f"{name}_flair.nii",
            **({} if split else known), "split": split or SPLITS[np.searchsorted((16, 20), number % 25, side="right")],
            "status": "ok", "reason": "", "flags": "",
        })  # fmt: skip
    with open(data / "cohort.csv", "w", newline="") as table:
        writer = csv.DictWriter(table, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    settings = {"grid": grid, "tools": "builtin"} | ({"like": {"checkpoint": "best.pt", "sha256": ""}} if split else {})
    (data / "settings.json").write_text(json.dumps(settings))
    return data


def train(folder: Path, patients: int, args: argparse.Namespace) -> str:
    """Phase 1 and then, on frozen layers, phase 2."""
    data = make_data(folder, patients, args.grid, split="", linked=False)
    os.sync()
    found = []
    for phase, init in ((1, "random"), (2, folder / "phase1" / "best.pt")):
        words = ["--phase", phase, "--init", init, "--data", data, "--out", folder, "--device", "cpu", "--overwrite"]
        more = ["--model", args.model, "--width", args.width] if phase == 1 else []
        ran = run(ROOT / "run_train.py", *words, *more, "--epochs", args.epochs)
        begun = next(when for when, line in ran.lines if " parameters trained, " in line)
        taken = [float(re.search(r" ([\d.]+) s  left", line)[1]) for _, line in ran.lines if "  epoch 0" in line]
        counts = next(line for _, line in ran.lines if " hemispheres (" in line)
        hemispheres = sum(map(int, re.findall(r"(\d+) hemispheres", counts)))
        kept = next((line.split("kept ")[1] for _, line in ran.lines if "computed once" in line), "")
        found.append(
            f"phase {phase}: trains after {begun:.1f} s, {1000 * taken[-1] / hemispheres:.1f} ms a hemisphere and "
            f"epoch ({hemispheres} of them), {ran.core_seconds:.0f} s of a core in all, peak {ran.peak_gib:.2f} GiB"
            + (f"; features kept {kept}" if kept else "")
        )
    shutil.rmtree(data)
    return "\n  ".join(found)


def score(folder: Path, patients: int, args: argparse.Namespace) -> str:
    """Another hospital's patients whose side is unknown: phase 1 and phase 4 look at each."""
    data = make_data(folder, patients, args.grid, split="external", linked=True)
    best = untrained(folder, data, args)
    ran = run(ROOT / "run_eval.py", best, "--data", data, "--out", folder / f"eval{patients}", *SCORING)
    return in_words(patients, ran)


def phantoms(folder: Path, patients: int, args: argparse.Namespace) -> str:
    """From raw scans to probabilities by the two commands of the README."""
    from tss.phantom import make_cohort, write_atlas

    write_atlas(atlas := folder / "atlas.nii.gz")
    common = ["--atlas", atlas, "--tools", "builtin", "--grid", *args.grid, "--jobs", args.jobs]
    own = make_cohort(folder / "own", 4, seed=1, jobs=args.jobs, progress=False)
    run(ROOT / "run_preprocess.py", own, "--out", folder / "owndata", *common)
    best = untrained(folder, folder / "owndata", args)
    others = make_cohort(folder / f"scans{patients}", patients, seed=2, jobs=args.jobs, progress=False)
    data = folder / f"data{patients}"
    made = run(ROOT / "run_preprocess.py", others, "--like", best, "--out", data, "--atlas", atlas, "--jobs", args.jobs)
    scored = run(ROOT / "run_eval.py", best, "--data", data, "--out", folder / f"eval{patients}", *SCORING)
    return (
        f"{(made.seconds + scored.seconds) / 60:.1f} min in all\n  run_preprocess.py {in_words(patients, made)}"
        f" (of one process)\n  run_eval.py       {in_words(patients, scored)}"
    )


SCORING = ("--gradcam", "0", "--device", "cpu")


def untrained(folder: Path, data: Path, args: argparse.Namespace) -> Path:
    """Write checkpoints of phases 1 and 4 that fit DATA; returns the path of phase 4's."""
    from untrained import save_checkpoint

    from tss.data.patients_seen import hashes_of
    from tss.data.prepared import read_prepared

    known = hashes_of(data, [patient for patient in read_prepared(data) if patient.split == "train"])
    about = {"model": args.model, "width": args.width, "patients_seen": known or {"other": ["x"]}}
    for phase in (1, 4):
        save_checkpoint(folder / f"phase{phase}" / "best.pt", phase, data, **about)
    return folder / "phase4" / "best.pt"


def in_words(patients: int, ran: Ran) -> str:
    return (
        f"{ran.seconds / 60:.1f} min, {ran.core_seconds / patients:.2f} s of one core a patient; "
        f"peak {ran.peak_gib:.2f} GiB"
    )


def page(folder: Path, patients: int, args: argparse.Namespace) -> str:
    """The page of quality control, of made-up records and pictures."""
    from tss.data.cohort import as_table, read_cohort
    from tss.data.prepared import qc_page, qc_picture
    from tss.preprocessing.qc_page import index_page
    from tss.preprocessing.quality_control import LIMITS

    data = folder / f"data{patients}"
    (data / "qc").mkdir(parents=True)
    lines = ["patient,dwi,b0,flair"]
    records = []
    rng = np.random.default_rng(0)
    for number in range(patients):
        name = f"p{number:05d}"
        lines.append(f"{name},{name}_dwi.nii,{name}_b0.nii,{name}_flair.nii")
        qc_picture(data, name).write_bytes(one_picture(rng))
        measures = {key: float(rng.uniform(0, 2)) for key in LIMITS}
        records.append({"patient": name, "status": "ok", "reason": "", "flags": [], "measures": measures})
    (data / "cohort.csv").write_text("\n".join(lines) + "\n")
    table = as_table(read_cohort(data / "cohort.csv"), data)
    started = time.monotonic()
    qc_page(data).write_text(index_page(table, records, data), encoding="utf-8")
    written = time.monotonic() - started
    return (
        f"page written in {written:.1f} s, {qc_page(data).stat().st_size / 2**20:.1f} MiB; "
        f"{opened(qc_page(data), folder)}"
    )


def one_picture(rng: np.random.Generator) -> bytes:
    """A PNG of noise of 130 kB, what a patient's picture has at the paper's grid."""
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = np.zeros((300, 441), np.uint8)
    pixels[:, 1:] = rng.integers(0, 255, (300, 440))
    header = struct.pack(">IIBBBBB", 440, 300, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(pixels.tobytes(), 1))
        + chunk(b"IEND", b"")
    )


def opened(file: Path, folder: Path) -> str:
    """How long Chromium takes from opening the page to the second frame after its load event; what is loaded then."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        return "no Chromium here to open it in"
    told: list[str] = []

    class Ear(BaseHTTPRequestHandler):  # the page has nobody else to tell it to, since it may fetch nothing
        def do_GET(self) -> None:
            told.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Ear) as ear:
        ear.timeout = 120
        timing = (
            "<script>addEventListener('load', () => requestAnimationFrame(() => requestAnimationFrame(() => {"
            "const seen = [...document.images].filter(image => image.naturalWidth).length;"
            f"location = `http://127.0.0.1:{ear.server_port}/${{performance.now()}}/${{seen}}/${{document.images.length}}`;"
            "})));</script>"
        )
        copy = file.with_name("timed.html")
        copy.write_text(file.read_text("utf-8").replace("</body>", timing + "</body>"), encoding="utf-8")
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1600,1000"]
        profile = f"--user-data-dir={folder / 'profile'}"
        with subprocess.Popen([browser, *words, profile, copy.as_uri()], stderr=subprocess.DEVNULL) as process:
            ear.handle_request()
            used = seconds_of_family(process.pid)
            process.terminate()
    if not told:
        return "not open after two minutes"
    _, milliseconds, seen, pictures = told[0].split("/")
    return (
        f"open after {float(milliseconds) / 1000:.2f} s, {seen} of {pictures} pictures loaded; the browser used "
        f"{used:.1f} s of a core since its start"
    )


def seconds_of_family(pid: int) -> float:
    """Seconds of a core that a process and all that descend from it have used (Linux)."""
    parents, used = {}, {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            fields = file.read_text().rpartition(")")[2].split()  # from the third field on
            parents[int(file.parent.name)], used[int(file.parent.name)] = int(fields[1]), sum(map(int, fields[11:13]))
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(used.get(one, 0) for one in family) / os.sysconf("SC_CLK_TCK")


STEPS = {"train": train, "score": score, "phantoms": phantoms, "page": page}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--patients", type=int, nargs="+", required=True, metavar="N")
    parser.add_argument("--grid", type=int, nargs=3, default=[224, 224, 26], metavar=("X", "Y", "Z"))
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage (default: %(default)s)")
    parser.add_argument("--model", choices=["2d", "3d"], default="2d")
    parser.add_argument("--epochs", type=int, default=1, help="of `train` (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="of `phantoms` (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where to make what is needed, removed afterwards; unset = /tmp")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder, ignore_cleanup_errors=True) as made:
        for number in args.patients:
            print(f"{number} patients: {STEPS[args.step](Path(made), number, args)}", flush=True)


if __name__ == "__main__":
    main()
