"""LiTS: liver and liver tumours, 131 labelled cases.

Comes in: a folder with ``volume-N.nii`` and ``segmentation-N.nii`` (below it they may lie in the two training batches).
Goes out: its cases. No voxel is read.
"""

from __future__ import annotations

import re
from pathlib import Path

from hilum.datasets.cases import CaseRef, Dataset, checked
from hilum.datasets.facts import Facts, Trap
from hilum.errors import DatasetError
from hilum.labels import SCHEMES

_FILE = re.compile(r"(test-volume|volume|segmentation)-(\d+)\.nii(\.gz)?", re.IGNORECASE)

FACTS = Facts(
    "LiTS: Liver Tumor Segmentation Benchmark",
    "131 labelled, 70 test",
    50.0,
    "CC BY-NC-SA 4.0",
    "Bilic et al., The Liver Tumor Segmentation Benchmark (LiTS), Medical Image Analysis 84 (2023) 102680, "
    "arXiv 1901.04056",
    "https://competitions.codalab.org/competitions/17094",
    "volume-0.nii, segmentation-0.nii (in one folder or in batches)",
    "lits",
    (
        Trap(
            "lits-unit-spacing",
            "Volumes 28 to 47 came from 3D-IRCADb and claim 1 mm along every axis, which is false: lengths and volumes "
            "of these are wrong. MSD Task03 and 3D-IRCADb itself hold the true spacing.",
            "unit_spacing",
            tuple(f"volume-{number}" for number in range(28, 48)),
        ),
        Trap(
            "lits-is-msd",
            "MSD Task03_Liver holds the same 131 training and 70 test scans: a model trained on one must not be tested "
            "on the other.",
            "overlap",
            value=("msd",),
        ),
        Trap(
            "lits-holds-ircadb",
            "3D-IRCADb-01 is part of LiTS (28 to 47; one comparison found 28 to 44 and 46 on): a model trained on LiTS "
            "must not be tested on 3D-IRCADb.",
            "overlap",
            value=("ircadb",),
        ),
        Trap(
            "lits-flips",
            "Orientation varies between volumes (some are flipped), and some label maps carry another affine than "
            "their image.",
        ),
    ),
    by_hand="LiTS is handed out by its organisers to registered people only. Register at "
    "https://competitions.codalab.org/competitions/17094, download 'Training Batch 1' and 'Training Batch 2', unpack "
    "both below one folder (volume-0.nii to volume-130.nii with segmentation-0.nii to segmentation-130.nii), then run: "
    "hilum data verify lits=THAT_FOLDER",
)


def listing(path: Path) -> Dataset:
    """The cases as they should be; files may be missing.

    Raises:
        DatasetError: no file ``volume-N.nii`` or ``segmentation-N.nii``.
    """
    found: dict[str, dict[int, Path]] = {"volume": {}, "segmentation": {}, "test-volume": {}}
    for file in sorted(path.rglob("*.nii*")) if path.is_dir() else []:
        match = _FILE.fullmatch(file.name)
        if match is None:
            continue
        kind, number = match[1].lower(), int(match[2])
        if number in found[kind]:
            raise DatasetError(
                f"holds {file.name} twice: {found[kind][number]} and {file}", where=path, fix="remove one of them"
            )
        found[kind][number] = file
    cases = []
    for number in sorted(found["volume"].keys() | found["segmentation"].keys()):
        label = found["segmentation"].get(number)
        image = found["volume"].get(number) or (label or path).with_name(f"volume-{number}.nii")
        labels = label or image.with_name(f"segmentation-{number}.nii")
        cases.append(CaseRef(f"volume-{number}", image, labels, f"lits-{number}"))
    for number, image in sorted(found["test-volume"].items()):
        cases.append(CaseRef(f"test-volume-{number}", image, None, f"lits-test-{number}"))
    if not cases:
        raise DatasetError(
            "holds no volume-0.nii, segmentation-0.nii, ...",
            where=path,
            wanted="the unpacked training batches of LiTS",
            fix="'hilum data fetch lits' says how to get them",
        )
    return Dataset(path.absolute().name, tuple(cases), SCHEMES["lits"])


def open_dataset(path: Path) -> Dataset:
    """The cases of a LiTS folder.

    Raises:
        DatasetError: no such files, or partners are missing (named).
    """
    found = listing(path)
    return checked(found.name, found.cases, found.scheme, path)
