"""your own scans: a folder of images and label maps, or a CSV or JSON list of them.

Comes in: a folder in one of the usual layouts (``images``/``labels``, nnU-Net, MSD, KiTS, LiTS, pairs side by side),
or a manifest. Goes out: its cases, with a label scheme if ``labels.json`` or ``dataset.json`` describes one. No voxel
is read.

Manifests: CSV with the columns ``image,label[,case,patient]``; JSON, a list of such objects, ``{"cases": [...]}``, or
MSD's ``dataset.json`` with ``"training"``. Paths are relative to the manifest; an image may be a DICOM folder; the
label may be left empty.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hilum.datasets.cases import CaseRef, Dataset, checked
from hilum.datasets.pairing import HOW_NAMES_LOOK, pair, volume_files
from hilum.errors import DatasetError, HilumError, InputError
from hilum.files import read_json
from hilum.labels import LabelScheme, scheme_from
from hilum.scans import case_name

MANIFESTS = ("manifest.csv", "manifest.json", "dataset.json")
SCHEMES = ("labels.json", "dataset.json")
_LABEL_COLUMNS = ("label", "labels", "mask", "segmentation")
Row = tuple[str, Mapping[str, Any]]  # where it stands ("line 3"), and its columns


def open_dataset(path: Path) -> Dataset:
    """The cases of a folder or manifest.

    Raises:
        DatasetError: no pairs, files without partner (named), missing files, names used twice, an unreadable manifest.
    """
    if path.is_file():
        rows, scheme = _read_manifest(path)
        if rows is None:
            raise DatasetError(
                "lists no cases", where=path, wanted='a list of cases, {"cases": [...]} or MSD\'s "training"'
            )
        return checked(path.stem, _from_rows(rows, path), scheme or _scheme_beside(path.parent), path)
    for name in MANIFESTS:
        file = path / name
        if file.is_file():
            rows, scheme = _read_manifest(file)
            if rows is not None:
                return checked(_title(path), _from_rows(rows, file), scheme or _scheme_beside(path), file)
    return checked(_title(path), _from_names(path), _scheme_beside(path), path)


def _title(folder: Path) -> str:
    return folder.absolute().name


def _from_names(folder: Path) -> list[CaseRef]:
    """Pairs told from names; every file must have found its partner."""
    files = volume_files(folder)
    if not files:
        raise DatasetError(
            "holds no NIfTI, NRRD or MetaImage files",
            where=folder,
            wanted="images with their label maps",
            fix="give DICOM folders in a CSV with the columns image,label",
        )
    found = pair(folder, files)
    if found.alone:
        some = ", ".join(str(p.relative_to(folder)) for p in found.alone[:8])
        more = f" and {len(found.alone) - 8} more" if len(found.alone) > 8 else ""
        raise DatasetError(
            f"{len(found.alone)} of {len(files)} files have no partner ({len(found.pairs)} pairs found): {some}{more}",
            where=folder,
            wanted="one label map for each image",
            fix=HOW_NAMES_LOOK,
        )
    return [CaseRef(name, image, labels, name) for name, image, labels in found.pairs]


def _read_manifest(file: Path) -> tuple[list[Row] | None, LabelScheme | None]:
    """Rows of a manifest (None if a JSON file lists no cases at all), and the scheme that it describes."""
    if file.suffix.lower() == ".json":
        return _read_json(file)
    if file.suffix.lower() in (".csv", ".tsv", ".txt"):
        return _read_csv(file), None
    raise DatasetError("is no folder and no manifest", where=file, wanted="a folder, a .csv or a .json file")


def _read_json(file: Path) -> tuple[list[Row] | None, LabelScheme | None]:
    try:
        table = read_json(file)
    except InputError as error:
        raise DatasetError(error.found, where=file, fix=error.fix) from None
    scheme = None
    if isinstance(table, Mapping):
        scheme = _scheme(table, file)
        table = table.get("cases", table.get("training"))
    if table is None:
        return None, scheme
    if not isinstance(table, list):
        raise DatasetError("its cases are no list", where=file, wanted='[{"image": ..., "label": ...}, ...]')
    rows: list[Row] = []
    for i, row in enumerate(table, 1):
        if not isinstance(row, Mapping):
            raise DatasetError(f"case {i} is {row!r}", where=file, wanted='{"image": ..., "label": ...}')
        rows.append((f"case {i}", row))
    return rows, scheme


def _read_csv(file: Path) -> list[Row]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot be read ({error})", where=file, fix="save it as UTF-8 text") from None
    header = text.split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    reader = csv.DictReader(text.splitlines(), delimiter=separator, skipinitialspace=True)
    names = [str(name).strip().lower() for name in reader.fieldnames or []]
    if "image" not in names:
        raise DatasetError(
            f"its first line is {header.strip()!r}", where=file, wanted="the columns image,label[,case,patient]"
        )
    reader.fieldnames = names
    rows: list[Row] = []
    for row in reader:
        cells = {key: value.strip() for key, value in row.items() if isinstance(key, str) and isinstance(value, str)}
        if any(cells.values()):
            rows.append((f"line {reader.line_num}", cells))
    return rows


def _from_rows(rows: list[Row], file: Path) -> list[CaseRef]:
    cases = []
    for where, row in rows:
        image = row.get("image")
        label = next((row[c] for c in _LABEL_COLUMNS if row.get(c)), None)
        if not isinstance(image, str) or not image or not isinstance(label, str | None):
            raise DatasetError(
                f"{where} has image {image!r} and label {label!r}", where=file, wanted="paths, relative to the manifest"
            )
        image_path = _placed(image, file)
        name = str(row.get("case") or case_name(image_path))
        label_path = None if label is None else _placed(label, file)
        cases.append(CaseRef(name, image_path, label_path, str(row.get("patient") or name)))
    return cases


def _placed(path: str, manifest: Path) -> Path:
    return manifest.parent / Path(path).expanduser()


def _scheme_beside(folder: Path) -> LabelScheme | None:
    """The scheme that a file in the folder describes, if there is one."""
    for name in SCHEMES:
        file = folder / name
        if file.is_file():
            try:
                table = read_json(file)
            except InputError as error:
                raise DatasetError(error.found, where=file, fix=error.fix) from None
            if isinstance(table, str) or (
                name == "labels.json" and isinstance(table, Mapping) and "labels" not in table
            ):
                table = {"labels": table}
            scheme = _scheme(table, file) if isinstance(table, Mapping) else None
            if scheme is not None:
                return scheme
    return None


def _scheme(table: Mapping[str, Any], file: Path) -> LabelScheme | None:
    """A scheme from "scheme" (a name) or "labels": a name, MSD's {"1": "liver"}, nnU-Net's {"liver": 1 or [1, 2]}."""
    given = table.get("labels", table.get("scheme"))
    if given is None:
        return None
    try:
        if isinstance(given, str):
            return scheme_from(given)
        if isinstance(given, list):
            return scheme_from({k: table[k] for k in ("name", "labels", "regions") if k in table})
        return scheme_from(_short_form(given, table))
    except (HilumError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DatasetError(
            f'its "labels" cannot be understood ({error})',
            where=file,
            wanted='{"background": 0, "kidney": 1, ...}, or the name of a label scheme',
        ) from None


def _short_form(given: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """The short form that ``scheme_from`` takes."""
    if {"values", "regions"} & set(given):
        return dict(given)
    if all(str(key).isdecimal() for key in given):  # MSD: {"0": "background", "1": "liver"}
        given = {str(name): int(value) for value, name in given.items()}
    regions = {str(n): [int(v) for v in vs] for n, vs in given.items() if isinstance(vs, list | tuple)}
    foreground = {str(n): v for n, v in given.items() if v not in (0, "0", [0])}
    if not regions:
        return {"name": "own", "values": {n: int(v) for n, v in foreground.items()}}
    # nnU-Net's regions: "regions_class_order" says which integer the part of each region that no later one covers has
    order = [int(v) for v in table["regions_class_order"]] if "regions_class_order" in table else []
    if len(order) != len(foreground):
        raise ValueError("regions need a regions_class_order of their length")
    values = dict(zip(foreground, order, strict=True))
    spans = {n: regions.get(n) or [int(v)] for n, v in foreground.items()}
    return {"name": "own", "values": values, "regions": spans}
