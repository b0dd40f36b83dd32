"""Processes: workers end with their parent, one run writes to a folder at a time, too little memory is a sentence."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import heads
import pytest
from processes import ends
from quick_preprocessing import no_bias_correction, no_pictures
from untrained import save_checkpoint

import run_eval
import run_preprocess
from tss import errors
from tss.data import workers
from tss.data.files import alone_in
from tss.errors import exit_code
from tss.preprocessing import patient_record

ROOT = Path(__file__).parents[1]


def descendants(process):
    """Numbers of the processes that this one has started, and those that they have."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    heads.write_cohort(tmp_path, 4)
    atlas = heads.write_atlas(tmp_path / "atlas.nii.gz")
    words = ["run_preprocess.py", tmp_path / "cohort.csv", "--out", tmp_path / "data", "--atlas", atlas, "--jobs", 2]
    words += ["--tools", "builtin", "--grid", 32, 32, 8]
    log = open(tmp_path / "log", "w")  # noqa: SIM115
    parent = subprocess.Popen([sys.executable, *map(str, words)], cwd=ROOT, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while len(descendants(parent.pid)) < 3 and time.monotonic() < deadline and parent.poll() is None:
            time.sleep(0.1)  # two workers, and the tracker of their resources
        workers = descendants(parent.pid)
        assert len(workers) >= 3, (tmp_path / "log").read_text()
        time.sleep(1)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    ends(*workers)


def test_two_evaluations_do_not_write_to_one_folder(scanned, tmp_path, capsys):
    checkpoint = str(scanned / "phase4" / "best.pt")
    words = [checkpoint, "--data", str(scanned / "data"), "--out", str(tmp_path / "eval"), "--gradcam", "0"]
    with alone_in(tmp_path / "eval"):
        assert run_eval.main(words) == 2
        assert f"eval is being written by another run: process {os.getpid()}" in capsys.readouterr().err
        assert os.listdir(tmp_path / "eval") == [".lock"]
    assert not (tmp_path / "eval").exists()
    assert run_eval.main(words) == 0 and not (tmp_path / "eval" / ".lock").exists()


def test_a_refused_patient_leaves_no_folder(tmp_path, capsys):
    checkpoint = save_checkpoint(tmp_path / "phase4" / "best.pt", 4)
    words = [checkpoint, "--patient", "a.nii", "b.nii", "c.nii", "--atlas", "d.nii", "--out", str(tmp_path / "eval")]
    assert run_eval.main(words) == 2 and "does not hold the reference intensities" in capsys.readouterr().err
    assert not (tmp_path / "eval").exists()


def test_too_little_memory_is_a_sentence(tmp_path, monkeypatch, capsys, known_affines):
    def hungry(*_):
        raise MemoryError

    def primitive():
        raise RuntimeError("could not create a primitive")  # a convolution's, with 4 MB left

    assert exit_code("x.py", hungry, "it") == 2
    assert capsys.readouterr().err.startswith("x.py: too little memory. Close other programs")
    assert exit_code("x.py", primitive, "it") == 2
    assert "On the CPU: Close other programs" in capsys.readouterr().err
    monkeypatch.setattr(patient_record, "prepare", hungry)
    table, atlas = heads.write_cohort(tmp_path, 2), heads.write_atlas(tmp_path / "atlas.nii.gz")
    words = [str(table), "--out", str(tmp_path / "data"), "--atlas", str(atlas), "--tools", "builtin"]
    assert run_preprocess.main([*words, "--grid", "16", "16", "8"]) == 2
    assert "too little memory for this patient's scans" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "Free some space there"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), "Give shorter names"),
        (PermissionError(errno.EACCES, "Permission denied", "/dev/shm/a"), "give --jobs 1"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/a"), "Check who may read"),
        (OSError("codec configuration error when writing image file"), "ask for more memory"),  # Pillow's
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "ask for more memory"),
        (OSError(errno.EMFILE, "Too many open files"), "(ulimit -n)"),
        (OSError(errno.EFBIG, "File too large"), "(ulimit -f)"),
        (OSError(errno.EIO, "Input/output error"), "The disk, or the connection to it, fails"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "(ulimit -u)"),
        (RuntimeError("can't start new thread"), "ask for more memory"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "with the output to a file"),
    ],
)
def test_advice_fits_the_error(error, said, capsys, monkeypatch):
    def fails():
        raise error

    monkeypatch.setattr(sys, "stdout", sys.stdout)  # a broken pipe replaces it
    assert exit_code("x.py", fails, "the same command") == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left"), "[Errno 28] No space left. Free some space there, or choose another"),
        (OSError("odd"), "unexpected OSError: odd. Please report it."),  # not the file system's
    ],
)
def test_a_patient_that_the_file_system_fails_is_no_fault_of_ours(monkeypatch, error, reason):
    def fails(_):
        raise error  # as tempfile does, where FSL's scans are to lie

    monkeypatch.setattr(patient_record, "load_scans", fails)
    prepared, said = patient_record.try_to_prepare(None, None, "builtin", None)
    assert prepared is None and said.startswith(reason)


def test_where_there_is_no_shared_memory_one_job_at_a_time_goes_on(tmp_path, monkeypatch, capsys, known_affines):
    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")  # a semaphore's, which names no file

    monkeypatch.setattr(workers, "ProcessPoolExecutor", read_only)
    no_pictures(monkeypatch)
    no_bias_correction(monkeypatch)
    table, atlas = heads.write_cohort(tmp_path, 2), heads.write_atlas(tmp_path / "atlas.nii.gz")
    words = [str(table), "--out", str(tmp_path / "data"), "--atlas", str(atlas), "--tools", "builtin"]
    words += ["--grid", "16", "16", "8", "--jobs"]
    assert run_preprocess.main([*words, "2"]) == 2
    said = capsys.readouterr().err
    assert "/dev/shm, which cannot be used: Read-only file system. Make it writable, or give --jobs 1." in said
    assert run_preprocess.main([*words, "1"]) == 0


def test_a_working_folder_that_is_gone_is_told(monkeypatch):
    def gone():
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(errors.os, "getcwd", gone)
    assert "change to another one" in errors.advice(OSError(errno.ENOENT, "No such file or directory"))
