from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from hilum import device
from hilum.errors import UsageError

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")


def test_auto_and_cpu() -> None:
    assert device.choose("cpu") == torch.device("cpu")
    assert device.choose("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@no_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_a_gpu_that_is_absent_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no NVIDIA GPU"):
        device.choose(name)


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cpu:0", "mps"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="auto, cpu, cuda"):
        device.choose(name)


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags : fpu amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("flags : fpu avx2 avx512f\n", False),
        ("", False),
    ],
)
def test_bf16_is_read_off_the_processor(tmp_path, text: str, has: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    assert device.cpu_has_bf16(file) is has
    assert device.cpu_has_bf16(tmp_path / "absent") is False


def test_precision(monkeypatch) -> None:
    cpu = torch.device("cpu")
    assert device.autocast_dtype(cpu, "fp32") is None
    assert device.autocast_dtype(cpu, "bf16") is torch.bfloat16
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: True)
    assert device.autocast_dtype(cpu) is torch.bfloat16
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: False)
    assert device.autocast_dtype(cpu) is None
    with pytest.raises(UsageError, match="fp16"):
        device.autocast_dtype(cpu, "fp16")


def test_autocast_shortens_products_only_inside() -> None:
    a = torch.ones(4, 4)
    with device.autocast(torch.device("cpu"), "bf16"):
        assert (a @ a).dtype == torch.bfloat16
    with device.autocast(torch.device("cpu"), "fp32"):
        assert (a @ a).dtype == torch.float32


def test_threads_and_seeds() -> None:
    before = torch.get_num_threads()
    assert device.use_threads(1) == 1 == torch.get_num_threads()
    torch.set_num_threads(before)
    draws = []
    for _ in range(2):
        device.seed_everything(2**40 + 3)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


def test_peak_memory_and_name() -> None:
    cpu = torch.device("cpu")
    peak = device.peak_memory_gb(cpu)
    assert peak is not None and 0.01 < peak < 1000
    assert "threads" in device.describe(cpu)


def test_all_memory_is_the_machine_s_or_its_container_s(tmp_path: Path) -> None:
    cpu, whole = torch.device("cpu"), device.memory_bytes(torch.device("cpu"), ())
    assert whole is not None and whole > 2**28
    for text, expected in (("max\n", whole), ("1000000\n", 1_000_000), (f"{2**63 - 4096}\n", whole)):
        (tmp_path / "limit").write_text(text)
        assert device.memory_bytes(cpu, (tmp_path / "none", tmp_path / "limit")) == expected
