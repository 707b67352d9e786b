"""Sets with one fault each: a maker for every code of ``hilum data verify``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from making_cases import AFFINE, SPACING, body, write, write_lits
from making_dicom import make_series


def kits(root: Path, name: str, stored: type = np.uint8, axes: str = "IPL") -> Path:
    """A KiTS case: axes (slice, row, column) from head to feet, and unsigned labels."""
    hu, labels = body(int(name[-5:]))
    turn = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(tuple(axes)))
    affine = AFFINE @ nib.orientations.inv_ornt_aff(turn, hu.shape)
    for file, array in (("imaging", hu), ("segmentation", labels.astype(stored))):
        write(root / name / f"{file}.nii.gz", nib.apply_orientation(array, turn), affine)
    return root / name


def flipped(axis: int) -> np.ndarray:
    """The affine with one axis the other way round, over the same box."""
    n = body()[0].shape[axis]
    turn = np.eye(4)
    turn[axis, axis], turn[axis, 3] = -1, n - 1
    return np.asarray(AFFINE @ turn)


# ---- one maker a code: it writes a LiTS or KiTS set that shows it --------------------------------------------------
def _missing(root: Path) -> str:
    write_lits(root, 0)[1].unlink()
    return "lits"


def _partial(root: Path) -> str:
    image, _ = write_lits(root, 0)
    image.rename(root / "volume-0.nii.part")
    return "lits"


def _unreadable(root: Path) -> str:
    case = kits(root, "case_00001")
    data = bytearray((case / "imaging.nii.gz").read_bytes())
    data[-6] ^= 255  # the gzip checksum
    (case / "imaging.nii.gz").write_bytes(data)
    return "kits23"


def _no_ct(root: Path) -> str:
    hu, _ = body()
    write_lits(root, 0)
    write(root / "volume-0.nii", (hu + 1100).astype(np.int16))  # the intercept was lost
    return "lits"


def _no_labels(root: Path) -> str:
    write_lits(root, 0)
    write(root / "segmentation-0.nii", body()[1] * 3)
    return "lits"


def _empty_labels(root: Path) -> str:
    write_lits(root, 0)
    write(root / "segmentation-0.nii", np.zeros_like(body()[1]))
    return "lits"


def _shape(root: Path) -> str:
    write_lits(root, 0)
    write(root / "segmentation-0.nii", body()[1][:-1])
    return "lits"


def _misplaced(root: Path) -> str:
    hu, labels = body()
    noise = np.random.default_rng(1).normal(0, 40, hu.shape).astype(np.int16)  # nothing to hold the labels against
    noise[0, 0, 0] = -1000
    affine = np.array(AFFINE)
    affine[0, 3] += SPACING[0]
    write(root / "volume-0.nii", noise)
    write(root / "segmentation-0.nii", labels, affine)
    return "lits"


def _spacing_unknown(root: Path) -> str:
    write_lits(root, 30, affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    return "lits"


def _axis_order(root: Path) -> str:
    write_lits(root, 0)
    write(root / "segmentation-0.nii", body()[1].transpose(2, 1, 0), AFFINE[:, [2, 1, 0, 3]])
    return "lits"


def _flip(root: Path) -> str:
    write_lits(root, 0)
    write(root / "segmentation-0.nii", body()[1], flipped(0))
    return "lits"


def _shift(root: Path) -> str:
    affine = np.array(AFFINE)
    affine[:3, 3] += (40, -24, 30)
    write_lits(root, 0)
    write(root / "segmentation-0.nii", body()[1], affine)
    return "lits"


def _spacing_differs(root: Path) -> str:
    write_lits(root, 0)
    write(root / "segmentation-0.nii", body()[1], AFFINE @ np.diag([0.5, 0.5, 0.5, 1]))
    return "lits"


def _table_spacing(root: Path) -> str:
    kits(root, "case_00001")
    row = {"case_id": "case_00001", "captured_pixel_width": 8.0, "captured_slice_thickness": 5.0}
    (root / "kits.json").write_text(json.dumps([row]))
    return "kits19"


def _mirrored(root: Path) -> str:
    write_lits(root, 0, affine=flipped(0))
    return "lits"


def _rounding(root: Path) -> str:
    affine = np.array(AFFINE)
    affine[0, 3] += 0.03
    write_lits(root, 0)
    write(root / "segmentation-0.nii", body()[1], affine)
    return "lits"


def _whole_floats(root: Path) -> str:
    write_lits(root, 0)
    write(root / "volume-0.nii", body()[0].astype(np.float64))
    return "lits"


def _qform(root: Path) -> str:
    image, _ = write_lits(root, 0)
    loaded = nib.load(image)
    affine = np.array(AFFINE)
    affine[0, 3] += 7
    loaded.set_sform(AFFINE, 1)
    loaded.set_qform(affine, 1)
    nib.save(loaded, root / "x.nii")
    os.replace(root / "x.nii", image)
    return "lits"


def _padding(root: Path) -> str:
    write_lits(root, 0)
    hu = body()[0]
    hu[:3, :3] = -2048
    write(root / "volume-0.nii", hu)
    return "lits"


def _hu_range(root: Path) -> str:
    write_lits(root, 0)
    hu = body()[0]
    hu[5, 5, 5] = 20_000
    write(root / "volume-0.nii", hu)
    return "lits"


def _no_orientation(root: Path) -> str:
    for path in write_lits(root, 0):
        loaded = nib.load(path)
        data = np.asarray(loaded.dataobj)
        loaded.header["sform_code"] = loaded.header["qform_code"] = 0
        head = bytearray(path.read_bytes())
        head[252:256] = b"\0\0\0\0"  # qform_code and sform_code
        path.write_bytes(head)
        assert data.any()
    return "lits"


def _odd_axes(root: Path) -> str:
    kits(root, "case_00001", axes="RAS")
    return "kits23"


def _odd_shape(root: Path) -> str:
    hu, labels = body(shape=(3, 512, 796))
    affine = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [-5, 0, 0, 0], [0, 0, 0, 1.0]])
    write(root / "case_00160" / "imaging.nii.gz", hu, affine)
    write(root / "case_00160" / "segmentation.nii.gz", np.maximum(labels, (hu > 550).astype(np.uint8)), affine)
    return "kits23"


def _old_labels(root: Path) -> str:
    kits(root, "case_00015", np.uint8)
    return "kits19"


def _in_doubt(root: Path) -> str:
    kits(root, "case_00068")
    return "kits19"


def _no_label_map(root: Path) -> str:
    write_lits(root, 0)[0].rename(root / "test-volume-0.nii")
    (root / "segmentation-0.nii").unlink()
    return "lits"


def _dicom(root: Path, **facts: Any) -> str:
    hu = body()[0].transpose(2, 1, 0)
    make_series(root / "3Dircadb1.1" / "PATIENT_DICOM", hu, step=(0, 0, 3.0), **facts)
    make_series(root / "3Dircadb1.1" / "MASKS_DICOM" / "spleen", (hu > 200).astype(np.int16), step=(0, 0, 3.0))
    return "ircadb"


def _rescale(root: Path) -> str:
    return _dicom(root, RescaleType="US")


def _thickness(root: Path) -> str:
    return _dicom(root, SliceThickness="5")


MAKERS: dict[str, Callable[[Path], str]] = {
    "missing": _missing, "partial": _partial, "unreadable": _unreadable, "no-ct": _no_ct, "no-labels": _no_labels,
    "empty-labels": _empty_labels, "shape": _shape, "misplaced": _misplaced, "spacing-unknown": _spacing_unknown,
    "axis-order": _axis_order, "flip": _flip, "shift": _shift, "spacing-differs": _spacing_differs,
    "table-spacing": _table_spacing, "mirrored": _mirrored, "rounding": _rounding, "whole-floats": _whole_floats,
    "qform": _qform, "padding": _padding, "hu-range": _hu_range, "no-orientation": _no_orientation,
    "odd-axes": _odd_axes, "odd-shape": _odd_shape, "old-labels": _old_labels, "in-doubt": _in_doubt,
    "no-label-map": _no_label_map, "rescale": _rescale, "thickness": _thickness,
}  # fmt: skip
