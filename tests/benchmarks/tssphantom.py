"""TSS-Phantom's table and learning curves: the phases beside random weights, the older methods and the ceiling.

    python -m tss.phantom middle --out phantom --jobs 2                                      422 patients: 2 minutes
    python run_preprocess.py phantom/cohort.csv --out data --atlas phantom/atlas_t2w.nii.gz --tools builtin \\
        --grid 112 112 13 --jobs 2                                                            6 to 10 minutes
    python tests/benchmarks/tssphantom.py --data data --truth phantom                        5 seeds, all patients
    python tests/benchmarks/tssphantom.py --data data --truth phantom --rates larger         rates for so small a size
    python tests/benchmarks/tssphantom.py --data data --truth phantom --rates larger --patients 34 68 136 272    curves
    python tests/benchmarks/tssphantom.py --data data --truth phantom --rates larger --models 3d                 3D
    python tests/benchmarks/tssphantom.py --data data --truth phantom --recipe extended       ours, at its own rates

and with --tumours tumours/tumours.csv the row of medical weights, after a minute of

    python -c "from tss.phantom import tumour_phantom as t; t.make_tumours('tumours', 60, seed=0, jobs=2)"

At the paper's grid: omit --grid in the second line (10 minutes) and give another --out; 35 minutes a seed. More
seeds: --seeds 0 1 2 3 4 5 6 7 8 9.

Every training is typed as a user would, with the paper's rates and batch sizes; random weights learn the same task
with the same rates, and nothing of theirs is frozen. The extended recipe has its own rates and epochs; its row of
random weights is the same network on TSS from --init random. Small: half the paper's grid along each axis, a quarter
of its channels, fewer epochs (EPOCHS), and 3D without phase 0; --epochs 100 takes the paper's. What is finished is
not trained again, so several processes with different --seeds may share the work, and the last call, with all of
them, prints the tables.

AUC: mean over seeds, and the 95 % interval of that mean (Student's t: what another seed does). Differences of networks
are paired by seed. For a share of the ideal observer's AUC patients are resampled (tss.metrics.bootstrap), the same for
both, of the mean over seeds. These patients are phantoms: phantom scores are not clinical results.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import torch
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[2]))

from tss.data.files import read_json  # noqa: E402
from tss.data.hemispheres import CHANNELS  # noqa: E402
from tss.data.nifti import load  # noqa: E402
from tss.data.prepared import read_prepared
from tss.data.tasks import TASKS  # noqa: E402
from tss.display.tables import aligned  # noqa: E402
from tss.evaluation.results import FLAIR_CLOCK, LEE2020, SOFT_CLOCK  # noqa: E402
from tss.metrics.roc import roc_auc  # noqa: E402
from tss.phantom.ideal_observer import realised_auc, share_of_best  # noqa: E402
from tss.study.demo import GRID, TUMOUR_FLAGS, WIDTH  # noqa: E402
from tss.study.programs import type_in  # noqa: E402
from tss.training.checkpoint import load_model  # noqa: E402
from tss.training.dataset import load_split  # noqa: E402
from tss.training.epoch import predict
from tss.training.phases import PAPER, RECIPES  # noqa: E402

ALL = 272  # training patients
# At most; an epoch from random weights costs twice a frozen one.
EPOCHS = {1: 12, 2: 30, 3: 40, 4: 15, "random": 40, "medical": 40}
RANDOM_EXTENDED = 8  # phase 1's epochs, since nothing is frozen
# What lr and final lr of all but phase 1 are multiplied with. Larger: chosen on 300 other phantoms.
RATES = {"paper": (1, 1), "larger": (100, 10)}
MOST_LONGER = 2  # times the epochs and the patience, with fewer patients
ROWS = {
    "phase 1": (1, "stroke"),
    "phase 2": (2, "tss<3h"),
    "phase 3": (3, "tss<4.5h"),
    "phase 4": (4, "tss<4.5h"),
    "random weights": ("random", "tss<4.5h"),
    "medical weights": ("medical", "tss<4.5h"),
}
FOLDERS = {
    1: "phase1",
    2: "phase2",
    3: "phase3",
    4: "phase4",
    "random": "random/phase3",
    "medical": "medical/phase3",
    "tumours": "tumours",
}
OLDER = (FLAIR_CLOCK, SOFT_CLOCK, LEE2020)
SHARED = (1, "tumours")  # the same whatever the rates of the others


def main() -> int:
    args = parse()
    for model in args.models:
        for n in args.patients:
            for seed in args.seeds:
                train(args, model, n, seed)
                evaluate(args, model, n, seed)
    for model in args.models:
        print(
            f"\n{model.upper()}, width {WIDTH[model]}, {args.recipe} recipe, {args.rates} rates, "
            f"seeds {' '.join(map(str, args.seeds))}. "
            f"Phantoms: not clinical results.\n{aligned(table(args, model))}"
        )
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="TSS-Phantom, prepared")
    parser.add_argument("--truth", type=Path, required=True, help="TSS-Phantom as it was made: for its ceiling")
    parser.add_argument("--out", type=Path, default=Path("tss-phantom"), help="where checkpoints and results are left")
    parser.add_argument("--models", nargs="+", choices=list(WIDTH), default=["2d"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--patients", type=int, nargs="+", default=[ALL], help="training patients, of 272")
    parser.add_argument("--rates", choices=list(RATES), default="paper", help="of phases 2 to 4 and of random weights")
    parser.add_argument("--recipe", choices=list(RECIPES), default="paper", help="extended: with rates of its own")
    parser.add_argument("--epochs", type=int, help="at most so many in every phase, instead of EPOCHS")
    parser.add_argument("--tumours", type=Path, help="scans with tumours: the row of medical weights too")
    parser.add_argument(
        "--swap",
        action="store_true",
        help="AUC with one sequence of another patient too: what a network does without, it keeps",
    )
    args = parser.parse_args()
    if args.recipe != "paper" and (args.tumours or args.epochs or args.rates != "paper"):
        parser.error("--recipe extended has its own rates and epochs, and no row of medical weights")
    return args


def folder_of(args: argparse.Namespace, model: str, n: int, seed: int, fold: str = "") -> Path:
    """fold: "1/5" is the first of five."""
    which, who = args.rates if args.recipe == "paper" else args.recipe, f"patients{n}"
    if fold:
        who = f"fold{fold.replace('/', 'of')}"
    return args.out / model / who / f"seed{seed}" / ("" if which == "paper" else which)


def best_of(args: argparse.Namespace, model: str, n: int, seed: int, key: int | str, fold: str = "") -> Path:
    """Return the best checkpoint of a phase, or of another key of FOLDERS."""
    out = folder_of(args, model, n, seed, fold)
    return (out.parent if key in SHARED and args.rates != "paper" else out) / FOLDERS[key] / "best.pt"


def rows_of(args: argparse.Namespace) -> dict[str, tuple]:
    return {name: row for name, row in ROWS.items() if row[0] != "medical" or args.tumours}


def train(args: argparse.Namespace, model: str, n: int, seed: int, fold: str = "") -> None:
    """Phases 1 to 4 and, but for a fold, phase 3 from other first weights; what is finished is left alone."""
    best = {key: best_of(args, model, n, seed, key, fold) for key in FOLDERS}
    starts = {1: "random", 2: best[1], 3: best[2], 4: best[3]} | ({} if fold else {"random": "random"})
    if args.tumours:
        starts |= {"tumours": None, "medical": best["tumours"]}
    longer = min(MOST_LONGER, ALL / n)  # fewer patients make fewer steps an epoch
    for key, init in starts.items():
        folder = best[key].parent
        if (folder / "curves.png").is_file():  # what a training writes last
            continue
        words = ["--out", folder.parent, "--seed", seed, "--resume"]
        first = ["--model", model, "--width", WIDTH[model]]
        if key == "tumours":
            must(
                "-m tss.training.tumour_pretraining",
                [args.tumours, *first, "--grid", *GRID, *words, *TUMOUR_FLAGS[model].split()],
            )
            continue
        number, values = key if key in PAPER else 3, []
        if args.recipe == "paper":
            phase, faster = PAPER[number], [1, 1] if key == 1 else RATES[args.rates]
            values = ["--lr", phase.lr * faster[0], "--final-lr", phase.final_lr * faster[1]]
            values += ["--epochs", round((args.epochs or EPOCHS[key]) * longer)]
            values += ["--patience", round(phase.patience * longer)]
        elif key == "random":
            values = ["--epochs", RANDOM_EXTENDED]
        must(
            "run_train.py",
            [
                "--phase",
                number,
                "--recipe",
                args.recipe,
                "--init",
                init,
                *(first if init == "random" else []),
                "--data",
                args.data,
                *words,
                *(["--train-patients", n] if n < ALL else []),
                *(["--fold", fold] if fold else []),
                *values,
            ],
        )


def evaluate(args: argparse.Namespace, model: str, n: int, seed: int) -> None:
    """Test patients, beside the older methods where all training patients are there."""
    out = folder_of(args, model, n, seed)
    best = [best_of(args, model, n, seed, phase) for phase, _ in rows_of(args).values()]
    older = n == ALL
    if {path.resolve() for path in best} - set(results(out)) or older and not (out / "eval" / "table2.csv").is_file():
        must(
            "run_eval.py",
            [*best, "--data", args.data, "--out", out / "eval", "--gradcam", 0, "--overwrite", *["--table"] * older],
        )


def must(name: str, words: list) -> None:
    """Type a command; end where it does not end well."""
    if code := type_in(name, words):
        sys.exit(code)


def table(args: argparse.Namespace, model: str) -> list[list[str]]:
    """Return a line for each row and number of training patients, then paired differences and what has no seeds."""
    lines = [["row", "training patients", "test AUC [95% CI]", "each seed"]]
    found = {}
    for n in args.patients:
        for name, (phase, task) in rows_of(args).items():
            runs = [predictions(args, model, n, seed, phase) for seed in args.seeds]
            found[n, name] = runs
            aucs = [roc_auc(labels, scores) for labels, scores in runs]
            lines.append([f"{name}: {task}", str(n), mean_ci(aucs), " ".join(f"{auc:.3f}" for auc in aucs)])
    for reader, practical in (("ideal observer", False), ("FLAIR ratio read with 5 % noise", True)):
        best = realised_auc(args.truth / "cohort.csv", "test", practical)
        lines += [[f"{reader} on these patients: {task}", "-", f"{best[task]:.3f}", "-"] for task in TASKS]
    lines += [
        [f"FLAIR in the drawn lesion, {words}: tss<4.5h", "-", f"{auc:.3f}", "-"]
        for words, auc in in_the_drawn_lesion(args.data).items()
    ]
    for n in args.patients:
        for other in [name for name in rows_of(args) if name.endswith("weights")]:
            for name in ("phase 3", "phase 4"):
                gains = [
                    roc_auc(*ours) - roc_auc(*theirs)
                    for ours, theirs in zip(found[n, name], found[n, other], strict=True)
                ]
                lines.append([f"{name} minus {other}", str(n), mean_ci(gains, sign="+"), "paired by seed"])
        if args.swap:
            for name, (key, task) in rows_of(args).items():
                each = np.array([swapped(args, model, n, seed, key, task) for seed in args.seeds])  # (seeds, channels)
                lines += [
                    [
                        f"{name}, {channel} of another patient: {task}",
                        str(n),
                        mean_ci(aucs),
                        " ".join(f"{auc:.3f}" for auc in aucs),
                    ]
                    for channel, aucs in zip(CHANNELS, each.T, strict=True)
                ]
        if n == ALL:
            lines += older_methods(args, model) + [
                line
                for name in ("phase 3", "phase 4", "random weights")
                for line in on_the_same_patients(args, model, name)
            ]
            lines += [share_line(args, model, name, found[n, name]) for name in ("phase 4", "random weights")]
    return lines


def swapped(args: argparse.Namespace, model: str, n: int, seed: int, key: int | str, task: str) -> list[float]:
    """Test AUC of one network where each channel in turn is that of another test hemisphere, drawn at random."""
    network, checkpoint = load_model(best_of(args, model, n, seed, key))
    split = load_split(args.data, read_prepared(args.data), task, "test", checkpoint["grid"])
    others = np.random.default_rng(seed).permutation(len(split.labels))
    aucs = []
    for channel in range(len(CHANNELS)):
        mixed = split.hemispheres.clone()
        mixed[:, channel] = split.hemispheres[others, channel]
        aucs.append(roc_auc(split.labels.numpy(), predict(network, mixed, 8, torch.device("cpu"), "fp32")))
    return aucs


def older_methods(args: argparse.Namespace, model: str) -> list[list[str]]:
    """Return lines of what has no seeds."""
    with open(folder_of(args, model, ALL, args.seeds[0]) / "eval" / "table2.csv", newline="", encoding="utf-8") as file:
        rows = [
            row for row in csv.DictReader(file) if row["task"] == "tss<4.5h" and row["auc"] and row["kind"] != "network"
        ]
    return [[f"{row['name']}: tss<4.5h", "-", f"{float(row['auc']):.3f} of {row['n']} patients", "-"] for row in rows]


def on_the_same_patients(args: argparse.Namespace, model: str, name: str) -> list[list[str]]:
    """Return lines of one network minus the older methods, on those patients that the method can process."""
    found = {method: [] for method in OLDER}
    for seed in args.seeds:
        out = folder_of(args, model, ALL, seed)
        run = results(out)[best_of(args, model, ALL, seed, ROWS[name][0]).resolve()].name
        for pair in read_json(out / "eval" / "comparisons.json")["tss<4.5h"]:
            if pair["first"] in OLDER and pair["second"] == run:
                found[pair["first"]].append((pair["difference"], pair["n"]))
    return [
        [
            f"{name} minus {method}, on the {pairs[0][1]} that it can process",
            str(ALL),
            mean_ci([gain for gain, _ in pairs], sign="+"),
            " ".join(f"{gain:+.3f}" for gain, _ in pairs),
        ]
        for method, pairs in found.items()
    ]


def share_line(args: argparse.Namespace, model: str, name: str, runs: list) -> list[str]:
    """Return the line of a network beside the ideal observer, the same patients drawn anew for both."""
    tested = scored_lines(args, model, ALL, args.seeds[0], ROWS[name][0])
    latent = np.array([read_json(args.truth / "truth" / f"{row['patient']}.json")["latent"] for row in tested])
    share, (low, high) = share_of_best(runs[0][0], latent, [scores for _, scores in runs])
    words = f"{name}, share of the ideal observer's AUC"
    return [words, str(ALL), f"{share:.3f} [{low:.3f}, {high:.3f}]", "patients drawn anew"]


def in_the_drawn_lesion(data: Path) -> dict[str, float]:
    """What the prepared scans still say of the time to one who is shown the lesion: AUC of the median FLAIR in it.

    By itself it is what can be read from the hemisphere that a network is given; the mirror region is on the other.
    """
    patients = [p for p in read_prepared(data) if p.split == "test" and p.status == "ok" and p.minutes is not None]
    medians = []
    for patient in patients:
        flair, lesion = (
            load(data / "registered" / f"{patient.id}_{kind}.nii.gz", mask=kind == "lesion").data
            for kind in ("flair", "lesion")
        )
        inside = lesion > 0.5
        medians.append([np.median(flair[inside]), np.median(flair[inside[::-1] & ~inside])])  # x is mirrored
    early = np.array([patient.minutes < TASKS["tss<4.5h"] for patient in patients])
    inside, mirror = np.array(medians).T
    return {"by itself": roc_auc(early, -inside), "over its mirror region": roc_auc(early, -inside / mirror)}


def results(out: Path) -> dict[Path, Path]:
    """Return what was evaluated: checkpoint -> folder of its results."""
    return {
        Path(read_json(path)["checkpoint"]).resolve(): path.parent for path in (out / "eval").glob("*/metrics.json")
    }


def scored_lines(args: argparse.Namespace, model: str, n: int, seed: int, key: int | str) -> list[dict[str, str]]:
    """Return the lines of a network's predictions.csv that have a label and a probability."""
    folder = results(folder_of(args, model, n, seed))[best_of(args, model, n, seed, key).resolve()]
    with open(folder / "predictions.csv", newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["label"] and row["probability"]]


def predictions(args: argparse.Namespace, model: str, n: int, seed: int, key: int | str) -> tuple:
    """Return labels and probabilities of the test patients (of phase 1: of their hemispheres), (N,) each."""
    rows = scored_lines(args, model, n, seed, key)
    return np.array([float(row["label"]) for row in rows]), np.array([float(row["probability"]) for row in rows])


def mean_ci(values: list[float], sign: str = "") -> str:
    """Mean over seeds with Student's 95 % interval, which ends at 1, the best of AUCs; none of a single seed."""
    mean = np.mean(values)
    if len(values) < 2:
        return f"{mean:{sign}.3f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean:{sign}.3f} [{mean - half:{sign}.3f}, {min(1, mean + half):{sign}.3f}]"


if __name__ == "__main__":
    sys.exit(main())
