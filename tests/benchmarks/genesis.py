"""The distortion beside the published Models Genesis code, on the same hemisphere and CPU, in one run.

    python tests/benchmarks/genesis.py                               ours alone
    python tests/benchmarks/genesis.py ModelsGenesis/pytorch         and the published code of that checkout

The published code (non-commercial licence) is no part of this suite: it is run from the checkout that is named, if one
is. Its functions are taken from utils.py alone, since its imports want packages that they do not use.
"""

import ast
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tss.training import genesis  # noqa: E402

SHAPE = (3, 26, 224, 112)
REPEATS = 20


def main() -> int:
    rng = np.random.default_rng(0)
    hemisphere = rng.random(SHAPE, dtype=np.float32)
    before = hemisphere.copy()
    ours = mean_seconds(lambda: genesis.distort(hemisphere, rng))
    distorted = np.stack([genesis.distort(hemisphere, rng) for _ in range(REPEATS)])
    changed = (distorted != hemisphere).mean(axis=(0, 2, 3, 4)).round(2)
    print(
        f"ours       {1000 * ours:7.1f} ms a hemisphere {SHAPE}; share of voxels changed by channel: {changed}; "
        f"input left alone: {np.array_equal(before, hemisphere)}"
    )
    if len(sys.argv) > 1:
        theirs = published(Path(sys.argv[1]) / "utils.py")
        seconds = mean_seconds(lambda: theirs(hemisphere))
        print(f"published  {1000 * seconds:7.1f} ms a hemisphere; ours is {seconds / ours:.1f} times as fast")
    return 0


def mean_seconds(step) -> float:
    step()
    started = time.perf_counter()
    for _ in range(REPEATS):
        step()
    return (time.perf_counter() - started) / REPEATS


def published(path: Path):
    """The published way of distorting, with its own rates (config.py) but no flips, on (C, D, H, W)."""
    import copy
    import random

    from scipy.special import comb

    tree = ast.parse(path.read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    names = {"np": np, "random": random, "copy": copy, "comb": comb}
    exec(compile(ast.Module(functions, []), str(path), "exec"), names)
    random.seed(0)
    np.random.seed(0)

    def distort(volume: np.ndarray) -> np.ndarray:
        x = copy.deepcopy(volume).transpose(0, 2, 3, 1)  # its volumes are (C, rows, columns, slices)
        x = names["local_pixel_shuffling"](x, prob=genesis.SHUFFLE_RATE)
        x = names["nonlinear_transformation"](x, genesis.NONLINEAR_RATE)
        if random.random() < genesis.PAINT_RATE:
            inside = random.random() >= genesis.OUT_PAINT_SHARE
            x = names["image_in_painting" if inside else "image_out_painting"](x)
        return x

    return distort


if __name__ == "__main__":
    sys.exit(main())
