"""Which scans a command line means, and what their cases are called.

Comes in: paths, folders and globs. Goes out: one ScanRef a scan, in natural order, with names that are unique and fit
for folders. It opens files only to see whether they are DICOM.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hilum.errors import ScanError, UsageError

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
# file stems that say nothing by themselves: the case is called after the folder
GENERIC_STEMS = ("imaging", "segmentation", "labels")
# label maps that lie beside their scan: a folder given as SCAN means the scan
_LABEL_STEMS = ("segmentation", "labels", "label", "seg", "mask")
_SHARES = "probabilities_"  # how segment calls each label's shares
_LOOKED_AT = 64  # files of a folder that are opened to see whether it holds CT


@dataclass(frozen=True)
class ScanRef:
    """A scan to read: its case name and where it is (a file, a zip or a DICOM folder)."""

    name: str
    path: Path


def find_scans(patterns: Sequence[str]) -> list[ScanRef]:
    """Resolve files, folders, zips and globs.

    A file that is named is taken as it is (a wrong one fails when read, and the others go on); from a glob only scans
    are taken. A folder stands for the NIfTI, NRRD and MHA files and zips in it (not for label maps beside a scan); if
    it has none, for the CT series in it and below, one scan a folder. Folders with DICOM that is not CT are passed
    over, unless there is nothing else, and so are folders below with nothing but results of hilum's own, so that
    results may lie among the scans.

    Raises:
        UsageError: a pattern matches nothing.
        ScanError: a folder holds no scan.
    """
    paths: list[Path] = []
    for pattern in patterns:
        paths += _resolved(str(pattern))
    unique = list(dict.fromkeys(paths))
    return [ScanRef(name, path) for name, path in zip(_unique_names(unique), unique, strict=True)]


def find_series(folder: Path) -> list[ScanRef]:
    """Every folder at or below one that holds slices of a CT, whatever image files lie beside or above them."""
    paths = list(_series_below(folder))
    return [ScanRef(name, path) for name, path in zip(_unique_names(paths), paths, strict=True)]


def _series_below(folder: Path) -> Iterator[Path]:
    entries = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: natural_key(p.name))
    files = [p for p in entries if p.is_file() and not p.name.lower().endswith((*VOLUME_SUFFIXES, ".zip"))]
    if _dicom_kind(files) == "CT":
        yield folder
    for entry in entries:
        if entry.is_dir() and not holds_results_only(entry):
            yield from _series_below(entry)


def case_name(path: str | Path) -> str:
    """The case's name: the stem without ``.nii.gz``, or the folder's for ``case_00000/segmentation.nii.gz``.

    >>> case_name("scans/case_00001.nii.gz"), case_name("kits/case_00000/imaging.nii.gz"), case_name("out/a.b/")
    ('case_00001', 'case_00000', 'a.b')
    """
    path = Path(path)
    stem = _stem(path)
    if stem in GENERIC_STEMS and stem != path.name:
        return path.absolute().parent.name or stem
    return stem or path.resolve().name


def _stem(path: Path) -> str:
    name = path.name
    for suffix in (*VOLUME_SUFFIXES, ".zip", ".dcm"):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return "" if name in ("", "..") else name


def _resolved(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        found = list(_in_folder(path)) or list(_in_folder(path, kinds=("other",)))
        if not found:
            raise ScanError(
                "no scan in this folder",
                where=path,
                wanted=f"DICOM files, or files that end in {', '.join(VOLUME_SUFFIXES)} or .zip",
                fix="check the path",
            )
        return found
    if path.is_file():
        return [path]
    found = []
    for match in sorted(glob.glob(str(path), recursive=True), key=natural_key):
        item = Path(match)
        found += list(_in_folder(item)) if item.is_dir() else [item] if _is_scan(item) else []
    if not found:
        raise UsageError(
            f"{pattern!r} matches no scan", wanted="a file, a folder, a zip or a glob", fix="check the path"
        )
    return found


def _in_folder(folder: Path, kinds: tuple[str, ...] = ("CT",)) -> Iterator[Path]:
    """Scans in a folder: its image files, else DICOM folders of the wanted kinds, itself first."""
    try:
        entries = sorted(folder.iterdir(), key=lambda p: natural_key(p.name))
    except PermissionError:
        raise ScanError("no permission to read this folder", where=folder) from None
    files = [p for p in entries if p.is_file() and not p.name.startswith(".")]
    volumes = [p for p in files if p.name.lower().endswith((*VOLUME_SUFFIXES, ".zip"))]
    scans = [p for p in volumes if _stem(p) not in _LABEL_STEMS and not _stem(p).startswith(_SHARES)] or volumes
    if scans:
        yield from scans
        return
    if _dicom_kind(files) in kinds:
        yield folder
    for entry in entries:
        if entry.is_dir() and not entry.name.startswith(".") and not holds_results_only(entry):
            yield from _in_folder(entry, kinds)


def holds_results_only(folder: Path) -> bool:
    """Whether a folder is a case of ``hilum segment``: its ``case.json``, and no volume but its results."""
    if not os.path.isfile(folder / "case.json"):  # False too where nobody may look
        return False
    volumes = [p.name for p in folder.iterdir() if p.name.lower().endswith(VOLUME_SUFFIXES) and p.name[0] != "."]
    return all(name == "labels.nii.gz" or name.startswith(_SHARES) for name in volumes)


def _dicom_kind(files: Sequence[Path]) -> str:
    """Whether some of the files are CT ("CT"), other DICOM ("other") or no DICOM ("")."""
    dicom = [p for p in files[:_LOOKED_AT] if is_dicom(p)]
    if not dicom:
        return ""
    from hilum.scans.dicom_headers import modality

    return "CT" if any(modality(p) == "CT" for p in dicom) else "other"


def _is_scan(path: Path) -> bool:
    return path.name.lower().endswith((*VOLUME_SUFFIXES, ".zip")) or is_dicom(path)


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does."""
    from hilum.scans.dicom_headers import is_dicom as begins_as_dicom

    try:
        with open(path, "rb") as file:
            return begins_as_dicom(file.read(132))
    except OSError:
        return False


def _unique_names(paths: list[Path]) -> list[str]:
    """Case names; equal ones get their folder's name in front, and a number if that does not tell them apart."""
    names = [case_name(p) for p in paths]
    for _ in range(2):
        counts = Counter(names)
        names = [
            f"{p.absolute().parent.name}_{case_name(p)}" if counts[n] > 1 else n
            for p, n in zip(paths, names, strict=True)
        ]
    seen: Counter[str] = Counter()
    taken = set(names)
    unique = []
    for name in names:
        seen[name] += 1
        new = name
        while seen[name] > 1 and new in taken:
            new = f"{name}_{seen[name]}"
            if new in taken:
                seen[name] += 1
        taken.add(new)
        unique.append(new)
    return unique


def natural_key(text: str | os.PathLike[str]) -> list[tuple[int, str]]:
    """Sort key that puts ``image_2`` before ``image_10``."""
    parts: list[tuple[int, str]] = []
    digits = ""
    for character in f"{os.fspath(text)}\0":
        if character.isdecimal():
            digits += character
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, character))
    return parts
