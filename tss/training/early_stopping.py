"""Early stopping: which epoch is the best, and when a phase ends.

In:  the history of a phase, a dict an epoch, as log.csv has it.
Out: the best epoch; is it finished?
Paper: 2.4 ("100 epochs with early stopping based on the validation AUC during training with a patience of 10").
See: tests/training/test_early_stopping.py
"""

from tss.training.phases import Phase

SCORES = {"val_auc": "auc", "val_accuracy": "accuracy", "val_dice": "dice"}


def selection_score(row: dict) -> float:
    """The validation AUC (2.4), of tumours accuracy or Dice; in phase 0 the error, negative: higher is better."""
    return next((row[name] for name in SCORES if name in row), -row["val_loss"])


def best_epoch(history: list[dict], keeps: str = "best") -> int:
    """The epoch with the highest score; of equal ones that with the lowest validation loss, then the first.

    Ties are common: a small validation set has few possible AUCs (our choice; the paper does not say). Where a phase
    keeps its "last" epoch (tss.training.phases), that one.
    """
    if keeps == "last":
        return history[-1]["epoch"]
    return max(history, key=lambda row: (selection_score(row), -row["val_loss"], -row["epoch"]))["epoch"]


def is_finished(history: list[dict], phase: Phase) -> bool:
    """All epochs done, or `patience` epochs since the score last rose (2.4); where the last is kept, all done."""
    if not history or phase.keeps == "last":
        return len(history) >= phase.epochs
    highest = max(map(selection_score, history))
    rose = next(row["epoch"] for row in history if selection_score(row) == highest)
    return len(history) >= phase.epochs or len(history) - rose >= phase.patience


def score_text(row: dict) -> str:
    """The score next to the losses; in phase 0 the errors of doing nothing and of the mean hemisphere."""
    for name, word in SCORES.items():
        if name in row:
            return f"{word} {row[name]:.4f}"
    return f"doing nothing {row['nothing_loss']:.4f}, mean hemisphere {row['mean_loss']:.4f}"
