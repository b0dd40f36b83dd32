import pytest
import torch

from tss.errors import InputError
from tss.training import device
from tss.training.device import at_precision, choose_device, free_memory, job_limits, without_onednn_bf16

CPU = torch.device("cpu")


def test_device_that_is_not_there_is_refused():
    assert choose_device("cpu") == CPU
    for name in ("gpu9", "cuda:77", "meta"):
        with pytest.raises(InputError, match=f"--device {name} cannot be used here"):
            choose_device(name)


def test_a_gpu_that_cannot_compute_is_told_before_any_work(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    ones = torch.ones

    def too_old(*sizes, device):
        if device.type == "cuda":
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")
        return ones(*sizes, device=device)

    monkeypatch.setattr(torch, "ones", too_old)
    with pytest.raises(
        InputError,
        match="--device auto cannot be used here: CUDA error: no kernel image is available "
        "for execution on the device. Give --device cpu",
    ):
        choose_device("auto")


@pytest.mark.parametrize(("precision", "kept"), [("fp32", True), ("bf16", False)])
def test_onednn_is_off_for_bf16_on_the_cpu_alone_and_on_again(precision, kept):
    with at_precision(precision, CPU):
        assert torch.backends.mkldnn.enabled == kept
        assert torch.is_autocast_enabled("cpu") != kept
    assert torch.backends.mkldnn.enabled and not torch.is_autocast_enabled("cpu")
    with without_onednn_bf16("bf16", torch.device("cuda")):
        assert torch.backends.mkldnn.enabled


def test_memory_is_what_the_job_may_still_take(tmp_path):
    job = tmp_path / "slurm" / "job_7"
    job.mkdir(parents=True)
    (tmp_path / "own").write_text("0::/slurm/job_7\n")
    (job / "memory.max").write_text("1000\n")
    (job / "memory.stat").write_text("anon 300\nfile 500\n")
    (job.parent / "memory.max").write_text("max\n")
    assert job_limits(tmp_path, tmp_path / "own") == [700]
    assert job_limits(tmp_path, tmp_path / "none") == []
    assert free_memory(CPU) > 2**20


def test_a_jobs_limit_counts_where_the_machine_has_more(monkeypatch):
    monkeypatch.setattr(device, "job_limits", lambda: [2**40, 12345])
    assert free_memory(CPU) == 12345
