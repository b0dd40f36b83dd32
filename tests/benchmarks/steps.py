"""A training step and an evaluation batch of each phase: seconds, memory, where they go, and how near the floor.

    python tests/benchmarks/steps.py                                      the paper's size, phases 1, 2 and 4
    python tests/benchmarks/steps.py --model 3d --phases 0 --batch-size 1 --steps 2
    python tests/benchmarks/steps.py --device cuda --precision bf16
    python tests/benchmarks/steps.py --size 13 112 56 --width 8           to try it: seconds

Phase 3 is phase 2 with other labels. Each phase runs in a process of its own, so that its peak memory is its own. Its
inputs are noise: no convolution is faster for seeing a brain.

floor   operations of the part that is trained, forward and backward (torch.utils.flop_counter; what was frozen and
        computed once is not among them), over what the fastest large product reaches in the same run
share   floor / step

Seconds on a CPU are those of all threads together (process time), the least of the steps. Set OMP_NUM_THREADS=1 while
others are using the machine: with more threads a starved step took twice the CPU seconds, most likely since threads of
oneDNN spin while they wait. On a GPU they are wall time. "where": forward and backward by kind of operation
(torch.profiler, the least of the steps for each), and the optimizer's step; together 100 %. An epoch is that of the
paper's cohort: 272 patients to train on, 68 to validate, both hemispheres of each in phases 0 and 1, one in 2 to 4.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import tss  # noqa: E402, F401, I001 (before torch: it says how threads wait)
import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from tss.training import restoration  # noqa: E402
from tss.training.checkpoint import write_checkpoint  # noqa: E402
from tss.data.tasks import RESTORE  # noqa: E402
from tss.training.feature_cache import cache_features  # noqa: E402
from tss.training.epoch import LOSS, build_optimizer, predict, train_one_epoch
from tss.training.dataset import Split
from tss.training.dataset import batches  # noqa: E402
from tss.training.phases import FROZEN, PAPER, WIDTH, build_model, freeze  # noqa: E402

TRAINED_ON, VALIDATED_ON = 272, 68  # patients of the paper's cohort
KINDS = {  # the first whose words are in an operation's name; the rest is ReLU, additions, gates' products, copies
    "conv backward": ("convolution_backward", "conv_depthwise_backward"),
    "conv forward": ("convolution", "conv2d", "conv3d"),
    "BatchNorm": ("batch_norm",),
    "pooling": ("max_pool", "upsample"),
}
REST = "ReLU, rest"


def main() -> int:
    args = parse()
    if args.leave:
        Path(args.leave).write_text(json.dumps(measure(args, args.model, args.phases[0])))
        return 0
    print(
        f"torch {torch.__version__}, {args.device}, {args.precision}, {torch.get_num_threads()} threads, "
        f"{' x '.join(map(str, args.size))}, {args.steps} steps; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} "
        "cores",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        for model in [args.model] if args.model else list(FROZEN):
            for number in args.phases:
                if model in PAPER[number].models:
                    leave = Path(folder) / f"{model}{number}.json"
                    command = [
                        sys.executable,
                        __file__,
                        *sys.argv[1:],
                        "--model",
                        model,
                        "--phases",
                        str(number),
                        "--leave",
                        str(leave),
                    ]
                    subprocess.run(command, check=True)
                    say(model, number, json.loads(leave.read_text()))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(FROZEN), help="without it both")
    parser.add_argument("--phases", type=int, nargs="+", choices=list(PAPER), default=[1, 2, 4])
    parser.add_argument("--size", type=int, nargs=3, default=[26, 224, 112], metavar=("D", "H", "W"))
    parser.add_argument("--width", type=int, help="without it the paper's")
    parser.add_argument("--batch-size", type=int, help="without it the phase's")
    parser.add_argument("--steps", type=int, default=3, help="timed after one that is not; as many are profiled")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--leave", help=argparse.SUPPRESS)
    return parser.parse_args()


class NoStep:
    """In an optimizer's place: forward and backward are measured, weights stay."""

    def __init__(self, network: torch.nn.Module):
        self.zero_grad = network.zero_grad

    def step(self) -> None:
        pass


def measure(args: argparse.Namespace, model: str, number: int) -> dict:
    """One phase of a model, in this process."""
    device, phase = torch.device(args.device), PAPER[number]
    size = args.batch_size or phase.batch_size
    torch.manual_seed(0)
    d, h, w = args.size
    network = build_model(model, args.width or WIDTH[model], [2 * w, h, d], phase.attention, phase.task).to(device)
    split = Split([], torch.rand(size, 3, d, h, w).half(), torch.arange(size) % 2.0)
    learner, once = network, 0.0
    if phase.freezes:
        freeze(network, FROZEN[model])
        kept = []
        once = least(
            1, device, lambda: kept.append(cache_features(network, [split], device, args.precision, lambda text: None))
        )
        learner, (split,) = kept[0]
    optimizer = build_optimizer(network, phase.lr, phase.final_lr)
    restores = phase.task == RESTORE
    loss = restoration.RESTORATION_LOSS if restores else LOSS

    def data() -> list:
        if restores:
            return list(restoration.distorted_batches(split, range(size), size, device, 0, 1))
        return list(batches(split, range(size), size, device))

    def evaluate() -> None:
        if restores:
            restoration.validate_restoration(learner, split, torch.zeros(3, d, h, w), size, device, args.precision, 0)
        else:
            predict(learner, split.hemispheres, size, device, args.precision)

    def step(optimizer: torch.optim.Optimizer | NoStep = optimizer) -> None:
        train_one_epoch(learner, optimizer, loss, batch, args.precision)

    batch = data()
    with FlopCounterMode(display=False) as counter:
        step()
    seconds, wall, rates = [], [], []
    for _ in range(args.steps):
        rates.append(product_rate(device, args.precision))
        started = time.perf_counter()
        seconds.append(least(1, device, step))
        wall.append(time.perf_counter() - started)
    peak = memory(device)  # of training: what comes now is the benchmark's own
    where: dict[str, float] = {}
    for _ in range(args.steps):
        for kind, spent in by_kind(lambda: step(NoStep(network)), device).items():
            where[kind] = min(spent, where.get(kind, spent))
    with tempfile.TemporaryDirectory() as folder:
        last = {"state_dict": network.state_dict(), "optimizer": optimizer.state_dict()}
        writing = least(args.steps, device, lambda: write_checkpoint(Path(folder) / "last.pt", last))
    return {
        "batch": size,
        "flop": counter.get_total_flops(),
        "rate": max(rates),
        "step": min(seconds),
        "wall": min(wall),
        "evaluation": least(args.steps, device, evaluate),
        "data": least(2 * args.steps, device, data),
        "optimizer": least(2 * args.steps, device, optimizer.step),
        "writing": writing,
        "once": once / size,
        "where": where,
        "peak": peak,
        "hemispheres": 1 if phase.freezes else 2,
    }


def least(repeats: int, device: torch.device, do: Callable) -> float:
    """Least seconds that it takes: of all threads on a CPU, on the wall for a GPU."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    taken = []
    for _ in range(repeats):
        wait(device)
        started = clock()
        do()
        wait(device)
        taken.append(clock() - started)
    return min(taken)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def product_rate(device: torch.device, precision: str, side: int = 2048) -> float:
    """Operations a second of the fastest large product: of matrices, and by the library that convolutions use.

    On AMD's CPUs torch's own matrix product (MKL) reaches half of what a 1 x 1 or 3 x 3 convolution does (oneDNN),
    and would make a floor that every phase is under.
    """
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.rand(side, side, device=device, dtype=kind) for _ in range(2))
    ways = {2 * side**3: lambda: a @ b}
    for kernel, channels, across in ((1, 1024, 64), (3, 256, 64)):
        x, weights = (
            torch.rand(shape, device=device, dtype=kind).to(memory_format=torch.channels_last)
            for shape in ((2, channels, across, across), (channels, channels, kernel, kernel))
        )
        ways[2 * (channels * kernel * across) ** 2 * 2] = lambda x=x, weights=weights, edge=kernel // 2: F.conv2d(
            x, weights, padding=edge
        )
    with torch.no_grad():
        return max(operations / least(2, device, way) for operations, way in ways.items())


def by_kind(do: Callable, device: torch.device) -> dict[str, float]:
    """Seconds by kind of operation."""
    column = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiler:
        do()
    spent = dict.fromkeys([*KINDS, REST], 0.0)
    for event in profiler.key_averages():
        kind = next((kind for kind, words in KINDS.items() if any(word in event.key for word in words)), REST)
        spent[kind] += getattr(event, column) / 1e6
    return spent


def memory(device: torch.device) -> float:
    """Most memory held so far, in GiB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


def say(model: str, number: int, found: dict) -> None:
    """Three lines: the step, where it goes, and an epoch."""
    floor = found["flop"] / found["rate"]
    print(
        f"{model} phase {number}, batch {found['batch']}: step {found['step']:.3f} s (wall {found['wall']:.3f}), "
        f"evaluation {found['evaluation']:.3f} s, peak {found['peak']:.2f} GiB; {found['flop'] / 1e9:.0f} GFLOP at "
        f"{found['rate'] / 1e9:.0f} GFLOP/s: floor {floor:.3f} s, share {floor / found['step']:.0%}"
    )
    where = found["where"] | {"optimizer": found["optimizer"]}
    whole = sum(where.values())
    print("  where: " + ", ".join(f"{kind} {spent / whole:.1%}" for kind, spent in where.items()))
    steps, batches = (found["hemispheres"] * patients / found["batch"] for patients in (TRAINED_ON, VALIDATED_ON))
    epoch = {
        "steps": steps * found["step"],
        "data": steps * found["data"],
        "evaluation": batches * found["evaluation"],
        "last.pt": found["writing"],
    }
    whole = sum(epoch.values())
    print(
        f"  an epoch {whole:.0f} s: "
        + ", ".join(f"{part} {spent / whole:.2%}" for part, spent in epoch.items())
        + (
            f"; before the first, frozen layers once: {found['hemispheres'] * (TRAINED_ON + VALIDATED_ON)} x "
            f"{found['once']:.3f} s"
            if found["once"]
            else ""
        ),
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
