"""SLICES -> LABEL MAPS: 2-D results put together again, each case on its scan's own grid.

Comes in: a folder that ``survey.slices`` filled (its ``slices.json`` knows each case's geometry) and label pictures of
the same names and sizes, from whatever made them. Goes out: ``OUT/CASE.nii.gz``, in the file axes and with the affine
of the scan. What was not in the slices is background. Cases that cannot be stacked are listed and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from hilum.errors import GeometryError, HilumError, InputError, LabelError
from hilum.files import read_json
from hilum.labels import LabelScheme, scheme_from
from hilum.progress import SILENT, Progress
from hilum.scans import write_labels
from hilum.survey.looking import in_processes, processes
from hilum.survey.planes import Cut
from hilum.survey.slices import FORMAT, file_name
from hilum.volume import Grid, Volume


@dataclass(frozen=True)
class Pile:
    """One case to stack: its geometry as ``slices.json`` has it, its pictures, where to write."""

    case: str
    geometry: Mapping[str, Any]
    files: tuple[Path, ...]
    scheme: LabelScheme | None
    out: Path


def stack(
    folder: Path, out: Path, *, labels: Path | None = None, workers: int | None = None, progress: Progress = SILENT
) -> dict[str, Any]:
    """Stack every case that has pictures.

    Args:
        folder: as ``hilum data slices`` left it.
        out: gets ``CASE.nii.gz``; a map that is newer than all its pictures stays.
        labels: label pictures, ``CASE/0034.png`` or ``CASE_0034.png``; None: ``folder/labels``, the truth itself.
        workers: processes.
        progress: counts cases.

    Returns:
        ``{"cases": written or there, "without": no picture at all, "failed": {case: why}}``.

    Raises:
        InputError: the folder holds no ``slices.json`` that can be used, or there are no pictures for it.
    """
    table = folder / "slices.json"
    told = read_json(table)
    if not isinstance(told, Mapping) or told.get("format") != FORMAT or not isinstance(told.get("cases"), Mapping):
        raise InputError("is not what 'hilum data slices' writes", where=table)
    scheme = scheme_from(told["scheme"]) if told["scheme"] else None
    source = labels if labels is not None else folder / "labels"
    piles, without = [], []
    for case, geometry in told["cases"].items():
        files = _files(source, case, geometry)
        if files:
            piles.append(Pile(case, geometry, files, scheme, out))
        else:
            without.append(case)
    if not piles:
        raise InputError(
            f"holds no picture of the {len(without)} cases of {table}",
            where=source,
            wanted="CASE/0034.png or CASE_0034.png",
        )
    bar = progress.stage("Stacking", len(piles))
    failed: dict[str, str] = {}
    todo = [pile for pile in piles if not _there(pile, table)]
    bar.step(len(piles) - len(todo))
    for pile, why in in_processes(todo, processes(len(todo), workers), stack_case):
        if why:
            failed[pile.case] = why
        bar.step(note=pile.case)
    return {"cases": [pile.case for pile in piles if pile.case not in failed], "without": without, "failed": failed}


def stack_case(pile: Pile) -> str:
    """Write one case's label map; why it could not be, or ""."""
    try:
        cut = Cut.from_json(dict(pile.geometry["cut"]))
        rows, columns, slices = pile.geometry["shape"]
        grid = Grid((rows, columns, slices), np.array(pile.geometry["affine"]))
        volume = Volume.on(grid, np.zeros(grid.shape, np.uint8))
        inside = volume.oriented().array  # a view: what is written there lies in the volume
        for index, file in zip(pile.geometry["slices"], pile.files, strict=True):
            try:
                cut.put_back(inside, index, read_picture(file, pile.scheme))
            except GeometryError as error:
                raise GeometryError(error.found, where=file, wanted=error.wanted) from None
        write_labels(pile.out / f"{pile.case}.nii.gz", volume)
    except HilumError as error:
        return error.sentence()
    except MemoryError:
        return "it does not fit into memory; fewer processes at a time (--workers 1) may do"
    return ""


def read_picture(file: Path, scheme: LabelScheme | None) -> np.ndarray:
    """(rows, columns) uint8 labels of a grey, indexed or black-and-white picture.

    Raises:
        InputError: it cannot be read.
        LabelError: a coloured picture, or values that the scheme does not know.
    """
    try:
        with Image.open(file) as image:
            mode, array = image.mode, np.asarray(image)
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"cannot be read ({error})", where=file) from None
    if array.ndim != 2 or (array.dtype != bool and (array.min(initial=0) < 0 or array.max(initial=0) > 255)):
        wanted = "grey pictures whose values are the labels, 0 to 255"
        raise LabelError(f"is a picture of kind {mode} with values up to {array.max()}", where=file, wanted=wanted)
    return scheme.check(array.astype(np.uint8), str(file)) if scheme is not None else array.astype(np.uint8)


def _files(source: Path, case: str, geometry: Mapping[str, Any]) -> tuple[Path, ...]:
    """The pictures of a case in order; those that lack are found out when they are read. None at all: empty."""
    names = [file_name(int(index)) for index in geometry["slices"]]
    folder = source / case
    files = tuple(folder / name for name in names) if folder.is_dir() else ()
    files = files or tuple(source / f"{case}_{name}" for name in names)
    return files if any(file.exists() for file in files) else ()


def _there(pile: Pile, table: Path) -> bool:
    """Whether a map is there that is newer than its pictures."""
    file = pile.out / f"{pile.case}.nii.gz"
    if not file.is_file() or not all(picture.is_file() for picture in pile.files):
        return False
    return file.stat().st_mtime_ns > max(f.stat().st_mtime_ns for f in (*pile.files, table))
