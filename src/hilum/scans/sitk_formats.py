"""NRRD and MetaImage (MHA, MHD) by SimpleITK.

Comes in: a path. Goes out: a Volume whose array is indexed as ITK does (i, j, k) with the affine turned from ITK's LPS
to RAS+. NIfTI is not read here: asked for ``X.nii.gz``, ITK reads the voxels of a sibling ``X.nii``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from hilum.errors import GeometryError, ScanError
from hilum.volume import Volume

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
_itk: Any = SimpleITK  # its functions carry no types
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_sitk(path: str | Path) -> Volume:
    """Read an NRRD or MetaImage file.

    Returns:
        Volume with the array (I, J, K) in Fortran order, as NIfTI has it.

    Raises:
        ScanError: no such file, damaged, or several numbers a voxel.
        GeometryError: not 3-D, or without a usable affine.
    """
    path = Path(path)
    if not path.is_file():
        raise ScanError("no such file", where=path, fix="check the path")
    if path.stat().st_size == 0:
        raise ScanError("the file is empty", where=path, wanted="a scan", fix="copy or download it again")
    image = _image(path)
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise ScanError(
            f"{image.GetNumberOfComponentsPerPixel()} numbers a voxel", where=path, wanted="one number a voxel"
        )
    size = list(image.GetSize())
    while len(size) > 3 and size[-1] == 1:
        image = _itk.Extract(image, [*size[:-1], 0], [0] * len(size))
        size = size[:-1]
    if len(size) != 3:
        raise GeometryError(
            f"the image has {len(size)} axes (shape {'x'.join(map(str, size))})",
            where=path,
            wanted="a 3-D volume",
            fix="give one 3-D image (split a time series, or stack the slices)",
        )
    array = _itk.GetArrayFromImage(image).transpose(2, 1, 0)
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    kind = "NRRD" if path.suffix.lower() in (".nrrd", ".nhdr") else "MetaImage"
    return Volume(array, LPS_TO_RAS @ affine, str(path), {"format": kind, "stored_type": array.dtype.name})


def _image(path: Path) -> Any:
    """ITK's image; its errors carry C++ file names and line numbers, of which the last line is for people."""
    shown = _itk.ProcessObject.GetGlobalWarningDisplay()
    _itk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        return _itk.ReadImage(str(path))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1].removeprefix("ITK ERROR:").split("): ")[-1].rstrip(".") if lines else "no reason given"
        kind = GeometryError if "spacing" in reason.lower() or "direction" in reason.lower() else ScanError
        raise kind(
            f"ITK cannot read it ({reason})",
            where=path,
            wanted="an intact NRRD or MetaImage file",
            fix="export it again",
        ) from None
    finally:
        _itk.ProcessObject.SetGlobalWarningDisplay(shown)
