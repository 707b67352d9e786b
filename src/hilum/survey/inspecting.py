"""ONE CASE, READ WHOLE: what its files hold and what is wrong with them.

Comes in: a case (image and label map, either may be absent), its scheme, the traps of its set. Goes out: a plain record
for ``verify.json``: shapes, spacing, HU range, label volumes, digests, findings. Files are read from the first byte to
the gzip checksum at the end. It changes nothing and knows no other case.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hilum.components import nonzero_box
from hilum.datasets import CaseRef, Trap
from hilum.errors import GeometryError, HilumError, LabelError, ScanError
from hilum.labels import LabelScheme, count_labels
from hilum.scans import read_volume
from hilum.scans.hounsfield import as_ct
from hilum.scans.mask_folders import is_mask_folders, read_mask_folders
from hilum.survey.findings import Finding
from hilum.survey.placing import placing
from hilum.survey.plausible import facts_of_image, left_and_right
from hilum.volume import Volume

_UNIT = 1e-4  # mm from 1.0: an affine that nobody measured
_TABLE_DIFFERS = 0.01  # share of the spacing
_SIZES = ("captured_pixel_width", "captured_slice_thickness")  # KiTS19's kits.json, mm


@dataclass(frozen=True)
class Order:
    """What one process is asked to look at; ``files`` says which parts of the case are wanted."""

    case: CaseRef
    scheme: LabelScheme | None
    traps: tuple[Trap, ...]
    labels_only: bool = False


def inspect_case(order: Order) -> dict[str, Any]:
    """Read a case and say what it is; damaged files become findings, never exceptions."""
    case = order.case
    findings: list[Finding] = []
    image = None if order.labels_only else _read(case.image, findings, order, is_image=True)
    labels = _read(case.labels, findings, order, is_image=False) if case.labels is not None else None
    if case.labels is None:
        findings.append(Finding("no-label-map", "there is no label map", str(case.image)))
    record: dict[str, Any] = {
        "case": case.name,
        "patient": case.patient,
        "files": {
            "image": None if order.labels_only else str(case.image),
            "labels": str(case.labels) if case.labels else None,
        },
        "image": facts_of_image(image) if image is not None else None,
        "labels": _facts_of_labels(labels) if labels is not None else None,
    }
    if image is not None and labels is not None:
        place = placing(image, labels)
        findings += [place] if place is not None else []
        known = image.header.get("geometry") != "pixdim only"
        if known and (place is None or place.kind == "noise"):
            findings += left_and_right(image, labels, order.scheme)
    findings += _trapped(order, image, labels)
    record["findings"] = [finding.to_json() for finding in findings]
    return record


def _read(path: Path, findings: list[Finding], order: Order, is_image: bool) -> Volume | None:
    """The file's voxels, checked to be what they should; findings say what is wrong with it."""
    where = str(path)
    part = _unfinished(path)
    if not path.exists():
        if part is not None:
            text = f"only {part.name} is there: the download was not finished"
            findings.append(Finding("partial", text, where, "run the same fetch again: it goes on from there"))
        else:
            text = f"the {'image' if is_image else 'label map'} is not there"
            findings.append(Finding("missing", text, where, "bring it, or fetch the set again"))
        return None
    try:
        if not is_image and order.scheme is not None and is_mask_folders(path):
            return read_mask_folders(path, order.scheme)
        volume = read_volume(path)
    except LabelError as error:
        findings.append(Finding("no-labels", error.found, where, error.fix or ""))
        return None
    except HilumError as error:
        findings.append(Finding("unreadable", error.found, where, error.fix or ""))
        return None
    findings += _header_findings(volume, where)
    return _checked_ct(volume, findings, where) if is_image else _checked_labels(volume, findings, where, order.scheme)


def _unfinished(path: Path) -> Path | None:
    """What fetch, or another downloader, leaves of a file that it did not finish."""
    names = (f"{path.name}.part", f".partial.{path.name}", f"{path.name}.tmp", f"{path.name}.crdownload")
    return next((path.with_name(name) for name in names if path.with_name(name).exists()), None)


def _header_findings(volume: Volume, where: str) -> list[Finding]:
    found = []
    if "qform_off_by_mm" in volume.header:
        text = f"qform and sform disagree by {volume.header['qform_off_by_mm']} mm; the sform is used"
        found.append(Finding("qform", text, where))
    if volume.header.get("geometry") == "pixdim only":
        found.append(Finding("no-orientation", "neither qform nor sform is set: which side is left is unknown", where))
    if "rescale" in volume.header:
        found.append(Finding("rescale", f"rescale {volume.header['rescale']}", where))
    thickness = volume.header.get("slice_thickness_mm")
    if isinstance(thickness, int | float) and thickness > 0:
        step = next(s for s, code in zip(volume.spacing_mm, volume.codes, strict=True) if code in "SI")
        if abs(thickness - step) > _TABLE_DIFFERS * step:
            how = "they overlap" if thickness > step else "there are gaps"
            text = f"slices of {thickness:.4g} mm lie {step:.4g} mm apart: {how}"
            found.append(Finding("thickness", text, where))
    return found


def _checked_ct(volume: Volume, findings: list[Finding], where: str) -> Volume | None:
    try:
        ct = as_ct(volume)
    except (ScanError, GeometryError) as error:
        findings.append(Finding("no-ct", error.found, where, error.fix or ""))
        return None
    if volume.array.dtype.kind == "f" and ct.array.dtype == np.int16:
        text = f"whole numbers stored as {volume.array.dtype.name}: read as int16"
        findings.append(Finding("whole-floats", text, where))
    low, high = int(ct.array.min()), int(ct.array.max())
    if low < -1100:
        share = float(np.mean(ct.array < -1100))
        findings.append(
            Finding("padding", f"{100 * share:.2g} % of the voxels lie below -1100 HU (down to {low})", where)
        )
    if low > -200 or high > 4095 or high < 100:
        text = f"HU run from {low} to {high}; CT of a body has air near -1000 and bone above 300"
        findings.append(Finding("hu-range", text, where))
    return ct


def _checked_labels(volume: Volume, findings: list[Finding], where: str, scheme: LabelScheme | None) -> Volume | None:
    try:
        if scheme is not None:
            checked = volume.with_array(scheme.check(volume.array, where))
        else:
            checked = volume.with_array(as_labels(volume))
    except LabelError as error:
        findings.append(Finding("no-labels", error.found, where, error.fix or ""))
        return None
    if volume.array.dtype.kind == "f":
        findings.append(Finding("whole-floats", f"labels stored as {volume.array.dtype.name}", where))
    if not checked.array.any():
        findings.append(Finding("empty-labels", "no voxel is labelled", where, "was it saved before it was drawn?"))
    return checked.with_array(checked.array)


def as_labels(volume: Volume) -> np.ndarray:
    """Any label map of integers 0 to 255."""
    array = volume.array
    low, high = float(array.min()), float(array.max())
    whole = array.dtype.kind in "iub" or bool((array == np.round(array)).all())
    if not whole or low < 0 or high > 255:
        raise LabelError(f"holds values from {low:g} to {high:g}", wanted="whole numbers from 0 to 255")
    return array.astype(np.uint8)


def _facts_of_labels(labels: Volume) -> dict[str, Any]:
    counts = count_labels(labels.array)
    return {
        **_grid_facts(labels),
        "voxels": {int(v): int(counts[v]) for v in np.flatnonzero(counts) if v},
        "digest": _digest(labels),
        **({"masks": labels.header["masks"]} if "masks" in labels.header else {}),
    }


def _digest(labels: Volume) -> str:
    """The same for the same labels whatever the order of the axes: of the box that holds them, and where it lies."""
    inside = labels.oriented()
    box = nonzero_box(inside.array)
    if box is None:
        return ""
    places = repr((inside.shape, [(part.start, part.stop) for part in box])).encode()
    return hashlib.sha256(places + inside.array[box].tobytes()).hexdigest()[:32]


def _grid_facts(volume: Volume) -> dict[str, Any]:
    return {
        "shape": list(volume.shape),
        "spacing_mm": [round(v, 6) for v in volume.spacing_mm],
        "codes": volume.codes,
        "stored": str(volume.header.get("stored_type", volume.array.dtype.name)),
    }


def _trapped(order: Order, image: Volume | None, labels: Volume | None) -> list[Finding]:
    """What the set is known for, where these files show it."""
    found: list[Finding] = []
    for volume, path in ((image, order.case.image), (labels, order.case.labels)):
        if volume is not None:
            for trap in order.traps:
                if not trap.cases or order.case.name in trap.cases:
                    found += _sprung(trap, order.case.name, volume, str(path), volume is labels)
    found += [
        Finding("in-doubt", trap.text, "")
        for trap in order.traps
        if trap.check == "excluded" and order.case.name in trap.cases
    ]
    size = _table_spacing(order.case.facts)
    for volume, path in ((image, order.case.image), (labels, order.case.labels)):
        if volume is not None and size is not None:
            found += _against_table(volume, size, str(path), volume is labels)
    return found


def _sprung(trap: Trap, name: str, volume: Volume, where: str, is_labels: bool) -> list[Finding]:
    """One trap, one file."""
    if trap.check == "axes" and volume.codes != trap.value:
        return [Finding("odd-axes", f"axes {volume.codes}, where the set has {trap.value}: it was converted", where)]
    if trap.check == "odd_shape" and sorted(trap.value[name]) == sorted(volume.shape)[-2:]:
        return [Finding("odd-shape", trap.text, where)]
    stored = volume.header.get("stored_type")
    if trap.check == "stored_type" and is_labels and stored is not None and stored != trap.value:
        return [Finding("old-labels", f"stored as {stored}. {trap.text}", where)]
    if trap.check == "unit_spacing" and max(abs(s - 1) for s in volume.spacing_mm) < _UNIT:
        what = "give --against another copy with the true spacing (msd=PATH or ircadb=PATH)"
        return [Finding("spacing-unknown", "claims 1 mm along every axis, which is known to be false", where, what)]
    return []


def _table_spacing(facts: Mapping[str, Any]) -> tuple[float, float] | None:
    """In-plane and slice spacing in mm from the set's own table."""
    values = [facts.get(key) for key in _SIZES]
    if all(isinstance(v, int | float) and v > 0 for v in values):
        return float(values[0]), float(values[1])  # type: ignore[arg-type]
    return None


def _against_table(volume: Volume, size: Sequence[float], where: str, is_labels: bool) -> list[Finding]:
    axis = next(i for i, code in enumerate(volume.codes) if code in "SI")
    wanted = [size[1] if i == axis else size[0] for i in range(3)]
    if np.allclose(volume.spacing_mm, wanted, rtol=_TABLE_DIFFERS):
        return []
    here, told = ("x".join(f"{v:.4g}" for v in values) for values in (volume.spacing_mm, wanted))
    plan = {"do": "spacing", "file": "labels" if is_labels else "image", "spacing_mm": wanted}
    return [
        Finding(
            "table-spacing",
            f"the spacing is {here} mm, the table has {told} mm",
            where,
            "--fix follows the table",
            plan,
        )
    ]
