"""nnU-Net v2's raw data: imagesTr/case_000_0000.nii.gz, labelsTr/case_000.nii.gz, dataset.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilum.files import write_json
from hilum.labels import SCHEMES as KNOWN
from hilum.phantom.layouts import Place
from hilum.phantom.layouts.folder import write

__all__ = ["SCHEMES", "finish", "place", "write"]

SCHEMES = ("kits", "abdomen", "lits", "trunk")


def place(out: Path, number: int) -> Place:
    """Where case ``number`` goes; ``_0000`` is its only channel."""
    name = f"case_{number:03d}"
    return Place(name, out / "imagesTr" / f"{name}_0000.nii.gz", out / "labelsTr" / f"{name}.nii.gz")


def finish(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """dataset.json as nnU-Net v2 reads it."""
    scheme = KNOWN[str(rows[0]["scheme"])] if rows else KNOWN["kits"]
    table = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{label.name: label.value for label in scheme.labels}},
        "numTraining": len(rows),
        "file_ending": ".nii.gz",
    }
    write_json(out / "dataset.json", table)
