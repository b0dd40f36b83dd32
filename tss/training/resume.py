"""What a training leaves after each epoch, and how an interrupted one continues from it, to the same bits.

In:  a Run; OUT/phase<N>/last.pt, best.pt and log.csv.
Out: the same files; a TrainState as it was after the last epoch.
Paper: none (our choice: cluster jobs are interrupted).
See: tests/training/test_resume.py

No random generator has a state to restore: weights come from the seed, order and distortions of an epoch from (seed,
phase, epoch). So a killed run continues bit for bit from last.pt, on the CPU with the same number of threads and torch:
the bytes of last.pt, best.pt and log.csv are those of a run that nobody killed.
"""

import sys
from pathlib import Path
from typing import Any

from tss.data.files import sweep, write_json, write_text
from tss.errors import InputError
from tss.training.checkpoint import FORMAT, load_checkpoint, write_checkpoint
from tss.training.early_stopping import best_epoch, is_finished
from tss.training.run_setup import LEFT_BY_A_PHASE, Run, TrainState

SHOWN = 24  # characters: enough to tell two hashes apart


def save_checkpoint(run: Run, state: TrainState, name: str, threshold: float | None, **more: object) -> None:
    """Write the network as it is now to OUT/phase<N>/name."""
    row = state.history[-1]
    tensors = {tensor_name: tensor.cpu() for tensor_name, tensor in state.network.state_dict().items()}
    write_checkpoint(run.folder / name, {
        "format": FORMAT, **run.about, "epoch": row["epoch"], "val_auc": row.get("val_auc"),
        "threshold": threshold, "validation": state.validation, "frozen": state.frozen, "state_dict": tensors, **more,
    })  # fmt: skip


def save_epoch(run: Run, state: TrainState, threshold: float | None) -> None:
    """Write last.pt, best.pt where this epoch is the best, and log.csv.

    In this order: after a kill in between, the others are made from last.pt. If best.pt came first, this epoch would
    be repeated, which on a GPU gives other bits, and best.pt would be of an epoch that is lost.
    """
    state_of_optimizer = {"optimizer": state.optimizer.state_dict(), "history": state.history}
    save_checkpoint(run, state, "last.pt", threshold, resume=state_of_optimizer)
    if best_epoch(state.history, run.phase.keeps) == state.history[-1]["epoch"]:
        save_checkpoint(run, state, "best.pt", threshold)
    write_log(run, state)


def write_log(run: Run, state: TrainState) -> None:
    """log.csv: a line an epoch, every digit; no times, so that a continued log equals an uninterrupted one."""
    lines = [",".join(state.history[0])] + [",".join(map(repr, row.values())) for row in state.history]
    write_text(run.folder / "log.csv", "\n".join(lines) + "\n")


def start_or_resume(run: Run, state: TrainState) -> None:
    """Continue from last.pt where --resume was given and there is one; else start again."""
    sweep(run.folder, *LEFT_BY_A_PHASE)
    if run.options.resume and (run.folder / "last.pt").exists():
        resume(run, state)
        return
    if run.options.resume:
        run.say(f"{run.folder} has no last.pt yet: starting at epoch 1")
    for name in LEFT_BY_A_PHASE:  # last.pt first: after a kill in between, nothing is left that could be continued
        (run.folder / name).unlink(missing_ok=True)
    more = {
        "init": str(run.parent.path if run.parent else "random"),
        "device": str(run.device),
        "command": sys.argv,
        "paper": run.phase.quote,
    }
    write_json(run.folder / "settings.json", run.about | more)


def resume(run: Run, state: TrainState) -> None:
    """Continue from last.pt, as if never interrupted. Raises InputError: it belongs to another run."""
    path = run.folder / "last.pt"
    last = load_checkpoint(path)
    if "resume" not in last:
        raise InputError(f"{path} cannot be continued: run_train.py did not write it. Start again with --overwrite.")
    if different := differences(last, run.about):
        raise InputError(
            f"{path} was trained with other settings: {'; '.join(different)}. Repeat the command it was "
            "started with (settings.json beside it), or start again with --overwrite."
        )
    state.network.load_state_dict(last["state_dict"])
    try:
        state.optimizer.load_state_dict(last["resume"]["optimizer"])  # its base rates are the phase's: checked above
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: its optimizer cannot be restored ({error}). Start again with --overwrite."
        ) from error
    state.history, state.validation = last["resume"]["history"], last["validation"]
    best, wanted = run.folder / "best.pt", best_epoch(state.history, run.phase.keeps)
    if epoch_of(best) != wanted:
        if last["epoch"] != wanted:
            raise InputError(
                f"{path} cannot be continued: {best} is missing, damaged, or not of epoch {wanted}, the best so "
                "far. Start again with --overwrite."
            )
        # A kill came between last.pt and best.pt: they hold the same network.
        save_checkpoint(run, state, "best.pt", last["threshold"])
    run.say(f"{'was finished' if is_finished(state.history, run.phase) else 'continues'} after epoch {last['epoch']}")


def epoch_of(path: Path) -> int | None:
    """Return the epoch of a checkpoint; None where there is none, or it is damaged: it is made again if it can be."""
    try:
        return load_checkpoint(path)["epoch"] if path.exists() else None
    except InputError:
        return None


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name the settings in which two runs differ, with both values.

    Versions may differ; preprocessing and patients show in the hash of the data, and the first weights in the parent's.
    """
    then, now = ({**run, **run["settings"]} for run in (then, now))
    names = [
        name
        for name in now
        if name not in ("settings", "patients_seen", "preprocessing", "profile", "versions", "weights", "folds")
    ]
    return [
        f"{name} {str(then.get(name))[:SHOWN]} then, {str(now[name])[:SHOWN]} now"
        for name in names
        if then.get(name) != now[name]
    ]
