"""What KiTS19, KiTS21 and KiTS23 have in common: a folder a case, a clinical table, one home of the images.

Comes in: a folder and the names of label map and table. Goes out: cases with their clinical facts. The three sets share
their patients: ``case_00012`` is the same person in each. It opens the table only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hilum.datasets.cases import CaseRef, Dataset
from hilum.datasets.facts import RemoteFile, Trap
from hilum.errors import DatasetError, InputError, UsageError
from hilum.files import read_json
from hilum.labels import LabelScheme

IMAGE = "imaging.nii.gz"
# Since May 2026 the images of all three sets lie here, one file a case, as 64-bit floats; this revision of it
IMAGES_AT = "https://huggingface.co/datasets/neheller/KiTS-Challenge-Imaging/resolve"
REVISION = "65f1f295873a326230153c7e1de0c7dba10f0b29"
IMAGE_BYTES = 84_000_000  # a zip of 489 images in circulation has 40.9 GB: for the first look at free space only
LICENCE = "CC BY-NC-SA 4.0"
_CASE = re.compile(r"case_\d{5}")

AXES = Trap(
    "kits-axes",
    "KiTS files run (slice, row, column) from head to feet, front to back, right to left: axis codes IPL. The last "
    "array axis is not the slice; whoever slices along it gets sagittal pictures.",
    "axes",
    value="IPL",
)
ODD_SIZE = Trap(
    "kits-odd-size",
    "case_00160 is 512x796 in plane, and that is right: nothing may assume 512x512.",
    "odd_shape",
    ("case_00160",),
    {"case_00160": (512, 796)},
)


def list_cases(path: Path, inside: tuple[str, ...], label: str, table: str, scheme: LabelScheme) -> Dataset:
    """The cases of a KiTS folder; images that are not there yet are named all the same (``checked`` refuses them).

    Args:
        path: the set's folder, or the repository that holds it.
        inside: where the repository keeps the cases, e.g. ``("dataset",)``.
        label: file name of the label map in each case's folder.
        table: file name of the clinical table.
        scheme: what the labels mean.

    Raises:
        DatasetError: no folder ``case_XXXXX`` and no file ``case_XXXXX.nii.gz``, or a damaged table.
    """
    places = [path.joinpath(*inside[:count]) for count in range(len(inside), -1, -1)]
    root = next((place for place in places if _numbered(place)), None)
    if root is None:
        raise DatasetError(
            "holds no folders case_00000, case_00001, ...",
            where=path,
            wanted=f"case_XXXXX/{IMAGE} with case_XXXXX/{label}",
            fix="give the folder that holds them, or 'hilum data fetch' them",
        )
    facts = _clinical(root / table)
    cases = []
    for name in _numbered(root):
        flat = root / f"{name}.nii.gz"  # label maps alone, as some places hand them on
        labels: Path | None = root / name / label if (root / name).is_dir() else flat
        if labels is not None and not labels.exists() and (root / name / IMAGE).exists():
            labels = None  # the challenge's own test cases have no label map
        cases.append(CaseRef(name, root / name / IMAGE, labels, name, facts.get(name, {})))
    return Dataset(path.absolute().name, tuple(cases), scheme)


def _numbered(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    names = {entry.name.removesuffix(".nii.gz") for entry in folder.iterdir() if not entry.name.startswith(".")}
    return sorted(name for name in names if _CASE.fullmatch(name))


def _clinical(file: Path) -> dict[str, dict[str, Any]]:
    """The clinical record of each case; none if there is no table."""
    if not file.is_file():
        return {}
    try:
        rows = read_json(file)
        return {str(row["case_id"]): {k: v for k, v in row.items() if k != "case_id"} for row in rows}
    except (InputError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"is no clinical table ({error})", where=file, wanted='[{"case_id": "case_00000", ...}, ...]'
        ) from None


def remote_files(
    numbers: Iterable[int] | None, known: Iterable[int], labels_at: str, label: str, table: str, unlabelled: int = 10**9
) -> list[RemoteFile]:
    """Images from their home, label maps and the table from the challenge's repository.

    Args:
        numbers: which cases; None means all.
        known: which there are.
        labels_at: raw address of the folder with the cases in the challenge's repository.
        label: file name of the label map.
        table: file name of the clinical table.
        unlabelled: cases from this number on have no label map.

    Raises:
        UsageError: a number that the set does not have.
    """
    known = list(known)
    chosen = known if numbers is None else sorted(set(numbers))
    strangers = sorted(set(chosen) - set(known))
    if strangers:
        raise UsageError(f"this set has no case {strangers[0]}", wanted=f"numbers from {known[0]} to {known[-1]}")
    files = [RemoteFile(f"{labels_at}/{table}", table)]
    for number in chosen:
        name = f"case_{number:05d}"
        if number < unlabelled:
            files.append(RemoteFile(f"{labels_at}/{name}/{label}", f"{name}/{label}", name, bytes=400_000))
        files.append(
            RemoteFile(f"{IMAGES_AT}/{REVISION}/images/{name}.nii.gz", f"{name}/{IMAGE}", name, bytes=IMAGE_BYTES)
        )
    return files
