"""Where and how numbers are computed: device, precision, threads, seeds, peak memory.

Comes in: what the user asked for ("auto", "cuda", "bf16"). Goes out: PyTorch's objects for it, or a UsageError. Knows
no networks and sets nothing up when it is imported.
"""

from __future__ import annotations

import os
import platform
import random
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hilum.cores import cpu_count
from hilum.errors import UsageError

# the instructions without which bf16 on a CPU is emulated and slower than fp32
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}
# of a container: cgroup 2 ("max" or bytes), cgroup 1
_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def choose(device: str = "auto") -> torch.device:
    """The device of a name.

    Args:
        device: "auto" (a GPU if there is one), "cpu", "cuda", or "cuda:1" and so on.

    Raises:
        UsageError: no such name, or a GPU that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()) or (kind == "cpu" and index):
        raise UsageError(f"device {device!r}", wanted="auto, cpu, cuda, or cuda:0, cuda:1, ...")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            raise UsageError(
                f"device {device!r}, but PyTorch {torch.__version__} sees {count or 'no'} NVIDIA GPU",
                wanted="a GPU that is there",
                fix="take --device cpu, or install a driver and a CUDA build of PyTorch",
            )
    return torch.device(device)


def autocast_dtype(device: torch.device, precision: str = "auto") -> torch.dtype | None:
    """The short type in which convolutions run, or None where everything stays fp32.

    "auto" takes bf16 on GPUs of compute capability 8.0 and above (fp16 on older ones) and on CPUs that have bf16
    instructions: on 2 cores with AVX-512 bf16 a training step takes 0.44 to 0.55 times as long as in fp32. (Predicting
    on a CPU asks for fp32 itself: ``inference.engines.with_torch``.)

    Raises:
        UsageError: fp16 on a CPU, where it has no hardware.
    """
    assert precision in ("auto", "fp32", "bf16", "fp16"), precision
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("training.precision = 'fp16' on a CPU", wanted="auto, bf16 or fp32 there")
    if precision == "auto":
        if device.type == "cpu":
            return torch.bfloat16 if cpu_has_bf16() else None
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def autocast(device: torch.device, precision: str = "auto") -> AbstractContextManager[Any]:
    """A new context in which convolutions run in the type that ``autocast_dtype`` chooses; weights stay fp32."""
    dtype = autocast_dtype(device, precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor multiplies bf16 numbers itself; False where the system does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return bool(_BF16_FLAGS & set(flags.partition(":")[2].split()))


def use_threads(count: int = 0, shared_by: int = 1) -> int:
    """Let PyTorch compute on ``count`` threads and return their number.

    0 is every processor allowed, shared evenly by the processes of a run on this machine.
    """
    count = count or max(1, cpu_count() // shared_by)
    torch.set_num_threads(count)
    return count


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators (hilum's own draws use generators of their own)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def peak_memory_gb(device: torch.device) -> float | None:
    """Largest memory so far in GiB: PyTorch's on a GPU, the process's resident memory on a CPU; None if not told."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def memory_bytes(device: torch.device, limits: Sequence[Path] = _MEMORY_LIMITS) -> int | None:
    """All memory of a GPU, or of this machine as far as its container may use it; None if the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):  # Windows
        return None
    for file in limits:
        try:
            text = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        found += [int(text)] if text.isdecimal() else []
    return min(found)


def describe(device: torch.device, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The name of the hardware, for logs: ``NVIDIA A100-SXM4-40GB`` or ``AMD EPYC 9354, 2 threads``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
