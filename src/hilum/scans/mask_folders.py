"""A folder with a folder of DICOM masks for each structure, as 3D-IRCADb has it, to one label map.

Comes in: such a folder and a label scheme. Goes out: a Volume of uint8 on the masks' own grid. It knows no data set:
which folder becomes which label is told by names alone. ``rightkidney`` is "right kidney"; lesions are called after
their organ and numbered, ``livertumor01``; folders that no label is called like are left out and named in the header.

Structures overlap. Organs are written first, anything else over them, cysts next and tumours last.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from hilum.errors import LabelError
from hilum.labels import Label, LabelScheme
from hilum.volume import Grid, Volume

_LETTERS = re.compile(r"[^a-z]")
_ORDER = {"organ": 0, "other": 1, "cyst": 2, "tumour": 3}


def is_mask_folders(path: Path) -> bool:
    """Whether a folder holds folders with files, and no file of its own."""
    if not path.is_dir():
        return False
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    return bool(entries) and all(entry.is_dir() for entry in entries)


def key_of(name: str) -> str:
    """What two names of one structure share.

    >>> key_of("livertumor01"), key_of("Right kidney"), key_of("liver tumours")
    ('livertumor', 'rightkidney', 'livertumor')
    """
    letters = _LETTERS.sub("", name.lower()).replace("tumour", "tumor").replace("kyst", "cyst")
    return letters[:-1] if letters.endswith(("tumors", "cysts", "kidneys")) else letters


def keys_of(label: Label) -> set[str]:
    """Folder names that mean a label: its own, with its organ in front where a lesion's name does not say it."""
    named = key_of(label.name)
    organ = key_of(label.organ)
    if label.is_lesion and organ and organ not in named:
        return {organ + named}
    return {named}


def read_mask_folders(path: str | Path, scheme: LabelScheme) -> Volume:
    """Read and combine the masks that the scheme has labels for.

    Returns:
        Volume of uint8; its header says which folders became which label ("masks") and which were left out.

    Raises:
        LabelError: no folder of the scheme's structures, or masks on different grids.
        ScanError, GeometryError: a mask cannot be read.
    """
    from hilum.scans.dicom_series import read_dicom

    path = Path(path)
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    meant = {key: label for label in scheme.labels for key in keys_of(label)}
    found = [(meant[key_of(folder.name)], folder) for folder in folders if key_of(folder.name) in meant]
    if not found:
        raise LabelError(
            f"none of its {len(folders)} folders ({', '.join(f.name for f in folders[:8])}) is of {scheme.name!r}",
            where=path,
            wanted=f"folders such as {', '.join(sorted(meant))}",
        )
    found.sort(key=lambda pair: (_ORDER[pair[0].kind], pair[0].value, pair[1].name))
    labels: np.ndarray | None = None
    grid: Grid | None = None
    for label, folder in found:
        mask = read_dicom(folder)
        if grid is None or labels is None:
            grid, labels = mask.grid, np.zeros(mask.shape, np.uint8, order="F")
        if not grid.same_as(mask.grid, 0.1):
            raise LabelError(
                f"lies on another grid ({mask.grid.describe()}) than {found[0][1].name} ({grid.describe()})",
                where=folder,
                wanted="masks of one scan on one grid",
            )
        labels[mask.array > min(0, mask.array.min())] = label.value  # a rescale intercept makes background -1024
    assert grid is not None and labels is not None
    used = {folder.name: label.name for label, folder in found}
    left = [folder.name for folder in folders if folder.name not in used]
    return Volume.on(grid, labels, str(path), {"format": "DICOM masks", "masks": used, "left_out": left})
