"""Fewer multiplications for convolutions of size 3: the matrices of Winograd's minimal filtering, for any tile.

Comes in: how many outputs a tile has. Goes out: three matrices. Knows no image.

Along one axis, ``n`` neighbouring outputs of a filter ``g`` of size 3 over ``n + 2`` inputs ``d`` are
``A @ ((G @ g) * (B @ d))``: ``n + 2`` products instead of ``3 n`` (Winograd 1980; Lavin and Gray 2016, arXiv
1509.09308).
The matrices are Toom and Cook's: polynomials evaluated at ``n + 1`` points and at infinity, multiplied, interpolated
(transposed). The points 0, 1, -1, 2, -1/2 keep rounding small (Barabasz et al. 2020, arXiv 1803.10986); rows are scaled
so that ``B`` has no number above 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

POINTS = (0.0, 1.0, -1.0, 2.0, -0.5)


@dataclass(frozen=True)
class Transform:
    """Matrices for tiles of ``outputs`` along one axis.

    Attributes:
        outputs: n.
        inputs: n + 2 samples that a tile needs; 1 where the filter is of size 1.
        data: B, float32 (inputs, inputs).
        kernel: G, float64 (inputs, 3), or (1, 1).
        result: A, float32 (outputs, inputs).
    """

    outputs: int
    inputs: int
    data: torch.Tensor
    kernel: torch.Tensor
    result: torch.Tensor


def transform(outputs: int) -> Transform:
    """The matrices for tiles of 1, 2, 3 or 4 outputs of a filter of size 3; 0 means a filter of size 1."""
    if outputs == 0:
        one = torch.ones((1, 1))
        return Transform(1, 1, one, one.double(), one)
    inputs, points = outputs + 2, torch.tensor(POINTS[: outputs + 1], dtype=torch.float64)
    data = torch.linalg.inv(_powers(points, inputs)).T
    scale = data.abs().amax(1, keepdim=True)
    return Transform(
        outputs,
        inputs,
        (data / scale).float().contiguous(),
        _powers(points, 3) * scale,
        _powers(points, outputs).T.float().contiguous(),
    )


def _powers(points: torch.Tensor, count: int) -> torch.Tensor:
    """Every point to the powers 0 to count - 1, one row a point, and the row of infinity below."""
    rows = points[:, None] ** torch.arange(count, dtype=torch.float64)
    infinity = torch.zeros((1, count), dtype=torch.float64)
    infinity[0, -1] = 1
    return torch.cat([rows, infinity])
