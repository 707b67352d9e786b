"""3D-IRCADb-01: 20 CT scans in DICOM with a folder of masks for each structure.

Comes in: the folder with ``3Dircadb1.1`` to ``3Dircadb1.20``, unpacked. Goes out: its cases; the label map of a case is
its ``MASKS_DICOM`` folder, which ``hilum.scans.read_labels`` combines. No voxel is read.
"""

from __future__ import annotations

import re
from pathlib import Path

from hilum.datasets.cases import CaseRef, Dataset, checked
from hilum.datasets.facts import Facts, Trap
from hilum.errors import DatasetError
from hilum.labels import SCHEMES
from hilum.scans.finding import natural_key

SCAN, MASKS = "PATIENT_DICOM", "MASKS_DICOM"
_CASE = re.compile(r"3dircadb1\.(\d+)", re.IGNORECASE)

FACTS = Facts(
    "3D-IRCADb-01",
    "20 labelled, 15 of them with liver tumours",
    3.0,
    "CC BY-NC-ND 3.0",
    "Soler et al., 3D image reconstruction for comparison of algorithm database: a patient specific anatomical and "
    "medical image database, IRCAD, Strasbourg (2010)",
    "https://www.ircad.fr/research/data-sets/liver-segmentation-3d-ircadb-01/",
    "3Dircadb1.1/PATIENT_DICOM/image_0, 3Dircadb1.1/MASKS_DICOM/liver/image_0",
    traps=(
        Trap(
            "ircadb-in-lits",
            "3D-IRCADb-01 is part of LiTS and of MSD Task03_Liver: a model trained on these must not be tested here.",
            "overlap",
            value=("lits", "msd"),
        ),
        Trap(
            "ircadb-masks",
            "Each structure is a folder of masks, lesions are numbered (livertumor01, livertumor02), structures "
            "overlap: one label map keeps organs and, over them, liver cysts and tumours; vessels are left out.",
        ),
        Trap(
            "ircadb-tumor",
            "In case 7 the folder 'tumor' is no lesion of the liver, nor are 'leftsurretumor' and 'rightsurretumor' "
            "of case 5: only folders whose name begins with 'livertumor' become liver tumour.",
            cases=("3Dircadb1.5", "3Dircadb1.7"),
        ),
        Trap("ircadb-names", "DICOM files have no extension and sort wrongly as text; HU are clipped to -1024..1023."),
    ),
    by_hand="Download 3Dircadb1.zip from https://www.ircad.fr/research/data-sets/liver-segmentation-3d-ircadb-01/, "
    "unpack it, and in each of 3Dircadb1.1 to 3Dircadb1.20 unpack PATIENT_DICOM.zip and MASKS_DICOM.zip, so that "
    "3Dircadb1.1/PATIENT_DICOM/image_0 and 3Dircadb1.1/MASKS_DICOM/liver/image_0 exist; then run: "
    "hilum data verify ircadb=THAT_FOLDER",
)


def listing(path: Path) -> Dataset:
    """The cases as they should be; folders may be missing.

    Raises:
        DatasetError: no folder ``3Dircadb1.N``.
    """
    folders = [path] if _CASE.fullmatch(path.absolute().name) else []
    folders += (
        [item for item in path.iterdir() if item.is_dir() and _CASE.fullmatch(item.name)] if path.is_dir() else []
    )
    if not folders:
        raise DatasetError(
            "holds no folders 3Dircadb1.1, 3Dircadb1.2, ...",
            where=path,
            wanted=f"3Dircadb1.1/{SCAN} with 3Dircadb1.1/{MASKS}",
            fix="'hilum data fetch ircadb' says how to get them",
        )
    cases = []
    for folder in sorted(folders, key=lambda item: natural_key(item.name)):
        name = folder.absolute().name
        packed = [item.name for item in (folder / f"{SCAN}.zip", folder / f"{MASKS}.zip") if item.is_file()]
        if packed and not (folder / SCAN).is_dir():
            raise DatasetError(f"{' and '.join(packed)} are still packed", where=folder, fix="unpack them here")
        cases.append(CaseRef(name, _inner(folder / SCAN), _inner(folder / MASKS), name))
    return Dataset(path.absolute().name, tuple(cases), SCHEMES["ircadb"])


def _inner(folder: Path) -> Path:
    """Some programs unpack ``MASKS_DICOM.zip`` into ``MASKS_DICOM/MASKS_DICOM``."""
    return folder / folder.name if (folder / folder.name).is_dir() else folder


def open_dataset(path: Path) -> Dataset:
    """The cases of 3D-IRCADb-01.

    Raises:
        DatasetError: no such folders, or scans or masks are missing (named).
    """
    found = listing(path)
    return checked(found.name, found.cases, found.scheme, path)
