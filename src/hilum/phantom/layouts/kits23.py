"""KiTS23: case_00000/imaging.nii.gz and segmentation.nii.gz in "IPL" order at origin zero, and kits23.json.

As in the real files, array axis 0 runs from the head down and the affine holds nothing but spacings. HU are int16 here,
the real images as 64-bit floats of whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hilum.files import write_json
from hilum.phantom.case import PhantomCase
from hilum.phantom.layouts import Place
from hilum.scans import write_labels, write_scan
from hilum.volume import Grid, Volume

SCHEMES = ("kits",)
_HISTOLOGY = {
    "clear_cell": "clear_cell_rcc", "papillary": "papillary", "chromophobe": "chromophobe",
    "fat_rich": "angiomyolipoma",
}  # fmt: skip


def place(out: Path, number: int) -> Place:
    """Where case ``number`` goes."""
    name = f"case_{number:05d}"
    return Place(name, out / name / "imaging.nii.gz", out / name / "segmentation.nii.gz")


def write(where: Place, case: PhantomCase) -> None:
    """Image and segmentation on KiTS's grid."""
    write_scan(where.image, _as_kits(case.ct))
    write_labels(where.labels, _as_kits(case.labels))


def _as_kits(volume: Volume) -> Volume:
    """The same voxels listed as (slice from the head down, row, column), the corner at the origin."""
    turned = volume.oriented("IPL")
    z, y, x = turned.spacing_mm
    affine = np.array([[0, 0, -x, 0], [0, -y, 0, 0], [-z, 0, 0, 0], [0, 0, 0, 1.0]])
    return Volume.on(Grid(turned.shape, affine), turned.array, turned.source, turned.header)


def finish(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """kits23.json with the few clinical fields that a synthetic patient has; nothing else is invented."""
    write_json(out / "kits23.json", [_record(row) for row in rows])


def _record(row: dict[str, Any]) -> dict[str, Any]:
    facts = row["facts"]
    tumours = [x for x in facts["lesions"] if x["kind"] == "tumour"]
    largest = max(tumours, key=lambda x: float(x["volume_ml"]), default=None)
    return {
        "case_id": row["case"],
        "synthetic": True,
        "radiographic_size": round(largest["diameter_mm"] / 10, 1) if largest else None,
        "tumor_histologic_subtype": _HISTOLOGY[largest["subtype"]] if largest else None,
        "malignant": largest["subtype"] != "fat_rich" if largest else None,
    }
