"""NIfTI-1 and NIfTI-2, plain or gzipped: file to Volume and back.

Comes in: a path, or a Volume to write. Goes out: the voxels in the file's own axis order and number type (scaled, where
the header says so) with the affine in RAS+ mm; or a NIfTI-1 file that was read back and found equal. It does not know
HU, labels or other formats.

The affine is the sform's if its code is above 0, else the qform's, else what the voxel sizes alone give (with a
warning). Where both are set and disagree, the sform holds and the log says so. nibabel parses the header; the voxels
never pass through floating point unless the header scales them by a fraction.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from hilum import files
from hilum.errors import GeometryError, OutputError, ScanError, UsageError
from hilum.scans import gzipped
from hilum.volume import Grid, Volume

log = logging.getLogger(__name__)

SUFFIXES = (".nii.gz", ".nii")
_KINDS: dict[int, Any] = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_FORMS_AGREE_MM = 0.1  # below any CT's resolution, above what 32-bit headers and rounded quaternions lose
_DATA_START = 352  # NIfTI-1: 348 header bytes and four for "no extension"


def read_nifti(path: str | Path) -> Volume:
    """Read a NIfTI file.

    Returns:
        Volume whose array (I, J, K) is writable, in native byte order, in Fortran order as the file has it.

    Raises:
        ScanError: not NIfTI, cut off, damaged, or of a number type that is no image (RGB, complex).
        GeometryError: not 3-D, or without a usable affine.
    """
    path = Path(path)
    with gzipped.opened(path) as reader:
        header = _header(reader)
        shape = _shape(header, path)
        stored = _number_type(header, path)
        affine, facts = _affine(header, shape, path)
        # nibabel takes 0 in a magnetless file to mean "right behind the header"; anything before the header's end is
        # impossible
        offset = max(int(header["vox_offset"]), int(header.sizeof_hdr))
        _skip(reader, offset - int(header.sizeof_hdr))
        array = _voxels(reader, shape, stored)
    facts |= {"format": "NIfTI-2" if header.sizeof_hdr == 540 else "NIfTI-1", "stored_type": stored.name}
    array, scaling = _scaled(header, array)
    return Volume(array, affine, str(path), facts | scaling)


def write_nifti(path: str | Path, volume: Volume, level: int) -> None:
    """Write NIfTI-1 (gzipped at ``level`` if the name ends in .gz), read all of it back, compare, then rename.

    The sform holds the affine; the qform too where it can (it cannot hold shear). Both are 32-bit, as NIfTI-1 is; an
    affine that was read from a NIfTI file comes back without any change.

    Raises:
        OutputError: no permission, disk full, or the file reads back differently.
    """
    path = Path(path)
    if not path.name.lower().endswith(SUFFIXES):
        raise UsageError("cannot tell the format to write", where=path, wanted="a name that ends in .nii.gz or .nii")
    data = _file_bytes(volume)
    with files.written(path) as part:
        if path.name.lower().endswith(".gz"):
            part.write_bytes(gzipped.compress(data, level))
        else:
            part.write_bytes(data.data)
        del data
        _compare(part, path, volume)


def _header(reader: gzipped.ByteReader) -> Any:
    """The header of either version and byte order, told apart by its first number, which is its size."""
    start = reader.read(348)
    kind = "gzip that holds no NIfTI" if reader.zipped else "neither gzip nor NIfTI"
    for order in "<>":
        size = int(np.frombuffer(start[:4].ljust(4, b"\0"), f"{order}i4")[0])
        if size in _KINDS and len(start) == 348:
            rest = reader.read(size - 348)
            magic = (start + rest)[344:348] if size == 348 else start[4:8]
            if magic[:3] == b"n+1" or magic[:3] == b"n+2":
                return _KINDS[size](start + rest, endianness=order, check=False)
            kind = "a NIfTI or Analyze header whose voxels lie in another file"
    raise ScanError(
        f"the file is {kind}", where=reader.path, wanted="a single-file NIfTI-1 or NIfTI-2 image", fix="check the file"
    )


def _shape(header: Any, path: Path) -> tuple[int, int, int]:
    """Three voxel counts; axes of one voxel behind the third are dropped, anything else is refused."""
    count = int(header["dim"][0])
    axes = [int(n) for n in header["dim"][1 : 1 + count]] if 1 <= count <= 7 else []
    while len(axes) > 3 and axes[-1] == 1:
        axes.pop()
    if len(axes) != 3:
        raise GeometryError(
            f"the image has {len(axes)} axes (shape {'x'.join(map(str, axes)) or 'unknown'})",
            where=path,
            wanted="a 3-D volume",
            fix="give one 3-D image (split a time series, or stack the slices)",
        )
    if min(axes) < 1:
        raise GeometryError(f"the shape is {tuple(axes)}", where=path, wanted="at least one voxel along each axis")
    return axes[0], axes[1], axes[2]


def _number_type(header: Any, path: Path) -> np.dtype[Any]:
    code = int(header["datatype"])
    try:
        stored: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except (KeyError, nib.spatialimages.HeaderDataError):
        stored = np.dtype("V1")
    if stored.kind not in "iuf" or stored.itemsize > 8:
        raise ScanError(
            f"the voxels are of NIfTI type {code}, which is no plain number",
            where=path,
            wanted="integers or floats of up to 64 bits",
            fix="convert it to int16",
        )
    return stored


def _affine(header: Any, shape: tuple[int, int, int], path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The affine, and which of the header's three geometries it comes from."""
    sizes = np.array(header["pixdim"][1:4], float)
    if not np.isfinite(sizes).all() or (sizes <= 0).any():
        raise GeometryError(
            f"the voxel sizes (pixdim) are {sizes.tolist()}",
            where=path,
            wanted="three finite spacings above 0 mm",
            fix="repair the header",
        )
    codes = {"sform_code": int(header["sform_code"]), "qform_code": int(header["qform_code"])}
    sform = np.array(header.get_sform(), float) if codes["sform_code"] > 0 else None
    qform = _qform(header, path, needed=sform is None) if codes["qform_code"] > 0 else None
    named = [(name, a) for name, a in (("sform", sform), ("qform", qform)) if a is not None]
    if not named:
        log.warning("%s: neither qform nor sform is set; only the voxel sizes are known, not which side is left", path)
        named = [("pixdim only", np.array(header.get_base_affine(), float))]
    geometry, affine = named[0]
    try:
        grid = Grid(shape, affine)
    except GeometryError as error:
        raise GeometryError(
            f"{geometry}: {error.found}", where=path, wanted=error.wanted, fix="repair the header"
        ) from None
    if len(named) == 2 and np.isfinite(named[1][1]).all():
        corners = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * (np.array(shape) - 1)
        other = named[1][1]
        distance = np.linalg.norm(grid.world(corners) - (corners @ other[:3, :3].T + other[:3, 3]), axis=1).max()
        if distance > _FORMS_AGREE_MM:
            log.warning("%s: qform and sform disagree by up to %.1f mm; the sform is used", path, distance)
            codes["qform_off_by_mm"] = round(float(distance), 3)  # type: ignore[assignment]
    return affine, {"geometry": geometry, **codes}


def _qform(header: Any, path: Path, needed: bool) -> np.ndarray | None:
    try:
        return np.array(header.get_qform(), float)
    except (ValueError, nib.spatialimages.HeaderDataError) as error:
        if needed:
            raise GeometryError(f"the qform is no rotation ({error})", where=path, fix="repair the header") from None
        log.warning("%s: the qform is no rotation (%s); the sform is used", path, error)
        return None


def _skip(reader: gzipped.ByteReader, count: int) -> None:
    while count > 0 and (skipped := len(reader.read(min(count, 1 << 20)))):
        count -= skipped


def _voxels(reader: gzipped.ByteReader, shape: tuple[int, int, int], stored: np.dtype[Any]) -> np.ndarray:
    """The stored numbers in native byte order, decompressed into the array itself."""
    count = shape[0] * shape[1] * shape[2] * stored.itemsize
    most = reader.path.stat().st_size * (gzipped.LARGEST_RATIO if reader.zipped else 1)
    have = 0
    if count <= most:
        data = np.empty(count, np.uint8)
        have = reader.fill(data)
        reader.finish()
    if have < count:
        held = f"{have} were found" if count <= most else "the file is too small for that"
        raise ScanError(
            f"the voxels end too early: shape {'x'.join(map(str, shape))} of {stored.name} needs {count} bytes, {held}",
            where=reader.path,
            fix="the file is cut off or its header is wrong: copy or download it again",
        )
    array = data.view(stored).reshape(shape, order="F")
    return array if stored.isnative else array.astype(stored.newbyteorder("="), order="F")


def _scaled(header: Any, array: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Apply scl_slope and scl_inter; a slope of 0 or no number means none, as the standard has it."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    inter = inter if np.isfinite(inter) else 0.0
    if not np.isfinite(slope) or slope == 0 or (slope, inter) == (1.0, 0.0):
        return array, {}
    return rescaled(array, slope, inter), {"scl_slope": slope, "scl_inter": inter}


def rescaled(array: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """``array * slope + intercept``: int16 where whole numbers stay whole and fit, else float32."""
    if array.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        ends = [int(v) * int(slope) + int(intercept) for v in (array.min(), array.max())]
        if min(ends) >= -32768 and max(ends) <= 32767:
            wide = array if array.dtype == np.int16 else array.astype(np.int32)
            # int16 wraps around in between and comes back right, because the result is known to fit
            product = wide * np.int64(slope).astype(wide.dtype) + np.int64(intercept).astype(wide.dtype)
            return np.asarray(product.astype(np.int16, copy=False))
    with np.errstate(over="ignore", invalid="ignore"):  # a damaged slope; infinite HU are refused where HU are checked
        result = array.astype(np.float32)
        result *= np.float32(slope)
        result += np.float32(intercept)
    return result


def _file_bytes(volume: Volume) -> np.ndarray:
    """The whole plain file as bytes: header and voxels in Fortran order, copied once."""
    array = volume.array
    header = _KINDS[348]()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_slope_inter(1, 0)
    header.set_xyzt_units("mm")
    header["pixdim"][1:4] = volume.spacing_mm
    header.set_sform(volume.affine, code=1)
    header.set_qform(volume.affine, code=1, strip_shears=True)
    if not volume.grid.same_as(Grid(volume.shape, header.get_qform())):
        header["qform_code"] = 0
    header["vox_offset"] = _DATA_START
    header["magic"] = b"n+1"
    data = np.zeros(_DATA_START + array.nbytes, np.uint8)
    data[:348] = np.frombuffer(header.binaryblock, np.uint8)
    data[_DATA_START:].view(array.dtype).reshape(array.shape, order="F")[...] = array
    return data


def _compare(part: Path, path: Path, volume: Volume) -> None:
    """Read ``part`` and raise OutputError unless every voxel and the affine (as 32-bit numbers) are as wanted."""
    try:
        back = read_nifti(part)
    except (ScanError, GeometryError) as error:
        raise OutputError(f"what was written cannot be read back ({error.found})", where=path, fix=_AGAIN) from None
    if not np.array_equal(back.affine, volume.affine.astype(np.float32)):
        raise OutputError("the affine reads back differently", where=path, fix=_AGAIN)
    if back.array.dtype != volume.array.dtype or not np.array_equal(back.array, volume.array):
        raise OutputError("the voxels read back differently", where=path, fix=_AGAIN)


_AGAIN = "the disk may be failing: write to another one"
