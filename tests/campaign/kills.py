"""Kills at random moments, full disks, places without rights or memory: the same command again ends as if undisturbed.

In:  how many, and a seed; preprocessing with jobs, training in 2D and 3D, evaluation, and the study of Table 2, tiny.
Out: a line for each finding, counts by kind; exit code 1 where there are findings.
Paper: none (our choice: cluster jobs are killed, and their disks are full).
See: tests/campaign/test_kills.py

    python tests/campaign/kills.py --count 100 --seed 0                kills
    python tests/campaign/kills.py --count 10 --seed 0 --kinds 2d 3d
    python tests/campaign/kills.py --full-disk 30 --seed 0             needs root and Linux: it mounts
    python tests/campaign/kills.py --surroundings                      likewise

After each: no process is left after 10 s; the same command again, with --resume or --overwrite where the program says
so, leaves the same files with the same bytes as a run that nobody disturbed, and none beside them. The moment of a
kill is a share of the CPU time that the undisturbed run took, so that a busy machine changes nothing.
"""

import argparse
import contextlib
import ctypes
import hashlib
import importlib
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import heads  # noqa: E402
import numpy as np  # noqa: E402

IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
SECONDS_LEFT, HANG_SECONDS = 10, 600  # a busy machine may take long; what hangs takes for ever
TICKS = os.sysconf("SC_CLK_TCK")
MOUNT_NAMESPACE = 0x20000  # of unshare(2)


class Kind(NamedTuple):
    """One program as it is typed, and what is added to type it again after an interruption."""

    program: str  # module with main(argv)
    words: list[str]  # without --out
    again: list[str]
    jobs: bool = False  # it has workers


class Whole(NamedTuple):
    """What the undisturbed run left, and took."""

    files: dict[str, str]  # path below OUT -> SHA-256
    bytes: int  # on a file system with pages of 4096 bytes
    cpu: float  # seconds


def make_kinds(folder: Path) -> dict[str, Kind]:
    """Write the inputs; return the five programs."""
    from tiny_data import write_tiny_data
    from untrained import save_checkpoint

    tiny = write_tiny_data(folder / "tiny")
    checkpoints = [save_checkpoint(folder / f"phase{phase}" / "best.pt", phase, tiny) for phase in (1, 3, 4)]
    raw = folder / "raw"
    raw.mkdir()
    heads.DWI_GRID, heads.FLAIR_GRID = ((28, 34, 24), (7.0, 7.0, 6.5)), ((36, 42, 23), (5.4, 5.4, 6.8))
    heads.ATLAS_GRID = (30, 36, 30), (6.0, 6.0, 6.0)
    table, atlas = heads.write_cohort(raw, 3), heads.write_atlas(raw / "atlas.nii.gz")
    prepare = [str(table), "--atlas", str(atlas), "--tools", "builtin", "--grid", "32", "32", "8", "--jobs", "2"]
    quick = ["--data", str(tiny), "--width", "4", "--lr", "0.003", "--device", "cpu", "--epochs"]
    train = ["--phase", "all", *quick]
    return {
        "preprocessing": Kind("run_preprocess", prepare, [], jobs=True),
        "2d": Kind("run_train", ["--model", "2d", *train, "2"], ["--resume"]),
        "3d": Kind("run_train", ["--model", "3d", *train, "1"], ["--resume"]),
        "evaluation": Kind(
            "run_eval",
            [*checkpoints, "--data", str(tiny), "--gradcam", "0", "--device", "cpu"],
            ["--overwrite"],
        ),
        "study": Kind("tss.study.__main__", ["table2", "--model", "2d", *quick, "1"], []),
    }


# A program in a process of its own


class Runner:
    """Runs the kinds in forks, which need not load torch again."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed, self.out, self.log = folder, seed, folder / "out", folder / "log"
        self.kinds = make_kinds(folder)
        self.wholes: dict[str, Whole] = {}
        self.slowest = 0.0  # seconds until the last process had ended
        load_modules()

    def start(self, name: str, again: bool = False, before: Callable[[], object] = lambda: None) -> int:
        """Start a program; returns its process. before: what is done to its surroundings."""
        kind = self.kinds[name]
        words = [*kind.words, "--out", str(self.out), *kind.again * again]
        sys.stdout.flush()
        child = os.fork()
        if child:
            return child
        code = 70
        try:
            os.setsid()
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout = sys.stderr = open(self.log, "a")  # pytest has others  # noqa: SIM115
            sys.modules["__main__"] = module = importlib.import_module(kind.program)  # which workers load
            make_cheaper()
            before()
            code = module.main(words)
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:
            with contextlib.suppress(BaseException):
                traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
            os._exit(code)

    def finish(self, child: int) -> tuple[int, float]:
        """Wait for a program; returns its exit code and its CPU seconds. One that hangs is killed: -9."""
        deadline = time.monotonic() + HANG_SECONDS
        while True:
            ended, status, used = os.wait4(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
            if time.monotonic() > deadline:
                os.killpg(child, signal.SIGKILL)
            time.sleep(0.02)

    def whole(self, name: str) -> Whole:
        """Run a program undisturbed, once."""
        if name not in self.wholes:
            self.clear()
            code, cpu = self.finish(self.start(name))
            assert code == 0, self.said()
            self.wholes[name] = Whole(files_in(self.out), pages_of(self.out), cpu)
            self.clear()
        return self.wholes[name]

    def clear(self) -> None:
        for path in sorted(self.out.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def left_running(self, session: int) -> str:
        """Wait until a session has no process; returns what is left of it after 10 s."""
        started = time.monotonic()
        while left := processes_of(session):
            if time.monotonic() - started > SECONDS_LEFT:
                return f"{len(left)} processes are left after {SECONDS_LEFT} s: {[words_of(one) for one in left]}"
            time.sleep(0.05)
        self.slowest = max(self.slowest, time.monotonic() - started)
        return ""

    def ends_the_same(self, name: str) -> list[str]:
        """Type the command again; returns what differs from the undisturbed run."""
        code, _ = self.finish(self.start(name, again=True))
        if code:
            return [f"again: exit code {code}: {self.said()[-300:]}"]
        return differences(self.wholes[name].files, files_in(self.out))


def load_modules() -> None:
    """What every fork would load again: torch, its optimizer, matplotlib, the older methods."""
    import torch

    for name in ("evaluation.evaluate", "evaluation.older_methods", "study.__main__"):
        importlib.import_module(f"tss.{name}")
    for name in ("calibration", "roc", "training"):
        importlib.import_module(f"tss.display.{name}_plots")
    from tss.training import epoch

    epoch.build_optimizer(torch.nn.Linear(1, 1), 1e-3, 1e-2)


def make_cheaper() -> None:
    """In a fork: curves are written as words, and the study has one chain and no Grad-CAM."""
    from tss.data.files import write_text
    from tss.display import training_plots
    from tss.study import table2_study

    training_plots.draw_curves = lambda path, *shown: write_text(path, repr(shown))
    table2_study.CHAINS = {"2d": ("random",)}  # and the extended recipe's, which follows
    table2_study.PICTURES = 0  # the tiny DATA has no scans to draw on


def files_in(folder: Path) -> dict[str, str]:
    every = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in every}


def pages_of(folder: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def differences(whole: dict[str, str], found: dict[str, str]) -> list[str]:
    lost, stray = sorted(whole.keys() - found.keys()), sorted(found.keys() - whole.keys())
    other = sorted(name for name in whole.keys() & found.keys() if whole[name] != found[name])
    named = (("lost", lost), ("stray", stray), ("differs", other))
    return [f"{what}: {', '.join(names[:5])}" for what, names in named if names]


def stat_of(process: int) -> list[str]:
    """State, parent, group, session, ... of a process; [] where it is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def processes_of(session: int) -> list[int]:
    every = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    stats = {process: stat_of(process) for process in every}
    return [process for process, stat in stats.items() if stat and stat[3] == str(session) and stat[0] != "Z"]


def words_of(process: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")[-120:]
    return ""


def children_of(process: int) -> list[int]:
    with contextlib.suppress(OSError):
        tasks = Path(f"/proc/{process}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text().split()]
    return []


def workers_of(process: int) -> list[int]:
    return [child for child in children_of(process) if "spawn_main" in words_of(child)]


def cpu_of(process: int) -> float:
    """CPU seconds of a process and of what it has started."""
    stats = [stat_of(one) for one in (process, *children_of(process))]
    return sum(sum(map(int, stat[11:15])) for stat in stats if stat) / TICKS


# Kills


def kill_once(runner: Runner, name: str, number: int) -> tuple[str, list[str]]:
    """Kill a program, or one of its workers, at a random moment; type it again. Returns what was killed, findings."""
    rng = np.random.default_rng([runner.seed, number])
    whole = runner.whole(name)
    for _ in range(20):  # a run may have ended before its moment comes
        share = rng.uniform(0, 1)
        of_worker = runner.kinds[name].jobs and rng.random() < 0.5
        runner.clear()
        child = runner.start(name)
        victim = wait_for(child, share * whole.cpu, of_worker, rng)
        if victim:
            time.sleep(rng.uniform(0, 0.02))
            break
        runner.finish(child)
    else:
        return "nothing", [f"{name} ended 20 times before it was killed"]
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    found = []
    code, _ = runner.finish(child)
    if of_worker and (code not in (0, 2) or (code == 2 and "worker was killed" not in runner.said())):
        found.append(f"exit code {code} without a worker: {runner.said()[-300:]}")
    if "Traceback" in runner.said():
        found.append(f"a traceback: {runner.said()[-300:]}")
    if left := runner.left_running(child):
        found.append(left)
    what = f"{'worker' if of_worker else 'program'} at {share:.0%}, {len(files_in(runner.out))} files"
    return what, found + runner.ends_the_same(name)


def wait_for(child: int, cpu: float, of_worker: bool, rng: np.random.Generator) -> int:
    """Wait until a program has used so much CPU time; returns whom to kill, 0 where it has ended."""
    while True:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return 0
        if cpu_of(child) >= cpu:
            workers = workers_of(child) if of_worker else [child]
            if workers:
                return int(rng.choice(workers))
        time.sleep(0.005)


def kills(runner: Runner, kinds: Sequence[str], count: int) -> list[str]:
    lines = []
    for number in range(count):
        name = kinds[number % len(kinds)]
        what, found = kill_once(runner, name, number)
        print(f"kill {number + 1}: {name}, {what}: {'; '.join(found) or 'the same'}", flush=True)
        lines += [f"--seed {runner.seed}, kill {number + 1}, {name}, {what}: {one}" for one in found]
    return lines


# Full disks


def mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def own_mounts() -> None:
    """Mounts from here on are this process's and its children's, and end with them."""
    if ctypes.CDLL(None, use_errno=True).unshare(MOUNT_NAMESPACE):
        raise OSError(ctypes.get_errno(), "unshare: only root on Linux may mount")
    mount("--make-rprivate", "/")


def full_disks(runner: Runner, kinds: Sequence[str], count: int) -> list[str]:
    """Run programs on file systems that are too small at random points, make room, and type them again."""
    lines = []
    own_mounts()
    for name in kinds:
        runner.whole(name)
    runner.out.mkdir(exist_ok=True)
    for number in range(count):
        name = kinds[number % len(kinds)]
        rng = np.random.default_rng([runner.seed, 99, number])
        pages = int(rng.uniform(0, 0.95) * runner.wholes[name].bytes / 4096)
        mount("-t", "tmpfs", "-o", f"size={max(1, pages) * 4096}", "none", runner.out)
        code, _ = runner.finish(runner.start(name))
        found = why_no_sentence(code, runner.said(), ("Free some space",))
        found += [f"half a file: {path}" for path in files_in(runner.out) if re.search(r"(^|/)\.\d+\.", path)]
        mount("-o", "remount,size=1g", runner.out)
        found += runner.ends_the_same(name)
        subprocess.run(["umount", str(runner.out)], check=True)
        print(
            f"disk {number + 1}: {name}, {pages} pages, exit code {code}: {'; '.join(found) or 'the same'}", flush=True
        )
        lines += [f"{name}, disk of {pages} pages: {one}" for one in found]
    return lines


def why_no_sentence(code: int, said: str, wanted: Sequence[str]) -> list[str]:
    """Return what is wrong with how a program ended that could not do its work."""
    if "Traceback" in said or code not in (0, 1, 2):
        return [f"exit code {code}: {said[-300:]}"]
    if code and not any(one in said for one in wanted):
        return [f"exit code {code} without a remedy: {said[-300:]}"]
    return []


# Surroundings


def no_shared_memory() -> None:
    own_mounts()
    mount("-t", "tmpfs", "-o", "ro", "none", "/dev/shm")


def less_memory(megabytes: int) -> Callable[[], None]:
    def limit() -> None:
        here = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (here + megabytes * 2**20, -1))

    return limit


def no_folder() -> None:
    gone = tempfile.mkdtemp()
    os.chdir(gone)
    os.rmdir(gone)


def surroundings(runner: Runner, kinds: Sequence[str]) -> list[str]:
    """Run programs where they may not write, without shared memory, with little memory, in a folder that is gone."""
    lines = []
    own_mounts()
    for name in kinds:
        runner.whole(name)
    runner.out.mkdir(exist_ok=True)
    memory = {f"{size} MB of memory": less_memory(size) for size in (1, 4, 16, 64, 256)}
    cases = {"no shared memory": no_shared_memory, "no working folder": no_folder, **memory}
    for name in kinds:
        mount("-t", "tmpfs", "-o", "ro,size=1g", "none", runner.out)
        code, _ = runner.finish(runner.start(name))
        found = why_no_sentence(code or 70, runner.said(), ("--out",))
        lines += say(name, "read-only", code, found)
        mount("-o", "remount,rw", runner.out)
        for what, before in cases.items():
            runner.clear()
            code, _ = runner.finish(runner.start(name, before=before))
            found = why_no_sentence(code, runner.said(), ("--jobs", "memory", "change to another", "--device cpu"))
            found += [f"half a file: {path}" for path in files_in(runner.out) if re.search(r"(^|/)\.\d+\.", path)]
            lines += say(name, what, code, found + runner.ends_the_same(name))
        subprocess.run(["umount", str(runner.out)], check=True)
    return lines


def say(name: str, what: str, code: int, found: list[str]) -> list[str]:
    print(f"{name}, {what}, exit code {code}: {'; '.join(found) or 'as it should'}", flush=True)
    return [f"{name}, {what}: {one}" for one in found]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=0, help="kills")
    parser.add_argument("--full-disk", type=int, default=0, metavar="N", help="points at which the disk is full")
    parser.add_argument("--surroundings", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", default=["preprocessing", "2d", "3d", "evaluation", "study"])
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="tss-kills-", dir=None if given.surroundings else IN_MEMORY) as folder:
        runner = Runner(Path(folder), given.seed)
        lines = kills(runner, given.kinds, given.count)
        if given.full_disk:
            lines += full_disks(runner, given.kinds, given.full_disk)
        if given.surroundings:
            lines += surroundings(runner, given.kinds)
        for name, whole in runner.wholes.items():
            print(f"{name}: {len(whole.files)} files, {whole.cpu:.1f} s of CPU")
    print(f"longest until no process was left: {runner.slowest:.1f} s")
    print(f"findings: {len(lines)}", *lines, sep="\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
