"""3D-IRCADb-01: 3Dircadb1.1/ with PATIENT_DICOM, LABELLED_DICOM and MASKS_DICOM/<structure>/image_0.

Masks are DICOM slices of 0 and 255, one folder a structure (liver, livertumor01, rightkidney, leftkidney, spleen); one
that a patient lacks has no folder. Files have no suffix, so that they sort wrongly as text, as the real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hilum.components import components_of
from hilum.phantom.case import PhantomCase
from hilum.phantom.layouts import Place
from hilum.phantom.layouts.dicom_slices import write_series

SCHEMES = ("ircadb",)


def place(out: Path, number: int) -> Place:
    """Where case ``number`` goes; patients count from 1."""
    name = f"3Dircadb1.{number + 1}"
    return Place(name, out / name / "PATIENT_DICOM", out / name / "MASKS_DICOM")


def write(where: Place, case: PhantomCase) -> None:
    """Slices, masks, and one series of all labels."""
    seed = int(case.facts["seed"])
    write_series(where.image, case.ct, seed=seed, series=1, name="abdomen", stem="image_")
    labels = case.labels
    everything = labels.with_array(labels.array.astype(np.int16))
    write_series(where.image.parent / "LABELLED_DICOM", everything, seed=seed, series=2, name="labels", stem="image_")
    masks = {"liver": (labels.array == 1) | (labels.array == 2)}
    masks |= {name: labels.array == value for name, value in (("rightkidney", 4), ("leftkidney", 5), ("spleen", 6))}
    masks = {name: mask for name, mask in masks.items() if mask.any()}
    pieces, count = components_of(labels.array == 2)
    masks |= {f"livertumor{i + 1:02d}": pieces == i + 1 for i in range(count)}
    for i, (name, mask) in enumerate(masks.items()):
        volume = labels.with_array(mask.astype(np.int16) * 255)
        write_series(where.labels / name, volume, seed=seed, series=10 + i, name=name, stem="image_")


def finish(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """3D-IRCADb has no index."""
