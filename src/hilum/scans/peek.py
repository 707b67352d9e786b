"""What a scan will be, told by its header alone, so that memory can be planned before it is read.

Comes in: a path as ``read_scan`` takes it. Goes out: its grid and how wide its numbers are; or None where only reading
can tell (a zip, a damaged file: those fail by themselves when their turn comes).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hilum.errors import InputError
from hilum.scans.finding import VOLUME_SUFFIXES
from hilum.volume import Grid


@dataclass(frozen=True)
class Peek:
    """A scan that has not been read.

    Attributes:
        grid: where its voxels lie, in the file's axis order.
        reading_bytes: of memory a voxel at the peak of reading.
        kept_bytes: of memory a voxel afterwards: 2, or 4 where HU may have fractions.
    """

    grid: Grid
    reading_bytes: int
    kept_bytes: int


def peek(path: str | Path, series: str | None = None) -> Peek | None:
    """The facts of a scan's header, or None."""
    path = Path(path)
    name = path.name.lower()
    try:
        if name.endswith((".nii.gz", ".nii")):
            return _nifti(path)
        if name.endswith(VOLUME_SUFFIXES):
            return _by_itk(path)
        return None if name.endswith(".zip") else _dicom(path, series)
    except (InputError, OSError, RuntimeError, ValueError):
        return None


def _nifti(path: Path) -> Peek:
    from hilum.scans import gzipped, nifti

    with gzipped.opened(path) as reader:
        header = nifti._header(reader)
        shape, stored = nifti._shape(header, path), nifti._number_type(header, path)
        affine, _ = nifti._affine(header, shape, path)
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    scaled = bool(np.isfinite(slope)) and slope != 0 and (slope, inter) != (1.0, 0.0)
    return _of(Grid(shape, affine), stored, scaled, scaled and not (slope.is_integer() and inter.is_integer()))


def _by_itk(path: Path) -> Peek:
    import SimpleITK

    itk: Any = SimpleITK
    reader = itk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    size, spacing = reader.GetSize()[:3], np.array(reader.GetSpacing()[:3])
    turn = np.array(reader.GetDirection()).reshape(len(reader.GetSize()), -1)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1, -1, 1]) @ turn * spacing  # ITK counts in LPS
    kind = itk.GetPixelIDValueAsString(reader.GetPixelID())
    width = next((bits // 8 for bits in (8, 16, 32, 64) if str(bits) in kind), 8)
    stored = np.dtype(f"f{max(4, width)}" if "float" in kind else f"i{width}")
    # SimpleITK holds the image while its voxels are copied
    facts = _of(Grid((size[0], size[1], size[2]), affine), stored, False, False)
    return Peek(facts.grid, facts.reading_bytes + stored.itemsize, facts.kept_bytes)


def _dicom(path: Path, series: str | None) -> Peek:
    from hilum.scans.dicom_files import ct_files
    from hilum.scans.dicom_geometry import arrange
    from hilum.scans.dicom_series import _chosen

    files, _ = ct_files(path)
    slices = [item for file in _chosen(files, series, path) for item in file.slices()]
    whole = all(float(item.slope).is_integer() and float(item.intercept).is_integer() for item in slices)
    return _of(arrange(slices, path).grid, np.dtype(np.int16), False, not whole)


def _of(grid: Grid, stored: np.dtype[np.generic], scaled: bool, fractions: bool) -> Peek:
    """As ``read_scan`` goes about it: the stored numbers, scaled ones beside them, and int16 or float32 in the end."""
    kept = 4 if fractions or stored.kind == "f" else 2
    if stored == np.int16 and not scaled:
        return Peek(grid, 2, 2)
    # scaling makes float32 or int16 beside the stored numbers; whole numbers in float become int16 beside the float
    return Peek(grid, stored.itemsize + max(4, kept) + (2 if stored.kind == "f" else 0), kept)
