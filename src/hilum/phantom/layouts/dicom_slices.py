"""Writes a volume as a DICOM series, one file a slice.

Comes in: a "LPS"-ordered Volume. Goes out: files. Every identifier follows from the patient's seed, so that the same
seed gives the same bytes. It knows no data set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from hilum.files import cannot_write
from hilum.volume import Volume

# "2.25." is the root for identifiers made from whole numbers (DICOM PS3.5, B.2)
_ROOT = "2.25"


def write_series(
    folder: Path, volume: Volume, *, seed: int, series: int, name: str, stem: str, suffix: str = ""
) -> None:
    """One CT slice a file, numbered from the feet up.

    Args:
        folder: made if absent.
        volume: int16 HU or a mask, axes "LPS".
        seed: of the patient; gives study, series and slice identifiers.
        series: number of the series in the study.
        name: the series' description.
        stem: of the file names; the slice's number follows.
        suffix: of the file names.
    """
    assert volume.codes == "LPS", volume.codes
    dx, dy, dz = volume.spacing_mm
    affine = volume.grid.affine
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for k in range(volume.shape[2]):
            plane = np.ascontiguousarray(volume.array[:, :, k].T.astype(np.int16))
            ds = _header(seed, series, name, k)
            ds.Rows, ds.Columns = plane.shape
            ds.PixelSpacing = [round(dy, 6), round(dx, 6)]
            ds.SliceThickness = ds.SpacingBetweenSlices = round(dz, 6)
            corner = affine[:3, 3] + affine[:3, 2] * k  # RAS+; DICOM wants LPS+
            ds.ImagePositionPatient = [round(-corner[0], 4), round(-corner[1], 4), round(float(corner[2]), 4)]
            ds.SliceLocation = round(float(corner[2]), 4)
            ds.PixelData = plane.astype("<i2").tobytes()
            ds.save_as(folder / f"{stem}{k}{suffix}", enforce_file_format=True)
    except OSError as error:
        raise cannot_write(folder, error) from None


def _header(seed: int, series: int, name: str, k: int) -> FileDataset:
    study = f"{_ROOT}.{seed + 1}"
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(f"{study}.{series}.{k + 1}")
    meta.ImplementationClassUID = UID(f"{_ROOT}.1")
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, f"{study}.{series}", f"{study}.0"
    ds.Modality, ds.ImageType, ds.Manufacturer = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], "hilum phantom"
    ds.PatientName, ds.PatientID = f"Phantom^{seed}", f"phantom-{seed}"
    ds.SeriesNumber, ds.SeriesDescription, ds.InstanceNumber = series, name, k + 1
    ds.ImageOrientationPatient, ds.PatientPosition = [1, 0, 0, 0, 1, 0], "HFS"
    ds.KVP, ds.ConvolutionKernel = "120", "phantom"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = "1", "0", "HU"
    return ds
