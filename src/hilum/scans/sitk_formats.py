"""NRRD and MetaImage (MHA, MHD) by SimpleITK.

Comes in: a path. Goes out: a Volume whose array is indexed as ITK does (i, j, k) with the affine turned from ITK's LPS
to RAS+. NIfTI is not read here: asked for ``X.nii.gz``, ITK reads the voxels of a sibling ``X.nii``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from isal import isal_zlib

from hilum.errors import GeometryError, ScanError
from hilum.volume import Volume

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
_BROKEN: type[Exception] = isal_zlib.error  # type: ignore[assignment]
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
    if path.suffix.lower() in (".mha", ".mhd"):
        _check_meta_data(path)
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


def _check_meta_data(path: Path) -> None:
    """Refuse a MetaImage whose voxels are cut off or damaged: ITK returns such images at times, with a line on stderr.

    Only what a single file of voxels allows is checked; a list of files is left to ITK.
    """
    facts, start = _meta_header(path)
    where = facts.get("ElementDataFile", "LOCAL")
    if where.upper().startswith("LIST") or "%" in where:
        return
    data_path = path if where.upper() == "LOCAL" else path.parent / where
    if not data_path.is_file():
        raise ScanError(f"the voxels' file {where} is missing", where=path, fix="copy both files")
    start = start if data_path == path else max(0, int(facts.get("HeaderSize", "0")))
    size = _META_BYTES.get(facts.get("ElementType", ""), 0) * int(facts.get("ElementNumberOfChannels", "1"))
    for count in facts.get("DimSize", "").split():
        size *= int(count)
    if facts.get("CompressedData", "False").lower() == "true":
        try:
            found = len(isal_zlib.decompress(data_path.read_bytes()[start:]))
        except _BROKEN as error:
            raise ScanError(f"the compressed voxels are damaged ({error})", where=path, fix="export it again") from None
    else:
        found = data_path.stat().st_size - start
    if found < size:
        raise ScanError(
            f"the voxels end too early: {size} bytes are needed, {found} were found",
            where=path,
            fix="the file is cut off: copy or export it again",
        )


def _meta_header(path: Path) -> tuple[dict[str, str], int]:
    """The ``key = value`` lines of a MetaImage header and the offset behind it; ElementDataFile is the last line."""
    facts: dict[str, str] = {}
    with open(path, "rb") as file:
        while line := file.readline(4096):
            key, _, value = line.decode("latin-1").partition("=")
            facts[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                break
        return facts, file.tell()


# bytes a number; other element types (arrays) are left to ITK
_META_BYTES = {
    f"MET_{name}": size
    for size, names in (
        (1, "CHAR UCHAR"),
        (2, "SHORT USHORT"),
        (4, "INT UINT FLOAT"),
        (8, "LONG_LONG ULONG_LONG DOUBLE"),
    )
    for name in names.split()
}
