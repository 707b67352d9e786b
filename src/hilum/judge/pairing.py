"""Which prediction belongs to which truth.

Comes in: two folders (or two files). Goes out: case names with both paths. A file is named by its stem without
``.nii.gz``, a file in a folder of its own by that folder (``case_00000/segmentation.nii.gz``, ``case/labels.nii.gz``).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from hilum.errors import DatasetError

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
# how a label map is called that has a folder of its own, the surest name first
OWN_FOLDER_NAMES = ("labels", "segmentation", "prediction", "seg", "label", "mask", "aggregated_MAJ_seg")


@dataclass(frozen=True)
class Pairing:
    """Cases with both sides, and names found on one side only."""

    pairs: dict[str, tuple[Path, Path]]
    truth_only: dict[str, Path]
    prediction_only: dict[str, Path]


def pair_cases(truth: Path, prediction: Path) -> Pairing:
    """Pair two folders of label maps by case name, or two files with each other.

    Raises:
        DatasetError: a side is missing or holds no label maps, or one case has two files.
    """
    if truth.is_file() and prediction.is_file():
        return Pairing({_stem(truth) or truth.name: (truth, prediction)}, {}, {})
    truths, predictions = find_label_maps(truth), find_label_maps(prediction)
    both = [name for name in truths if name in predictions]
    return Pairing(
        {name: (truths[name], predictions[name]) for name in both},
        {name: path for name, path in truths.items() if name not in predictions},
        {name: path for name, path in predictions.items() if name not in truths},
    )


def find_label_maps(folder: Path) -> dict[str, Path]:
    """Label maps in a folder or one folder below, by case name, sorted.

    Raises:
        DatasetError: no such folder, nothing in it, or one name twice.
    """
    if folder.is_file():
        return {_stem(folder): folder}
    if not folder.is_dir():
        raise DatasetError("no such folder", where=folder, wanted="a folder of label maps")
    found: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        path = _in_folder(entry) if entry.is_dir() else entry
        if path is None or entry.name.startswith(".") or not _stem(path):
            continue
        name = entry.name if entry.is_dir() else _stem(path)
        if name in found:
            raise DatasetError(
                f"case {name!r} has two label maps, {found[name]} and {path}", where=folder, fix="remove one of them"
            )
        found[name] = path
    if not found:
        raise DatasetError(
            "holds no label maps",
            where=folder,
            wanted="files such as case.nii.gz, or folders such as case/segmentation.nii.gz",
        )
    return found


def nearest(name: str, names: dict[str, Path]) -> str:
    """`` (is 'x' meant?)`` if another name is much alike, for messages about a partner that is missing."""
    near = difflib.get_close_matches(name, names, 1, 0.6)
    return f" (is {near[0]!r} meant?)" if near else ""


def _stem(path: Path) -> str:
    """The file name without a label map's ending; empty if it has none."""
    for ending in ENDINGS:
        if path.name.lower().endswith(ending) and len(path.name) > len(ending):
            return path.name[: -len(ending)]
    return ""


def _in_folder(folder: Path) -> Path | None:
    files = {_stem(path): path for path in sorted(folder.iterdir()) if path.is_file() and _stem(path)}
    for name in OWN_FOLDER_NAMES:
        if name in files:
            return files[name]
    return next(iter(files.values())) if len(files) == 1 else None
