"""Files appear whole or not at all, and errors name file, problem and remedy."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tss.data import files
from tss.data.files import alone_in
from tss.errors import InputError

ROOT = Path(__file__).parents[2]


def test_write_whole_leaves_the_file_and_nothing_else(tmp_path):
    files.write_text(tmp_path / "deep" / "a.txt", "one\n")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == b"one\n"
    assert os.listdir(tmp_path / "deep") == ["a.txt"]


def test_a_writer_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def half(beside):
        beside.write_text("ne")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        files.write_whole(path, half)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match=r"a\.txt cannot be written: No space left on device.*--out"):
        files.write_text(tmp_path / "a.txt", "new")
    assert os.listdir(tmp_path) == []


def test_a_file_in_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken/a.txt cannot be written"):
        files.write_text(tmp_path / "taken" / "a.txt", "new")


def test_temporary_name_keeps_the_suffixes(tmp_path):
    seen = []
    files.write_whole(tmp_path / "scan.nii.gz", lambda beside: (seen.append(beside.name), beside.write_text("x")))
    assert seen[0].endswith(".scan.nii.gz") and seen[0].startswith(".")


def test_two_nodes_on_which_the_process_has_the_same_number_do_not_share_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 7)

    def slowly(beside):
        files.write_text(tmp_path / "settings.json", "of the other node")  # begins and ends meanwhile
        beside.write_text("of this node")

    files.write_whole(tmp_path / "settings.json", slowly)
    assert (tmp_path / "settings.json").read_text() == "of this node" and os.listdir(tmp_path) == ["settings.json"]


def test_a_folder_is_for_one_process_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    take = f"from tss.data.files import alone_in\nwith alone_in({str(tmp_path)!r}): print('mine')"
    with alone_in(tmp_path):
        other = subprocess.run([sys.executable, "-c", take], cwd=ROOT, capture_output=True, text=True)
        assert f"InputError: {tmp_path} is being written by another run: process {os.getpid()} on " in other.stderr
        assert "Slurm job 77. Wait until it ends" in other.stderr and not other.stdout
    assert subprocess.run([sys.executable, "-c", take], cwd=ROOT, capture_output=True, text=True).stdout == "mine\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="no limits of a file's size")
def test_a_librarys_own_error_is_told_by_what_the_disk_says(tmp_path):
    """numpy says "100000 requested and 0 written" where the disk is full, Pillow "codec configuration error"."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(InputError, match=r"a.npy cannot be written: File too large. Let files be larger"):
            files.write_whole(tmp_path / "a.npy", lambda beside: np.save(beside, np.zeros(100000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def no_memory(_):
        raise OSError("codec configuration error when writing image file")

    with pytest.raises(InputError, match="image file. Close other programs, or ask for more memory"):
        files.write_whole(tmp_path / "a.png", no_memory)
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_lock_needs_no_space(tmp_path):
    (tmp_path / ".lock").symlink_to("/dev/full")  # every write to it finds the disk full
    with alone_in(tmp_path):
        files.sweep(tmp_path)
    assert not list(tmp_path.iterdir())


def test_sweep_removes_halves_and_nothing_else(tmp_path):
    for name in (".7.a.nii.gz", ".77.b.json", ".lock", ".x.a.nii.gz", "a.nii.gz"):
        (tmp_path / name).write_text("")
    files.sweep(tmp_path, "a.nii.gz", "none")
    assert sorted(os.listdir(tmp_path)) == [".77.b.json", ".lock", ".x.a.nii.gz", "a.nii.gz"]
    files.sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".lock", ".x.a.nii.gz", "a.nii.gz"]
    files.sweep(tmp_path / "none")


def test_what_a_killed_run_left_goes_when_the_file_is_written_again(tmp_path):
    path = tmp_path / "cohort.csv"
    child = os.fork()
    if not child:
        files.write_whole(path, lambda beside: (beside.write_text("ha"), os.kill(os.getpid(), signal.SIGKILL)))
    os.waitpid(child, 0)
    assert [name for name in os.listdir(tmp_path) if name.endswith(".cohort.csv")] and not path.exists()
    (tmp_path / ".7.other.csv").write_text("not this file's")
    files.write_text(path, "whole")
    assert sorted(os.listdir(tmp_path)) == [".7.other.csv", "cohort.csv"]


def test_what_another_run_is_writing_is_not_swept(tmp_path):
    path, (wait, go), (told, tell) = tmp_path / "cohort.csv", os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(go)  # or it would wait for itself where this test fails
        files.write_whole(path, lambda beside: (beside.write_text("slow"), os.write(tell, b"."), os.read(wait, 1)))
        os._exit(0)
    os.read(told, 1)
    files.sweep(tmp_path)
    files.write_text(path, "fast")
    assert len(os.listdir(tmp_path)) == 2
    os.write(go, b".")
    assert os.waitpid(child, 0)[1] == 0
    assert path.read_text() == "slow" and os.listdir(tmp_path) == ["cohort.csv"]


def test_json_there_and_back(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": [1, 2.5, "b"], "c": None})
    assert files.read_json(tmp_path / "a.json") == {"a": [1, 2.5, "b"], "c": None}
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "b.json", {"a": float("nan")})
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), ('{"a": 1', "not complete JSON"), ("[1, 2]", "holds list, not a JSON object")],
)
def test_broken_json_is_told(tmp_path, content, message):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        files.read_json(path)
    assert str(path) in str(caught.value)


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(InputError, match="cannot be read"):
        files.sha256(tmp_path / "none")


def test_a_folder_to_work_in_is_gone_afterwards_and_what_a_killed_run_left_is_swept(tmp_path):
    for name in (".5.a", ".6.b"):
        (tmp_path / name).touch()
        (tmp_path / f"{name}{files.FOLDER}").mkdir()
        (tmp_path / f"{name}{files.FOLDER}" / "half").touch()
    with files.folder_beside(tmp_path / "a") as folder:
        (folder / "deep").mkdir()
        assert folder.parent == tmp_path and folder.name.startswith(".")
        files.sweep(tmp_path, "a")  # by another run: this one is in use
        assert folder.is_dir() and not (tmp_path / f".5.a{files.FOLDER}").exists()
    assert sorted(os.listdir(tmp_path)) == [".6.b", ".6.b.folder"]
    with pytest.raises(KeyError), files.folder_beside(tmp_path / "b"):
        raise KeyError
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="cannot be written: .* Check who may"),
        files.folder_beside(tmp_path / "file" / "a"),
    ):
        pass
