"""A small body with a liver on its right, for looking data sets over: images and label maps that can be spoilt."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (32, 28, 16)  # RAS: right, front, up
SPACING = (8.0, 8.0, 10.0)
AFFINE = np.diag([*SPACING, 1.0])
AFFINE[:3, 3] = (-120.0, -110.0, 40.0)


def body(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """int16 HU of fat in air with a liver and a tumour in it, and their labels (1, 2), listed as RAS."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    hu = np.full(shape, -1000.0)
    inside = x**2 / 0.8 + y**2 / 0.6 < 1
    hu[inside] = -90
    liver = (x - 0.35) ** 2 / 0.12 + (y - 0.1) ** 2 / 0.14 + (z - 0.1) ** 2 / 0.5 < 1
    hu[liver & inside] = 110
    tumour = (x - 0.4) ** 2 + (y - 0.15) ** 2 + (z + 0.3 - 0.15 * (seed % 5)) ** 2 / 2 < 0.02
    hu[tumour] = 30
    hu += rng.normal(0, 12, shape)
    hu[0, 0, 0] = 600
    labels = np.zeros(shape, np.uint8)
    labels[liver & inside], labels[tumour] = 1, 2
    return np.round(np.maximum(hu, -1024)).astype(np.int16), labels


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    nib.save(image, path)
    return path


def write_lits(root: Path, number: int, seed: int | None = None, affine: np.ndarray = AFFINE) -> tuple[Path, Path]:
    """``volume-N.nii`` and ``segmentation-N.nii``."""
    hu, labels = body(number if seed is None else seed)
    return write(root / f"volume-{number}.nii", hu, affine), write(root / f"segmentation-{number}.nii", labels, affine)
