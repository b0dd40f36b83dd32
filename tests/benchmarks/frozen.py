"""Phases 2-4 with the frozen part computed once, beside the same network with requires_grad off: time, memory, outcome.

    python tests/benchmarks/frozen.py                                the paper's size, 3D and 2D: some minutes
    python tests/benchmarks/frozen.py --size 13 112 56 --width 8 --model 3d --steps 3

Each variant runs in a process of its own, so that its peak memory is its own; they take turns (A B A B). Both make the
same steps (same weights, same hemispheres, same order); at the end losses and weights are compared. "plain" is what one
would write first: requires_grad off for the frozen layers, everything computed in every step.

Seconds on a CPU are those of all threads (process time), since others may be using the machine; on a GPU wall time.
Set OMP_NUM_THREADS=1 while they do: threads of oneDNN most likely spin while they wait, and that counts too.
"bound" is the same ratio in floating-point operations: no implementation of one network wins more where all operations
are equally fast, and the frozen layers' maps are the largest, so theirs are slower.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import tss  # noqa: E402, F401, I001 (before torch: it says how threads wait)
import torch  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from tss.training.feature_cache import cache_features  # noqa: E402
from tss.training.epoch import LOSS, build_optimizer, train_one_epoch
from tss.training.dataset import Split
from tss.training.dataset import batches  # noqa: E402
from tss.training.phases import FROZEN, PAPER, WIDTH, build_model, freeze  # noqa: E402

PHASE = PAPER[4]  # with gates; phases 2 and 3 are the same without
WAYS = ("plain", "once")


def main() -> int:
    args = parse()
    if args.way:
        run(args)
        return 0
    for model in [args.model] if args.model else list(FROZEN):
        compare(args, model)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(FROZEN), help="without it both")
    parser.add_argument("--size", type=int, nargs=3, default=[26, 224, 112], metavar=("D", "H", "W"))
    parser.add_argument("--width", type=int, help="without it the paper's")
    parser.add_argument("--batch-size", type=int, default=PHASE.batch_size)
    parser.add_argument("--hemispheres", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4, help="of each turn, the first of which is not timed")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each variant")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--leave", help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(args: argparse.Namespace, model: str) -> None:
    """Run both ways and print them side by side."""
    width = args.width or WIDTH[model]
    print(
        f"{model}, width {width}, batch {args.batch_size}, {' x '.join(map(str, args.size))}, {args.precision}, "
        f"{args.steps} steps on {args.device}, torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        flush=True,
    )
    turns: dict[str, list[dict]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            for way in WAYS:
                leave = Path(folder) / f"{way}.pt"
                command = [
                    sys.executable,
                    __file__,
                    "--model",
                    model,
                    "--width",
                    str(width),
                    "--way",
                    way,
                    "--leave",
                    str(leave),
                    "--size",
                    *map(str, args.size),
                ]
                for name in ("batch_size", "hemispheres", "steps", "device", "precision"):
                    command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
                turns[way].append(json.loads(done.stdout.splitlines()[-1]))
        weights_left = {way: torch.load(Path(folder) / f"{way}.pt", weights_only=True) for way in WAYS}
    results = {way: turns[way][-1] for way in WAYS}
    for way, found in results.items():
        print(
            f"  {way:6s} step {min(turn['step'] for turn in turns[way]):.3f} s, peak memory {found['peak']:.2f} GiB "
            f"({found['before']:.2f} before the first step), preparing {found['preparing']:.1f} s, "
            f"{found['flop'] / 1e9:.0f} GFLOP a step",
            flush=True,
        )
    plain, once = (results[way] for way in WAYS)
    ratios = sorted(a["step"] / b["step"] for a, b in zip(turns["plain"], turns["once"], strict=True))
    print(
        f"  ratio  time {statistics.median(ratios):.2f} [{ratios[0]:.2f}-{ratios[-1]:.2f}], bound "
        f"{plain['flop'] / once['flop']:.2f}, memory {plain['peak'] / once['peak']:.2f}"
    )
    losses = max(abs(a - b) / abs(a) for a, b in zip(plain["losses"], once["losses"], strict=True))
    weights = {
        name: float(
            (tensor.double() - weights_left["once"][name].double()).abs().max()
            / tensor.double().abs().max().clamp(min=1e-30)
        )
        for name, tensor in weights_left["plain"].items()
    }
    worst = max(weights, key=weights.get)
    print(f"  largest relative difference: losses {losses:.1e}, weights {weights[worst]:.1e} ({worst})", flush=True)


def run(args: argparse.Namespace) -> None:
    """One way, in this process; prints a line of JSON."""
    device = torch.device(args.device)
    torch.manual_seed(0)
    d, h, w = args.size
    network = build_model(args.model, args.width, [2 * w, h, d], attention=True)
    split = Split([], torch.rand(args.hemispheres, 3, d, h, w).half(), torch.arange(args.hemispheres) % 2.0)
    freeze(network, FROZEN[args.model])
    network.to(device)
    optimizer = build_optimizer(network, PHASE.lr, PHASE.final_lr)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    before, started = peak(device), clock()
    learner = network
    if args.way == "once":
        learner, (split,) = cache_features(
            network, [split], device, args.precision, lambda text: print(text, file=sys.stderr)
        )
    preparing = clock() - started
    order = torch.arange(args.steps * args.batch_size) % args.hemispheres
    seconds, losses = [], []
    counter = FlopCounterMode(display=False)
    for number, batch in enumerate(batches(split, order, args.batch_size, device)):
        started = clock()
        if number == 0:
            with counter:
                losses.append(train_one_epoch(learner, optimizer, LOSS, [batch], args.precision))
            continue
        losses.append(train_one_epoch(learner, optimizer, LOSS, [batch], args.precision))
        seconds.append(clock() - started)
    torch.save({name: tensor.cpu() for name, tensor in network.state_dict().items()}, args.leave)
    print(
        json.dumps(
            {
                "step": min(seconds),
                "flop": counter.get_total_flops(),
                "peak": peak(device),
                "before": before,
                "preparing": preparing,
                "losses": losses,
            }
        )
    )


def peak(device: torch.device) -> float:
    """Most memory held so far, in GiB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


if __name__ == "__main__":
    sys.exit(main())
