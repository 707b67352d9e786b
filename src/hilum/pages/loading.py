"""The volumes that a page of an evaluation draws: scan, truth and prediction of a case.

Comes in: where label maps lie, as ``scores.json`` says, and perhaps a folder of scans. Goes out: a function from a
case's name to its Volumes; nothing is read before a picture asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hilum.errors import DatasetError, HilumError
from hilum.files import read_json
from hilum.scans import read_scan, read_volume
from hilum.volume import Volume

Pictures = Callable[[str], tuple[Volume | None, Volume, Volume]]
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
CT_NAMES = ("imaging", "ct", "image", "scan", "volume", "img")


def stored_pictures(files: Mapping[str, Mapping[str, Any]], scans: Path | None = None) -> Pictures:
    """Volumes by the paths that ``scores.json`` names under "files".

    Args:
        files: case -> {"truth", "prediction"}; a prediction of None is an empty one.
        scans: folder of scans that bear the cases' names; by default those that lie beside the truths are taken
            (``case/imaging.nii.gz``).

    Raises:
        DatasetError: (from the function) a case whose label maps are not known.
    """
    found = find_scans(scans, files) if scans is not None else {}

    def pictures(case: str) -> tuple[Volume | None, Volume, Volume]:
        if case not in files or not Path(str(files[case]["truth"])).is_file():
            raise DatasetError(f"the label maps of {case!r} are gone", wanted="the files that were scored")
        path = Path(str(files[case]["truth"]))
        truth = read_volume(path)
        other = files[case]["prediction"]
        empty = Volume(np.zeros(truth.shape, np.uint8), truth.affine, "no prediction")
        prediction = empty if other is None else _labels(read_volume(Path(str(other))))
        truth = _labels(truth)
        if prediction.shape == truth.shape and prediction.grid.distance_mm(truth.grid) > 0.1:
            # scored in file order by the protocol's rule, so drawn in file order too
            prediction = Volume(prediction.array, truth.affine, prediction.source)
        scan_file = found.get(case) or _beside(path, case) or _segmented(other)
        return _scan(scan_file, truth), truth, prediction

    return pictures


def find_scans(folder: Path, cases: Mapping[str, Any]) -> dict[str, Path]:
    """Scans by case: ``NAME.nii.gz``, nnU-Net's ``NAME_0000.nii.gz``, or a folder ``NAME`` (one image, or DICOM).

    Raises:
        DatasetError: no such folder, or none of the cases in it.
    """
    if not folder.is_dir():
        raise DatasetError("no such folder", where=folder, wanted="a folder of scans")
    found: dict[str, Path] = {}
    for case in cases:
        files = [folder / f"{case}{middle}{ending}" for middle in ("", "_0000") for ending in ENDINGS]
        own = folder / case
        whole = [own] if own.is_dir() and not _images(own) else []
        path = next((file for file in [*files, *_images(own), *whole] if file.exists()), None)
        if path is not None:
            found[case] = path
    if not found:
        raise DatasetError(
            f"holds no scan of these cases (such as {next(iter(cases), '')!r})",
            where=folder,
            wanted="files or folders of the cases' names",
        )
    return found


def _images(folder: Path) -> list[Path]:
    """Images in a case's own folder, by the names that CTs go by."""
    return [file for name in CT_NAMES for ending in ENDINGS if (file := folder / f"{name}{ending}").is_file()]


def _beside(truth: Path, case: str) -> Path | None:
    """A scan in the case's own folder, as KiTS lays them out; or in ``images`` beside ``labels``, and the like."""
    if truth.parent.name == case:
        return next(iter(_images(truth.parent)), None)
    for labels, images in (("labels", "images"), ("labelsTr", "imagesTr"), ("labelsTs", "imagesTs")):
        if truth.parent.name == labels:
            try:
                return find_scans(truth.parent.parent / images, {case: None}).get(case)
            except DatasetError:
                return None
    return None


def _segmented(prediction: Any) -> Path | None:
    """The scan that ``hilum segment`` says it made a prediction from."""
    if prediction is None:
        return None
    try:
        scan = Path(read_json(Path(str(prediction)).with_name("case.json"))["scan"])
    except (HilumError, KeyError, TypeError):
        return None
    return scan if scan.exists() else None


def _scan(path: Path | None, truth: Volume) -> Volume | None:
    """The scan, unless it cannot be read or lies elsewhere than the labels: pictures then have a dark ground."""
    if path is None:
        return None
    try:
        scan = read_scan(path)
    except HilumError:
        return None
    turned = scan.oriented(truth.codes)
    return scan if turned.grid.same_as(truth.grid, 0.1) else None


def _labels(volume: Volume) -> Volume:
    """8-bit labels; what was scored has been checked before."""
    return volume.with_array(np.clip(np.round(volume.array), 0, 255).astype(np.uint8))
