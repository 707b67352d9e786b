"""The store: prepared cases on the disk, quick to cut patches from.

Comes in: cases, plan and label scheme. Goes out: a folder and a Store that reads it. Draws no patches, normalises
nothing.

    FOLDER/store.json                          format, plan, its hash, scheme
    FOLDER/CASE.json                           written last: key, grid, counts, and the files below with their sizes
    FOLDER/CASE.<key>.image.npy                (D, H, W) int16 HU
    FOLDER/CASE.<key>.labels.npy               (D, H, W) uint8 class *index* (0 background, then the scheme's order)
    FOLDER/CASE.<key>.locations.npy            (N, 4) int32: class, z, y, x of up to 10 000 voxels a class
    FOLDER/CASE.<key>.lesions.npy              (N, 5) int32: class, lesion, z, y, x of up to 256 voxels a lesion

The key is the sha256 of format, the plan's share in preparing (dims, spacing, separate_z), scheme, and the input files'
paths, sizes and times: whatever changes there makes the case stale, and it alone is prepared again; another patch or
batch does not. Every file is written beside and renamed, and carries its key in its name: a killed run leaves whole
cases or none, and runs at the same time, even with other plans, cannot mix their arrays. Arrays are plain ``.npy``:
memory-mapped, a patch costs the pages that it touches.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hilum.components import components_of, nonzero_box
from hilum.errors import DatasetError, InputError, OutputError, UsageError
from hilum.files import read_json, write_json, written
from hilum.labels import LabelScheme, count_labels, scheme_from
from hilum.prepare.fingerprint import generator_for, read_pair
from hilum.prepare.plan import Plan
from hilum.prepare.preprocess import prepare_labels, prepare_scan
from hilum.prepare.workers import check_cases, over_cases, worker_count
from hilum.progress import SILENT, Progress
from hilum.volume import Grid

if TYPE_CHECKING:
    from hilum.datasets import CaseRef

FORMAT = 2
LOCATIONS = 10_000
OF_A_LESION = 256
_DAY_S = 86_400
_PARTS = ("image", "labels", "locations", "lesions")
_BAD_NAME = frozenset('/\\:*?"<>|\0')


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """One case of a store.

    Attributes:
        name: the case's.
        image_DHW: int16 HU, memory-mapped, read-only.
        labels_DHW: uint8 class index, memory-mapped, read-only.
        grid: where both lie.
        locations: for each class above 0 that occurs, (N, 3) int32 voxel indices, a seeded sample of at most 10 000.
        lesions: for each class of lesions that occurs, the voxels (N, 3) int32 of each of them (26-connected), a seeded
            sample of at most 256: the smallest has its place beside the largest.
        counts: voxels of each class index, background first.
    """

    name: str
    image_DHW: np.ndarray
    labels_DHW: np.ndarray
    grid: Grid
    locations: dict[int, np.ndarray]
    lesions: dict[int, tuple[np.ndarray, ...]]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Store:
    """A folder of prepared cases.

    Attributes:
        folder: where they are.
        names: the cases, in the order given.
        plan: what they were prepared with.
        scheme: what their class indices mean.
    """

    folder: Path
    names: tuple[str, ...]
    plan: Plan
    scheme: LabelScheme

    def case(self, name: str) -> PreparedCase:
        """Open one case; its arrays stay on the disk until they are touched.

        Raises:
            UsageError: no such case.
            InputError: its files are missing or damaged, or another run has prepared it differently since.
        """
        if name not in self.names:
            raise UsageError(f"no case {name!r} in {self.folder}", wanted=f"one of {', '.join(self.names[:20])}")
        table = read_json(self.folder / f"{name}.json")
        if table.get("base") != _digest(self.plan, self.scheme):
            raise InputError(
                "was prepared again with another plan or scheme since",
                where=self.folder / f"{name}.json",
                fix="give each plan a folder of its own",
            )
        image, labels, places, lesions = (mapped_array(self.folder / table["files"][part]["name"]) for part in _PARTS)
        classes = np.unique(places[:, 0])
        return PreparedCase(
            name=name,
            image_DHW=image,
            labels_DHW=labels,
            grid=Grid(image.shape, np.array(table["affine"])),
            locations={int(k): np.array(places[places[:, 0] == k, 1:]) for k in classes},
            lesions={int(k): _one_by_one(lesions[lesions[:, 0] == k, 1:]) for k in np.unique(lesions[:, 0])},
            counts=tuple(table["counts"]),
        )


def build_store(
    folder: str | Path,
    cases: Sequence[CaseRef],
    plan: Plan,
    scheme: LabelScheme,
    workers: int = 0,
    progress: Progress = SILENT,
) -> Store:
    """Prepare all cases that are not in the folder yet, or whose plan, scheme or files changed since.

    Args:
        folder: made if it is not there; cases of other runs in it are left alone.
        cases: with label maps.
        plan: spacing.
        scheme: label values to class indices.
        workers: cases prepared at once; 0 means one for each core, at most 8.
        progress: counts cases, the ready ones too.

    Raises:
        DatasetError: naming every case that cannot be used; the good ones are prepared nevertheless.
        OutputError: the disk is full or the folder not writable; what is done stays done.
    """
    folder = Path(folder)
    check_cases(cases)
    _check_names(cases)
    threads = 0 if worker_count(workers, len(cases)) == 1 else 1  # cases or slabs at once, not both
    _sweep(folder)
    write_json(folder / "store.json", {"format": FORMAT, "plan": plan.to_json(), "scheme": scheme.to_json()})

    def work(case: CaseRef) -> None:
        key = case_key(case, plan, scheme)
        if not _is_current(folder, case.name, key):
            _prepare(folder, case, key, plan, scheme, threads)

    over_cases(work, cases, workers, progress, "Preparing")
    return Store(folder, tuple(case.name for case in cases), plan, scheme)


def open_store(folder: str | Path) -> Store:
    """A store that was built before, with all cases that were prepared with its plan.

    Raises:
        InputError: no store there, or of another format.
    """
    folder = Path(folder)
    table = read_json(folder / "store.json")
    if table.get("format") != FORMAT:
        raise InputError(
            f"a store of format {table.get('format')!r}", where=folder, wanted=f"format {FORMAT}", fix="prepare again"
        )
    plan, scheme = Plan.from_json(table["plan"]), scheme_from(table["scheme"])
    base = _digest(plan, scheme)
    files = (file for file in sorted(folder.glob("*.json")) if file.name != "store.json" and file.name[0] != ".")
    found = {file.stem: read_json(file) for file in files}
    return Store(folder, tuple(name for name, case in found.items() if case.get("base") == base), plan, scheme)


def files_key(case: CaseRef) -> str:
    """Path, size and time of a case's files, as a sha256."""
    assert case.labels is not None, case.name
    return _sha([_facts_of(case.image), _facts_of(case.labels)])


def case_key(case: CaseRef, plan: Plan, scheme: LabelScheme) -> str:
    """What a prepared case depends on, as a sha256: format, plan, scheme, and path, size and time of its files."""
    assert case.labels is not None, case.name
    return _sha([_digest(plan, scheme), case.name, _facts_of(case.image), _facts_of(case.labels)])


def _prepare(folder: Path, case: CaseRef, key: str, plan: Plan, scheme: LabelScheme, threads: int) -> None:
    scan, labels = read_pair(case, scheme)
    prepared = prepare_scan(scan, plan, case.name, threads=threads)
    # the grids may differ by a rounded header; the label map is taken as lying on the scan's
    classes = scheme.class_lookup()[prepare_labels(labels.on(scan.grid, labels.array), prepared, plan, threads=threads)]
    counts = count_labels(classes)[: scheme.class_count]
    places = _locations(classes, counts, case.name), _lesions(classes, scheme, case.name)
    arrays = dict(zip(_PARTS, (prepared.image_DHW, classes, *places), strict=True))
    files = {part: save_array(folder / f"{case.name}.{key[:12]}.{part}.npy", array) for part, array in arrays.items()}
    write_json(
        folder / f"{case.name}.json",
        {
            "format": FORMAT,
            "key": key,
            "base": _digest(plan, scheme),
            "files": files,
            "affine": prepared.grid.affine.tolist(),
            "counts": counts.tolist(),
        },
    )
    for stale in set(_files_of(folder, case.name)) - {folder / file["name"] for file in files.values()}:
        stale.unlink(missing_ok=True)


def _locations(classes: np.ndarray, counts: np.ndarray, name: str) -> np.ndarray:
    generator = generator_for(name)
    found = [np.empty((0, 4), np.int32)]
    for index in np.flatnonzero(counts[1:]) + 1:
        places = np.flatnonzero(classes == index)
        if len(places) > LOCATIONS:
            places = np.sort(generator.choice(places, LOCATIONS, replace=False))
        zyx = np.unravel_index(places, classes.shape)
        found.append(np.stack([np.full(len(places), index), *zyx], axis=1).astype(np.int32))
    return np.concatenate(found)


def _lesions(classes: np.ndarray, scheme: LabelScheme, name: str) -> np.ndarray:
    """(N, 5): class, number from 0, and voxels of every lesion."""
    generator = generator_for(name)
    found = [np.empty((0, 5), np.int32)]
    for index in (k for k, label in enumerate(scheme.labels, 1) if label.is_lesion):
        box = nonzero_box(classes == index)
        if box is None:
            continue
        numbered, count = components_of(classes[box] == index)
        voxels = np.argwhere(numbered)
        of = numbered[tuple(voxels.T)]
        voxels += [side.start for side in box]
        for lesion in range(count):
            mine = voxels[of == lesion + 1]
            if len(mine) > OF_A_LESION:
                mine = mine[np.sort(generator.choice(len(mine), OF_A_LESION, replace=False))]
            head = np.tile([index, lesion], (len(mine), 1))
            found.append(np.hstack([head, mine]).astype(np.int32))
    return np.concatenate(found)


def _one_by_one(lesions: np.ndarray) -> tuple[np.ndarray, ...]:
    """(N, 4) of lesion, z, y, x as (N, 3) a lesion."""
    return tuple(np.array(lesions[lesions[:, 0] == n, 1:]) for n in np.unique(lesions[:, 0]))


def mapped_array(file: Path) -> np.ndarray:
    """An array that ``save_array`` wrote, memory-mapped.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        array: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot be read ({error})", where=file, fix="prepare the data again: only what is damaged is redone"
        ) from None
    return array


def save_array(file: Path, array: np.ndarray) -> dict[str, Any]:
    """Write an array, read it back and compare; its name and size in bytes."""
    with written(file) as part:
        with open(part, "wb") as handle:
            np.save(handle, array, allow_pickle=False)
        if not np.array_equal(np.load(part, mmap_mode="r", allow_pickle=False), array):
            raise OutputError("reads back differently than it was written", where=file, fix="check the disk")
        size = part.stat().st_size
    return {"name": file.name, "bytes": size}


def _is_current(folder: Path, name: str, key: str) -> bool:
    """Whether the case is there, of this key, with all its bytes; anything damaged counts as not there."""
    try:
        table = read_json(folder / f"{name}.json")
        sizes = [(folder / file["name"]).stat().st_size == file["bytes"] for file in table["files"].values()]
        return bool(table["key"] == key and len(sizes) == len(_PARTS) and all(sizes))
    except (InputError, OSError, KeyError, TypeError, AttributeError):
        return False


def _files_of(folder: Path, name: str) -> list[Path]:
    """All array files of a case, of any key; ``CASE.x`` is not a file of ``CASE``."""
    parts = tuple(f".{part}.npy" for part in _PARTS)
    found = (file for file in folder.iterdir() if file.name.startswith(f"{name}.") and file.name.endswith(parts))
    return [file for file in found if file.name.removeprefix(f"{name}.").count(".") == 2]


def _sweep(folder: Path) -> None:
    """Remove what killed runs left half-written; parts younger than a day may be another run's, still growing."""
    for part in folder.glob(".part-*"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _DAY_S:
                part.unlink()


def _check_names(cases: Sequence[CaseRef]) -> None:
    bad = [
        case.name for case in cases if not case.name or _BAD_NAME & set(case.name) or case.name in ("store", ".", "..")
    ]
    if bad:
        raise DatasetError(f"case names {bad[:8]} cannot be file names", fix="rename them")


def _digest(plan: Plan, scheme: LabelScheme) -> str:
    labels = [] if plan.labels == "linear" else [plan.labels]
    sizes = [list(plan.inplane)] if plan.inplane else []
    return _sha([FORMAT, plan.dims, list(plan.spacing_mm), plan.separate_z, scheme.to_json(), *labels, *sizes])


def _sha(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _facts_of(path: Path) -> list[Any]:
    """Path, size and time of a file, or of all files of a DICOM folder."""
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        return [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=path, fix="check the path") from None
