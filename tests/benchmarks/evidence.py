"""What the extended recipe's reading is worth: evidence alone, DWI's excess alone, both, neither.

    python tests/benchmarks/evidence.py runs/2d-extended/phase3/best.pt --data data

The means of DWI, T2w and FLAIR under each kind of weights, of the training hemispheres, go into the same logistic
regression (tss.training.classifier_fit); it prints the AUC of the test patients. Evidence is phase 1's, as phase 3
reads it; DWI's excess is (DWI - 1.15 healthy medians)^2 where T2w is below 2.2 healthy medians, which no network finds
and nothing is trained for; the soft tissue clock is the FLAIR under that excess, with nothing fitted at all.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from tss.data.prepared import read_prepared, read_settings
from tss.display.tables import aligned
from tss.metrics import roc_auc
from tss.models.evidence import EvidenceClassifier, weighted_mean
from tss.training.checkpoint import load_model
from tss.training.classifier_fit import logistic_regression
from tss.training.dataset import Split, load_split

TASK = "tss<4.5h"
WAYS = ("evidence", "DWI's excess", "both", "neither")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="phase 3 of the extended recipe")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder that run_preprocess.py made")
    args = parser.parse_args()
    network, _ = load_model(args.checkpoint)
    assert isinstance(network, EvidenceClassifier)
    patients, grid = read_prepared(args.data), read_settings(args.data)["grid"]
    train, test = (load_split(args.data, patients, TASK, split, grid) for split in ("train", "test"))
    rows = [["means under", "AUC, TSS < 4.5 h", "patients"]]
    for way in WAYS:
        known, asked = means_under(network, train, way), means_under(network, test, way)
        mean, sd = known.mean(0), known.std(0) + 1e-9
        weights = logistic_regression((known - mean) / sd, train.labels.numpy())
        rows.append([way, *scored(test, (asked - mean) / sd @ weights[:-1])])
    rows.append(["soft tissue clock", *scored(test, -means_under(network, test, "DWI's excess")[:, 2])])
    print(aligned(rows))
    return 0


@torch.no_grad()
def means_under(network: EvidenceClassifier, split: Split, way: str) -> np.ndarray:
    """Return (N, 3): DWI, T2w and FLAIR in healthy medians, averaged under one of WAYS."""
    means = []
    for batch in split.hemispheres.split(8):
        x, evidence, voxel, _ = network.unpacked(network.frozen(batch.float()))
        found = network.voxel_weights(evidence, voxel)
        excess = (x[:, 0] - 1.15).clamp_min(0) ** 2 * (x[:, 1] < 2.2)
        inside = (x[:, 0] > 0).float()
        kinds = dict(zip(WAYS, (found, excess, found * excess, inside), strict=True))
        means.append(weighted_mean(x, kinds[way]))
    return torch.cat(means).double().numpy()


def scored(split: Split, logits: np.ndarray) -> list[str]:
    """Return the AUC over patients, of two hemispheres the higher, and how many there are."""
    best: dict[str, tuple[float, float]] = {}
    for sample, logit, label in zip(split.samples, logits.tolist(), split.labels.tolist(), strict=True):
        best[sample.patient] = max(best.get(sample.patient, (-np.inf, label)), (logit, label))
    scores, labels = zip(*best.values(), strict=True)
    return [f"{roc_auc(labels, scores):.3f}", str(len(best))]


if __name__ == "__main__":
    sys.exit(main())
