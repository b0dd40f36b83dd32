"""Time since stroke from MRI: an open implementation of Zhang, Polson et al. 2021.

The folders show the method, tss/README.md is a tour of them, and tests/test_layout.py says who may import whom.
"""

import importlib.util
import os

# Threads that wait for each other sleep instead of spinning: where others share the cores, a step of training took a
# half to a third of the time so, and on a free machine the same. OpenMP reads it when torch is loaded, after this.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# numpy's threads spin too, and gain nothing on matrices as small as ours: preprocessing four patients took 16 s of CPU
# with one of them and over 60 s with two where others shared the cores; on free ones 9 s for two patients either way.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A notebook hands its backend on to what it starts, and matplotlib refuses one that it cannot find. We draw to files.
if os.environ.get("MPLBACKEND", "").startswith(("module://", "inline")) and not importlib.util.find_spec(
    "matplotlib_inline"
):
    del os.environ["MPLBACKEND"]

__version__ = "0.1.0"
