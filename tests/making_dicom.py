"""Small DICOM series for tests: uncompressed and compressed, plain and multi-frame, whole and with planted faults."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

COMPRESSED = {
    "RLE": RLELossless,
    "JPEG 2000": JPEG2000Lossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG lossless": JPEGLosslessSV1,
}
ROOT = "1.2.826.0.1.3680043.8.498."


def body(slices: int = 8, rows: int = 24, columns: int = 20, seed: int = 0) -> np.ndarray:
    """(slices, rows, columns) int16 HU: air, a noisy disc of tissue, a bright spot that breaks every symmetry."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    hu = np.full((slices, rows, columns), -1000.0)
    hu[:, x**2 + y**2 < 0.7] = 40
    hu += rng.normal(0, 10, hu.shape)
    hu[:, 2:5, 3:6] = 300 + 20 * np.arange(slices)[:, None, None]
    return np.round(np.maximum(hu, -1024)).astype(np.int16)


def header(rows: int, columns: int, series: str = "1", **facts: Any) -> FileDataset:
    """A CT slice without position and pixels; ``facts`` overwrite attributes, None removes one."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.Modality, ds.ImageType = CTImageStorage, "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.StudyDate, ds.Manufacturer, ds.SeriesDescription = "20240102", "Maker", "abdomen"
    ds.PatientName, ds.PatientID = "Test^Patient", "0815"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = ROOT + "9", ROOT + series
    ds.SeriesNumber, ds.FrameOfReferenceUID = int(series.split(".")[0]), ROOT + "8"
    ds.ImageOrientationPatient, ds.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.8, 0.7]
    ds.SliceThickness, ds.KVP, ds.ConvolutionKernel = "3", "120", "B30f"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = "1", "0", "HU"
    for keyword, value in facts.items():
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    return ds


def make_series(
    folder: Path,
    hu: np.ndarray,
    *,
    series: str = "1",
    origin: tuple[float, float, float] = (-10.0, -20.0, 30.0),
    step: tuple[float, float, float] = (0.0, 0.0, 2.5),
    name: str = "{:03d}.dcm",
    syntax: str = ExplicitVRLittleEndian,
    slopes: list[float] | None = None,
    intercept: int = 0,
    **facts: Any,
) -> list[Path]:
    """Write one file a slice; ``step`` leads from a slice to the next in LPS mm. Returns the paths in that order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, plane in enumerate(hu):
        ds = header(*plane.shape, series, **facts)
        slope = slopes[k] if slopes else 1
        if "RescaleSlope" in ds:
            ds.RescaleSlope, ds.RescaleIntercept = str(slope), str(intercept)
        ds.SOPInstanceUID = f"{ds.SeriesInstanceUID}.{k + 1}"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.InstanceNumber = k + 1
        ds.ImagePositionPatient = [round(o + k * s, 6) for o, s in zip(origin, step, strict=True)]
        kind = np.int16 if ds.PixelRepresentation else np.uint16
        stored = np.round((plane.astype(float) - intercept) / slope).astype(kind)
        set_pixels(ds, stored[None], syntax)
        path = folder / name.format(k)
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def change(path: Path, **facts: Any) -> None:
    """Overwrite attributes of a file; None removes one."""
    import pydicom

    ds = pydicom.dcmread(path)
    for keyword, value in facts.items():
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    ds.save_as(path)


def make_multiframe(path: Path, hu: np.ndarray, order: list[int], syntax: str = ExplicitVRLittleEndian) -> None:
    """An enhanced CT whose frames are listed in ``order``; 2.5 mm apart, each with its own intercept."""
    ds = header(
        *hu.shape[1:], ImageOrientationPatient=None, PixelSpacing=None, RescaleSlope=None, RescaleIntercept=None
    )
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = ROOT + "77"
    ds.NumberOfFrames = len(hu)
    shared = Dataset()
    shared.PlaneOrientationSequence = Sequence([_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])])
    shared.PixelMeasuresSequence = Sequence([_item(PixelSpacing=[0.8, 0.7], SliceThickness="2.5")])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for k in order:
        frame = Dataset()
        frame.PlanePositionSequence = Sequence([_item(ImagePositionPatient=[-10, -20, 30 + 2.5 * k])])
        values = _item(RescaleSlope="1", RescaleIntercept=str(-10 * k), RescaleType="HU")
        frame.PixelValueTransformationSequence = Sequence([values])
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    set_pixels(ds, np.stack([hu[k] + 10 * k for k in order]), syntax)
    ds.save_as(path, enforce_file_format=True)


def set_pixels(ds: FileDataset, stored: np.ndarray, syntax: str) -> None:
    """Put (frames, rows, columns) into a data set, compressed as the syntax says."""
    if not UID(syntax).is_encapsulated:
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
        ds["PixelData"].VR = "OW"
    elif syntax == JPEGLosslessSV1:
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = encapsulate([jpeg_lossless(frame) for frame in stored])
        ds["PixelData"].VR = "OB"
    else:
        ds.PixelData = stored.tobytes()
        ds["PixelData"].VR = "OW"
        ds.compress(syntax, generate_instance_uid=False)


def _item(**facts: Any) -> Dataset:
    item = Dataset()
    for keyword, value in facts.items():
        setattr(item, keyword, value)
    return item


def jpeg_lossless(image: np.ndarray) -> bytes:
    """One 16-bit image as JPEG lossless, process 14, selection value 1 (T.81 annex H): the left neighbour predicts.

    The Huffman table gives all 17 difference categories codes of 5 bits: no compression to speak of, but valid.
    """
    rows, columns = image.shape
    values = image.view(np.uint16).astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << 15
    differences = (values - predicted + (1 << 15)) % (1 << 16) - (1 << 15)  # modulo 2^16, -32768..32767
    bits = []
    for d in differences.ravel().tolist():
        category = 16 if d == -32768 else abs(d).bit_length()
        bits.append(f"{category:05b}")
        if 0 < category < 16:
            bits.append(f"{d if d > 0 else d + (1 << category) - 1:0{category}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    coded = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    return b"".join(
        (
            b"\xff\xd8",
            b"\xff\xc4" + struct.pack(">H", 2 + len(table)) + table,
            b"\xff\xc3" + struct.pack(">HBHHB", 11, 16, rows, columns, 1) + bytes([1, 0x11, 0]),
            b"\xff\xda" + struct.pack(">HB", 8, 1) + bytes([1, 0, 1, 0, 0]),
            coded,
            b"\xff\xd9",
        )
    )
