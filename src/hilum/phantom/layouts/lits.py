"""LiTS: volume-0.nii and segmentation-0.nii, not compressed, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilum.phantom.layouts import Place
from hilum.phantom.layouts.folder import write

__all__ = ["SCHEMES", "finish", "place", "write"]

SCHEMES = ("lits",)


def place(out: Path, number: int) -> Place:
    """Where case ``number`` goes."""
    return Place(f"volume-{number}", out / f"volume-{number}.nii", out / f"segmentation-{number}.nii")


def finish(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """LiTS has no index."""
