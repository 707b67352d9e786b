"""KiTS19: kidneys and kidney tumours, 210 labelled cases.

Comes in: the challenge's repository or its ``data`` folder. Goes out: its cases with the clinical table ``kits.json``.
No voxel is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hilum.datasets.cases import Dataset, checked
from hilum.datasets.facts import Facts, RemoteFile, Trap
from hilum.datasets.kits_layout import AXES, LICENCE, ODD_SIZE, list_cases, remote_files
from hilum.labels import SCHEMES

LABEL, TABLE = "segmentation.nii.gz", "kits.json"
_AT = "https://raw.githubusercontent.com/neheller/kits19/master/data"


def _remote(numbers: Iterable[int] | None, variant: str = "") -> list[RemoteFile]:
    return remote_files(numbers, range(210), _AT, LABEL, TABLE)


FACTS = Facts(
    "KiTS19: 2019 Kidney and Kidney Tumor Segmentation Challenge",
    "210 labelled",
    18.0,
    LICENCE,
    "Heller et al., The state of the art in kidney and kidney tumor segmentation in contrast-enhanced CT imaging: "
    "results of the KiTS19 challenge, Medical Image Analysis 67 (2021) 101821",
    "https://github.com/neheller/kits19",
    "case_00000/imaging.nii.gz, case_00000/segmentation.nii.gz, kits.json",
    "kits",
    (
        AXES,
        ODD_SIZE,
        Trap(
            "kits19-corrected",
            "The labels of cases 15, 23, 37 and 125 were corrected in December 2019; the corrected files hold 16-bit "
            "labels, all others 8-bit. A copy with 8 bits here is probably from before: fetch these four again.",
            "stored_type",
            ("case_00015", "case_00023", "case_00037", "case_00125"),
            "uint16",
        ),
        Trap(
            "kits19-in-doubt",
            "The labels of cases 15, 23, 37, 68, 125 and 133 are in doubt (some groups leave them out; KiTS23 labels "
            "68 with 197,350 voxels of cyst, and 23 with the tumour in another place): say whether you used them.",
            "excluded",
            ("case_00015", "case_00023", "case_00037", "case_00068", "case_00125", "case_00133"),
        ),
        Trap(
            "kits19-in-kits23",
            "KiTS21 and KiTS23 hold the same patients under the same numbers, labelled again: a model trained on one "
            "of the three must not be tested on another.",
            "overlap",
            value=("kits21", "kits23"),
        ),
        Trap(
            "kits19-cysts",
            "Cysts are labelled as kidney here and by themselves in KiTS21 and KiTS23: scores of the sets differ.",
        ),
    ),
    _remote,
)


def listing(path: Path) -> Dataset:
    """The cases as they should be; files may be missing."""
    return list_cases(path, ("data",), LABEL, TABLE, SCHEMES["kits19"])


def open_dataset(path: Path) -> Dataset:
    """The cases of a KiTS19 folder.

    Raises:
        DatasetError: no case folders, or files are missing (named).
    """
    found = listing(path)
    return checked(found.name, found.cases, found.scheme, path)
