"""The compiled half of the engine: native.c, where it was compiled when hilum was installed.

Comes in: views of fields' memory and packed weights. Goes out: the same memory, filled, and moments. Without a
compiler at installation ``library`` is None, and layers.py and sources.py do the same in PyTorch's operations.

A call holds no lock of Python's while it works, so that as many cores work at once as call. The library knows nothing
of Python: it is loaded by ``ctypes`` and fits every version.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from hilum.inference.winograd.pool import scratch
from hilum.inference.winograd.transforms import Transform

PANEL = 32
_LANES = 16
_MOST_CHANNELS = 512
# what PyTorch calls a processor, and the library compiled for it
_VARIANTS = {"AVX512": "avx512", "AVX2": "avx2"}
Moments = tuple[int, torch.Tensor, torch.Tensor]


class _Field(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("rest", ctypes.c_ssize_t),
        ("plane", ctypes.c_ssize_t),
        ("row", ctypes.c_ssize_t),
        ("channels", ctypes.c_ssize_t),
    )


class _Moments(ctypes.Structure):
    _fields_ = (
        ("count", ctypes.c_double),
        ("mean", ctypes.c_double * _MOST_CHANNELS),
        ("off", ctypes.c_double * _MOST_CHANNELS),
    )


_VERSION = 1  # of the calls, as native.c says it
_P, _N, _I, _F = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_float
_CALLS = {
    "hilum_tiles": (_I, _P, _P, _P, _P, _P, _I, _N, _N, _P, _P, _P, _P, _P),
    "hilum_direct": (_I, _P, _P, _N, _N, _N, _N, _P, _P, _P),
    "hilum_up": (_P, _N, _P, _P, _P, _P, _N, _N, _N, _N, _P),
    "hilum_normalise": (_P, _P, _N, _N, _N, _N, _N, _P, _P, _F),
}


def library() -> Any:
    """The library for this processor, or None."""
    return load(_VARIANTS.get(torch.backends.cpu.get_cpu_capability(), "plain"))


@cache
def load(variant: str) -> Any:
    """The library compiled for one kind of processor, or None."""
    path = Path(__file__).with_name(f"_native_{variant}.so")
    if not path.is_file():
        return None
    try:
        found = ctypes.CDLL(str(path))
        if found.hilum_calls() != _VERSION:
            return None
    except (OSError, AttributeError):  # compiled for another kind of machine
        return None
    for name, arguments in _CALLS.items():
        getattr(found, name).argtypes = arguments
        getattr(found, name).restype = None
    return found


def fits(inputs: Sequence[int], outputs: int) -> bool:
    """Whether tiles of so many channels can be done here: each source's, and those that come out."""
    even = all(count % _LANES == 0 for count in inputs) and outputs % PANEL == 0
    return even and outputs <= _MOST_CHANNELS and library() is not None


def packed(weights: torch.Tensor) -> torch.Tensor:
    """Weights (any, depth, K) in panels: (any, K / 32, depth, 32)."""
    *rest, depth, channels = weights.shape
    return weights.reshape(*rest, depth, channels // PANEL, PANEL).movedim(-2, -3).contiguous()


def tiles(
    deep: Transform,
    high: Transform,
    sources: Sequence[torch.Tensor],
    kernels: torch.Tensor,
    out: torch.Tensor,
    count: int,
    width: int,
) -> Moments:
    """Winograd's tiles of ``count`` rows of tiles.

    Args:
        deep, high: transforms along D and H.
        sources: (4, planes, rows of tiles, W + 2, C), each beginning at the tiles' first plane and row.
        kernels: (deep inputs * 6, K / 32, 3 * all C, 32).
        out: (4, planes, rows of tiles, W, K), beginning with the row before the tiles' own.
        count: rows of tiles.
        width: W.
    """
    images, channels = deep.inputs * high.inputs, out.shape[-1]
    of_inputs = scratch("inputs", images * (width + 2), sum(source.shape[-1] for source in sources))
    of_outputs = scratch("outputs", images * width, channels)
    fields, found = (_Field * len(sources))(*map(_field, sources)), _Moments()
    matrices = (at(matrix) for matrix in (deep.data, deep.result, high.data, high.result))
    library().hilum_tiles(
        deep.inputs,
        *matrices,
        ctypes.byref(fields),
        len(sources),
        count,
        width,
        at(kernels),
        ctypes.byref(_field(out)),
        at(of_inputs),
        at(of_outputs),
        ctypes.byref(found),
    )
    return _moments(found, channels)


def direct(
    source: torch.Tensor,
    stride: Sequence[int],
    kernel: torch.Tensor,
    out: torch.Tensor,
    planes: tuple[int, int],
    shape: Sequence[int],
) -> Moments:
    """A convolution of size (3 or 1) x 3 x 3 as it is.

    Args:
        source: (4, planes, rows / 4, W + 2, C) with a border, beginning with the first tap's plane.
        stride: (d, h, w).
        kernel: (K / 32, taps * C, 32).
        out: (4, planes, rows / 4, W, K), beginning with the row before its own.
        planes: of the output: first, and the one after the last.
        shape: (H, W) of the output.
    """
    deep, found = kernel.shape[1] // (9 * source.shape[-1]), _Moments()
    library().hilum_direct(
        deep,
        ctypes.byref(_numbers(stride)),
        ctypes.byref(_field(source)),
        *planes,
        *shape,
        at(kernel),
        ctypes.byref(_field(out)),
        ctypes.byref(found),
    )
    return _moments(found, out.shape[-1])


def up(
    coarse: torch.Tensor,
    border: int,
    shape: Sequence[int],
    stride: Sequence[int],
    kernel: torch.Tensor,
    bias: torch.Tensor,
    first: int,
    top: int,
    out: torch.Tensor,
) -> None:
    """Bring a coarser field up into ``out``: see ``UpSource``.

    Args:
        coarse: (4, planes, rows / 4, W, C_in), at its first plane and column.
        border: rows before its first one.
        shape: (D, H, W) of it.
        stride: (d, h, w).
        kernel: (d * h, w * C / 32, C_in, 32).
        bias: (w * C,).
        first: plane of the bordered image.
        top: first tile.
        out: (4, planes, count + 1, W + 2, C).
    """
    library().hilum_up(
        ctypes.byref(_field(coarse)),
        border,
        ctypes.byref(_numbers(shape)),
        ctypes.byref(_numbers(stride)),
        at(kernel),
        at(bias),
        first,
        out.shape[1],
        top,
        out.shape[2] - 1,
        ctypes.byref(_field(out)),
    )


def normalise(
    rows: torch.Tensor, beside: torch.Tensor | None, scale: torch.Tensor, shift: torch.Tensor, slope: float
) -> None:
    """``rows * scale + shift + beside``, then the leaky ReLU (slope 1: none), in place; (rows, W * C) with any step."""
    channels = len(scale)
    library().hilum_normalise(
        at(rows),
        None if beside is None else at(beside),
        len(rows),
        rows.stride(0),
        0 if beside is None else beside.stride(0),
        rows.shape[1] // channels,
        channels,
        at(scale),
        at(shift),
        slope,
    )


def at(array: torch.Tensor) -> int:
    """Where an array's first number lies."""
    return array.data_ptr()


def _field(view: torch.Tensor) -> _Field:
    return _Field(at(view), view.stride(0), view.stride(1), view.stride(2), view.shape[-1])


def _numbers(three: Sequence[int]) -> Any:
    return (ctypes.c_ssize_t * 3)(*three)


def _moments(found: _Moments, channels: int) -> Moments:
    mean, off = (torch.tensor(values[:channels], dtype=torch.float64) for values in (found.mean, found.off))
    return int(found.count), mean, off
