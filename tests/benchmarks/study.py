"""A study of 100 phantom patients, 10 of them with unusable scans: nothing is lost, and no memory grows.

    python tests/benchmarks/study.py                                   about 10 minutes on 2 cores
    python tests/benchmarks/study.py --folder /scratch/study --steps once killed shards

once    --jobs 2, left alone: exit code 1, 90 finished, 10 rows with their reasons, memory of each worker flat
killed  the same, killed three times with all its processes (SIGKILL) at random moments and started again
shards  the same as two shards at once on one DATA folder, one core each
        both must leave the same files as `once`, bit for bit

The 90 are 25 phantoms under several names each (making a phantom takes longer than preprocessing it); every patient is
preprocessed for itself. A small grid, since nothing here depends on it. Exit code 1 where a claim fails.
"""

import argparse
import csv
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import nibabel
import numpy as np

SUITE = Path(__file__).parents[2]
sys.path.insert(0, str(SUITE))

from tss.phantom import cohort_phantom

FINISHED, PHANTOMS, SEED = 90, 25, 77
KILLS = 3
EVERY_S = 0.5  # between two looks at the memory
GROWTH = 0.10  # more than this from the second quarter of a worker's life to its last is no longer flat. In the first
# it loads its libraries and its first patients, after about six of which no more memory is taken


def rewrite(path: Path, data=None, affine=None, codes: int = 1) -> None:
    image = nibabel.load(path)
    new = nibabel.Nifti1Image(
        np.asarray(image.dataobj, np.float32) if data is None else data, image.affine if affine is None else affine
    )
    new.set_sform(new.affine, codes)
    new.set_qform(new.affine, codes)
    nibabel.save(new, path)


def shape_of(path: Path) -> tuple[int, ...]:
    return nibabel.load(path).shape


def nan_voxel(path: Path) -> None:
    data = np.asarray(nibabel.load(path).dataobj, np.float32)
    data[tuple(n // 2 for n in data.shape)] = np.nan
    rewrite(path, data)


def moved(path: Path) -> None:
    affine = nibabel.load(path).affine.copy()
    affine[:3, 3] += 12
    rewrite(path, affine=affine)


BAD = {  # patient: the scan that is spoiled, how, and what the reason must say
    "missing": ("flair", Path.unlink, "does not exist"),
    "truncated": ("dwi", lambda path: path.write_bytes(path.read_bytes()[:20_000]), "cut off"),
    "nan": ("flair", nan_voxel, "NaN or infinite"),
    "zero": ("b0", lambda path: rewrite(path, np.zeros(shape_of(path), np.float32)), "zero everywhere"),
    "series": ("dwi", lambda path: rewrite(path, np.ones((*shape_of(path), 3), np.float32)), "4-D"),
    "no-orientation": ("dwi", lambda path: rewrite(path, codes=0), "orientation"),
    "other-shape": ("b0", lambda path: rewrite(path, np.ones((64, 64, 20), np.float32)), "differ in shape"),
    "other-place": ("b0", moved, "mm apart by their headers"),
    "adc-unit": ("adc", lambda path: rewrite(path, np.full(shape_of(path), 37.0, np.float32)), "median"),
    "empty-flair": ("flair", lambda path: rewrite(path, np.full(shape_of(path), 7.0, np.float32)), "flair"),
}


def main() -> int:
    args = parse()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / "cohort.csv").exists():
            make_study(folder, args.jobs)
        claims = {}
        for step in args.steps:
            print(f"\n{step}", flush=True)
            claims |= {"once": once, "killed": killed, "shards": shards}[step](folder, args)
    print()
    for claim, held in claims.items():
        print(f"{'holds ' if held else 'FAILS '} {claim}")
    return 0 if all(claims.values()) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where all of it lies; without it a temporary folder")
    parser.add_argument(
        "--steps", nargs="+", choices=["once", "killed", "shards"], default=["once", "killed", "shards"]
    )
    parser.add_argument("--grid", type=int, nargs=3, default=[112, 112, 13], metavar=("X", "Y", "Z"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which the run is killed")
    return parser.parse_args()


def make_study(folder: Path, jobs: int) -> None:
    """25 phantoms, the table of 100 patients that names them, and the 10 whose scans are spoiled."""
    print(f"making {PHANTOMS} phantoms", flush=True)
    cohort_phantom.write_atlas(folder / "atlas.nii.gz")
    table = cohort_phantom.make_cohort(folder / "made", PHANTOMS, SEED, jobs=jobs, progress=False)
    with open(table, newline="") as file:
        made = list(csv.DictReader(file))
    scans = ("dwi", "b0", "flair", "lesion")
    made = [row | {name: f"made/{row[name]}" for name in scans} for row in made]
    rows = [made[k % PHANTOMS] | {"patient": f"s{k:03d}", "adc": ""} for k in range(FINISHED)]
    for k, (name, (scan, spoil, _)) in enumerate(BAD.items()):
        row = made[k] | {"patient": f"bad-{name}", "adc": ""}
        target = folder / "bad" / f"{name}_{scan}.nii.gz"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(folder / row["b0" if scan == "adc" else scan], target)
        spoil(target)
        row |= {"b0": "", "adc": ""} if scan == "adc" else {}
        rows.insert(9 * k + 4, row | {scan: f"bad/{target.name}"})
    with open(folder / "cohort.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def command(folder: Path, out: Path, args: argparse.Namespace, *more: str) -> list[str]:
    return [
        sys.executable,
        str(SUITE / "run_preprocess.py"),
        str(folder / "cohort.csv"),
        "--out",
        str(out),
        "--atlas",
        str(folder / "atlas.nii.gz"),
        "--tools",
        "builtin",
        "--grid",
        *map(str, args.grid),
        *more,
    ]


def once(folder: Path, args: argparse.Namespace) -> dict[str, bool]:
    out = folder / "once"
    shutil.rmtree(out, ignore_errors=True)
    started = time.monotonic()
    with open(folder / "once.txt", "w") as log:
        process = subprocess.Popen(command(folder, out, args, "--jobs", str(args.jobs)), stdout=log, stderr=log)
        memory = watch(process)
    seconds = time.monotonic() - started
    (folder / "once.seconds").write_text(f"{seconds:.1f}")
    print(f"  {seconds:.0f} s with {args.jobs} jobs; the last lines:")
    said = (folder / "once.txt").read_text()
    print("    " + "\n    ".join(said[said.rindex("patients in") - 4 :].splitlines()))
    rows = table_of(out)
    statuses = [row["status"] for row in rows.values()]
    told = {name: message in rows[f"bad-{name}"]["reason"] for name, (_, _, message) in BAD.items()}
    flat = {}
    for worker, (at, kib) in memory.items():
        quarter = max(len(kib) // 4, 1)
        early, last = np.mean(kib[quarter : 2 * quarter]) / 1024, np.mean(kib[-quarter:]) / 1024
        flat[worker] = last <= early * (1 + GROWTH)
        print(
            f"  worker {worker}: {len(kib)} looks in {at[-1] - at[0]:.0f} s, memory {early:.0f} MiB in the second "
            f"quarter, {last:.0f} in the last, {max(kib) / 1024:.0f} at most"
        )
    return {
        "exit code 1": process.returncode == 1,
        f"{FINISHED} finished, {len(BAD)} failed": (statuses.count("ok"), statuses.count("failed")) == (90, 10),
        f"each bad patient's reason says what is wrong {[name for name in told if not told[name]] or ''}": all(
            told.values()
        ),
        "no traceback": "Traceback" not in said,
        f"memory of {len(flat)} workers flat": len(flat) == args.jobs and all(flat.values()),
    }


def watch(process: subprocess.Popen) -> dict[int, tuple[list[float], list[int]]]:
    """Look at the memory of a process' workers until it ends: {process: (seconds, resident KiB)}."""
    memory = defaultdict(lambda: ([], []))
    while process.poll() is None:
        for child in children(process.pid):
            try:
                status = Path(f"/proc/{child}/status").read_text()
                started_by = Path(f"/proc/{child}/cmdline").read_text()
            except OSError:
                continue  # it has just ended
            if "spawn_main" in started_by and (resident := re.search(r"VmRSS:\s+(\d+)", status)):
                memory[child][0].append(time.monotonic())
                memory[child][1].append(int(resident[1]))
        time.sleep(EVERY_S)
    return memory


def children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def killed(folder: Path, args: argparse.Namespace) -> dict[str, bool]:
    out, rng = folder / "killed", random.Random(args.seed)
    shutil.rmtree(out, ignore_errors=True)
    whole = float((folder / "once.seconds").read_text())
    line = command(folder, out, args, "--jobs", str(args.jobs))
    for _ in range(KILLS):
        wait = rng.uniform(0.05, 0.3) * whole  # three times: less than the whole
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(wait)
        ended = process.poll() is not None
        if not ended:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        left = len(list((out / "transforms").glob("*.json"))) if out.exists() else 0
        half = [file.name for file in out.rglob(".*")] if out.exists() else []
        print(f"  killed after {wait:.1f} s{' (it had ended)' if ended else ''}: {left} records, half-written {half}")
    code = subprocess.run(line, stdout=subprocess.DEVNULL).returncode
    return {"killed: exit code 1": code == 1, "killed: the same files, bit for bit": same(folder / "once", out)}


def shards(folder: Path, args: argparse.Namespace) -> dict[str, bool]:
    out = folder / "shards"
    shutil.rmtree(out, ignore_errors=True)
    processes = [
        subprocess.Popen(command(folder, out, args, "--shard", f"{k}/2"), stdout=subprocess.DEVNULL) for k in (1, 2)
    ]
    codes = [process.wait() for process in processes]
    return {
        f"shards: exit codes 1 and 1 {codes}": codes == [1, 1],
        "shards: one right cohort.csv": table_of(out) == table_of(folder / "once"),
        "shards: the same files, bit for bit": same(folder / "once", out),
    }


def same(one: Path, other: Path) -> bool:
    """Compare two folders, by the SHA-256 of every file; print what differs."""
    sums = [
        {
            str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in folder.rglob("*")
            if file.is_file()
        }
        for folder in (one, other)
    ]
    differing = sorted(name for name in sums[0].keys() | sums[1].keys() if sums[0].get(name) != sums[1].get(name))
    print(f"  {len(sums[0])} and {len(sums[1])} files, {len(differing)} differ: {differing[:8]}")
    return not differing


def table_of(out: Path) -> dict[str, dict]:
    with open(out / "cohort.csv", newline="") as file:
        return {row["patient"]: row for row in csv.DictReader(file)}


if __name__ == "__main__":
    sys.exit(main())
