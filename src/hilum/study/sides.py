"""STUDY -> the same study on labels whose sides are apart, where it asks for ``data.split_sides``.

    OUT/sides/<data>/      labels/, manifest.csv, labels.json, sides.json, as ``hilum data split`` writes them

Comes in: a study, its folder. Goes out: a study on those labels. Sides are split once, before anything is prepared: all
runs, the evaluation and the comparison then see one data set whose labels mean the same everywhere.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hilum.datasets import open_dataset
from hilum.progress import SILENT, Progress
from hilum.study.design import Study
from hilum.study.recipes import base_recipe, changed
from hilum.survey.split import split_dataset


def with_sides(study: Study, out: Path, progress: Progress = SILENT, *, write: bool = True) -> Study:
    """The study on split labels, if it asks for them, else as it is.

    Args:
        study: what was asked.
        out: its folder.
        progress: where to tell.
        write: split what is not split yet; otherwise a data set that is not split yet stays what it is.

    Raises:
        UsageError: no label of a data set is paired, or its scheme is not known.
        LabelError: no case could be split.
    """
    recipe = changed(base_recipe(study.recipe, study.file), study.settings, f"{study.file}: settings")
    if not recipe.data.split_sides:
        return study
    places = {name: out / "sides" / name for name in study.data}
    for name, place in places.items():
        if write:
            kind, _, path = study.data[name].partition("=")
            known = recipe.scheme if recipe.labels else None
            split_dataset(open_dataset(kind, path), place, progress=progress, scheme=known)
    if not all((place / "manifest.csv").is_file() for place in places.values()):
        return study
    data = {name: f"folder={place.absolute()}" for name, place in places.items()}
    return replace(study, data=data, settings={**study.settings, "data.split_sides": False, "labels": ""})
