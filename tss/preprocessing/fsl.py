"""FSL, called as an external program: BET finds the brain, FLIRT an affine.

In:  Volumes (X, Y, Z) float32 in RAS, affines voxel -> world mm; FSL in $FSLDIR/bin or on PATH.
Out: a brain mask (X, Y, Z) bool; a world affine (4, 4), mm of the moving scan -> mm of the fixed one.
Paper: 2.1 and Fig. 2 (reorientation, BET, FLIRT).
See: tests/preprocessing/test_fsl.py

`*_command` return a command line as a list; `run` runs it. Options were tried with FSL 5.0.9.
"""

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from tss.data.nifti import Volume, load, resample, save, voxel_sizes
from tss.errors import InputError
from tss.preprocessing.brain_extraction import left_over
from tss.preprocessing.external_program import run_program

PROGRAMS = ("fslreorient2std", "bet", "flirt")
DEBIAN_PREFIX = "fsl5.0-"  # what Debian and Ubuntu put before the names of FSL's programs on PATH
TIMEOUT_S = 1200.0  # our choice: the slowest of the three takes a minute, three on a crowded node; beyond, it hangs
ELSE = "Look at the scan; --tools builtin needs no FSL"
TAIL_LINES = 8  # our choice: enough of a program's last words to see why it stopped

DEFAULTS = ()  # BET with its own options, as in the paper
BET_OPTIONS = ("-R", "-f", "0.3")  # our choice: -R looks again from the centre just found; BET's own fraction of 0.5,
# meant for T1, cuts off 8 % of a DWI brain (ISLES'22, case 1), 0.3 cuts off 1 %
SEARCH_DEGREES = 30  # our choice: no head is turned further, and FLIRT's own 90 would allow heads upside down


def find_brain(dwi: Volume, b0: Volume) -> np.ndarray:
    """Return the brain mask (X, Y, Z) bool on the grid of the DWI.

    BET sees the DWI alone: the eyes and scalp that mislead it on b0 are dark there (decision 12).
    Where the skull has been removed already, what is left is kept whole.

    Raises InputError: BET is missing, fails, hangs, or finds no brain.
    """
    brain = bet(dwi)
    stripped = left_over(dwi, brain, b0)
    return brain if stripped is None else stripped


def bet(scan: Volume, options: Sequence[str] = BET_OPTIONS) -> np.ndarray:
    """Return BET's mask (X, Y, Z) bool of a scan.

    Raises InputError: BET is missing, fails, hangs, or finds no brain.
    """
    with tempfile.TemporaryDirectory(prefix="tss-fsl-") as folder:
        given = _hand_over(scan, Path(folder, "scan.nii.gz"))
        mask_file = Path(folder, "brain_mask.nii.gz")
        run(bet_command(given.name, "brain", options), makes=mask_file)
        if not (mask := load(mask_file, mask=True)).data.any():
            raise InputError(
                f"{scan.path or 'the scan'}: BET found no brain in it (an empty mask). Look at the scan; "
                "if it is a good one, try --tools builtin."
            )
        return resample(mask, scan.data.shape, scan.affine, order=0) > 0.5


def find_affine(
    moving: Volume,
    fixed: Volume,
    dof: int,
    fixed_mask: np.ndarray | None = None,
    moving_padding: np.ndarray | None = None,
) -> np.ndarray:
    """Return the world affine (4, 4) moving -> fixed, by FLIRT.

    dof: 12 for b0 (zero outside the brain) -> atlas brain; 6 for FLAIR -> b0, whole heads.
    fixed_mask: (X, Y, Z) bool on the fixed grid; FLIRT compares the two scans there only.
    moving_padding: not heeded, as not tried with FLIRT; where the moving scan was padded it sees zeros.

    Raises InputError: FLIRT is missing, fails, hangs, or leaves something that is no affine.
    """
    with tempfile.TemporaryDirectory(prefix="tss-fsl-") as folder:
        moving_file = _hand_over(moving, Path(folder, "moving.nii.gz"))
        fixed_file = _hand_over(fixed, Path(folder, "fixed.nii.gz"))
        weight = None
        if fixed_mask is not None:
            mask = Volume(fixed_mask.astype(np.float32), fixed.affine)
            weight = _hand_over(mask, Path(folder, "weight.nii.gz")).name
        matrix_file = Path(folder, "matrix.mat")
        run(flirt_command(moving_file.name, fixed_file.name, matrix_file.name, dof, weight), makes=matrix_file)
        matrix = _read_matrix(matrix_file, moving, fixed)
        return flirt_to_world(
            matrix, nibabel.Nifti1Image.from_filename(moving_file), nibabel.Nifti1Image.from_filename(fixed_file)
        )


def _hand_over(volume: Volume, path: Path) -> Path:
    """Write a volume for FSL, reoriented by FSL's own rule, which FLIRT's search of +-30 degrees relies on.

    What tss.data.nifti.load has read is in that order already and passes unchanged; a Volume made by hand may not be.
    """
    as_given = path.with_name(f"as_given_{path.name}")
    save(as_given, volume.data, volume.affine)
    run(["fslreorient2std", as_given.name, path.name], makes=path)
    return path


def _read_matrix(path: Path, moving: Volume, fixed: Volume) -> np.ndarray:
    try:
        matrix = np.loadtxt(path)
    except ValueError:
        matrix = np.zeros(0)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-3:
        raise InputError(
            f"FLIRT found no usable affine for {moving.path or 'the moving scan'} -> "
            f"{fixed.path or 'the fixed scan'}. Look at the two; try --tools builtin."
        )
    return matrix


def flirt_to_world(matrix: np.ndarray, moving: nibabel.Nifti1Image, fixed: nibabel.Nifti1Image) -> np.ndarray:
    """Turn FLIRT's matrix (4, 4) into the world affine (4, 4) moving -> fixed.

    world = A_fixed F_fixed^-1 matrix F_moving A_moving^-1, with A: voxel -> world mm and F: voxel -> FLIRT's mm.

    moving, fixed: the images as stored in the files that FLIRT was given; only shape and header are read.
    """
    return (fixed.affine @ np.linalg.inv(_voxel_to_flirt(fixed)) @ matrix
            @ _voxel_to_flirt(moving) @ np.linalg.inv(moving.affine))  # fmt: skip


def _voxel_to_flirt(image: nibabel.Nifti1Image) -> np.ndarray:
    """Return the (4, 4) map voxel -> FLIRT's mm: voxel times size, with x counted from the other end where mirrored.

    FLIRT thinks radiologically: an image stored the other way (determinant > 0, such as RAS) is mirrored when read.
    """
    sizes = voxel_sizes(image.affine)
    to_mm = np.diag([*sizes, 1.0])
    if np.linalg.det(image.affine) > 0:
        to_mm[0, 0] = -sizes[0]
        to_mm[0, 3] = sizes[0] * (image.shape[0] - 1)
    return to_mm


def bet_command(image: str, output: str, options: Sequence[str] = BET_OPTIONS) -> list[str]:
    """Return the command that finds the brain; the mask becomes OUTPUT_mask.nii.gz."""
    return ["bet", image, output, "-m", *options]


def flirt_command(moving: str, fixed: str, matrix: str, dof: int, weight: str | None = None) -> list[str]:
    """Return the command that finds an affine of 12 or 6 degrees of freedom.

    With 12, two brains from two worlds, started from their centres. With 6, two scans of one session, started from the
    scanner's positions (-usesqform). Both by FLIRT's own cost, the correlation ratio: with normmi, though meant for two
    contrasts, a thick-sliced FLAIR (TCGA) landed 17 cm away once it was turned by up to 15 degrees.
    """
    command = ["flirt", "-in", moving, "-ref", fixed, "-omat", matrix, "-dof", str(dof), "-cost", "corratio"]
    for axis in "xyz":
        command += [f"-searchr{axis}", str(-SEARCH_DEGREES), str(SEARCH_DEGREES)]
    if dof == 6:
        command += ["-usesqform"]
    if weight is not None:
        command += ["-refweight", weight]
    return command


def run(command: list[str], makes: Path, timeout: float = TIMEOUT_S) -> None:
    """Run one of FSL's programs in the folder of the file it makes, so that no path with a space reaches its scripts.

    Raises InputError: it is missing, cannot be started, fails, takes longer than `timeout` seconds, or makes no file.
    """
    program = find_program(command[0])
    settings = {"FSLOUTPUTTYPE": "NIFTI_GZ", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if home := _home(program):
        settings["FSLDIR"] = str(home)
    said = shlex.join(command)
    try:
        done = run_program([program, *command[1:]], timeout, makes.parent, os.environ | settings)
    except OSError as error:
        raise InputError(
            f"{program} cannot be started: {error.strerror}. Is this FSL made for this machine? "
            "--tools builtin needs no FSL."
        ) from error
    except subprocess.TimeoutExpired as expired:
        raise InputError(
            f"FSL's {command[0]} was stopped after {timeout:g} s without a result ({said}). {ELSE}."
        ) from expired
    last_words = "\n".join((done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-TAIL_LINES:])
    if done.returncode != 0:
        raise InputError(f"FSL's {command[0]} failed with exit code {done.returncode} ({said}). {ELSE}:\n{last_words}")
    if not makes.is_file():
        raise InputError(
            f"FSL's {command[0]} ended without an error but left no {makes.name} ({said}). {ELSE}:\n{last_words}"
        )


def find_program(name: str) -> str:
    """Return the path of one of FSL's programs.

    Raises InputError: it is neither in $FSLDIR/bin nor on PATH; every folder searched is named.
    """
    folders = [os.path.join(os.environ["FSLDIR"], "bin")] if os.environ.get("FSLDIR") else []
    folders += [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    searched = os.pathsep.join(folders)
    found = shutil.which(name, path=searched) or shutil.which(DEBIAN_PREFIX + name, path=searched)
    if found is None:
        raise InputError(
            f"FSL's {name} was not found: no {name} or {DEBIAN_PREFIX}{name} in {', '.join(folders)}. "
            "Set FSLDIR to the folder where FSL is installed, or use --tools builtin."
        )
    return os.path.abspath(found)


def available() -> bool:
    """Tell whether all of PROGRAMS can be found."""
    try:
        return all(find_program(name) for name in PROGRAMS)
    except InputError:
        return False


def describe() -> str:
    """Return which FSL is used, such as "FSL 6.0.4 (/opt/fsl)". Raises InputError: one of the programs is missing."""
    program = [find_program(name) for name in PROGRAMS][-1]
    home = _home(program)
    if home is None:
        return f"FSL of unknown version ({os.path.dirname(program)})"
    return f"FSL {(home / 'etc' / 'fslversion').read_text().strip().split(':')[0]} ({home})"


def _home(program: str) -> Path | None:
    """Return FSL's own folder, where etc/fslversion is: above the program, or FSLDIR where that is a wrapper.

    FSL 6 has wrappers in share/fsl/bin, three folders down.
    """
    given = [Path(os.environ["FSLDIR"]).absolute()] if os.environ.get("FSLDIR") else []
    for folder in (*Path(program).resolve().parents, *given):
        if (folder / "etc" / "fslversion").is_file():
            return folder
    return None
