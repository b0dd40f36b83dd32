"""Does phase 0 (Models Genesis) help phase 1? Trained from it and from random weights, on the demo's phantoms.

    python run_train.py --demo --model 3d                     first: makes the patients
    python tests/benchmarks/pretraining.py                    then: three seeds, about a quarter of an hour on 2 cores

Each seed trains its own phase 0, phase 1 from it, and phase 1 from random weights, with the demo's settings. Printed
are the epoch that was kept (the best validation AUC), that AUC, and the AUC on the test patients with its 95 %
interval. These patients are phantoms: phantom scores are not clinical results.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import run_eval  # noqa: E402
import run_train  # noqa: E402
from tss.data.files import read_json  # noqa: E402
from tss.study.demo import FLAGS, WIDTH  # noqa: E402

COLUMNS = ("seed", "phase 1 starts from", "epochs to best", "validation AUC", "test AUC [95% CI]")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="demo/data", help="prepared patients")
    parser.add_argument("--out", type=Path, default=Path("demo/pretraining"), help="where checkpoints are left")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    rows = []
    for seed in args.seeds:
        genesis = train(args, seed, args.out / f"seed{seed}", 0, ["--model", "3d", "--width", str(WIDTH["3d"])])
        for start, words in (
            ("Models Genesis", ["--init", str(genesis)]),
            ("random weights", ["--init", "random", "--model", "3d", "--width", str(WIDTH["3d"])]),
        ):
            out = args.out / f"seed{seed}" / start.replace(" ", "_")
            best = train(args, seed, out, 1, words)
            rows.append([seed, start, *result(args, out, best)])
    print("\n| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    return 0


def train(args: argparse.Namespace, seed: int, out: Path, phase: int, words: list[str]) -> Path:
    """Train one phase as a user would, or find it finished; returns its best checkpoint."""
    code = run_train.main(
        [
            "--phase",
            str(phase),
            *words,
            "--data",
            args.data,
            "--out",
            str(out),
            "--seed",
            str(seed),
            *FLAGS["3d"][phase].split(),
            "--resume",
        ]
    )
    if code:
        sys.exit(code)
    return out / f"phase{phase}" / "best.pt"


def result(args: argparse.Namespace, out: Path, best: Path) -> tuple[int, str, str]:
    """Return the kept epoch, its validation AUC, and the test AUC with its interval."""
    lines = (best.parent / "log.csv").read_text().splitlines()
    names = lines[0].split(",")
    epochs = [dict(zip(names, map(float, line.split(",")), strict=True)) for line in lines[1:]]
    kept = max(epochs, key=lambda row: (row["val_auc"], -row["val_loss"]))
    if code := run_eval.main(
        [str(best), "--data", args.data, "--out", str(out / "eval"), "--gradcam", "0", "--overwrite"]
    ):
        sys.exit(code)
    metrics = read_json(next((out / "eval").rglob("metrics.json")))
    low, high = metrics["auc_ci"]
    return int(kept["epoch"]), f"{kept['val_auc']:.3f}", f"{metrics['auc']:.3f} [{low:.2f}-{high:.2f}]"


if __name__ == "__main__":
    sys.exit(main())
