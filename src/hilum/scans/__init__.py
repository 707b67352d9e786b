"""SCAN -> VOLUME: every format that CT comes in, and the two files that hilum writes.

Comes in: a path to NIfTI, NRRD, MetaImage or DICOM (a folder, a zip, a multi-frame file). Goes out: a Volume in the
file's own axis order with its affine in RAS+ mm; or label maps and scans written as NIfTI, read back and compared. It
does not know models, patches or reports.

    read_scan      CT in HU, int16 where it fits; refuses NaN, label maps and whatever else cannot be HU
    read_labels    a label map as uint8, checked against its scheme
    read_volume    the voxels as they are
    find_scans     files, folders, zips and globs to scans with case names
    find_series    DICOM folders alone, whatever lies beside them

The formats' own readers are imported when first used: a NIfTI file does not wait for SimpleITK.
"""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

import numpy as np

from hilum.errors import InputError, ScanError
from hilum.labels import LabelScheme
from hilum.scans.finding import VOLUME_SUFFIXES, ScanRef, case_name, find_scans, find_series
from hilum.scans.hounsfield import as_ct, check_hu
from hilum.volume import Volume

__all__ = [
    "ScanRef",
    "case_name",
    "check_hu",
    "find_scans",
    "find_series",
    "read_labels",
    "read_scan",
    "read_volume",
    "write_labels",
    "write_scan",
]

log = logging.getLogger(__name__)

_LABELS_LEVEL, _SCAN_LEVEL = 1, 3  # gzip levels of ISA-L: label maps shrink at any level, CT needs the better one


def read_scan(path: str | Path, *, series: str | None = None, resample_tilt: bool = False) -> Volume:
    """Read a CT scan in HU.

    Args:
        path: a NIfTI, NRRD or MetaImage file, a DICOM folder, zip or multi-frame file.
        series: for DICOM with several series: the UID, number or description of the one to read.
        resample_tilt: for DICOM: straighten a series from a tilted gantry instead of refusing it.

    Returns:
        Volume in the file's own axis order: int16 if all values are whole numbers that fit, else float32.

    Raises:
        ScanError: it cannot be read, holds NaN, or is no CT in HU.
        GeometryError: it is not 3-D, or where its voxels lie is unclear.
    """
    path = Path(path)
    if _is_dicom_like(path):
        from hilum.scans.dicom_series import read_dicom

        return as_ct(read_dicom(path, series=series, resample_tilt=resample_tilt))
    if series is not None or resample_tilt:
        log.warning("%s: series and tilt are options for DICOM and have no effect here", path)
    return as_ct(read_volume(path))


def read_labels(path: str | Path, scheme: LabelScheme) -> Volume:
    """Read a label map as uint8, every value known to the scheme.

    A folder with a folder of DICOM masks for each structure becomes one label map (``mask_folders``).

    Raises:
        LabelError: fractions or labels that the scheme does not know.
        ScanError, GeometryError: the file cannot be read.
    """
    from hilum.scans.mask_folders import is_mask_folders, read_mask_folders

    if is_mask_folders(Path(path)):
        return read_mask_folders(path, scheme)
    volume = read_volume(path)
    return volume.with_array(scheme.check(volume.array, volume.source))


def read_volume(path: str | Path) -> Volume:
    """Read voxels as they are: the file's number type (scaled if the header says so), no check of what they mean.

    Raises:
        ScanError: no such file, an unknown format, a damaged file.
        GeometryError: it is not 3-D, or where its voxels lie is unclear.
    """
    path = Path(path)
    name = path.name.lower()
    if _is_dicom_like(path):
        from hilum.scans.dicom_series import read_dicom

        return read_dicom(path)
    if not path.exists():
        raise ScanError("no such file or folder", where=path, fix="check the path")
    if name.endswith((".nii.gz", ".nii")):
        from hilum.scans.nifti import read_nifti

        return read_nifti(path)
    if name.endswith(VOLUME_SUFFIXES):
        from hilum.scans.sitk_formats import read_sitk

        return read_sitk(path)
    raise ScanError(
        "the format is unknown",
        where=path,
        wanted=f"a file that ends in {', '.join(VOLUME_SUFFIXES)}, a DICOM folder or a zip",
        fix="convert it, or correct its name",
    )


def write_labels(path: str | Path, volume: Volume) -> None:
    """Write a label map as uint8 NIfTI-1 on the volume's own grid, whole or not at all, read back and compared.

    Raises:
        OutputError: no permission, disk full, or the file reads back differently.
    """
    from hilum.scans.nifti import write_nifti

    array = volume.array
    assert array.dtype.kind in "bu" or (array.dtype.kind == "i" and array.min() >= 0), array.dtype
    assert array.dtype.itemsize == 1 or array.max() <= 255, "label above 255"
    write_nifti(path, volume.with_array(array.astype(np.uint8, copy=False)), _LABELS_LEVEL)


def write_scan(path: str | Path, volume: Volume) -> None:
    """Write a scan as NIfTI-1: int16 where all values are whole numbers that fit, else float32; read back and compared.

    Raises:
        OutputError: no permission, disk full, or the file reads back differently.
        ScanError: NaN, or values that cannot be HU.
    """
    from hilum.scans.nifti import write_nifti

    write_nifti(path, as_ct(volume), _SCAN_LEVEL)


def _is_dicom_like(path: Path) -> bool:
    """A folder, a zip, or a file that begins as DICOM, unless its name says otherwise."""
    if path.is_dir():
        _refuse_folder_of_volumes(path)
        return True
    if not path.is_file() or path.name.lower().endswith(VOLUME_SUFFIXES):
        return False
    if path.name.lower().endswith((".zip", ".dcm", ".ima")) or zipfile.is_zipfile(path):
        return True
    from hilum.scans.finding import is_dicom

    return is_dicom(path)


def _refuse_folder_of_volumes(path: Path) -> None:
    try:
        inside = sorted(p.name for p in path.iterdir() if p.name.lower().endswith(VOLUME_SUFFIXES))
    except PermissionError:
        raise InputError("no permission to read this folder", where=path) from None
    if inside:
        raise ScanError(
            f"is a folder with {len(inside)} image files ({', '.join(inside[:3])}{' ...' if len(inside) > 3 else ''})",
            where=path,
            wanted="one scan",
            fix=f"give the file, such as {path / inside[0]}",
        )
