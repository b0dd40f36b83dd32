"""Steps of training and batches of evaluation beside the same networks as others' libraries build them, A B A B.

    python3 -m venv /scratch/peers
    /scratch/peers/bin/pip install torch torchvision monai numpy scipy nibabel adabound
    /scratch/peers/bin/python tests/benchmarks/peers.py --genesis ModelsGenesis/pytorch/unet3d.py
    /scratch/peers/bin/python tests/benchmarks/peers.py --size 13 112 56 --batch-size 2 --rounds 2 --model 2d

Ours and a peer take turns in one process, with the same hemispheres, optimizer and head (slice weights, gates in phase
4). Ratios are peer / ours, so above 1 ours is faster: of each pair of turns, the median and the range. Seconds on a CPU
are those of all threads (process time), on a GPU wall time; set OMP_NUM_THREADS=1 while others are using the machine.

slices in turn     torchvision's ResNet-18 on one slice after the other; BatchNorm therefore sees one slice at a time
slices as a batch  the same network on all slices at once
Genesis            the encoder of Models Genesis (non-commercial licence: no part of this suite, run from the file that
                   is named); it rounds down where it pools, so it computes a little less
MONAI              its 3D ResNet-18: another network, for the time that a step of it takes; no gates

In phases 2 to 4 peers freeze the plain way: requires_grad off and eval mode for the same layers, all computed in each
step. Ours computes them once.
"""

import argparse
import importlib.util
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import tss  # noqa: E402, F401, I001 (before torch: it says how threads wait)
import torch  # noqa: E402
from steps import least  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from tss.training.feature_cache import cache_features  # noqa: E402
from tss.training.epoch import LOSS, build_optimizer, predict, train_one_epoch
from tss.training.dataset import Split
from tss.training.dataset import batches  # noqa: E402
from tss.training.phases import FROZEN, PAPER, WIDTH, build_model, freeze  # noqa: E402


def main() -> int:
    args = parse()
    print(
        f"torch {torch.__version__}, {args.device}, {args.precision}, {torch.get_num_threads()} threads, batch "
        f"{args.batch_size}, {' x '.join(map(str, args.size))}, {args.rounds} turns each; load "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        flush=True,
    )
    for model in [args.model] if args.model else list(FROZEN):
        for number in args.phases:
            for name, build in peers_of(model, args).items():
                compare(args, model, number, name, build)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(FROZEN), help="without it both")
    parser.add_argument("--phases", type=int, nargs="+", choices=[1, 2, 3, 4], default=[1, 2, 4])
    parser.add_argument("--size", type=int, nargs=3, default=[26, 224, 112], metavar=("D", "H", "W"))
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=4, help="turns of each, after one that is not counted")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--genesis", type=Path, metavar="FILE", help="pytorch/unet3d.py of a checkout of ModelsGenesis")
    return parser.parse_args()


def peers_of(model: str, args: argparse.Namespace) -> dict[str, Callable[[nn.Module], tuple[nn.Module, list[str]]]]:
    """Return name -> how to build it beside ours: the network, and the names of its layers that are frozen."""
    if model == "2d":
        early = ["trunk.conv1", "trunk.bn1", "trunk.layer1"]
        return {
            name: lambda ours, in_turn=name == "slices in turn": (Slices(ours, in_turn), early)
            for name in ("slices in turn", "slices as a batch")
        }
    peers = {"MONAI": lambda ours: (Monai(), ["net.conv1", "net.bn1", "net.layer1"])}
    if args.genesis:
        peers = {"Genesis": lambda ours: (Genesis(args.genesis, ours), ["down1", "down2"])} | peers
    return peers


class Slices(nn.Module):
    """torchvision's ResNet-18 on slices, with the weights and the head of ours."""

    def __init__(self, ours: nn.Module, in_turn: bool):
        super().__init__()
        from torchvision.models import resnet18

        self.trunk = resnet18(weights=None)
        self.trunk.load_state_dict(ours.backbone.state_dict(), strict=False)  # all but fc, which is not used
        self.trunk.fc = nn.Identity()
        self.gate, self.classifier, self.slice_logits = ours.gate, ours.classifier, ours.slice_logits
        self.in_turn = in_turn

    def forward(self, x: Tensor) -> Tensor:
        if self.in_turn:
            z = torch.stack([self.output(x[:, :, s]) for s in range(x.shape[2])], dim=1)
        else:
            z = self.output(x.transpose(1, 2).reshape(-1, x.shape[1], *x.shape[3:])).view(len(x), -1)
        return (z.float() * torch.sigmoid(self.slice_logits)).sum(dim=1)

    def output(self, x: Tensor) -> Tensor:
        trunk = self.trunk
        x = trunk.layer1(trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(x)))))
        fine = trunk.layer3(trunk.layer2(x))
        last = trunk.layer4(fine)
        features = trunk.avgpool(last).flatten(1)
        if self.gate is not None:
            features = torch.cat([features, trunk.avgpool(self.gate(fine, last)[0]).flatten(1)], dim=1)
        return self.classifier(features).squeeze(1)


class Genesis(nn.Module):
    """The encoder of Models Genesis with a first layer for three channels, and the head of ours."""

    def __init__(self, path: Path, ours: nn.Module):
        super().__init__()
        spec = importlib.util.spec_from_file_location("published_unet3d", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        published = module.UNet3D()
        self.down1, self.down2 = published.down_tr64, published.down_tr128
        self.down3, self.down4 = published.down_tr256, published.down_tr512
        first = self.down1.ops[0]
        first.conv1 = nn.Conv3d(3, first.conv1.out_channels, kernel_size=3, padding=1)
        self.gate2, self.gate3, self.classifier = ours.gate2, ours.gate3, ours.classifier

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down2(self.down1(x)[0])[0]
        finer = self.down3(fine)[0]
        bottom = self.down4(finer)[0]
        features = [bottom]
        if self.gate2 is not None:
            features += [self.gate2(fine, bottom)[0], self.gate3(finer, bottom)[0]]
        return self.classifier(torch.cat([f.mean(dim=(2, 3, 4)) for f in features], dim=1)).squeeze(1).float()


class Monai(nn.Module):
    """MONAI's 3D ResNet-18 with one output."""

    def __init__(self):
        super().__init__()
        from monai.networks.nets import resnet18

        self.net = resnet18(spatial_dims=3, n_input_channels=3, num_classes=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).squeeze(1).float()


def compare(args: argparse.Namespace, model: str, number: int, name: str, build: Callable) -> None:
    """Ours and a peer in one phase, in turn."""
    phase, device = PAPER[number], torch.device(args.device)
    d, h, w = args.size
    torch.manual_seed(0)
    ours = build_model(model, WIDTH[model], [2 * w, h, d], phase.attention)
    try:
        peer, early = build(ours)
    except ImportError as error:
        print(f"{model} phase {number}, {name}: {error}; left out")
        return
    size = args.batch_size
    split = kept = Split([], torch.rand(size, 3, d, h, w).half(), torch.arange(size) % 2.0)
    learner = ours.to(device)
    peer.to(device)
    if phase.freezes:
        freeze(ours, FROZEN[model])
        freeze(peer, early)
        learner, (kept,) = cache_features(ours, [split], device, args.precision, lambda text: None)
    pairs = []
    for network, its in ((learner, kept), (peer, split)):
        optimizer = build_optimizer(network, phase.lr, phase.final_lr)
        pairs.append(
            (
                lambda network=network, its=its, optimizer=optimizer: train_one_epoch(
                    network, optimizer, LOSS, batches(its, range(size), size, device), args.precision
                ),
                lambda network=network, its=its: predict(network, its.hemispheres, size, device, args.precision),
            )
        )
    gflop = []
    for train, _ in pairs:  # not counted in time: torch chooses its algorithms here
        with FlopCounterMode(display=False) as counter:
            train()
        gflop.append(counter.get_total_flops() / 1e9)
    text = []
    for what, turn in (("step", 0), ("evaluation", 1)):
        seconds = [tuple(least(1, device, pair[turn]) for pair in pairs) for _ in range(args.rounds)]
        ratios = sorted(b / a for a, b in seconds)
        text.append(
            f"{what} {min(a for a, _ in seconds):.2f} and {min(b for _, b in seconds):.2f} s, ratio "
            f"{statistics.median(ratios):.2f} [{ratios[0]:.2f}-{ratios[-1]:.2f}]"
        )
    print(
        f"{model} phase {number}, ours and {name}: {'; '.join(text)}; operations of a step {gflop[0]:.0f} and "
        f"{gflop[1]:.0f} GFLOP",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
