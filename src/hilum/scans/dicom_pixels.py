"""Pixels of sorted slices to one array of HU.

Comes in: slices in order. Goes out: an array (K, rows, columns) of HU, each slice with its own slope and intercept, and
how many pixels carry the padding value. It knows no geometry.

Uncompressed pixels (nearly all CT) are read from the file straight into their place in the array by several threads;
everything else goes through pydicom's decoders. HU are int16 where all slopes and intercepts are whole and the values
fit, else float32.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pydicom
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from hilum.errors import ScanError
from hilum.scans.dicom_files import THREADS, CtFile, Slice

_PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)


@dataclass(frozen=True, eq=False)
class Pixels:
    """Decoded slices.

    Attributes:
        hu: (K, rows, columns) int16 or float32.
        padding_hu: the HU that the padding value became, or None if no slice declares one.
        padding_voxels: how many voxels carry it.
    """

    hu: np.ndarray
    padding_hu: float | None
    padding_voxels: int


class _OutOfRangeError(Exception):
    """HU that int16 cannot hold: the caller decodes again as float32."""


def decode(slices: Sequence[Slice]) -> Pixels:
    """Decode slices, in the order given.

    Padding (the corners outside a round field of view) keeps the value that slope and intercept give it, often -3024:
    nothing is repaired here, the count says how much of it there is.

    Raises:
        ScanError: cut-off pixel data, colour, a transfer syntax without decoder.
    """
    for file in {id(s.file): s.file for s in slices}.values():
        _check_readable(file)
    whole = all(s.slope.is_integer() and s.intercept.is_integer() for s in slices)
    if whole:
        try:
            return _decode(slices, np.dtype(np.int16))
        except _OutOfRangeError:
            pass
    return _decode(slices, np.dtype(np.float32))


def _decode(slices: Sequence[Slice], kind: np.dtype[np.generic]) -> Pixels:
    out = np.empty((len(slices), *slices[0].shape), kind)
    of_file: dict[int, list[int]] = defaultdict(list)
    for k, item in enumerate(slices):
        of_file[id(item.file)].append(k)

    def fill(places: list[int]) -> list[int]:
        # one file at a time: a compressed multi-frame file is opened and decoded once
        file = slices[places[0]].file
        frames = [slices[k].frame for k in places]
        stored = _stored_directly(file, frames, out, places) if _is_plain(file) else _stored_by_pydicom(file, frames)
        return [_to_hu(values, slices[k], out[k]) for k, values in zip(places, stored, strict=True)]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's remarks on readable oddities (padding behind frames)
        with ThreadPoolExecutor(THREADS) as pool:
            counts = [count for counts in pool.map(fill, of_file.values()) for count in counts]
    declared = [s for s in slices if _padding(s.file) is not None]
    if not declared:
        return Pixels(out, None, 0)
    padding = int(_padding(declared[0].file)) * declared[0].slope + declared[0].intercept  # type: ignore[arg-type]
    return Pixels(out, padding, sum(counts))


def _to_hu(stored: np.ndarray, item: Slice, out: np.ndarray) -> int:
    """Write HU to ``out`` (which ``stored`` may share its memory with); returns the number of padding pixels."""
    _drop_unused_bits(stored, item.file)
    padding = _padding(item.file)
    padded = int(np.count_nonzero(stored == padding)) if padding is not None else 0
    if out.dtype == np.int16:
        slope, intercept = int(item.slope), int(item.intercept)
        ends = [int(v) * slope + intercept for v in (stored.min(), stored.max())]
        if min(ends) < -32768 or max(ends) > 32767:
            raise _OutOfRangeError
        # int16 wraps around in between and comes back right, because the result is known to fit
        values = stored.view(np.int16) if stored.dtype.itemsize == 2 else stored.astype(np.int16)
        np.multiply(values, np.int64(slope).astype(np.int16), out=out) if slope != 1 else np.copyto(out, values)
        if intercept:
            out += np.int64(intercept).astype(np.int16)
    else:
        np.multiply(stored, np.float32(item.slope), out=out, dtype=np.float32, casting="unsafe")
        out += np.float32(item.intercept)
    return padded


def _drop_unused_bits(stored: np.ndarray, file: CtFile) -> None:
    """Keep the bits from High Bit down to Bits Stored, with the sign extended: old files hid overlays in the others."""
    allocated = stored.dtype.itemsize * 8
    bits = file.integer("BitsStored", allocated)
    high = file.integer("HighBit", bits - 1)
    if bits == allocated or high >= allocated or high + 1 < bits:
        return
    np.left_shift(stored, allocated - 1 - high, out=stored)
    np.right_shift(stored, allocated - bits, out=stored)


def _padding(file: CtFile) -> int | None:
    """Pixel Padding Value as the stored type has it: its two bytes are signed or not as the pixels are."""
    if "PixelPaddingValue" not in file.head.values:
        return None
    number = file.integer("PixelPaddingValue", 0) % (1 << 16)
    return number - (1 << 16) if _signed(file) and number >= 1 << 15 else number


def _signed(file: CtFile) -> bool:
    return file.integer("PixelRepresentation", 0) == 1


def _type(file: CtFile) -> np.dtype[np.generic]:
    return np.dtype(f"<{'i' if _signed(file) else 'u'}{file.integer('BitsAllocated', 16) // 8}")


def _is_plain(file: CtFile) -> bool:
    """Whether the pixels can be read as they lie in the file."""
    # a file without meta header is one of these two; which one does not matter to 16-bit little-endian pixels
    head = file.head
    return (head.syntax in _PLAIN or not head.syntax) and head.pixel_start > 0 and head.pixel_length != 0xFFFFFFFF


def _stored_directly(file: CtFile, frames: list[int], out: np.ndarray, places: list[int]) -> list[np.ndarray]:
    """Frames read into ``out`` itself where the sizes agree, else into arrays of their own."""
    kind, shape = _type(file), (file.integer("Rows", 0), file.integer("Columns", 0))
    size = kind.itemsize * shape[0] * shape[1]
    stored = []
    with file.source.open() as handle:
        for frame, k in zip(frames, places, strict=True):
            same = out.dtype.itemsize == kind.itemsize and out.dtype.kind == "i"
            values = out[k].view(kind) if same else np.empty(shape, kind)
            handle.seek(file.head.pixel_start + frame * size)
            inside = (frame + 1) * size <= file.head.pixel_length
            if not inside or handle.readinto(values.data.cast("B")) < size:  # type: ignore[attr-defined]
                raise _cut_off(file, f"frame {frame + 1} needs {size} bytes")
            stored.append(values)
    return stored


def _stored_by_pydicom(file: CtFile, frames: list[int]) -> list[np.ndarray]:
    """Frames by pydicom's decoders (JPEG 2000, JPEG-LS, JPEG lossless, RLE, deflated, big-endian, ...)."""
    try:
        with file.source.open() as handle:
            pixels = pydicom.dcmread(handle, force=True).pixel_array
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the decoders raise many kinds on damaged data; those in Rust even a panic
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _cut_off(file, f"{file.syntax_name}: {reason}") from None
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.shape[0] <= max(frames):
        raise _cut_off(file, f"{pixels.shape[0]} frames of {file.frames}")
    native = pixels.dtype.newbyteorder("=")
    return [pixels[frame].astype(native) for frame in frames]


def _check_readable(file: CtFile) -> None:
    samples, allocated = file.integer("SamplesPerPixel", 1), file.integer("BitsAllocated", 0)
    if samples != 1 or allocated not in (8, 16, 32):
        raise ScanError(
            f"pixels of {samples} samples and {allocated} bits",
            where=file.source.name,
            wanted="one sample of 8, 16 or 32 bits (a CT image, no picture)",
            fix="export the original images",
        )
    if _is_plain(file) or not file.head.syntax:
        return
    try:
        syntax = UID(file.head.syntax, validation_mode=pydicom.config.IGNORE)
        missing = syntax.is_encapsulated and not get_decoder(syntax).is_available
    except (NotImplementedError, ValueError):
        raise ScanError(
            f"the transfer syntax {file.syntax_name} cannot be decoded",
            where=file.source.name,
            wanted="uncompressed, JPEG 2000, JPEG-LS, JPEG lossless or RLE",
            fix="export the series uncompressed",
        ) from None
    if missing:
        raise ScanError(
            f"the pixels are compressed as {file.syntax_name} and no decoder for it is installed",
            where=file.source.name,
            fix="pip install 'hilum[dicom]'",
        )


def _cut_off(file: CtFile, what: str) -> ScanError:
    return ScanError(
        f"the pixel data are damaged or cut off ({what})", where=file.source.name, fix="copy or export the file again"
    )
