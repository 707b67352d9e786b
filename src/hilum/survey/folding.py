"""Folds for a whole study: by patient, even in the volume of lesions, in one file that every method is judged on.

Comes in: a data set. Goes out: ``folds.json``, which ``hilum train --folds`` and ``hilum evaluate --trained-on`` take,
with each case's millilitres of lesion beside the names. It reads the label maps, not the scans.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hilum.datasets import make_folds
from hilum.datasets.folds import FORMAT
from hilum.errors import DatasetError, UsageError
from hilum.files import plain, write_json
from hilum.labels import LabelScheme, count_labels
from hilum.progress import SILENT, Progress
from hilum.scans import read_labels
from hilum.survey.verify import cases_of


def write_stratified(
    name: str,
    path: Path,
    file: Path,
    *,
    count: int = 5,
    seed: int = 0,
    scheme: LabelScheme | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Make folds and write them.

    Args:
        name, path: the data set; images may be missing.
        file: where to.
        count: of folds.
        seed: the same seed gives the same folds, whatever the order of the cases.
        scheme: what the labels mean, where the data do not say.
        progress: counts cases.

    Returns:
        ``{"folds": [{"cases", "patients", "lesion_ml", "median_ml", "without"}]}``, one entry a fold.

    Raises:
        DatasetError: no labelled case, or fewer patients than folds.
        UsageError: a count below 2, or the labels' meaning is not known.
    """
    dataset = cases_of(name, path)
    scheme = scheme or dataset.scheme
    if scheme is None:
        raise UsageError("the data do not say what their labels mean", fix="add --scheme kits")
    cases = dataset.labelled
    if not cases:
        raise DatasetError("no case has labels", where=path)
    make_folds(cases, count, seed)  # what cannot be split is said before any map is read
    lesions = [label.value for label in scheme.labels if label.is_lesion]
    lesion_ml: dict[str, float] = {}
    for case in progress.over(cases, "Measuring lesions", len(cases)):
        assert case.labels is not None
        labels = read_labels(case.labels, scheme)
        lesion_ml[case.name] = float(count_labels(labels.array)[lesions].sum()) * labels.voxel_ml
    folds = make_folds(cases, count, seed, lesion_ml)
    rounded = {case: round(ml, 3) for case, ml in lesion_ml.items()}
    write_json(file, plain({"format": FORMAT, "folds": folds, "dataset": name, "seed": seed, "lesion_ml": rounded}))
    patient = {case.name: case.patient for case in cases}
    told = []
    for fold in folds:
        volumes = [lesion_ml[case] for case in fold]
        told.append(
            {
                "cases": len(fold),
                "patients": len({patient[case] for case in fold}),
                "lesion_ml": sum(volumes),
                "median_ml": float(np.median(volumes)),
                "without": sum(volume == 0 for volume in volumes),
            }
        )
    return {"folds": told}
