"""Folds on TSS-Phantom: their ensemble beside single models, and the threshold that more patients choose.

    python tests/benchmarks/folds.py --data data                          the extended recipe, five folds
    python tests/benchmarks/folds.py --data data --recipe paper           the paper's, at its own rates

--data is TSS-Phantom, prepared as tssphantom.py has it, and --out the same folder as there: single models that were
trained for its table are found again, what is missing is trained. Every fold is typed as a user would type it.

Printed: test AUC for TSS < 4.5 h of phase 4 from each split, of the single models (validated on DATA's own validation
patients) and of the ensemble of the folds; ensemble minus single with DeLong's paired interval, the same test patients.
Then the threshold: chosen again on DRAWS draws with replacement of the single model's validation patients, of as many
out-of-fold patients of the ensemble, and of all of those. Its spread is an SD, in SDs of the test patients' logits; and
what becomes of test sensitivity and specificity. These patients are phantoms: phantom scores are not clinical results.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from another_site import read_scores
from tssphantom import ALL, best_of, folder_of, must, train

from tss.display.tables import aligned
from tss.evaluation.ensemble import as_ensemble
from tss.evaluation.inference import open_models
from tss.metrics.roc import auc_ci, confusion, delong_test, roc_auc, youden_threshold
from tss.training.phases import RECIPES

DRAWS = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="TSS-Phantom, prepared")
    parser.add_argument("--out", type=Path, default=Path("tss-phantom"), help="where checkpoints and results are left")
    parser.add_argument("--recipe", choices=list(RECIPES), default="extended")
    parser.add_argument("--rates", choices=["paper", "larger"], default="paper", help="as tssphantom.py has it")
    parser.add_argument("--model", choices=["2d", "3d"], default="2d")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of single models; the first is the folds'")
    args = parser.parse_args()
    args.tumours = args.epochs = None  # of tssphantom.py
    folds = [f"{part}/{args.folds}" for part in range(1, args.folds + 1)]
    for fold in folds:
        train(args, args.model, ALL, args.seeds[0], fold)
    for seed in args.seeds:
        if not best_of(args, args.model, ALL, seed, 4).is_file():
            train(args, args.model, ALL, seed)
    members = [best_of(args, args.model, ALL, args.seeds[0], 4, fold) for fold in folds]
    singles = [best_of(args, args.model, ALL, seed, 4) for seed in args.seeds]
    out = folder_of(args, args.model, ALL, args.seeds[0], folds[0]).parent / f"eval-{args.recipe}-{args.rates}"
    evaluate([*members, "--ensemble"], args.data, out)
    labels, ensemble = read_scores(out / "predictions.csv")  # of each in the cohort's order
    for seed, single in zip(args.seeds, singles, strict=True):
        evaluate([single], args.data, out / f"single{seed}")
    scores = [read_scores(out / f"single{seed}" / "predictions.csv")[1] for seed in args.seeds]
    lines = [["TSS < 4.5 h, phase 4", "test AUC [95% CI]", "ensemble minus it [95% CI]"]]
    lines.append([f"ensemble of {args.folds} folds", auc_line(labels, ensemble), ""])
    for seed, logits in zip(args.seeds, scores, strict=True):
        pair = delong_test(labels, ensemble, logits)
        gain = f"{pair.difference:+.3f} [{pair.ci[0]:+.3f}, {pair.ci[1]:+.3f}]"
        lines.append([f"single, seed {seed}", auc_line(labels, logits), gain])
    print(f"\n{args.model.upper()}, {args.recipe} recipe, {args.rates} rates. Phantoms: not clinical results.")
    print(aligned(lines))
    few, many = read_validation(singles[:1]), read_validation(members)
    plans = [
        ("validation patients of the single model", few, len(few[0]), scores[0]),
        ("out-of-fold patients, as few", many, len(few[0]), ensemble),
        ("out-of-fold patients, all", many, len(many[0]), ensemble),
    ]
    print(aligned(thresholds(labels, plans)))
    return 0


def evaluate(words: list, data: Path, out: Path) -> None:
    """Score the test patients of TSS < 4.5 h."""
    if not (out / "metrics.json").is_file():
        must("run_eval.py", [*words, "--data", data, "--out", out, "--gradcam", 0, "--overwrite"])


def auc_line(labels: np.ndarray, logits: np.ndarray) -> str:
    low, high = auc_ci(labels, logits)
    return f"{roc_auc(labels, logits):.3f} [{low:.3f}, {high:.3f}]"


def thresholds(labels: np.ndarray, plans: list[tuple]) -> list[list[str]]:
    """Return lines: the spread of a threshold that is chosen anew on other patients, and what it does to the test.

    plans: words, labels and logits to choose on, how many are drawn of them, the test patients' logits.
    """
    lines = [["threshold chosen on", "hemispheres", "spread (SD of logits)", "sensitivity", "specificity"]]
    for words, (y, z), size, test in plans:
        rng, cuts = np.random.default_rng(0), []
        for _ in range(DRAWS):
            drawn = rng.integers(len(y), size=size)
            cuts.append(youden_threshold(y[drawn], z[drawn]))
        found = [confusion(labels, test, cut) for cut in cuts]
        rates = [(c.tp / (c.tp + c.fn), c.tn / (c.tn + c.fp)) for c in found]
        lines.append(
            [words, str(size), f"{np.std(cuts, ddof=1) / np.std(test, ddof=1):.2f}"]
            + [
                f"{min(each):.2f} to {max(each):.2f} (SD {np.std(each, ddof=1):.2f})"
                for each in zip(*rates, strict=True)
            ]
        )
    return lines


def read_validation(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and logits that the threshold is chosen on; an ensemble's as it calibrates them."""
    models = open_models([str(file) for file in files])
    model = as_ensemble(models) if len(models) > 1 else models[0]
    chosen_on = model.checkpoint["validation"]
    return np.array(chosen_on["labels"]), model.line.of(np.array(chosen_on["logits"]))


if __name__ == "__main__":
    sys.exit(main())
