"""How fast patients of another hospital are scored, and whether memory grows with their number.

    python tests/benchmarks/many_patients.py --patients 50 200 --grid 112 112 13

In:  nothing: hemispheres are made up, checkpoints are untrained; time and memory do not depend on what is in them.
Out: a line for each number of patients: minutes, patients a minute, seconds of a core, peak memory of run_eval.py.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
FILES = 8  # different hemispheres; the others are links to them


def make_data(folder: Path, patients: int, grid: list[int]) -> Path:
    """Write DATA as run_preprocess.py --like leaves it, side and onset unknown. Returns its path."""
    data, (x, y, z) = folder / f"data{patients}", grid
    (data / "hemispheres").mkdir(parents=True)
    (data / "transforms").mkdir()
    rng, lines = np.random.default_rng(0), ["patient,dwi,b0,flair,split,status,reason,flags"]
    for number in range(patients):
        name = f"p{number:05d}"
        file = data / "hemispheres" / f"{name}.npy"
        if number < FILES:
            np.save(file, rng.uniform(0, 1, (2, 3, z, y, x // 2)).astype(np.float16))
        else:
            os.link(data / "hemispheres" / f"p{number % FILES:05d}.npy", file)
        (data / "transforms" / f"{name}.json").write_text(json.dumps({"voxels": {"dwi": name}}))
        lines.append(f"{name},{name}_dwi.nii,{name}_b0.nii,{name}_flair.nii,external,ok,,")
    (data / "cohort.csv").write_text("\n".join(lines) + "\n")
    settings = {"grid": grid, "tools": "builtin", "like": {"checkpoint": "best.pt", "sha256": ""}}
    (data / "settings.json").write_text(json.dumps(settings))
    return data


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--patients", type=int, nargs="+", default=[50, 200], metavar="N")
    parser.add_argument("--grid", type=int, nargs=3, default=[224, 224, 26], metavar=("X", "Y", "Z"))
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--model", choices=["2d", "3d"], default="2d")
    args = parser.parse_args()

    from untrained import save_checkpoint

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for number in args.patients:
            data = make_data(folder, number, args.grid)
            about = {"model": args.model, "width": args.width, "patients_seen": {"other": ["x"]}}
            for phase in (1, 4):
                save_checkpoint(folder / f"phase{phase}" / "best.pt", phase, data, **about)
            words = [str(ROOT / "run_eval.py"), str(folder / "phase4" / "best.pt"), "--data", str(data)]
            started, before = time.monotonic(), cpu_seconds()
            subprocess.run(
                [sys.executable, *words, "--out", str(folder / f"eval{number}"), "--gradcam", "0", "--device", "cpu"],
                check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            seconds = time.monotonic() - started
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            print(
                f"{number} patients: {seconds / 60:.1f} min, {60 * number / seconds:.1f} patients a minute, "
                f"{(cpu_seconds() - before) / number:.2f} s of one core each; peak {peak:.2f} GiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
