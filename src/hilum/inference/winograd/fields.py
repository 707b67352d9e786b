"""What flows between layers: one image's channels, channels last, in a layout that tiles of rows need.

Comes in: sizes. Goes out: ``Field``s, which hand out and take whole planes, and a ``Store`` that lends their memory
again. Knows no layer.

Shapes: D, H, W voxels, C channels. A ``dealt`` field has a border of one zero voxel on all sides and keeps row ``y`` of
the bordered image at ``[y % 4, plane, y // 4]``: the rows that tiles of four outputs begin with, and those one further,
and so on, each lie side by side, so that a matrix product over rows needs no copy. A plain one is (D, H, W, C).
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import suppress

import torch

Shape = tuple[int, int, int]
ROWS = 4


class Field:
    """Channels of one image.

    Args:
        buffer: (4, D + 2, H / 4 + 1, W + 2, C) with a border of zeros where dealt, or (D, H, W, C).
        shape: (D, H, W).
        dealt: which of them.
    """

    def __init__(self, buffer: torch.Tensor, shape: Shape, dealt: bool):
        self.buffer, self.shape, self.dealt, self.channels = buffer, shape, dealt, buffer.shape[-1]

    def read(self, first: int, last: int, top: int = 0, bottom: int = 0) -> torch.Tensor:
        """Planes ``first`` to ``last`` and rows ``top`` to ``bottom`` (0: all): (planes, rows, W, C), contiguous."""
        bottom = bottom or self.shape[1]
        if not self.dealt:
            return self.buffer[first:last, top:bottom].contiguous()
        out = self.buffer.new_empty((last - first, bottom - top, self.shape[2], self.channels))
        for rest in range(ROWS):
            start = (rest - 1 - top) % ROWS
            rows = out[:, start::ROWS]
            at = (top + start + 1) // ROWS
            rows.copy_(self.buffer[rest, first + 1 : last + 1, at : at + rows.shape[1], 1:-1])
        return out

    def write(self, first: int, planes: torch.Tensor) -> None:
        """Take planes (any number, H, W, C) from ``first`` on."""
        last = first + len(planes)
        if not self.dealt:
            self.buffer[first:last] = planes
            return
        for rest in range(ROWS):
            rows = planes[:, (rest - 1) % ROWS :: ROWS]
            at = 1 if rest == 0 else 0
            self.buffer[rest, first + 1 : last + 1, at : at + rows.shape[1], 1:-1] = rows

    def inside(self) -> tuple[torch.Tensor, int]:
        """Its memory from its first voxel on as (4, D, rows, W, C), and how many rows of it lie before that voxel."""
        if self.dealt:
            return self.buffer[:, 1:, :, 1:-1], 1
        return in_fours(self.buffer), 0

    def plane(self, index: int) -> Iterator[torch.Tensor]:
        """The memory of one plane without its border: pieces (rows, W * C)."""
        if not self.dealt:
            yield self.buffer[index].flatten(1)
            return
        count = self.shape[1] // ROWS
        for rest in range(ROWS):
            at = 1 if rest == 0 else 0
            yield self.buffer[rest, index + 1, at : at + count, 1:-1].flatten(1)


def in_fours(image: torch.Tensor) -> torch.Tensor:
    """An image (D, H, W, C) as a dealt one would lie: (4, D, H / 4, W, C), the same memory."""
    depth, height, width, channels = image.shape
    plane, row, column, _ = image.stride()
    return image.as_strided((ROWS, depth, height // ROWS, width, channels), (row, plane, ROWS * row, column, 1))


class Store:
    """Memory of fields that are done with, lent again: new memory costs as much time as a layer's arithmetic."""

    def __init__(self) -> None:
        self._free: dict[tuple[Shape, int, bool], list[torch.Tensor]] = {}

    def field(self, shape: Shape, channels: int, dealt: bool) -> Field:
        """A field whose voxels are anything, and whose border is zero."""
        free = self._free.setdefault((shape, channels, dealt), [])
        if free:
            return Field(free.pop(), shape, dealt)
        depth, height, width = shape
        size = (ROWS, depth + 2, height // ROWS + 1, width + 2, channels) if dealt else (*shape, channels)
        return Field(_mapped(size), shape, dealt)

    def give_back(self, *fields: Field) -> None:
        """Fields that nobody reads any more."""
        for field in fields:
            self._free.setdefault((field.shape, field.channels, field.dealt), []).append(field.buffer)

    def forget(self, shape: Shape) -> None:
        """Hand memory of fields of this resolution back to the system: a finer one is about to need more."""
        for key in [key for key in self._free if key[0] == shape]:
            del self._free[key]


def _mapped(size: tuple[int, ...]) -> torch.Tensor:
    """Zeros in pages of their own: they go back to the system when they are let go, and leave no holes."""
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    pages = mmap.mmap(-1, 4 * math.prod(size), **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # a page of 2 MB is got as fast as one of 4 KB
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.float32).view(size)
