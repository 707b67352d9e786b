"""Corrected copies: what ``verify --fix`` writes, beside and never in place.

Comes in: records with fixable findings, a folder. Goes out: ``FOLDER/<case>/imaging.nii.gz`` and
``segmentation.nii.gz`` of each corrected case, ``fix_log.json`` (what was done to which file), and ``manifest.csv``
with ``labels.json``: all usable cases, corrected where they were corrected, for ``--data folder=FOLDER/manifest.csv``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hilum.datasets import CaseRef
from hilum.errors import HilumError
from hilum.files import plain, write_json, write_text
from hilum.labels import LabelScheme
from hilum.progress import Progress
from hilum.scans import read_labels, read_scan, read_volume, write_labels, write_scan
from hilum.survey.placing import nearest_onto
from hilum.volume import Volume

IMAGE, LABELS = "imaging.nii.gz", "segmentation.nii.gz"
_ORDER = ("spacing", "copy_affine", "resample", "reorder", "mirror")  # what others build on comes first


def write_fixed(
    cases: Sequence[CaseRef],
    records: Sequence[dict[str, Any]],
    scheme: LabelScheme | None,
    folder: Path,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Write the corrected copies.

    Args:
        cases: all, in the order of their records.
        records: as ``verify`` made them.
        scheme: what the labels mean, if known.
        folder: where to.
        progress: counts corrected cases.

    Returns:
        One entry for each corrected case: ``{"case", "done": [...], "files": [...]}``, or "failed" with the reason.

    Raises:
        OutputError: it cannot be written.
    """
    todo = [(c, r) for c, r in zip(cases, records, strict=True) if plans_of(r)]
    bar = progress.stage("Correcting", len(todo))
    log, corrected = [], {}
    for case, record in todo:
        entry, place = _fix_case(case, plans_of(record), scheme, folder)
        log.append(entry)
        if place is not None:
            corrected[case.name] = place
        bar.step(note=case.name)
    write_json(folder / "fix_log.json", plain(log))
    _write_manifest(cases, records, corrected, folder)
    if scheme is not None:
        write_json(folder / "labels.json", plain(scheme.to_json()))
    return log


def plans_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """What is to be done to a case; nothing where something else about it is broken."""
    findings = record["findings"]
    if any(finding["class"] == "broken" for finding in findings):
        return []
    plans = [finding["plan"] | {"code": finding["code"]} for finding in findings if finding["class"] == "fixable"]
    return sorted(plans, key=lambda plan: _ORDER.index(plan["do"]))


def _fix_case(
    case: CaseRef, plans: Sequence[dict[str, Any]], scheme: LabelScheme | None, folder: Path
) -> tuple[dict[str, Any], tuple[Path, Path | None] | None]:
    """Read, correct, write both files of a case; its log entry and where they are."""
    entry: dict[str, Any] = {"case": case.name, "done": [], "files": []}
    try:
        image = read_scan(case.image) if case.image.exists() else None
        labels = _labels(case.labels, scheme) if case.labels is not None else None
    except HilumError as error:
        return entry | {"failed": str(error)}, None
    for plan in plans:
        image, labels, said = apply_plan(plan, image, labels)
        entry["done"].append({"code": plan["code"], "what": said})
    changed_image = image is not None and any(plan["file"] in ("image", "both") for plan in plans)
    place_image, place_labels = case.image.absolute(), case.labels.absolute() if case.labels else None
    if changed_image and image is not None:
        place_image = folder / case.name / IMAGE
        write_scan(place_image, image)
        entry["files"].append({"from": str(case.image), "to": str(place_image)})
    if labels is not None:
        place_labels = folder / case.name / LABELS
        write_labels(place_labels, labels)
        entry["files"].append({"from": str(case.labels), "to": str(place_labels)})
    return entry, (place_image, place_labels)


def apply_plan(
    plan: dict[str, Any], image: Volume | None, labels: Volume | None
) -> tuple[Volume | None, Volume | None, str]:
    """One correction; the volumes and what was done, in words."""
    do = plan["do"]
    if do == "spacing":
        wanted = [float(v) for v in plan["spacing_mm"]]
        both = plan["file"] == "both"
        if image is not None and (both or plan["file"] == "image"):
            image = with_spacing(image, wanted)
        if labels is not None and (both or plan["file"] == "labels"):
            labels = with_spacing(labels, wanted)
        return image, labels, f"spacing set to {'x'.join(f'{v:.4g}' for v in wanted)} mm"
    if do == "mirror":
        image = mirrored(image) if image is not None else None
        labels = mirrored(labels) if labels is not None else None
        return image, labels, "left and right exchanged in the affines; no voxel was changed"
    assert image is not None and labels is not None, plan
    if do == "copy_affine":
        return image, replace(labels, affine=image.affine), "the label map was given its image's affine"
    if do == "reorder":
        turned = labels.oriented(image.codes)
        return image, Volume(np.ascontiguousarray(turned.array), image.affine, labels.source), "label map reordered"
    assert do == "resample", plan
    return image, image.with_array(nearest_onto(image, labels)), "label map resampled onto the image's grid (nearest)"


def with_spacing(volume: Volume, spacing_mm: Sequence[float]) -> Volume:
    """Another spacing along the same directions, the first voxel where it was."""
    affine = np.array(volume.affine)
    affine[:3, :3] = affine[:3, :3] / np.array(volume.spacing_mm) * np.array(spacing_mm)
    return replace(volume, affine=affine)


def mirrored(volume: Volume) -> Volume:
    """Left and right exchanged about the image's own centre: only the affine changes."""
    affine = np.array(volume.affine)
    centre = volume.world((np.array(volume.shape) - 1) / 2)[0]
    affine[0] = -affine[0]
    affine[0, 3] += 2 * centre
    return replace(volume, affine=affine)


def _labels(path: Path, scheme: LabelScheme | None) -> Volume:
    if scheme is not None:
        return read_labels(path, scheme)
    volume = read_volume(path)
    return volume.with_array(volume.array.astype(np.uint8))


def _write_manifest(
    cases: Sequence[CaseRef],
    records: Sequence[dict[str, Any]],
    corrected: dict[str, tuple[Path, Path | None]],
    folder: Path,
) -> None:
    """All cases that can be used, with absolute paths for what was right already."""
    usable = []
    for case, record in zip(cases, records, strict=True):
        classes = {finding["class"] for finding in record["findings"]}
        if "broken" in classes or ("fixable" in classes and case.name not in corrected):
            continue
        as_it_is = (case.image.absolute(), case.labels.absolute() if case.labels else None)
        usable.append((case, *corrected.get(case.name, as_it_is)))
    write_text(folder / "manifest.csv", manifest_text(usable, folder))


def manifest_text(rows: Sequence[tuple[CaseRef, Path, Path | None]], folder: Path) -> str:
    """A manifest that the ``folder`` kind takes; files below ``folder`` are named relative to it.

    Args:
        rows: each case with the image and label map to list.
        folder: where the manifest will lie.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "label", "case", "patient"])
    for case, *files in rows:
        named = [f.relative_to(folder) if f is not None and f.is_relative_to(folder) else f or "" for f in files]
        writer.writerow([*named, case.name, case.patient])
    return text.getvalue()
