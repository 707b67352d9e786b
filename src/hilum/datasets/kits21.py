"""KiTS21: kidneys, tumours and cysts, 300 labelled cases.

Comes in: the challenge's repository or its ``kits21/data`` folder. Goes out: its cases with the clinical table
``kits.json``; of the several readings of each case the majority vote. No voxel is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hilum.datasets.cases import Dataset, checked
from hilum.datasets.facts import Facts, RemoteFile, Trap
from hilum.datasets.kits_layout import AXES, LICENCE, ODD_SIZE, list_cases, remote_files
from hilum.labels import SCHEMES

LABEL, TABLE = "aggregated_MAJ_seg.nii.gz", "kits.json"
_AT = "https://raw.githubusercontent.com/neheller/kits21/master/kits21/data"


def _remote(numbers: Iterable[int] | None, variant: str = "") -> list[RemoteFile]:
    return remote_files(numbers, range(300), _AT, LABEL, TABLE)


FACTS = Facts(
    "KiTS21: 2021 Kidney and Kidney Tumor Segmentation Challenge",
    "300 labelled",
    25.0,
    LICENCE,
    "Heller et al., The KiTS21 challenge: automatic segmentation of kidneys, renal tumors, and renal cysts in "
    "corticomedullary-phase CT, arXiv 2307.01984 (2023)",
    "https://github.com/neheller/kits21",
    "case_00000/imaging.nii.gz, case_00000/aggregated_MAJ_seg.nii.gz, kits.json",
    "kits",
    (
        AXES,
        ODD_SIZE,
        Trap(
            "kits21-twice",
            "case_00205 had one lesion labelled as cyst and as tumour; it was corrected to tumour in March 2023.",
            "excluded",
            ("case_00205",),
        ),
        Trap(
            "kits21-in-kits23",
            "KiTS19 and KiTS23 hold the same patients under the same numbers: a model trained on one of the three must "
            "not be tested on another.",
            "overlap",
            value=("kits19", "kits23"),
        ),
    ),
    _remote,
)


def listing(path: Path) -> Dataset:
    """The cases as they should be; files may be missing."""
    return list_cases(path, ("kits21", "data"), LABEL, TABLE, SCHEMES["kits"])


def open_dataset(path: Path) -> Dataset:
    """The cases of a KiTS21 folder.

    Raises:
        DatasetError: no case folders, or files are missing (named).
    """
    found = listing(path)
    return checked(found.name, found.cases, found.scheme, path)
