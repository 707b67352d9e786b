"""KiTS23: kidneys, tumours and cysts, 489 labelled cases.

Comes in: the challenge's repository or its ``dataset`` folder. Goes out: its cases with the clinical table
``kits23.json``. No voxel is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hilum.datasets.cases import Dataset, checked
from hilum.datasets.facts import Facts, RemoteFile, Trap
from hilum.datasets.kits_layout import AXES, LICENCE, ODD_SIZE, list_cases, remote_files
from hilum.labels import SCHEMES

LABEL, TABLE = "segmentation.nii.gz", "kits23.json"
NUMBERS = (*range(300), *range(400, 589))
_AT = "https://raw.githubusercontent.com/neheller/kits23/main/dataset"


def _remote(numbers: Iterable[int] | None, variant: str = "") -> list[RemoteFile]:
    return remote_files(numbers, NUMBERS, _AT, LABEL, TABLE)


FACTS = Facts(
    "KiTS23: 2023 Kidney Tumor Segmentation Challenge",
    "489 labelled",
    41.0,
    LICENCE,
    "Heller et al., The KiTS21 challenge: automatic segmentation of kidneys, renal tumors, and renal cysts in "
    "corticomedullary-phase CT, arXiv 2307.01984 (2023)",
    "https://github.com/neheller/kits23",
    "case_00000/imaging.nii.gz, case_00000/segmentation.nii.gz, kits23.json; numbers 0-299 and 400-588",
    "kits",
    (
        AXES,
        ODD_SIZE,
        Trap(
            "kits23-holds-kits19",
            "KiTS19 and KiTS21 hold the same patients under the same numbers (0 to 299): a model trained on one of the "
            "three must not be tested on another.",
            "overlap",
            value=("kits19", "kits21"),
        ),
        Trap(
            "kits23-specks",
            "Some tumours come with satellite components of 3 to 7 voxels (case_00473, case_00527): they count as "
            "lesions in every component-wise metric.",
        ),
    ),
    _remote,
)


def listing(path: Path) -> Dataset:
    """The cases as they should be; files may be missing."""
    return list_cases(path, ("dataset",), LABEL, TABLE, SCHEMES["kits"])


def open_dataset(path: Path) -> Dataset:
    """The cases of a KiTS23 folder.

    Raises:
        DatasetError: no case folders, or files are missing (named).
    """
    found = listing(path)
    return checked(found.name, found.cases, found.scheme, path)
