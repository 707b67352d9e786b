"""How quickly a scan is in memory: hilum beside isal, nibabel, SimpleITK and pydicom, alternating in one run.

Two made scans of 512x512x300 voxels (structure and noise, so that they compress as CT does): one ``.nii.gz``, and one
uncompressed DICOM series with headers as long as a scanner's. Every reader ends with HU in a NumPy array; hilum's times
include all its checks. Times are medians of wall seconds with the smallest and largest; files lie in the page cache
for all.

    python benchmarks/reading.py                     writes benchmarks/results/<date>_reading.json
    python benchmarks/reading.py --repeats 9 --out /tmp/reading.json
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK
from isal import igzip, igzip_lib
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from hilum.scans import read_scan, write_scan
from hilum.volume import Volume

AFFINE = np.diag([-0.8, -0.8, 1.0, 1.0])
NIFTI_LIMIT = 1.5  # times isal's own decompression
UID_ROOT = "1.2.826.0.1.3680043.8.498."


def made_ct(slices: int, size: int) -> np.ndarray:
    """(size, size, slices) int16 HU in Fortran order: a body, organs that change along z, a scanner's noise."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    hu = np.empty((size, size, slices), np.int16, order="F")
    body = x**2 / 0.8 + y**2 / 0.5 < 1
    for k in range(slices):
        plane = np.where(body, 40.0, -1000.0)
        for n in range(6):
            centre = 0.5 * np.cos(n + k / 60), 0.4 * np.sin(2 * n + k / 80)
            plane += (30 * n - 60) * ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 0.03 + 0.005 * n)
        noise = rng.standard_normal((size, size), dtype=np.float32) * np.where(body, 14, 5)
        hu[:, :, k] = np.maximum(np.round(plane + noise), -1024)  # 12 bits with an intercept of -1024 end there
    return hu


def write_series(folder: Path, hu: np.ndarray) -> None:
    """An uncompressed series: unsigned, intercept -1024, 90 elements and two sequences a header."""
    folder.mkdir()
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "113100", "DCM", "Basic profile"
    for k in range(hu.shape[2]):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{UID_ROOT}1.{k + 1}"
        ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.Modality, ds.ImageType, ds.StudyDate = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], "20240101"
        ds.PatientName, ds.PatientID = "Made^Up", "1"
        ds.DeidentificationMethodCodeSequence = Sequence([code] * 8)
        ds.RequestAttributesSequence = Sequence([code])
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = (UID_ROOT + c for c in "234")
        ds.Manufacturer, ds.KVP, ds.ConvolutionKernel, ds.SliceThickness = "Maker", "120", "B30f", "1"
        ds.SeriesNumber, ds.InstanceNumber = 2, k + 1
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [-200, -200, 1.0 * k], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SamplesPerPixel, ds.PhotometricInterpretation = [0.8, 0.8], 1, "MONOCHROME2"
        ds.Columns, ds.Rows = hu.shape[:2]
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = "1", "-1024", "HU"
        for n in range(50):
            ds.add_new(0x00191010 + n, "DS", f"{n}.5")
        ds.add_new(0x00190010, "LO", "MAKER PRIVATE")
        ds.PixelData = (hu[:, :, k].T + 1024).astype("<u2").tobytes()
        ds["PixelData"].VR = "OW"
        ds.save_as(folder / f"IM{k * 7919 % 100003:06d}", enforce_file_format=True)  # names in another order


def nifti_readers(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Readers of one .nii.gz; the first two only decompress."""
    size = int.from_bytes(path.read_bytes()[-4:], "little")

    def presized() -> np.ndarray:
        data = igzip_lib.decompress(path.read_bytes(), flag=igzip_lib.DECOMP_GZIP, bufsize=size)
        return np.frombuffer(data, np.int16, offset=352)

    return {
        "isal igzip.decompress": lambda: np.frombuffer(igzip.decompress(path.read_bytes()), np.int16, offset=352),
        "isal, size known": presized,
        "hilum": lambda: read_scan(path).array,
        "nibabel": lambda: np.asanyarray(nib.load(path).dataobj),
        "SimpleITK": lambda: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))),
    }


def series_readers(folder: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Readers of one DICOM folder, from the folder's name to HU in order."""

    def simpleitk() -> np.ndarray:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        return SimpleITK.GetArrayFromImage(reader.Execute())

    def stacked() -> np.ndarray:
        slices = sorted((pydicom.dcmread(p) for p in folder.iterdir()), key=lambda s: float(s.ImagePositionPatient[2]))
        planes = [s.pixel_array.astype(np.int16) * int(s.RescaleSlope) + int(s.RescaleIntercept) for s in slices]
        return np.stack(planes)

    return {"hilum": lambda: read_scan(folder).array, "SimpleITK": simpleitk, "pydicom": stacked}


def timed(readers: dict[str, Callable[[], np.ndarray]], repeats: int) -> dict[str, dict[str, Any]]:
    """Seconds of each reader, in another order each round; one round before is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    order = list(readers)
    shuffle = random.Random(0)
    for turn in range(repeats + 1):
        shuffle.shuffle(order)
        for name in order:
            gc.collect()
            start = time.perf_counter()
            array = readers[name]()
            spent = time.perf_counter() - start
            assert array.size >= 1
            del array
            if turn:
                seconds[name].append(spent)
    return {
        name: {"median_s": statistics.median(s), "low_s": min(s), "high_s": max(s), "n": len(s)}
        for name, s in seconds.items()
    }


def machine() -> dict[str, Any]:
    """Processor, cores and load; the load tells how far to trust the times."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def commit() -> str:
    """The commit measured, with a mark if files of the package differ from it."""
    here = Path(__file__).parent
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "../src/hilum/scans"], cwd=here, check=False)
    return head.stdout.strip() + ("+changes" if changed.returncode else "")


def main() -> None:
    """Make the files, time the readers, print a table and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=7)
    today = datetime.date.today().isoformat()
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / f"{today}_reading.json")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hu = made_ct(options.slices, options.size)
        write_scan(folder / "ct.nii.gz", Volume(hu, AFFINE))
        write_series(folder / "series", hu)
        megabytes = (folder / "ct.nii.gz").stat().st_size / 1e6
        nifti = nifti_readers(folder / "ct.nii.gz")
        series = series_readers(folder / "series")
        np.testing.assert_array_equal(nifti["hilum"](), hu)
        np.testing.assert_array_equal(series["hilum"](), hu)
        np.testing.assert_array_equal(series["SimpleITK"]().transpose(2, 1, 0), hu)
        del hu
        times = {"nii.gz": timed(nifti, options.repeats), "dicom": timed(series, options.repeats)}

    isal = min(times["nii.gz"][n]["median_s"] for n in ("isal igzip.decompress", "isal, size known"))
    ratios = {
        "nifti_hilum_over_isal": times["nii.gz"]["hilum"]["median_s"] / isal,
        "nifti_nibabel_over_hilum": times["nii.gz"]["nibabel"]["median_s"] / times["nii.gz"]["hilum"]["median_s"],
        "nifti_simpleitk_over_hilum": times["nii.gz"]["SimpleITK"]["median_s"] / times["nii.gz"]["hilum"]["median_s"],
        "dicom_simpleitk_over_hilum": times["dicom"]["SimpleITK"]["median_s"] / times["dicom"]["hilum"]["median_s"],
        "dicom_pydicom_over_hilum": times["dicom"]["pydicom"]["median_s"] / times["dicom"]["hilum"]["median_s"],
    }
    for kind, rows in times.items():
        for reader, row in rows.items():
            print(f"{kind:8} {reader:24} {row['median_s']:7.3f} s  ({row['low_s']:.3f} to {row['high_s']:.3f})")
    packages = ("hilum", "isal", "nibabel", "SimpleITK", "pydicom", "numpy")
    result = {
        "benchmark": "reading",
        "date": today,
        "commit": commit(),
        "machine": machine(),
        "versions": {p: importlib.metadata.version(p) for p in packages},
        "shape": [options.size, options.size, options.slices],
        "nii_gz_megabytes": round(megabytes, 1),
        "times": times,
        "ratios": {k: round(v, 3) for k, v in ratios.items()},
        "met": {
            "nifti_within_1.5_of_isal": ratios["nifti_hilum_over_isal"] <= NIFTI_LIMIT,
            "dicom_faster_than_simpleitk": ratios["dicom_simpleitk_over_hilum"] > 1,
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
