"""hilum's own: images/case_000.nii.gz with labels/case_000.nii.gz."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilum.phantom.case import PhantomCase
from hilum.phantom.layouts import Place
from hilum.scans import write_labels, write_scan

SCHEMES = ("kits", "abdomen", "lits", "trunk")


def place(out: Path, number: int) -> Place:
    """Where case ``number`` goes."""
    name = f"case_{number:03d}"
    return Place(name, out / "images" / f"{name}.nii.gz", out / "labels" / f"{name}.nii.gz")


def write(where: Place, case: PhantomCase) -> None:
    """Image and label map on the same grid."""
    write_scan(where.image, case.ct)
    write_labels(where.labels, case.labels)


def finish(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Nothing beyond the manifest."""
