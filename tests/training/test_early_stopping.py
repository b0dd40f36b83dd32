from dataclasses import replace

from tss.training import early_stopping
from tss.training.phases import PAPER


def row(epoch, auc, loss=0.5):
    return {"epoch": epoch, "train_loss": 0.5, "val_loss": loss, "val_auc": auc}


def test_best_is_the_highest_auc_then_the_lowest_loss_then_the_first():
    assert early_stopping.best_epoch([row(1, 0.7), row(2, 0.9), row(3, 0.8)]) == 2
    assert early_stopping.best_epoch([row(1, 0.9, 0.5), row(2, 0.9, 0.4), row(3, 0.9, 0.4)]) == 2


def test_stops_when_the_auc_has_not_risen_for_patience_epochs():
    phase = replace(PAPER[1], patience=3, epochs=100)
    aucs = [0.5, 0.7, 0.7, 0.6, 0.7]  # rose in epoch 2; a lower loss at equal AUC does not count as rising
    ends = [
        early_stopping.is_finished([row(i + 1, auc, 0.5 - i / 10) for i, auc in enumerate(aucs[:n])], phase)
        for n in range(len(aucs) + 1)
    ]
    assert ends == [False, False, False, False, False, True]
    assert early_stopping.is_finished([row(1, 0.5)], replace(phase, epochs=1))


def test_where_the_last_epoch_is_kept_all_are_trained():
    phase = replace(PAPER[1], patience=1, epochs=3, keeps="last")
    rows = [row(1, 0.9), row(2, 0.5), row(3, 0.5)]
    assert [early_stopping.is_finished(rows[:n], phase) for n in range(4)] == [False, False, False, True]
    assert early_stopping.best_epoch(rows, "last") == 3


def test_in_phase_0_the_lowest_error_is_best_and_ends_patience():
    phase = replace(PAPER[0], patience=2, epochs=100)
    rows = [
        {"epoch": n, "train_loss": 0.1, "val_loss": loss, "nothing_loss": 0.3}
        for n, loss in enumerate((0.2, 0.1, 0.1, 0.15), 1)
    ]
    assert early_stopping.best_epoch(rows) == 2
    assert [early_stopping.is_finished(rows[:n], phase) for n in range(5)] == [False] * 4 + [True]
