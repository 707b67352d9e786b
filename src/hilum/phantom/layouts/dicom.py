"""DICOM as it leaves a scanner: dicom/case_000/IM0.dcm and on, with labels/case_000.nii.gz on the same grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilum.phantom.case import PhantomCase
from hilum.phantom.layouts import Place
from hilum.phantom.layouts.dicom_slices import write_series
from hilum.scans import write_labels

SCHEMES = ("kits", "abdomen", "lits")


def place(out: Path, number: int) -> Place:
    """Where case ``number`` goes."""
    name = f"case_{number:03d}"
    return Place(name, out / "dicom" / name, out / "labels" / f"{name}.nii.gz")


def write(where: Place, case: PhantomCase) -> None:
    """A series and a label map."""
    write_series(where.image, case.ct, seed=int(case.facts["seed"]), series=1, name="abdomen", stem="IM", suffix=".dcm")
    write_labels(where.labels, case.labels)


def finish(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Nothing beyond the manifest."""
