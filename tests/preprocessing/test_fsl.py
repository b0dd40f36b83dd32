"""FSL, in our order and the paper's: commands, FLIRT's matrix by hand, words of failure. Scripts stand in for FSL."""

import csv
import json
import os
from pathlib import Path

import heads
import nibabel
import numpy as np
import pytest
from processes import ends
from quick_preprocessing import no_bias_correction, no_pictures

import run_preprocess
from tss.data.nifti import Volume, load, resample
from tss.errors import InputError
from tss.preprocessing import fsl
from tss.preprocessing.tools import LITERAL

REAL = Path(os.environ.get("TSS_REAL", Path(__file__).parents[3] / "shared" / "real"))
RAS = np.array([[2.0, 0, 0, -90], [0, 3, 0, -60], [0, 0, 5, -40], [0, 0, 0, 1]])
LAS = np.array([[-2.0, 0, 0, 88], [0, 3, 0, -60], [0, 0, 5, -40], [0, 0, 0, 1]])  # the same 90 columns, x mirrored
SHAPE = (90, 40, 16)

COPY = 'cp "$1" "$2"\n'  # what fslreorient2std does with an image that is in order
HALF_MASK = 'cp "$1" "$2_mask.nii.gz"\n'  # a "mask": wherever the input is not zero


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Return a function that makes one of FSL's programs out of a line of shell, in an FSL folder of its own."""
    home = tmp_path / "fsl folder"  # the space is part of the test
    (home / "bin").mkdir(parents=True)
    (home / "etc").mkdir()
    (home / "etc" / "fslversion").write_text("6.0.4:ddd0a010\n")
    monkeypatch.setenv("FSLDIR", str(home))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))

    def make(name: str, body: str) -> Path:
        program = home / "bin" / name
        program.write_text(f'#!/bin/sh\necho "$(basename "$0") $*" >> "$FAKE_LOG"\n{body}')
        program.chmod(0o755)
        return home

    make("fslreorient2std", COPY)
    return make


def said(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().splitlines()


def ball(affine: np.ndarray = RAS) -> Volume:
    """A head of noise with a bright ball of 60 mm radius in it."""
    world = np.moveaxis(np.indices(SHAPE), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    noise = np.random.default_rng(0).uniform(1, 5, SHAPE)
    return Volume(np.where(np.linalg.norm(world, axis=-1) < 60, 100, noise).astype(np.float32), affine)


def image(affine: np.ndarray, shape: tuple[int, ...] = SHAPE) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image(np.zeros(shape, np.uint8), affine)


def test_command_lines():
    assert fsl.bet_command("dwi.nii.gz", "brain") == ["bet", "dwi.nii.gz", "brain", "-m", "-R", "-f", "0.3"]
    assert fsl.bet_command("b0.nii.gz", "brain", ()) == ["bet", "b0.nii.gz", "brain", "-m"]
    search = "-searchrx -30 30 -searchry -30 30 -searchrz -30 30"
    assert " ".join(fsl.flirt_command("m", "f", "x.mat", 12)) == (
        f"flirt -in m -ref f -omat x.mat -dof 12 -cost corratio {search}"
    )
    assert " ".join(fsl.flirt_command("m", "f", "x.mat", 6, "w")) == (
        f"flirt -in m -ref f -omat x.mat -dof 6 -cost corratio {search} -usesqform -refweight w"
    )


# FLIRT's identity, "same mm", worked by hand. FLIRT's x runs from the right end (RAS: column 89, world x = 88)
# or from column 0 (LAS: world x = 88): in both it is 88 - x, y + 60, z + 40.
@pytest.mark.parametrize("moving", [RAS, LAS], ids=["moving RAS", "moving LAS"])
@pytest.mark.parametrize("fixed", [RAS, LAS], ids=["fixed RAS", "fixed LAS"])
def test_flirt_matrix_to_world_by_hand(moving, fixed):
    assert np.allclose(fsl.flirt_to_world(np.eye(4), image(moving), image(fixed)), np.eye(4), atol=1e-12)

    # 7 mm along FLIRT's x is 7 mm to the patient's left; y and z are the world's own.
    shift = np.eye(4)
    shift[:3, 3] = 7, 11, -13
    by_hand = np.eye(4)
    by_hand[:3, 3] = -7, 11, -13
    assert np.allclose(fsl.flirt_to_world(shift, image(moving), image(fixed)), by_hand, atol=1e-12)

    # Half the size about FLIRT's origin, world (88, -60, -40): x -> 44 + x / 2, y -> y / 2 - 30, z -> z / 2 - 20.
    half = np.diag([0.5, 0.5, 0.5, 1.0])
    by_hand = np.array([[0.5, 0, 0, 44], [0, 0.5, 0, -30], [0, 0, 0.5, -20], [0, 0, 0, 1]])
    assert np.allclose(fsl.flirt_to_world(half, image(moving), image(fixed)), by_hand, atol=1e-12)


def test_flirt_matrix_between_different_grids_by_hand():
    # fixed: 10 columns of 4 mm, RAS, first at x = -20, so FLIRT's x = 16 - x there, y + 0, z + 0.
    fixed = image(np.array([[4.0, 0, 0, -20], [0, 4, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1]]), (10, 10, 10))
    world = fsl.flirt_to_world(np.eye(4), image(LAS), fixed)
    # A point at world (88, -60, -40) of the moving scan is FLIRT's (0, 0, 0), hence world (16, 0, 0) of the fixed one.
    assert np.allclose(world @ [88, -60, -40, 1], [16, 0, 0, 1], atol=1e-12)
    assert np.allclose(world @ [78, -50, -40, 1], [6, 10, 0, 1], atol=1e-12)


def test_find_affine_types_flirt_and_reads_its_matrix(fake, tmp_path):
    fake("flirt", "printf '1 0 0 7\\n0 1 0 0\\n0 0 1 0\\n0 0 0 1\\n' > matrix.mat\n")
    scan = ball()
    world = fsl.find_affine(scan, scan, 6, fixed_mask=scan.data > 50)
    assert np.allclose(world[:3, 3], [-7, 0, 0], atol=1e-5) and np.allclose(world[:3, :3], np.eye(3), atol=1e-6)
    assert said(tmp_path) == [
        "fslreorient2std as_given_moving.nii.gz moving.nii.gz",
        "fslreorient2std as_given_fixed.nii.gz fixed.nii.gz",
        "fslreorient2std as_given_weight.nii.gz weight.nii.gz",
        " ".join(fsl.flirt_command("moving.nii.gz", "fixed.nii.gz", "matrix.mat", 6, "weight.nii.gz")),
    ]


def test_find_affine_uses_the_order_in_which_the_file_is_stored(fake):
    """An image that fslreorient2std has left in LAS order is read as such: here it is written so outright."""
    fake("flirt", "printf '1 0 0 7\\n0 1 0 0\\n0 0 1 0\\n0 0 0 1\\n' > matrix.mat\n")
    assert np.allclose(fsl.find_affine(ball(LAS), ball(RAS), 12)[:3, 3], [-7, 0, 0], atol=1e-5)


@pytest.mark.parametrize("left", ["what is this", "1 0 0 0", "nan 0 0 0\\n0 1 0 0\\n0 0 1 0\\n0 0 0 1",
                                  "0 0 0 0\\n0 1 0 0\\n0 0 1 0\\n0 0 0 1"])  # fmt: skip
def test_matrix_that_is_no_affine_is_refused(fake, left):
    fake("flirt", f"printf '{left}\\n' > matrix.mat\n")
    with pytest.raises(InputError, match="FLIRT found no usable affine for .*builtin"):
        fsl.find_affine(ball(), ball(), 12)


def test_find_brain_reads_bets_mask_and_clears_its_folder(fake, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary files"))
    (tmp_path / "temporary files").mkdir()
    scan = ball()
    truth = Volume((scan.data > 50).astype(np.float32), scan.affine)
    nibabel.save(nibabel.Nifti1Image(truth.data, truth.affine), tmp_path / "mask.nii.gz")
    fake("bet", f'echo "$FSLOUTPUTTYPE" "$FSLDIR" >> "$FAKE_LOG"\ncp "{tmp_path}/mask.nii.gz" "$2_mask.nii.gz"\n')
    assert np.array_equal(fsl.find_brain(scan, scan), truth.data > 0)
    assert said(tmp_path)[1:] == ["bet scan.nii.gz brain -m -R -f 0.3", f"NIFTI_GZ {tmp_path}/fsl folder"]
    assert list((tmp_path / "temporary files").iterdir()) == []


def test_stripped_scan_is_kept_whole(fake, tmp_path):
    """A ball in zeros, with a hole in it: BET's mask, here eaten away, gives way to the ball, hole filled."""
    scan = ball()
    bright = scan.data > 50
    holed = np.where(bright, scan.data, 0)
    holed[44:47, 19:22, 8:9] = 0
    eaten = nibabel.Nifti1Image((bright & (np.indices(SHAPE)[1] > 12)).astype(np.uint8), RAS)
    nibabel.save(eaten, tmp_path / "mask.nii.gz")
    fake("bet", f'cp "{tmp_path}/mask.nii.gz" "$2_mask.nii.gz"\n')
    stripped = scan._replace(data=holed)
    kept = fsl.find_brain(stripped, stripped)
    assert kept[44:47, 19:22, 8:9].all() and (kept & ~bright).sum() == 0
    assert kept.sum() > 0.99 * bright.sum()  # corners of a single voxel may go


def test_zeroed_background_of_a_whole_head_is_no_stripped_skull(fake, tmp_path):
    """What is twice the brain that BET finds in it is still a head, though most of the volume is zero."""
    head = Volume(np.zeros((90, 60, 40), np.float32), RAS)
    head.data[20:70, 10:50, 10:30] = 100
    brain = np.zeros(head.data.shape, np.uint8)
    brain[20:45, 10:50, 10:30] = 1
    nibabel.save(nibabel.Nifti1Image(brain, RAS), tmp_path / "mask.nii.gz")
    fake("bet", f'cp "{tmp_path}/mask.nii.gz" "$2_mask.nii.gz"\n')
    assert np.array_equal(fsl.find_brain(head, head), brain)


def test_failure_shows_the_command_and_the_last_words(fake):
    fake("bet", 'for i in 1 2 3 4 5 6 7 8 9; do echo "line $i" >&2; done\necho "image is 5-D" >&2\nexit 3\n')
    with pytest.raises(InputError) as caught:
        fsl.find_brain(ball(), ball())
    message = str(caught.value)
    assert "bet failed with exit code 3 (bet scan.nii.gz brain -m -R -f 0.3)" in message
    assert message.endswith("line 9\nimage is 5-D") and "line 2" not in message


def test_success_without_a_file_is_a_failure(fake):
    fake("bet", 'echo "Error: input image not valid"\n')  # bet says so on stdout, and exits with 0
    with pytest.raises(
        InputError, match="(?s)ended without an error but left no brain_mask.nii.gz.*input image not valid"
    ):
        fsl.find_brain(ball(), ball())


def test_empty_mask_is_a_failure(fake, tmp_path):
    nibabel.save(image(RAS), tmp_path / "empty.nii.gz")
    fake("bet", f'cp "{tmp_path}/empty.nii.gz" "$2_mask.nii.gz"\n')
    with pytest.raises(InputError, match="head.nii.gz: BET found no brain in it"):
        fsl.find_brain(ball()._replace(path=Path("head.nii.gz")), ball())


def test_hang_is_ended_with_all_that_it_started(fake, tmp_path):
    fake("bet", f"sh -c 'echo $$ > \"{tmp_path}/child\"; sleep 60' &\nsleep 60\n")
    with pytest.raises(InputError, match="bet was stopped after 1 s without a result .bet a b -m"):
        fsl.run(fsl.bet_command("a", "b"), makes=tmp_path / "b_mask.nii.gz", timeout=1)
    ends(int((tmp_path / "child").read_text()))


def test_missing_program_names_every_place_searched(tmp_path, monkeypatch):
    monkeypatch.setenv("FSLDIR", "/opt/no-fsl")
    monkeypatch.setenv("PATH", f"{tmp_path}/one:{tmp_path}/two")
    with pytest.raises(InputError) as caught:
        fsl.find_brain(ball(), ball())
    assert str(caught.value) == (
        f"FSL's fslreorient2std was not found: no fslreorient2std or fsl5.0-fslreorient2std in /opt/no-fsl/bin, "
        f"{tmp_path}/one, {tmp_path}/two. Set FSLDIR to the folder where FSL is installed, or use --tools builtin."
    )
    assert not fsl.available()
    with pytest.raises(InputError, match="was not found"):
        fsl.describe()


def test_program_that_is_not_for_this_machine(fake, tmp_path):
    home = fake("bet", "")
    (home / "bin" / "bet").write_bytes(b"\xfe\xed\xfa\xcf")
    with pytest.raises(InputError, match="bet cannot be started: .*--tools builtin"):
        fsl.run(fsl.bet_command("a", "b"), makes=tmp_path / "b_mask.nii.gz")


def test_literal_order_looks_for_the_brain_on_b0_and_once_more_after_registration(fake, tmp_path):
    fake("bet", HALF_MASK)
    b0 = ball()._replace(data=np.where(ball().data > 50, 100, 0).astype(np.float32))
    assert np.array_equal(LITERAL.find_brain(ball(), b0), b0.data > 0)
    assert np.array_equal(LITERAL.second_brain(b0, np.ones(SHAPE, bool)), b0.data > 0)
    assert said(tmp_path)[1::2] == ["bet scan.nii.gz brain -m"] * 2  # with BET's own fraction


@pytest.mark.slow
def test_a_cohort_in_the_literal_order_says_so_and_refuses_the_other(fake, tmp_path, monkeypatch, capsys):
    no_pictures(monkeypatch)
    no_bias_correction(monkeypatch)
    fake("bet", HALF_MASK)
    home = fake("flirt", "printf '1 0 0 0\\n0 1 0 0\\n0 0 1 0\\n0 0 0 1\\n' > matrix.mat\n")
    table = heads.write_cohort(tmp_path, 1)
    heads.write_table(tmp_path, [row | {"split": "train"} for row in csv.DictReader(open(table, newline=""))])
    line = [
        str(table),
        "--out",
        str(tmp_path / "data"),
        "--grid",
        "24",
        "24",
        "16",
        "--atlas",
        str(heads.write_atlas(tmp_path / "atlas.nii.gz")),
    ]
    assert run_preprocess.main([*line, "--tools", "literal"]) == 0
    tools = f"FSL 6.0.4 ({home}), the paper's literal order"
    assert json.loads((tmp_path / "data" / "settings.json").read_text())["tools"] == tools
    record = json.loads((tmp_path / "data" / "transforms" / "p0.json").read_text())
    assert record["tools"] == tools and record["settings"][1] == tools
    assert np.allclose(record["dwi_to_b0"], np.eye(4))
    words = [command.split()[0] for command in said(tmp_path) if not command.startswith("fslreorient2std")]
    assert words == ["bet", "flirt", "flirt", "flirt", "bet"] * 2  # FLAIR, DWI, atlas; as reference and as patient
    capsys.readouterr()
    assert run_preprocess.main([*line, "--tools", "fsl"]) == 2
    assert f"tools was {tools}, now FSL 6.0.4 ({home})" in capsys.readouterr().err


def test_literal_order_without_fsl_is_refused_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("FSLDIR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_preprocess.main(["none.csv", "--out", str(tmp_path / "data"), "--tools", "literal"]) == 2
    assert "FSL's fslreorient2std was not found" in capsys.readouterr().err


def test_where_fsl_is(fake, tmp_path, monkeypatch):
    fake("bet", "")
    assert not fsl.available()  # no flirt yet
    home = fake("flirt", "")
    assert fsl.available() and fsl.describe() == f"FSL 6.0.4 ({home})"

    # On PATH alone, FSLDIR is found from the program: FSL's scripts need it.
    monkeypatch.delenv("FSLDIR")
    monkeypatch.setenv("PATH", f"{home}/bin:{os.environ['PATH']}")
    assert fsl.describe() == f"FSL 6.0.4 ({home})"
    fake("bet", 'echo "$FSLDIR" > made\n')
    fsl.run(["bet"], makes=tmp_path / "made")
    assert (tmp_path / "made").read_text() == f"{home}\n"

    # FSL 6 has wrappers for PATH, in a folder of their own, which call the programs by their full path.
    wrappers = home / "share" / "fsl" / "bin"
    wrappers.mkdir(parents=True)
    for name in fsl.PROGRAMS:
        (wrappers / name).write_text(f'#!/bin/sh\n"{home}/bin/{name}" "$@"\n')
        (wrappers / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrappers}:/usr/bin:/bin")
    assert fsl.describe() == f"FSL 6.0.4 ({home})"
    (tmp_path / "made").unlink()
    fsl.run(["bet"], makes=tmp_path / "made")
    assert (tmp_path / "made").read_text() == f"{home}\n"

    # Debian's names.
    debian = tmp_path / "debian"
    debian.mkdir()
    for name in fsl.PROGRAMS:
        (home / "bin" / name).rename(debian / f"fsl5.0-{name}")
    monkeypatch.setenv("PATH", str(debian))
    assert fsl.find_program("bet") == f"{debian}/fsl5.0-bet"
    assert fsl.describe() == f"FSL of unknown version ({debian})"


@pytest.mark.skipif(not fsl.available() or not REAL.is_dir(), reason="needs FSL (FSLDIR) and ../shared/real")
def test_real_fsl_on_the_isles_patient():
    """About a minute. The skull is off already, so the mask is known; the head is then turned by a known affine."""
    dwi, adc = load(REAL / "isles0001_dwi.nii.gz"), load(REAL / "isles0001_adc.nii.gz")
    mask = fsl.find_brain(dwi, dwi)
    known = dwi.data != 0
    assert 2 * (mask & known).sum() / (mask.sum() + known.sum()) > 0.97

    b0 = Volume(np.where(mask, dwi.data * np.exp(adc.data), 0).astype(np.float32), dwi.affine)
    angle = np.deg2rad(8)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0, 5], [np.sin(angle), np.cos(angle), 0, -6], [0, 0, 1, 4],
                     [0, 0, 0, 1]])  # fmt: skip
    turned = Volume(resample(b0, b0.data.shape, b0.affine, world=turn), b0.affine)
    points = np.argwhere(mask)[::50] @ dwi.affine[:3, :3].T + dwi.affine[:3, 3]
    for dof in (6, 12):
        found = fsl.find_affine(b0, turned, dof)
        apart = points @ (found - turn)[:3, :3].T + (found - turn)[:3, 3]
        assert np.linalg.norm(apart, axis=1).max() < 1.0  # mm
