"""Planted faults: each is put into a copy of the suite, and a test that is named beside it must fail.

In:  FAULTS: a file, a piece of it, what stands there instead, the tests that must notice.
Out: a line for each that survives, and counts by folder; exit code 1 where there are survivors.
Paper: none (our choice: a test that no fault can make fail tests nothing; mutation analysis, DeMillo 1978).
See: tests/campaign/test_campaign.py

    python tests/campaign/planted.py                     all, each in a fork of one process
    python tests/campaign/planted.py metrics models      those of some folders
"""

import argparse
import contextlib
import io
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[2]


class Fault(NamedTuple):
    """One fault: it is `new` in place of `old`, which the file holds once."""

    file: str  # below tss
    old: str
    new: str
    tests: str  # below tests


def of(file: str, tests: str, *changes: tuple[str, str]) -> list[Fault]:
    return [Fault(file, old, new, tests) for old, new in changes]


FAULTS = [
    *of(
        "models/resnet2d.py",
        "models/test_values.py models/test_resnet2d.py",
        ("x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (N, width", "x = self.bn1(self.conv1(x))  # (N, width"),
        (
            "return self.layer1(F.max_pool2d(x, kernel_size=3, stride=2, padding=1))",
            "return self.layer1(F.avg_pool2d(x, kernel_size=3, stride=2, padding=1))",
        ),
        ("x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # in place", "x = self.bn1(self.conv1(x))  # in place"),
        ("F.relu(self.bn2(self.conv2(x)).add_(shortcut), inplace=True)", "self.bn2(self.conv2(x)).add_(shortcut)"),
        (".add_(shortcut)", ""),
        ("return fine, self.layer4(fine)", "return x, self.layer4(fine)"),
        ("outputs = self.classifier(last.mean(dim=(2, 3)))", "outputs = self.classifier(last.amax(dim=(2, 3)))"),
        ("self.gate_classifier(gated.mean(dim=(2, 3)))", "self.gate_classifier(fine.mean(dim=(2, 3)))"),
        ("return torch.sigmoid(self.slice_logits)", "return torch.softmax(self.slice_logits, 0)"),
        ("-math.log(slices - 1)", "-math.log(slices + 1)"),
        ("slices = x.movedim(2, 1)", "slices = x.flip(1).movedim(2, 1)"),
        ("self.layer3 = stage(2 * width, 4 * width, stride=2)", "self.layer3 = stage(2 * width, 4 * width, stride=1)"),
    ),
    *of(
        "models/unet3d.py",
        "models/test_values.py models/test_unet3d.py",
        ("ceil_mode=True", "ceil_mode=False"),
        ("x = self.up2(x, stage2)", "x = self.up2(x, stage2 * 0)"),
        ("x = self.up1(x, stage1)", "x = self.up1(x, stage1.flip(2))"),
        ("x = self.up3(bottom, stage3)", "x = self.up3(bottom, stage3.relu().neg())"),
        ("torch.cat([self.up(x), skip], dim=1)", "torch.cat([self.up(x).relu(), skip], dim=1)"),
        ("bottom.mean(dim=(2, 3, 4))", "bottom.amax(dim=(2, 3, 4))"),
        ("self.gate3(deeper, bottom)[0]]", "deeper]"),
        (
            "nn.Conv3d(inner, channels, kernel_size=3, padding=1)",
            "nn.Conv3d(inner, channels, 3, padding=1, dilation=1, padding_mode='replicate')",
        ),
        ("nn.BatchNorm3d(inner), nn.ReLU(inplace=True)", "nn.BatchNorm3d(inner), nn.Identity()"),
        ('convolution.get_parameter("bias").requires_grad_(False)', "pass"),
    ),
    *of(
        "models/attention.py",
        "models/test_values.py models/test_attention.py",
        ("align_corners=False", "align_corners=True"),
        ("F.relu(self.theta(x) + gating)", "self.theta(x) + gating"),
        ("return gate * x, gate", "return x, gate"),
        ("torch.sigmoid(self.psi(", "torch.tanh(self.psi("),
        ('{2: "bilinear", 3: "trilinear"}', '{2: "nearest-exact", 3: "trilinear"}'),
    ),
    *of(
        "metrics/roc.py",
        "metrics/test_by_hand.py metrics/test_roc.py metrics/test_failures.py metrics/test_agreement.py",
        ("(np.cumsum(counts) - (counts - 1) / 2)[which]", "np.cumsum(counts)[which]"),
        ("positives * (positives + 1) / 2", "positives * positives / 2"),
        ("thresholds[np.argmax(j)]", "thresholds[len(j) - 1 - np.argmax(j[::-1])]"),
        ("called = p >= threshold", "called = p > threshold"),
        ("above.var(ddof=1)", "above.var(ddof=0)"),
        ("math.erfc(abs(z) / math.sqrt(2))", "math.erfc(abs(z))"),
        ("np.arange(len(p), 0, -1)", "np.arange(1, len(p) + 1)"),
        ("np.maximum.accumulate(steps)", "steps"),
        ("centre = (k + z * z / 2)", "centre = (k + z * z)"),
        ("fn=int((~called & y).sum())", "fn=int((~called & ~y).sum())"),
        ("float(max(lowest, value - reach))", "float(value - reach)"),
        ("- false_positives * y.sum()", "- 2 * false_positives * y.sum()"),
    ),
    *of(
        "metrics/agreement.py",
        "metrics/test_by_hand.py metrics/test_agreement.py",
        ("counts * (counts - 1)", "counts * counts"),
        ("expected = float(shares @ shares)", "expected = 1 / len(shares)"),
        ("- 2 * (1 - kappa) * (chance - expected)", "- (1 - kappa) * (chance - expected)"),
        ("float(parts.var(ddof=1)) / len(parts)", "float(parts.var(ddof=1)) / (2 * len(parts))"),
        ("(chance - 2 * expected)", "(chance - expected)"),
        (
            "only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())",
            "only_b = int((right_b & ~right_a).sum()), int((right_a & ~right_b).sum())",
        ),
    ),
    *of(
        "metrics/calibration.py",
        "metrics/test_by_hand.py metrics/test_calibration.py metrics/test_failures.py",
        ("return (probabilities - classes) ** 2", "return abs(probabilities - classes)"),
        ("cost = threshold / (1 - threshold)", "cost = threshold"),
        ("squares.std(ddof=1)", "squares.std(ddof=0)"),
        ("share - cost * (1 - share)", "share - cost * share"),
    ),
    *of(
        "data/tasks.py",
        "data/test_tasks.py",
        ("int(patient.minutes < limit)", "int(patient.minutes <= limit)"),
        ('"tss<3h": 180.0', '"tss<3h": 181.0'),
        ('"tss<4.5h": 270.0', '"tss<4.5h": 271.0'),
        ('int(patient.side in (side, "both"))', "int(patient.side == side)"),
        ('if patient.status == "ok" and patient.split == split]', "if patient.split == split]"),
        ('if TASKS[task] is None or patient.side in (side, "both")', "if True"),
        ("if sample.label != UNKNOWN]", "]"),
    ),
    *of(
        "data/splits.py",
        "data/test_splits.py",
        ("BANDS_MIN = (180.0, 270.0)", "BANDS_MIN = (181.0, 271.0)"),
        ("minutes >= bound", "minutes > bound"),
        ("for i in rng.permutation(len(without))]", "for i in range(len(without))]"),
        ("sorted(without, key=stratum)", "without"),
        ("(seen[group] + 0.5) / size[group]", "float(seen[group])"),
        ("if patient.split != EXTERNAL", ""),
        ('patient.split == "train" and patient.status == "ok"', 'patient.split == "train"'),
    ),
    *of(
        "training/phases.py",
        "training/test_phases.py training/test_feature_cache.py training/test_checkpoint.py",
        ("module.requires_grad_(False).eval()", "module.eval()"),
        ("module.train = lambda mode=True, module=module: module", "pass"),
        ('"backbone.conv1", "backbone.bn1", "backbone.layer1"', '"backbone.conv1", "backbone.layer1"'),
        ('"3d": ("encoder.down1", "encoder.down2"),', '"3d": ("encoder.down1",),'),
    ),
    *of(
        "training/checkpoint.py",
        "training/test_checkpoint.py",
        (
            "state[name].numpy().tobytes() != given[name].numpy().tobytes()",
            "not torch.allclose(state[name].float(), given[name].float())",
        ),
        ('elif checkpoint["task"] == "stroke":', 'elif checkpoint["task"] == "none":'),
        ("if not torch.isfinite(tensor).all():", "if torch.isnan(tensor).all():"),
    ),
    *of(
        "training/early_stopping.py",
        "training/test_early_stopping.py",
        ("len(history) - rose >= phase.patience", "len(history) - rose > phase.patience"),
        ('-row["val_loss"], -row["epoch"]', '-row["val_loss"], row["epoch"]'),
    ),
    *of(
        "data/hemispheres.py",
        "data/test_hemispheres.py",
        ("flipped[..., : half - 1 : -1]", "flipped[..., half:]"),
        ("right[..., ::-1]", "right"),
    ),
    *of(
        "data/shapes.py",
        "data/test_shapes.py",
        ("not isinstance(value, bool) and abs(value)", "abs(value)"),
        ("shape.low <= value <= shape.high", "shape.low <= value"),
    ),
]


def caught(fault: Fault, copy: Path) -> bool:
    """Put the fault into the copy, run its tests in a fork, and take it out again. Did any test fail?"""
    file = copy / "tss" / fault.file
    good = file.read_text(encoding="utf-8")
    if good.count(fault.old) != 1:
        raise SystemExit(f"{fault.file} holds {good.count(fault.old)} times, not once: {fault.old}")
    file.write_text(good.replace(fault.old, fault.new), encoding="utf-8")
    try:
        return bool(tests_fail(fault.tests, copy))
    finally:
        file.write_text(good, encoding="utf-8")


def tests_fail(tests: str, copy: Path) -> int:
    """Return pytest's exit code. What is not the suite's own has been imported before the fork."""
    child = os.fork()
    if not child:
        code = 3
        try:
            os.chdir(copy)
            sys.path[:0] = [str(copy)]
            sys.dont_write_bytecode = True
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                import pytest

                paths = [str(copy / "tests" / name) for name in tests.split()]
                code = int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", "--tb=no", *paths]))
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(faults: Sequence[Fault], say=print) -> list[Fault]:
    """Plant the faults one by one; returns those that survive. Raises SystemExit: the tests fail without any."""
    import nibabel  # noqa: F401
    import scipy.ndimage  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch  # noqa: F401

    survivors = []
    with tempfile.TemporaryDirectory(prefix="tss-planted-") as folder:
        copy = Path(folder) / "tss"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache"))
        for tests in dict.fromkeys(fault.tests for fault in faults):
            if code := tests_fail(tests, copy):
                raise SystemExit(f"{tests} fail without a fault (pytest's exit code {code})")
        for number, fault in enumerate(faults, 1):
            started = time.monotonic()
            if not caught(fault, copy):
                survivors.append(fault)
                say(f"survives: {fault.file}: {fault.new!r} in place of {fault.old!r}", flush=True)
            elif number % 10 == 0:
                say(f"{number} of {len(faults)}, {time.monotonic() - started:.0f} s for the last", flush=True)
    return survivors


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="how files' names begin, below tss; unset = all")
    parts = tuple(parser.parse_args(argv).parts) or ("",)
    faults = [fault for fault in FAULTS if fault.file.startswith(parts)]
    survivors = run(faults)
    counts, lost = (Counter(fault.file.split("/")[0] for fault in which) for which in (faults, survivors))
    for part, count in counts.items():
        print(f"{part:10} {count - lost[part]:3d} of {count:3d} caught")
    print(f"{len(faults) - len(survivors)} of {len(faults)} faults caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
