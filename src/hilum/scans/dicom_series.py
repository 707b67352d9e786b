"""A DICOM series (folder, zip or multi-frame file) to one Volume in HU.

Comes in: a path, and which series where there are several. Goes out: a Volume indexed (column, row, slice), slices
ascending along their normal, affine in RAS+ mm, and the header's facts that do not name the patient. How files are
found, slices arranged and pixels decoded is in ``dicom_files``, ``dicom_geometry`` and ``dicom_pixels``.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

from hilum.errors import GeometryError, ScanError, UsageError
from hilum.scans.dicom_files import CtFile, Slice, ct_files
from hilum.scans.dicom_geometry import Stack, arrange
from hilum.scans.dicom_pixels import Pixels, decode
from hilum.scans.dicom_tilt import straighten
from hilum.volume import Volume

log = logging.getLogger(__name__)

# header facts kept in the volume, with the names people look for; absent ones are left out
_FACTS = {
    "modality": "Modality",
    "study_date": "StudyDate",
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "series_number": "SeriesNumber",
    "series_description": "SeriesDescription",
    "frame_of_reference_uid": "FrameOfReferenceUID",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "kvp": "KVP",
    "kernel": "ConvolutionKernel",
    "slice_thickness_mm": "SliceThickness",
    "contrast_agent": "ContrastBolusAgent",
    "body_part": "BodyPartExamined",
    "patient_position": "PatientPosition",
}


def read_dicom(path: str | Path, *, series: str | None = None, resample_tilt: bool = False) -> Volume:
    """Read one CT series.

    Args:
        path: a folder, a zip, or a multi-frame file.
        series: Series Instance UID, series number or series description; needed where there are several.
        resample_tilt: straighten a series from a tilted gantry instead of refusing it.

    Returns:
        Volume of int16 (or float32) HU, array (columns, rows, slices) in Fortran order.

    Raises:
        ScanError: no CT, several series, pixels that cannot be decoded.
        GeometryError: slices missing, duplicated, unevenly spaced, of mixed orientation or size, or tilted.
        UsageError: ``series`` names none.
    """
    path = Path(path)
    files, others = ct_files(path)
    chosen = _chosen(files, series, path)
    slices = [item for file in chosen for item in file.slices()]
    if path.is_file() and len(slices) == 1 and len(files) == 1:
        raise ScanError(
            "is one slice of a series",
            where=path,
            wanted="at least 2 slices",
            fix="give the folder (or a zip) with the whole series",
        )
    _check_one_frame_of_reference(slices, path)
    stack = arrange(slices, path)
    if stack.tilted and not resample_tilt:
        raise GeometryError(
            f"the gantry was tilted by {stack.tilt_degrees:.1f} degrees: each of {len(slices)} slices, from "
            f"{stack.slices[0].name} to {stack.slices[-1].name}, is shifted by "
            f"{(stack.drift_mm[0] ** 2 + stack.drift_mm[1] ** 2) ** 0.5:.2f} mm against the one before",
            where=path,
            wanted="slices above one another",
            fix="ask for resampling (--resample-tilt) to straighten it by interpolation",
        )
    pixels = decode(stack.slices)
    header = _facts(stack, pixels, chosen, others, path)
    hu, grid = pixels.hu, stack.grid
    if stack.tilted:
        hu, grid = straighten(hu, stack)
        header["resampled"] = f"gantry tilt of {stack.tilt_degrees:.2f} degrees"
    return Volume.on(grid, hu.transpose(2, 1, 0), str(path), header)


def _chosen(files: list[CtFile], series: str | None, path: Path) -> list[CtFile]:
    """The files of the series asked for, or of the only one."""
    by_uid: dict[str, list[CtFile]] = defaultdict(list)
    for file in files:
        by_uid[file.series].append(file)
    listing = "; ".join(_line(uid, group) for uid, group in sorted(by_uid.items()))
    if series is not None:
        matching = [group for uid, group in by_uid.items() if series in _names(uid, group)]
        if len(matching) == 1:
            return matching[0]
        found = f"{len(matching)} series are called {series!r}" if matching else f"no series {series!r}"
        raise UsageError(found, where=path, wanted=f"the UID, number or description of one of: {listing}")
    if len(by_uid) > 1:
        raise ScanError(
            f"holds {len(by_uid)} CT series: {listing}",
            where=path,
            wanted="one",
            fix="choose with --series and a UID, number or description",
        )
    return files


def _names(uid: str, group: list[CtFile]) -> set[str]:
    return {uid, group[0].text("SeriesNumber"), group[0].text("SeriesDescription")} - {""}


def _line(uid: str, group: list[CtFile]) -> str:
    images = sum(file.frames for file in group)
    title = group[0].text("SeriesDescription") or "no description"
    return f"{uid or 'no UID'} (number {group[0].text('SeriesNumber') or 'none'}, {title!r}, {images} images)"


def _check_one_frame_of_reference(slices: list[Slice], path: Path) -> None:
    frames: dict[str, list[str]] = defaultdict(list)
    for item in slices:
        frames[item.file.text("FrameOfReferenceUID")].append(item.name)
    if len(frames) > 1:
        fewest = min(frames.values(), key=len)
        raise GeometryError(
            f"{len(fewest)} of {len(slices)} slices have another frame of reference: {', '.join(fewest[:5])}"
            + (f" and {len(fewest) - 5} more" if len(fewest) > 5 else ""),
            where=path,
            wanted="one frame of reference in a series",
            fix="move these files into a folder of their own",
        )


def _facts(stack: Stack, pixels: Pixels, chosen: list[CtFile], others: dict[str, int], path: Path) -> dict[str, Any]:
    values = stack.slices[0].file.head.values
    facts: dict[str, Any] = {"format": "DICOM"}
    for name, keyword in _FACTS.items():
        value = values.get(keyword)
        if isinstance(value, str):
            facts[name] = value.replace("\\", "/")
        elif value is not None:
            facts[name] = value[0]
    syntaxes = sorted({f.syntax_name for f in chosen})
    facts["transfer_syntax"] = ", ".join(syntaxes)
    facts["files"], facts["slices"] = len(chosen), len(stack.slices)
    if others:
        facts["left_aside"] = others
    if pixels.padding_voxels:
        facts["padding"] = {"hu": pixels.padding_hu, "voxels": pixels.padding_voxels}
    _note_rescale(stack, facts, path)
    return facts


def _note_rescale(stack: Stack, facts: dict[str, Any], path: Path) -> None:
    """Say where HU had to be assumed: no rescale at all, or a rescale to something else."""
    first = stack.slices[0].file
    if "RescaleSlope" not in first.head.values and not any("RescaleSlope" in f for f in first.head.frames):
        facts["rescale"] = "absent: stored values taken as HU"
        log.warning("%s: no rescale slope and intercept; the stored values are taken as HU", path)
    elif (kind := first.text("RescaleType") or "HU") != "HU":
        facts["rescale"] = f"type {kind}"
        log.warning("%s: the rescale type is %s, not HU", path, kind)
