"""Turning, scaling, bending and mirroring: where each voxel of a patch comes from, fetched in one interpolation.

Comes in: an enlarged box, a matrix, displacements. Goes out: the patch and its labels. It draws nothing at random.

A matrix maps a voxel's offset from the centre of the patch to the offset from the centre of the source box, in voxels;
a shift and a bend (``elastic``) are added to that.
Image and labels are read at the same points: the image between its eight (four) neighbours, the labels at the nearest.
Where no slices are mixed, all share one small grid, and torch's 2-D ``grid_sample`` is best (6 and 15 ms for 96^3 and
128^3 on one CPU core). Its 3-D form is not: 215 ms for image, labels and grid of 128^3, against 42 ms here, where the
grid is a sum of three short vectors and pieces of 65 536 voxels stay in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil, cos, pi, sin

import numpy as np
import torch
from torch.nn.functional import grid_sample

from hilum.patches.elastic import Bend, Displacements, displacements

Shape3 = tuple[int, int, int]
Matrix = tuple[tuple[float, float, float], ...]

# Voxels handled at once on the CPU, so that the dozen intermediate arrays stay in the cache; a GPU takes all at once.
CPU_PIECE = 65_536


def turn_and_scale(degrees: Sequence[float], scale: Sequence[float], spacing_mm: Sequence[float]) -> Matrix:
    """The matrix of a rotation in the patient followed by a magnification.

    Args:
        degrees: about the D, the H and the W axis.
        scale: magnification along D, H, W: above 1, things look larger.
        spacing_mm: along D, H, W; turning happens in millimetres, so that nothing is sheared on uneven grids.
    """
    turn = np.eye(3)
    for axis, angle in enumerate(degrees):
        a, b = [k for k in range(3) if k != axis]
        one = np.eye(3)
        c, s = cos(angle * pi / 180), sin(angle * pi / 180)
        one[a, a], one[a, b], one[b, a], one[b, b] = c, -s, s, c
        turn = turn @ one
    mm = np.asarray(spacing_mm, float)
    matrix = np.diag(1 / mm) @ turn @ np.diag(mm / np.asarray(scale, float))
    return tuple((float(row[0]), float(row[1]), float(row[2])) for row in matrix)


def source_shape(matrix: Matrix | None, patch: Shape3, further_voxels: Sequence[float] = (0.0, 0.0, 0.0)) -> Shape3:
    """The smallest box about the patch's centre that holds every voxel which ``resample`` will read.

    It exceeds the patch by an even number along each axis, so that both have the same centre. ``further_voxels`` is
    how much further than the matrix a shift and a bend may reach along D, H, W.
    """
    if matrix is None:
        return patch
    half = (np.array(patch) - 1) / 2
    # a hair less than what is needed is rounding, not a voxel
    reach = np.abs(np.array(matrix)) @ half + np.asarray(further_voxels) - half - 1e-6
    z, y, x = (p + 2 * max(0, ceil(r)) for p, r in zip(patch, reach, strict=True))
    return z, y, x


def mirror(
    image_CDHW: torch.Tensor, labels_DHW: torch.Tensor, axes: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both reversed along these axes of (D, H, W)."""
    if not axes:
        return image_CDHW, labels_DHW
    return image_CDHW.flip([axis + 1 for axis in axes]), labels_DHW.flip(list(axes))


def crop(image_CDHW: torch.Tensor, labels_DHW: torch.Tensor, shape: Shape3) -> tuple[torch.Tensor, torch.Tensor]:
    """The middle of both, as views."""
    box = tuple(slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(labels_DHW.shape, shape, strict=True))
    return image_CDHW[(slice(None), *box)], labels_DHW[box]


def resample(
    image_CDHW: torch.Tensor,
    labels_DHW: torch.Tensor,
    matrix: Matrix,
    shape: Shape3,
    shift_voxels: Sequence[float] = (0.0, 0.0, 0.0),
    bend: Bend | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The patch of this shape, read at ``matrix @ offset + shift + bend`` from the box's centre.

    Args:
        image_CDHW: the source box, float32.
        labels_DHW: its labels, any integer type.
        matrix: see ``turn_and_scale``.
        shape: (D, H, W) of the patch.
        shift_voxels: added to every point, along D, H, W.
        bend: displacements that are added to the points.

    Returns:
        The image (C, *shape), linearly interpolated, and the labels (shape), nearest (halves go up); points outside the
        box get its nearest voxel.
    """
    source, device = labels_DHW.shape, labels_DHW.device
    assert image_CDHW.shape[1:] == source and labels_DHW.numel() < 2**31 - 1, (image_CDHW.shape, source)
    steps = [(torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2) for n in shape]
    field = None if bend is None else displacements(bend, shape, device)
    in_place = matrix[0] == (1.0, 0.0, 0.0) and matrix[1][0] == matrix[2][0] == 0 and source[0] == shape[0]
    if in_place and shift_voxels[0] == 0 and (bend is None or bend.flat):
        return _resample_slices(image_CDHW, labels_DHW, matrix, steps, shift_voxels, field)
    image_CN, labels_N = image_CDHW.reshape(image_CDHW.shape[0], -1), labels_DHW.reshape(-1)
    image_out = image_CDHW.new_empty((image_CDHW.shape[0], *shape))
    labels_out = labels_DHW.new_empty(shape)
    planes = shape[0] if device.type != "cpu" else max(1, CPU_PIECE // (shape[1] * shape[2]))
    with _one_thread(device):
        for start in range(0, shape[0], planes):
            piece = slice(start, start + planes)
            more = None if field is None else field(piece)
            low, part = _points([steps[0][piece], *steps[1:]], matrix, source, shift_voxels, more)
            labels_out[piece] = _take(labels_N, _flat([i + (t >= 0.5) for i, t in zip(low, part, strict=True)], source))
            for channel in range(len(image_CN)):
                image_out[channel, piece] = _between(image_CN[channel], _flat(low, source), part, source)
    return image_out, labels_out


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Many small operations one after the other, each too short to be shared.

    A piece is two of torch's shares of work, so two threads would be the most that it could use; and where other
    programs hold the processors, each operation would wait for its last thread to be scheduled: 3.1 s for 128^3 with
    two threads on a machine of two cores with fourteen programs at work, against 0.2 s with one.
    """
    before = torch.get_num_threads()
    if device.type != "cpu" or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _resample_slices(
    image_CDHW: torch.Tensor,
    labels_DHW: torch.Tensor,
    matrix: Matrix,
    steps: Sequence[torch.Tensor],
    shift_voxels: Sequence[float],
    field: Displacements | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``resample`` where every slice stays in its place and all read the same grid."""
    (channels, *source), shape = image_CDHW.shape, [len(s) for s in steps]
    last = [max(n - 1, 1) for n in source]
    (_, (_, a, b), (_, c, d)) = matrix
    rows = ((a, b, shift_voxels[1]), (c, d, shift_voxels[2]))
    y, x = ((p * steps[1] + more)[:, None] + q * steps[2] for p, q, more in rows)
    if field is not None:
        bent = field(slice(0, 1))
        y, x = y + bent[1, 0], x + bent[2, 0]
    grid = torch.stack((x * (2 / last[2]), y * (2 / last[1])), -1)[None]
    # slices are channels to grid_sample
    image = grid_sample(image_CDHW.reshape(1, -1, *source[1:]), grid, padding_mode="border", align_corners=True)
    row, column = ((point + (n / 2)).floor_().clamp_(0, n - 1).long() for point, n in ((y, source[1]), (x, source[2])))
    nearest = (row * source[2] + column).view(1, -1).expand(source[0], -1)
    labels = labels_DHW.reshape(source[0], -1).gather(1, nearest)
    return image.view(channels, *shape), labels.view(shape)


def _points(
    steps: Sequence[torch.Tensor],
    matrix: Matrix,
    source: Sequence[int],
    shift_voxels: Sequence[float],
    more: torch.Tensor | None,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """For each source axis: the index below every point (int32) and how far beyond it the point lies (0 to 1)."""
    low, part = [], []
    for axis, (a, b, c) in enumerate(matrix):
        last = source[axis] - 1
        plane = (b * steps[1])[:, None] + c * steps[2]
        point = (a * steps[0] + (last / 2 + shift_voxels[axis]))[:, None, None] + plane
        if more is not None:
            point += more[axis]
        point.clamp_(0, last)
        # the neighbour above must exist, also for a point on the last voxel; an axis of one voxel has none
        below = point.floor().clamp_(max=max(last - 1, 0))
        low.append(below.to(torch.int32))
        part.append(point.sub_(below))
    return low, part


def _flat(index: Sequence[torch.Tensor], source: Sequence[int]) -> torch.Tensor:
    return ((index[0] * source[1]).add_(index[1])).mul_(source[2]).add_(index[2])


def _take(values_N: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return values_N.index_select(0, index.view(-1)).view(index.shape)


def _between(
    values_N: torch.Tensor, index: torch.Tensor, part: Sequence[torch.Tensor], source: Sequence[int]
) -> torch.Tensor:
    """Linear interpolation between the two neighbours along each axis that has more than one voxel."""
    strides = (source[1] * source[2], source[2], 1)

    def along(axis: int, offset: int) -> torch.Tensor:
        if axis == 3:
            return _take(values_N, index + offset if offset else index)
        here = along(axis + 1, offset)
        if source[axis] == 1:
            return here
        return here.lerp_(along(axis + 1, offset + strides[axis]), part[axis])

    return along(0, 0)
