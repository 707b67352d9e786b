"""How much main memory a scan will need, before anything of it is read.

Comes in: what a scan's header tells and a predictor. Goes out: bytes for each stage, and the fastest way of going about
it that stays below a limit. Whatever the way, the labels are the same: what changes is how many scans are in work at
once, and whether a scan is prepared as a whole or slab by slab.

The numbers are sums of the arrays that live at once, counted from shapes. A network's activations are counted by
running it without numbers (PyTorch's "meta" device); ``WORKSPACE`` and ``LIBRARIES`` are what oneDNN, allocators and
late imports were measured to take beside that, with room to spare.
"""

from __future__ import annotations

import ctypes
import math
import sys
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hilum.cores import cpu_count
from hilum.errors import UsageError
from hilum.inference.slabs import PLANES
from hilum.prepare.preprocess import Case, StreamedCase, stream_scan
from hilum.prepare.resample import ROWS
from hilum.volume import Volume

if TYPE_CHECKING:
    from hilum.inference.ensemble import Ensemble
    from hilum.inference.predict import Predictor
    from hilum.scans.peek import Peek

LIBRARIES = 260e6  # what is imported late (measuring, pages), and what allocators keep
# Measured on six networks in fp32 and bf16: 0.5 to 1.4 times what is counted, and up to 110 MB of oneDNN's own.
WORKSPACE = (1.4, 130e6)
_UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True)
class Way:
    """One way of going about the scans.

    Attributes:
        together: read the next scan and write the last one while one is computed.
        streamed: prepare slab by slab.
    """

    together: bool
    streamed: bool

    def describe(self) -> str:
        """In words."""
        scans = "the next scan is read and the last one written meanwhile" if self.together else "one scan at a time"
        return f"{scans}, prepared {'in slabs' if self.streamed else 'as a whole'}"


@dataclass(frozen=True)
class MemoryPlan:
    """What is going to happen.

    Attributes:
        way: the fastest way that fits.
        limit_bytes: what was promised; None without a promise.
        planned_bytes: the highest need of any moment.
        stages: scan -> stage -> bytes of that scan alone.
        base_bytes: the process without any scan.
    """

    way: Way
    limit_bytes: float | None
    planned_bytes: float
    stages: Mapping[str, Mapping[str, float]]
    base_bytes: float

    def describe(self) -> str:
        """One line for people."""
        limit = "" if self.limit_bytes is None else f" of {gb(self.limit_bytes)} allowed"
        return f"memory: {gb(self.planned_bytes)}{limit}; {self.way.describe()}"

    def to_json(self) -> dict[str, Any]:
        """For ``run.json``, in GB of 10^9 bytes."""
        return {
            "limit_gb": None if self.limit_bytes is None else self.limit_bytes / 1e9,
            "planned_gb": round(self.planned_bytes / 1e9, 3),
            "base_gb": round(self.base_bytes / 1e9, 3),
            "together": self.way.together,
            "streamed": self.way.streamed,
            "stages_gb": {
                name: {stage: round(need / 1e9, 3) for stage, need in table.items()}
                for name, table in self.stages.items()
            },
        }


def parse_memory(text: str) -> float:
    """``"3GB"`` (10^9 bytes each), ``"2.5GiB"``, ``"800 MB"`` to bytes.

    Raises:
        UsageError: no number, no unit, or nothing above 0.
    """
    unit = text.strip().lstrip("0123456789.").strip().upper()
    number = text.strip()[: len(text.strip()) - len(text.strip().lstrip("0123456789."))]
    try:
        value = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        value = 0.0
    if not value > 0:
        raise UsageError(f"memory {text!r}", wanted="a number and a unit, such as 3GB or 800MB")
    return value


def plan_memory(
    predictor: Predictor | Ensemble,
    scans: Mapping[str, Peek],
    *,
    probabilities: bool = False,
    limit_bytes: float | None = None,
) -> MemoryPlan:
    """The fastest way that keeps a limit; without a limit, the fastest at all.

    Args:
        predictor: with its model loaded: what the process holds now counts as given.
        scans: name -> what its header tells.
        probabilities: whether these are wanted too.
        limit_bytes: of main memory, for the whole process.

    Raises:
        UsageError: no way keeps the limit; with the least that would do.
    """
    base = resident_bytes() + LIBRARIES
    streamed = predictor.device.type == "cpu"
    ways = [Way(True, streamed)] if streamed else [Way(True, False), Way(True, True)]
    ways += [Way(False, False), Way(False, True)] if not streamed else [Way(False, True)]
    networks = {id(part): network_bytes(part) for member in members_of(predictor) for part in _parts(member)}
    least: MemoryPlan | None = None
    for way in ways:
        stages = {
            name: _stages(predictor, networks, facts, way.streamed, probabilities) for name, facts in scans.items()
        }
        plan = MemoryPlan(way, limit_bytes, base + _highest(list(stages.values()), way.together), stages, base)
        if limit_bytes is None or plan.planned_bytes <= limit_bytes:
            return plan
        if least is None or plan.planned_bytes < least.planned_bytes:
            least = plan
    assert least is not None and limit_bytes is not None
    worst = max(least.stages, key=lambda name: max(least.stages[name].values()))
    raise UsageError(
        f"{gb(limit_bytes)} of memory do not do for {worst} ({scans[worst].grid.describe()})",
        wanted=f"at least {gb(least.planned_bytes, up=True)}",
        fix=f"--max-memory {gb(least.planned_bytes, up=True).replace(' ', '')}",
    )


def members_of(predictor: Predictor | Ensemble) -> Sequence[Predictor]:
    """The predictors of an ensemble, or the one that it is."""
    members: Sequence[Predictor] = getattr(predictor, "members", None) or (predictor,)  # type: ignore[assignment]
    return members


def _parts(member: Predictor) -> list[Predictor]:
    """The predictor, the models before it in a cascade, and its locator."""
    before = [other for other in (member.first, member.locator) if other is not None]
    return [member, *(part for other in before for part in _parts(other))]


def network_bytes(predictor: Predictor) -> float:
    """About how much memory one tile takes in the network, weights aside: nothing of it on a GPU."""
    if predictor.device.type != "cpu":
        return 300e6  # what CUDA keeps in main memory for itself was not counted
    factor, more = WORKSPACE
    patch = predictor.plan.patch[-predictor.plan.dims :]
    told = getattr(predictor.folds.networks[0], "activation_bytes", None)  # it knows its own memory
    if told is None:
        shape = (max(1, predictor.batch), predictor.model.spec.in_channels, *patch)
        need = factor * traced_bytes(predictor, shape) + more
    else:
        need = told + more
    kept = len(predictor.folds.networks) if predictor.disagreeing else 1
    return need + (5 + kept) * 4 * predictor.outputs * math.prod(patch) * max(1, predictor.batch)


def traced_bytes(predictor: Predictor, shape: tuple[int, ...]) -> int:
    """The most that lives at once of what a network computes for an input of this shape, in fp32.

    A network of one's own that computes with constants of its own cannot be run without numbers: it is run with them.
    Of an exported network it was counted when it was exported.
    """
    if predictor.model.exported is not None:
        return predictor.model.exported.activation_bytes
    try:
        with torch.device("meta"), torch.no_grad():
            network, image = predictor.model.spec.bare().eval(), torch.empty(shape)
            with _Living() as living:
                network(image)
    except (RuntimeError, NotImplementedError):
        with torch.inference_mode(), _Living() as living:
            predictor.folds.networks[0](torch.zeros(shape))
    return int(living.peak)


def resident_bytes() -> float:
    """Main memory that the process holds now."""
    from pathlib import Path

    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        import os

        return float(int(pages) * os.sysconf("SC_PAGE_SIZE"))
    except OSError:
        return 500e6  # a system that does not tell: what hilum holds with a model of ordinary size


def give_back_memory() -> None:
    """Hand freed memory back to the system, where its C library keeps it otherwise (glibc)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def lend_pages() -> None:
    """From now on arrays of two megabytes and more go back to the system as soon as they are let go (glibc).

    By itself glibc raises that bound to the largest array seen, up to 32 MB, and keeps the holes between smaller ones:
    70 to 80 MB of a network's pass. For processes that segment and do not train: steps of training, which ask for many
    large arrays again and again, took a tenth to a half longer with it.
    """
    if sys.platform == "linux":
        tell = getattr(ctypes.CDLL(None), "mallopt", None)
        if tell is not None:
            tell(-3, 2**21)  # M_MMAP_THRESHOLD
            tell(-1, 2**25)  # M_TRIM_THRESHOLD, which glibc would keep at 128 KB now


def gb(value: float, *, up: bool = False) -> str:
    """``"2.31 GB"``."""
    return f"{(math.ceil(value / 1e7) / 100 if up else value / 1e9):.2f} GB"


def _highest(stages: list[Mapping[str, float]], together: bool) -> float:
    """The highest need of any moment: of one scan, or of three neighbours in three stages."""
    if not stages:
        return 0.0
    if not together or len(stages) == 1:
        return max(max(table.values()) for table in stages)
    highest = 0.0
    for place in range(len(stages)):
        now = stages[place]["predict"]
        ahead = max(stages[place + 1][s] for s in ("read", "prepare")) if place + 1 < len(stages) else 0.0
        behind = stages[place - 1]["finish"] if place else 0.0
        # while one is written the next may already be done and wait
        highest = max(highest, now + ahead + behind)
    return highest


def _stages(
    predictor: Predictor | Ensemble, networks: Mapping[int, float], facts: Peek, streamed: bool, probabilities: bool
) -> dict[str, float]:
    """Bytes of one scan in each of its stages, what earlier stages left included."""
    members = members_of(predictor)
    voxels = math.prod(facts.grid.shape)
    scan = float(facts.kept_bytes * voxels)
    parts = [part for member in members for part in _parts(member)]
    # a scan's own intensities within a mask: what lies outside it is replaced in a copy of fractions
    scan += 4.0 * voxels * sum(part.plan.conventions.intensities == "scan_nonzero" for part in parts)
    maps = 1 + (len(predictor.shown) + 2 if probabilities else 0)
    prepared, working, slabs = 0.0, 0.0, 0.0
    cascades = sum(len(_parts(member)) - 1 for member in members)
    for part in parts:
        own = _member(part, facts, streamed, probabilities or len(members) > 1)
        prepared += own["prepared"]
        slabs += own["slabs"] + own["export"]
        working = max(working, networks[id(part)], own["resampling"])
        if streamed:
            slabs += own["resampling"] if len(members) > 1 else 0.0
    return {
        "read": facts.reading_bytes * voxels,
        "prepare": scan + prepared + (0.0 if streamed else working),
        # a cascade keeps what the model before found, on the scan's grid and on its own
        "predict": scan + prepared + slabs + working + (maps + 3 * cascades) * voxels,
        # writing and reading back takes 2.4 bytes a voxel more; post-processing, measuring and pages less (measured)
        "finish": scan + maps * voxels + 2.7 * voxels,
    }


def _member(member: Predictor, facts: Peek, streamed: bool, shares: bool) -> dict[str, float]:
    """What one model adds: its prepared scan (and what the model before it found there), what resampling takes, its
    slabs and what exporting them takes."""
    case = _bare_case(member, facts)
    depth, height, width = (max(n, p) for n, p in zip(case.grid.shape, member.plan.patch, strict=True))
    _, rows, columns = case.source_inside.shape
    patch = member.plan.patch[0]
    outputs = member.outputs + (1 if shares and member.disagreeing else 0)
    threads = member.threads or cpu_count()
    blocks = -(-min(depth, patch + ROWS) // ROWS)
    voxel = case.slabs.dtype.itemsize  # int16, or float32 where a model wants fractions of HU
    window = float(voxel) * min(depth, patch + 2 * ROWS) * height * width
    found = 0.0 if member.first is None else float(math.prod(case.grid.shape))
    plane, target = height * width, rows * columns
    return {
        "prepared": found + (window * 1.5 if streamed else float(voxel) * depth * plane),
        "resampling": float(min(threads, blocks) * case.slabs.block_bytes()),
        "slabs": 4.0 * (outputs + 1) * patch * plane + 4.0 * 3 * outputs * PLANES * plane,
        "export": 4.0 * outputs * (2 * plane + (3 + (4 if shares else 0)) * target),
    }


def _bare_case(member: Predictor, facts: Peek) -> StreamedCase:
    """The scan as it will be prepared if all of it is looked at; its voxels take no memory and are not read."""
    import numpy as np

    air = np.broadcast_to(np.int16(-1024), facts.grid.shape)
    wants = replace(member.plan.conventions, crop="no", intensities="plan")
    case = stream_scan(Volume.on(facts.grid, air), replace(member.plan, conventions=wants))
    assert not isinstance(case, Case)
    return case


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that are made and still live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._sizes:
                    self._sizes[key] = storage.nbytes()
                    self._now += storage.nbytes()
                    self.peak = max(self.peak, self._now)
                    weakref.finalize(storage, self._gone, key)
        return out

    def _gone(self, key: int) -> None:
        self._now -= self._sizes.pop(key, 0)
