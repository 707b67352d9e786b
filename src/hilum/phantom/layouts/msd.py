"""Medical Segmentation Decathlon: imagesTr/liver_0.nii.gz, labelsTr/liver_0.nii.gz, dataset.json as of Task03_Liver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilum.files import write_json
from hilum.phantom.layouts import Place
from hilum.phantom.layouts.folder import write

__all__ = ["SCHEMES", "finish", "place", "write"]

SCHEMES = ("lits",)


def place(out: Path, number: int) -> Place:
    """Where case ``number`` goes."""
    name = f"liver_{number}"
    return Place(name, out / "imagesTr" / f"{name}.nii.gz", out / "labelsTr" / f"{name}.nii.gz")


def finish(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """dataset.json with the decathlon's keys."""
    table = {
        "name": "Liver",
        "description": "synthetic CT in the layout of the Medical Segmentation Decathlon",
        "reference": "hilum phantom",
        "licence": "as hilum",
        "release": "1.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "numTraining": len(rows),
        "numTest": 0,
        "training": [
            {"image": f"./imagesTr/{row['case']}.nii.gz", "label": f"./labelsTr/{row['case']}.nii.gz"} for row in rows
        ],
        "test": [],
    }
    write_json(out / "dataset.json", table)
