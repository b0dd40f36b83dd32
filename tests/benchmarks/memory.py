"""What a training step of each phase holds in memory, counted without a GPU and without computing anything: seconds.

    python tests/benchmarks/memory.py                            the paper's size and batches, fp32 and bf16
    python tests/benchmarks/memory.py --batch-size 4 --model 3d

torch's fake tensors have shapes and no numbers, so a step goes through in a moment; every storage is counted while it
lives, and the most that lived at once is the peak: weights, gradients, AdaBound's averages, the batch, what forward
keeps for backward, and what backward needs on its way. It is what torch.cuda.max_memory_allocated() counts but for
what the GPU's convolutions borrow (workspace), which depends on the card. In phases 2 to 4 the frozen layers' output of
all hemispheres is kept beside it: on the GPU where half of its free memory holds it, else in memory or in a file
(tss.training.feature_cache).
"""

import argparse
import sys
import weakref
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from tss.data.tasks import RESTORE  # noqa: E402
from tss.display.tables import aligned  # noqa: E402
from tss.training import restoration  # noqa: E402
from tss.training.epoch import LOSS, build_optimizer  # noqa: E402
from tss.training.feature_cache import AfterFrozen  # noqa: E402
from tss.training.phases import FROZEN, PAPER, WIDTH, build_model, freeze  # noqa: E402

PAPER_GB = {("2d", 8): 4, ("2d", 16): 6, ("3d", 8): 7, ("3d", 16): 12}  # 2.4
HEMISPHERES = 272 + 68  # with stroke, of the patients to train on and to validate: what phases 2 to 4 keep


class Alive(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, and the most that were at once."""

    def __init__(self):
        super().__init__()
        self.bytes = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.count(tensor)
        return result

    def count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        name, size = storage._cdata, storage.nbytes()
        if name not in self.known:
            self.known.add(name)
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self.forget, name, size)

    def forget(self, name: int, size: int) -> None:
        self.known.discard(name)
        self.bytes -= size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(FROZEN), help="without it both")
    parser.add_argument("--size", type=int, nargs=3, default=[26, 224, 112], metavar=("D", "H", "W"))
    parser.add_argument("--width", type=int, help="without it the paper's")
    parser.add_argument("--batch-size", type=int, help="without it the phase's")
    args = parser.parse_args()
    lines = [["phase", "batch", "fp32", "bf16", "the paper", "fp32 / paper", "bf16 / paper", "frozen, all", "bf16"]]
    for model in [args.model] if args.model else list(FROZEN):
        for phase in PAPER.values():
            if model in phase.models:
                batch = args.batch_size or phase.batch_size
                found = [step(model, phase.number, batch, args, bf16) for bf16 in (False, True)]
                peaks, kept = zip(*found, strict=True)
                paper = PAPER_GB.get((model, batch)) if phase.number else None
                lines.append(
                    [
                        f"{model} phase {phase.number}",
                        str(batch),
                        *(f"{peak:.2f} GB" for peak in peaks),
                        *([f"{paper} GB", *(f"{peak / paper:.2f}" for peak in peaks)] if paper else ["-"] * 3),
                        *(f"{size:.2f} GB" if size else "-" for size in kept),
                    ]
                )
    print(aligned(lines))
    return 0


def step(model: str, number: int, batch: int, args: argparse.Namespace, bf16: bool) -> tuple[float, float]:
    """Two steps, so that the second finds AdaBound's averages; returns peak and what is kept of frozen layers, GB."""
    phase, (d, h, w) = PAPER[number], args.size
    network = build_model(model, args.width or WIDTH[model], [2 * w, h, d], phase.attention, phase.task)
    if phase.freezes:
        freeze(network, FROZEN[model])
    kept = 0
    with FakeTensorMode() as fake:
        take_numbers_away(network, fake)
        hemispheres, labels = torch.rand(batch, 3, d, h, w), torch.rand(batch)
        if phase.freezes:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                hemispheres = network.frozen(hemispheres)
            kept = hemispheres.nbytes / batch * HEMISPHERES
        learner = AfterFrozen(network) if phase.freezes else network
        targets = torch.rand_like(hemispheres) if phase.task == RESTORE else labels
        loss_of = restoration.RESTORATION_LOSS if phase.task == RESTORE else LOSS
        optimizer = build_optimizer(network, phase.lr, phase.final_lr)
        network.train()
        with Alive() as alive:
            for tensor in (*network.parameters(), *network.buffers(), hemispheres, targets):
                alive.count(tensor)
            for _ in range(2):
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    outputs = learner(hemispheres)
                loss = loss_of(outputs.float(), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return alive.peak / 1e9, kept / 1e9


def take_numbers_away(network: nn.Module, fake: FakeTensorMode) -> None:
    """Put fake tensors in the place of weights and statistics; pool in bf16, as a GPU's autocast does."""
    for module in network.modules():
        for name, weights in module.named_parameters(recurse=False):
            setattr(module, name, fake.from_tensor(weights))
        for name, values in module.named_buffers(recurse=False):
            setattr(module, name, fake.from_tensor(values))
        if isinstance(module, (nn.MaxPool2d, nn.MaxPool3d)):
            module.forward = torch.autocast("cpu", enabled=False)(module.forward)


if __name__ == "__main__":
    sys.exit(main())
