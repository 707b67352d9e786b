"""Other voxel sizes: cubic B-splines for images, shares of each class for label maps.

Comes in: an array and the shape it shall have. Goes out: the array over the same extent (outer voxel edges coincide,
as ``Grid.reshaped`` has it: ``old = (new + 0.5) * old_count / new_count - 0.5``). Knows no millimetres and no plan.

Images equal ``scipy.ndimage.zoom(..., mode="nearest", grid_mode=True)``, which is what ``skimage.transform.resize(mode=
"edge", anti_aliasing=False)`` and by it nnU-Net v2 compute, clipped to the range of the input as theirs. Nothing is
smoothed before going to coarser voxels.

How. Resampling is separable and linear, so prefilter and interpolation fold into one matrix per axis, built in float64
and applied in float32. A B-spline's influence falls to 0.27 per voxel (Unser 1999), so the matrix is a band: it is cut
into blocks of rows, each with the columns that matter. Slabs of output slices bound the memory.

Why the products are small: a BLAS runs a small one in the calling thread. Its own threads spin while they wait, and
on two cores shared with others one call took 17 s instead of 0.4 s. The threads are ours, one slab each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from hilum.cores import cpu_count
from hilum.labels import count_labels

Shape = tuple[int, int, int]

_NEGLIGIBLE = 1e-7  # weights below: at most 0.001 HU of a voxel of 3000 HU
ROWS = 24  # output rows a block: more rows waste products outside the band, fewer waste calls
_SMALL = 64**3  # multiplications up to which OpenBLAS stays in the calling thread
_PAD = 12  # voxels that scipy repeats at the edge before its prefilter; equal values need the same number


class _Block(NamedTuple):
    """Rows ``start:stop`` of a matrix, which read columns ``first:last``; no weights where they only copy."""

    start: int
    stop: int
    first: int
    last: int
    weights: np.ndarray | None


def resample_image(
    image_DHW: np.ndarray,
    shape: Iterable[int],
    *,
    order: int = 3,
    separate_z: bool = False,
    dtype: Any = np.float32,
    threads: int = 0,
) -> np.ndarray:
    """An image over the same extent with another number of voxels.

    Args:
        image_DHW: (D, H, W) of any number type, finite.
        shape: the wanted (D, H, W).
        order: 0 nearest, 1 linear, 3 cubic B-spline.
        separate_z: order 0 along D and ``order`` in plane, as nnU-Net v2 does where slices are thick.
        dtype: of the result; whole-number types are rounded and clipped to what they hold.
        threads: slabs worked on at once; 0 means one for each core.

    Returns:
        (D, H, W) of ``dtype``, a new array.
    """
    slabs = ImageSlabs(image_DHW, shape, order=order, separate_z=separate_z, dtype=dtype)
    out = np.empty(slabs.shape, dtype)
    slabs.fill(out, 0, threads)
    return out


class ImageSlabs:
    """The slices of ``resample_image``, bit for bit, computed when they are asked for: the whole never exists.

    Args:
        image_DHW, shape, order, separate_z, dtype: as for ``resample_image``; the image is kept, not copied.
        nearest_axis: the axis of order 0, whichever it is; ``separate_z`` is the same for axis 0.
        clip: least and greatest value that voxels are clipped to before anything else.

    Attributes:
        shape: of the whole.
        dtype: of the slices.
        image: what is resampled.
    """

    def __init__(
        self,
        image_DHW: np.ndarray,
        shape: Iterable[int],
        *,
        order: int = 3,
        separate_z: bool = False,
        dtype: Any = np.float32,
        nearest_axis: int | None = None,
        clip: tuple[float, float] | None = None,
    ):
        self.shape, self.dtype, self.image = _shape(shape), np.dtype(dtype), image_DHW
        assert image_DHW.ndim == 3 and order in (0, 1, 3), (image_DHW.shape, order)
        self._copies = image_DHW.shape == self.shape
        nearest_axis = 0 if separate_z else nearest_axis
        orders = [0 if axis == nearest_axis else order for axis in range(3)]
        matrices = [_matrix(old, n, k) for old, n, k in zip(image_DHW.shape, self.shape, orders, strict=True)]
        self._blocks = _blocks(matrices[0])
        self._in_plane = [_blocks(matrix) for matrix in matrices[1:]]
        self._separate_z, self._clip = nearest_axis == 0, clip
        if not self._copies:
            self._low, self._high = _range(image_DHW, matrices, nearest_axis)
            if clip is not None:
                self._low, self._high = np.clip(self._low, *clip), np.clip(self._high, *clip)

    def fill(self, out_SHW: np.ndarray, first: int, threads: int = 0) -> None:
        """Fill ``out_SHW`` with slices ``first`` and following; whole blocks are computed, whatever is asked for."""
        last = first + len(out_SHW)
        wanted = [block for block in self._blocks if block.stop > first and block.start < last]

        def work(block: _Block) -> None:
            start, stop = max(block.start, first), min(block.stop, last)
            self._compute(block, slice(start, stop), out_SHW[start - first : stop - first])

        _spread(work, wanted, threads)

    def block_bytes(self) -> int:
        """About how much memory one thread needs at its peak, in bytes."""
        if self._copies:
            return 0
        _, old_h, old_w = self.image.shape
        _, new_h, new_w = self.shape
        read = max(block.last - block.first for block in self._blocks)
        rows = max(block.stop - block.start for block in self._blocks)
        return 4 * max(  # type: ignore[no-any-return]
            (read + rows) * old_h * old_w,
            rows * (old_h * old_w + old_h * new_w + new_h * new_w),
            2 * rows * new_h * new_w,
        )

    def _compute(self, block: _Block, rows: slice, out: np.ndarray) -> None:
        """Some slices of a block; all of it is computed, so that the numbers never depend on what was asked for."""
        if self._copies:
            part = self.image[rows] if self._clip is None else self.image[rows].clip(*self._clip)
            _store(out, part if part.dtype == out.dtype else part.astype(np.float32))
            return
        planes = _plane(_along_z(self.image, block, self._clip), self._in_plane[0], self._in_plane[1])
        ends = slice(block.start, block.stop) if self._separate_z else slice(None)
        np.clip(planes, self._low[ends], self._high[ends], out=planes)  # as skimage: an overshoot would be no tissue
        _store(out, planes[rows.start - block.start : rows.stop - block.start])


def resample_labels(
    labels_DHW: np.ndarray,
    shape: Iterable[int],
    *,
    nearest: bool = False,
    separate_z: bool = False,
    threads: int = 0,
) -> np.ndarray:
    """A label map over the same extent with another number of voxels.

    Every label's mask is interpolated linearly and the label with the largest share wins; of equal shares the higher
    label does, background last, so that lesions do not fade at ties. A label too small to win anywhere keeps the one
    voxel where its share is largest: no label of the source gets lost while there are voxels for all.

    Args:
        labels_DHW: (D, H, W) uint8.
        shape: the wanted (D, H, W).
        nearest: take the nearest voxel's label instead (and lose what falls between).
        separate_z: nearest along D, linear in plane.
        threads: slabs worked on at once; 0 means one for each core.

    Returns:
        (D, H, W) uint8, a new array.
    """
    new = _shape(shape)
    assert labels_DHW.ndim == 3 and labels_DHW.dtype == np.uint8, (labels_DHW.shape, labels_DHW.dtype)
    if labels_DHW.shape == new:
        return np.array(labels_DHW, order="C")
    if nearest:
        picks = [_matrix(old, count, 0).argmax(axis=1) for old, count in zip(labels_DHW.shape, new, strict=True)]
        return np.ascontiguousarray(labels_DHW[np.ix_(*picks)])
    orders = (0 if separate_z else 1, 1, 1)
    matrices = [_matrix(old, n, order) for old, n, order in zip(labels_DHW.shape, new, orders, strict=True)]
    out = np.zeros(new, np.uint8)

    def slab(block: _Block) -> None:
        _label_slab(labels_DHW[block.first : block.last], block, matrices, out[block.start : block.stop])

    _spread(slab, _blocks(matrices[0]), threads)
    _keep_all(labels_DHW, matrices, out)
    return out


def _label_slab(source: np.ndarray, block: _Block, matrices: list[np.ndarray], out: np.ndarray) -> None:
    """The winners of some output slices; only the box that holds labels is computed."""
    values = np.flatnonzero(count_labels(source)[1:]) + 1
    if not len(values):
        return
    occupied = np.asarray(source.any(axis=0))
    spans = [_span(occupied.any(axis=1)), _span(occupied.any(axis=0))]
    hits = [(matrix[:, span] > _NEGLIGIBLE).any(axis=1) for matrix, span in zip(matrices[1:], spans, strict=True)]
    if not all(hit.any() for hit in hits):  # all of it lies between the new voxels' centres
        return
    rows = [_span(hit) for hit in hits]
    in_plane = [_blocks(m[r, s]) for m, r, s in zip(matrices[1:], rows, spans, strict=True)]
    box = source[:, spans[0], spans[1]]
    local = block._replace(first=0, last=len(source))
    shares = [_plane(_along_z(box == value, local), in_plane[0], in_plane[1]) for value in values]
    winner = np.zeros(shares[0].shape, np.uint8)
    best = 1 - np.sum(shares, axis=0)
    for value, share in zip(values, shares, strict=True):
        wins = share >= best
        winner[wins] = value
        np.maximum(best, share, out=best)
    out[:, rows[0], rows[1]] = winner


def _keep_all(source: np.ndarray, matrices: list[np.ndarray], out: np.ndarray) -> None:
    """Give every label of the source that won no voxel the one where its share is largest."""
    before, counts = count_labels(source), count_labels(out)
    for value in np.flatnonzero((before > 0) & (counts == 0)):
        z, y, x = np.nonzero(source == value)
        share = np.zeros(out.shape, np.float32)
        for voxel in zip(z, y, x, strict=True):
            near = [np.flatnonzero(matrix[:, i] > 0) for matrix, i in zip(matrices, voxel, strict=True)]
            weights = [matrix[rows, i] for matrix, rows, i in zip(matrices, near, voxel, strict=True)]
            share[np.ix_(*near)] += np.einsum("i,j,k->ijk", *weights)
        free = (out == 0) | (counts[out] > 1)  # never the last voxel of another label
        if not free.any():
            return
        place = int(np.argmax(np.where(free, share, -1)))
        if not share.flat[place]:  # its voxels fell between the new ones' centres: the nearest that may be had
            centre = [(i[0] + 0.5) * n / o - 0.5 for i, n, o in zip((z, y, x), out.shape, source.shape, strict=True)]
            places = np.argwhere(free)
            nearest = places[np.argmin(((places - centre) ** 2).sum(axis=1))]
            place = int(np.ravel_multi_index(tuple(nearest), out.shape))
        counts[out.flat[place]] -= 1
        counts[value] += 1
        out.flat[place] = value


@lru_cache(maxsize=16)
def _matrix(old: int, new: int, order: int) -> np.ndarray:
    """(new, old) float64: the weights that make ``new`` samples of ``old`` ones."""
    if old == new:
        matrix = np.eye(old)
    else:
        x = (old / new) * (np.arange(new) + 0.5) - 0.5  # the very product of nnU-Net v2: ties hang on the last bit
        matrix = {0: _nearest, 1: _linear, 3: _cubic}[order](x, old)
    matrix.setflags(write=False)
    return matrix


def _nearest(x: np.ndarray, old: int) -> np.ndarray:
    matrix = np.zeros((len(x), old))
    matrix[np.arange(len(x)), np.clip(np.floor(x + 0.5).astype(int), 0, old - 1)] = 1
    return matrix


def _linear(x: np.ndarray, old: int) -> np.ndarray:
    x = np.clip(x, 0, old - 1)
    low = np.minimum(x.astype(int), max(old - 2, 0))
    matrix = np.zeros((len(x), old))
    np.add.at(matrix, (np.arange(len(x)), low), 1 - (x - low))
    np.add.at(matrix, (np.arange(len(x)), np.minimum(low + 1, old - 1)), x - low)
    return matrix


def _cubic(x: np.ndarray, old: int) -> np.ndarray:
    """Prefilter and evaluation of cubic B-splines in one (Unser 1999, IEEE Signal Process. Mag. 16(6), eq. 5 and 8).

    The coefficients c of samples f solve ``c[k-1] + 4 c[k] + c[k+1] = 6 f[k]``; beyond the ends the edge voxel is
    repeated ``_PAD`` times and then mirrored, which is scipy's ``mode="nearest"``.
    """
    count = old + 2 * _PAD
    coefficients = 6 * np.eye(old)[np.clip(np.arange(count) - _PAD, 0, old - 1)]
    above = np.ones(count)  # Thomas's elimination: BLAS threads, which a general solver would wake, are not wanted
    above[0] = 2 / 4
    coefficients[0] /= 4
    for k in range(1, count):
        below = 2.0 if k == count - 1 else 1.0
        pivot = 4 - below * above[k - 1]
        above[k] = 1 / pivot
        coefficients[k] = (coefficients[k] - below * coefficients[k - 1]) / pivot
    for k in range(count - 2, -1, -1):
        coefficients[k] -= above[k] * coefficients[k + 1]
    x = x + _PAD
    low = np.floor(x).astype(int)
    t = x - low
    taps = ((1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3)
    rows: np.ndarray = sum(tap[:, None] / 6 * coefficients[low - 1 + i] for i, tap in enumerate(taps))
    return rows


def _blocks(matrix: np.ndarray) -> list[_Block]:
    """The band of a matrix, cut into rows."""
    count, old = matrix.shape
    copies = count == old and bool((matrix == np.eye(old)).all())
    blocks = []
    for start in range(0, count, ROWS):
        stop = min(start + ROWS, count)
        columns = _span((np.abs(matrix[start:stop]) > _NEGLIGIBLE).any(axis=0))
        weights = np.ascontiguousarray(matrix[start:stop, columns], np.float32)
        blocks.append(_Block(start, stop, columns.start, columns.stop, None if copies else weights))
    return blocks


def _along_z(image_DHW: np.ndarray, block: _Block, clip: tuple[float, float] | None = None) -> np.ndarray:
    """Some output slices, still with the old rows and columns: (stop - start, H, W) float32."""
    slab = np.ascontiguousarray(image_DHW[block.first : block.last], np.float32)
    if clip is not None:
        slab = slab.clip(*clip)
    if block.weights is None:
        return slab
    out = np.empty((len(block.weights), *slab.shape[1:]), np.float32)
    whole = [block._replace(start=0, stop=len(block.weights), first=0, last=len(slab))]
    _multiply_rows(whole, slab.transpose(1, 0, 2), out.transpose(1, 0, 2))
    return out


def _plane(slab_SHW: np.ndarray, blocks_H: list[_Block], blocks_W: list[_Block]) -> np.ndarray:
    """Every slice with new columns and rows: (S, H', W') float32."""
    if blocks_W[0].weights is not None:
        wider = np.empty((*slab_SHW.shape[:2], blocks_W[-1].stop), np.float32)
        _multiply_columns(blocks_W, slab_SHW, wider)
        slab_SHW = wider
    if blocks_H[0].weights is not None:
        higher = np.empty((len(slab_SHW), blocks_H[-1].stop, slab_SHW.shape[2]), np.float32)
        _multiply_rows(blocks_H, slab_SHW, higher)
        slab_SHW = higher
    return slab_SHW


def _multiply_rows(blocks: list[_Block], x_SCN: np.ndarray, out_SRN: np.ndarray) -> None:
    """``out[s, r, n] = sum over c of weights[r, c] x[s, c, n]``, in products that stay in this thread."""
    for block in blocks:
        assert block.weights is not None
        for part in _parts(x_SCN.shape[2], block.weights.size):
            source = x_SCN[:, block.first : block.last, part]
            np.matmul(block.weights, source, out=out_SRN[:, block.start : block.stop, part])


def _multiply_columns(blocks: list[_Block], x_SNC: np.ndarray, out_SNR: np.ndarray) -> None:
    """``out[s, n, r] = sum over c of x[s, n, c] weights[r, c]``."""
    for block in blocks:
        assert block.weights is not None
        for part in _parts(x_SNC.shape[1], block.weights.size):
            source = x_SNC[:, part, block.first : block.last]
            np.matmul(source, block.weights.T, out=out_SNR[:, part, block.start : block.stop])


def _parts(count: int, weights: int) -> list[slice]:
    """``count`` cut evenly so that each part makes a small product."""
    pieces = -(-count // max(8, _SMALL // weights))
    size = -(-count // pieces)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _range(image: np.ndarray, matrices: list[np.ndarray], apart: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest value of the image, or of each new slice's source along the axis whose slices are apart."""
    axes = tuple(axis for axis in range(3) if axis != apart)
    low, high = (f(image, axis=axes, keepdims=True).astype(np.float32) for f in (np.min, np.max))
    if apart is None:
        return low, high
    source = matrices[apart].argmax(axis=1)
    return low.take(source, apart), high.take(source, apart)


def _store(out: np.ndarray, values: np.ndarray) -> None:
    if out.dtype.kind in "iu" and values.dtype.kind == "f":
        limits = np.iinfo(out.dtype)
        whole = np.rint(values)
        np.clip(whole, limits.min, limits.max, out=whole)
        np.copyto(out, whole, casting="unsafe")
    else:
        out[...] = values


def _span(hit: Any) -> slice:
    """From the first True to behind the last."""
    places = np.flatnonzero(hit)
    return slice(int(places[0]), int(places[-1]) + 1)


def _spread(work: Callable[[_Block], None], blocks: list[_Block], threads: int) -> None:
    threads = min(threads or cpu_count(), len(blocks))
    if threads == 1:
        for block in blocks:
            work(block)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, blocks):
            pass


def _shape(shape: Iterable[int]) -> Shape:
    depth, height, width = (int(n) for n in shape)
    assert min(depth, height, width) >= 1, (depth, height, width)
    return depth, height, width
