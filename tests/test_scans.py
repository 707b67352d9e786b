"""The front door: bad input of every kind with its sentence, and real scans against the libraries that others use."""

import gzip
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from hilum.errors import GeometryError, HilumError, LabelError, OutputError, ScanError
from hilum.labels import scheme_from
from hilum.scans import find_scans, read_labels, read_scan, read_volume, write_labels, write_scan
from hilum.volume import Volume
from making_dicom import COMPRESSED, body, make_multiframe, make_series

SHARED = Path(__file__).parents[2] / "shared" / "data"
RNG = np.random.default_rng(0)
HU = RNG.integers(-1024, 1500, (9, 8, 7)).astype(np.int16)


def real(*parts: str) -> Path:
    if not SHARED.is_dir():
        pytest.skip("shared/data is absent: no real scans to compare")
    return SHARED.joinpath(*parts)


def nifti(array=HU) -> bytes:
    return gzip.compress(nib.Nifti1Image(array, np.eye(4)).to_bytes())


def damaged_crc() -> bytes:
    whole = bytearray(nifti())
    whole[-8] ^= 1
    return bytes(whole)


def with_pixdim(value: float) -> bytes:
    plain = bytearray(gzip.decompress(nifti()))
    plain[80:84] = np.float32(value).tobytes()
    return gzip.compress(bytes(plain))


BAD_SCANS = {
    "empty file": ("a.nii.gz", b"", ScanError, "the file is empty"),
    "empty plain file": ("a.nii", b"", ScanError, "the file is empty"),
    "truncated gzip": ("a.nii.gz", nifti()[:-300], ScanError, "cut off"),
    "gzip without its trailer": ("a.nii.gz", nifti()[:-4], ScanError, "cut off"),
    "truncated plain file": ("a.nii", gzip.decompress(nifti())[:-10], ScanError, "end too early"),
    "gzip of a cut-off file": ("a.nii.gz", gzip.compress(gzip.decompress(nifti())[:-10]), ScanError, "end too early"),
    "damaged checksum": ("a.nii.gz", damaged_crc(), ScanError, "checksum"),
    "damaged data": ("a.nii.gz", nifti()[:40] + b"\xff" * 40 + nifti()[80:], ScanError, "gzip"),
    "text named .nii.gz": ("a.nii.gz", b"this is a text\n" * 100, ScanError, "neither gzip nor NIfTI"),
    "gzipped text": ("a.nii.gz", gzip.compress(b"this is a text\n" * 100), ScanError, "gzip that holds no NIfTI"),
    "short text": ("a.nii", b"hi", ScanError, "neither gzip nor NIfTI"),
    "NaN voxels": ("a.nii.gz", nifti(np.where(HU > 1400, np.nan, HU)), ScanError, "NaN or infinite"),
    "infinite voxels": ("a.nii.gz", nifti(np.where(HU > 1400, np.inf, HU)), ScanError, "NaN or infinite"),
    "2D": ("a.nii.gz", nifti(HU[:, :, 0]), GeometryError, "2 axes"),
    "4D": ("a.nii.gz", nifti(np.stack([HU, HU], -1)), GeometryError, "4 axes"),
    "zero spacing": ("a.nii.gz", with_pixdim(0), GeometryError, "above 0 mm"),
    "negative spacing": ("a.nii.gz", with_pixdim(-2), GeometryError, "above 0 mm"),
    "label map": ("a.nii.gz", nifti(RNG.integers(0, 4, (9, 8, 7)).astype(np.uint8)), ScanError, "label map"),
    "unknown format": ("a.png", b"\x89PNG" * 100, ScanError, "format is unknown"),
    "text as DICOM": ("a.dcm", b"hello " * 100, ScanError, "no DICOM"),
    "text as zip": ("a.zip", b"hello " * 100, ScanError, "no DICOM"),
}


@pytest.mark.parametrize("case", BAD_SCANS)
def test_bad_scans_have_their_sentence(tmp_path, case):
    name, data, kind, words = BAD_SCANS[case]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(kind, match=words) as error:
        read_scan(tmp_path / name)
    assert "\n" not in str(error.value) and name in str(error.value)


BAD_LABELS = {
    "fractions": (RNG.random((9, 8, 7)).astype(np.float32), "no integers"),
    "NaN": (np.full((9, 8, 7), np.nan, np.float32), "no integers"),
    "unknown labels": (RNG.integers(0, 9, (9, 8, 7)).astype(np.int16), r"does not know: 4 \("),
    "a scan": (HU, "does not know"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_bad_labels_have_their_sentence(tmp_path, case):
    array, words = BAD_LABELS[case]
    (tmp_path / "labels.nii.gz").write_bytes(nifti(array))
    with pytest.raises(LabelError, match=words) as error:
        read_labels(tmp_path / "labels.nii.gz", scheme_from("kits"))
    assert "labels.nii.gz" in str(error.value)


@pytest.mark.parametrize("kind", ["uint8", "int16", "int64", "float32", "float64"])
def test_labels_of_any_number_type_become_uint8(tmp_path, kind):
    array = RNG.integers(0, 4, (9, 8, 7)).astype(kind)
    (tmp_path / "labels.nii").write_bytes(
        gzip.decompress(gzip.compress(nib.Nifti1Image(array, np.eye(4), dtype=kind).to_bytes()))
    )
    labels = read_labels(tmp_path / "labels.nii", scheme_from("kits"))
    assert labels.array.dtype == np.uint8
    np.testing.assert_array_equal(labels.array, array)


def test_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScanError, match="holds no DICOM images"):
        read_scan(tmp_path / "empty")
    with pytest.raises(ScanError, match="no scan in this folder"):
        find_scans([str(tmp_path / "empty")])
    (tmp_path / "n").mkdir()
    (tmp_path / "n" / "ct.nii.gz").write_bytes(nifti())
    with pytest.raises(ScanError, match=r"1 image files \(ct.nii.gz\).*give the file"):
        read_scan(tmp_path / "n")
    with pytest.raises(ScanError, match="no such file"):
        read_scan(tmp_path / "gone.nii.gz")
    with pytest.raises(ScanError, match="no such file"):
        read_scan(tmp_path / "gone")
    paths = make_series(tmp_path / "d", body())
    paths[3].unlink()
    with pytest.raises(GeometryError, match="1 missing slice"):
        read_scan(tmp_path / "d")


def test_writing_without_permission(tmp_path, monkeypatch):
    volume = Volume((HU > 0).astype(np.uint8), np.eye(4))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        write_labels(tmp_path / "file" / "labels.nii.gz", volume)
    if os.geteuid() == 0:  # root may write anywhere: pretend

        def refuse(*_args, **_options):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", refuse)
    else:
        (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="no permission to write"):
        write_labels(tmp_path / "locked" / "labels.nii.gz", volume)


def test_a_really_full_disk(tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("cannot mount a small file system here (needs root)")
    try:
        noise = RNG.integers(-1000, 1000, (64, 64, 32)).astype(np.int16)
        with pytest.raises(OutputError, match="the disk is full"):
            write_scan(mount / "ct.nii.gz", Volume(noise, np.eye(4)))
        assert not list(mount.iterdir())
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_label_map_must_be_whole_numbers_to_be_written(tmp_path):
    with pytest.raises(AssertionError):
        write_labels(tmp_path / "a.nii.gz", Volume(HU.astype(np.float32), np.eye(4)))
    with pytest.raises(ScanError, match="label map"):
        write_scan(tmp_path / "a.nii.gz", Volume((HU > 0).astype(np.uint8), np.eye(4)))


@pytest.mark.parametrize("kind", ["nifti", "slice", "frames"])
def test_flipped_bytes_end_in_a_sentence_or_a_scan(tmp_path, kind):
    """Damage anywhere in a header: never another exception, never a message of several lines."""
    rng = np.random.default_rng(1)
    if kind == "nifti":
        path = scan = tmp_path / "a.nii"
        path.write_bytes(gzip.decompress(nifti()))
    elif kind == "slice":
        scan = tmp_path / "s"
        path = make_series(scan, body(4, 40, 36), syntax=COMPRESSED["JPEG-LS"])[1]
    else:
        path = scan = tmp_path / "ct.dcm"
        make_multiframe(path, body(4), order=[0, 1, 2, 3])
    whole = path.read_bytes()
    refused = 0
    for turn in range(120):
        data = bytearray(whole)
        for place in rng.integers(0, min(len(data), 352 if kind == "nifti" else 1500), 3):
            data[place] = rng.choice([0, 255, rng.integers(256)])
        path.write_bytes(data if turn % 5 else data[: rng.integers(len(data))])
        try:
            read_scan(scan)
        except HilumError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 10


def test_errors_survive_a_process_border(tmp_path):
    import pickle

    with pytest.raises(HilumError) as error:
        read_scan(tmp_path / "gone.nii.gz")
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def test_nifti_needs_neither_simpleitk_nor_torch(tmp_path):
    (tmp_path / "ct.nii.gz").write_bytes(nifti())
    code = (
        "import sys; from hilum.scans import read_scan; "
        f"read_scan({str(tmp_path / 'ct.nii.gz')!r}); "
        "print([m for m in ('SimpleITK', 'torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# real scans


def simpleitk(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    reader = SimpleITK.ImageSeriesReader()
    names = max(
        (reader.GetGDCMSeriesFileNames(str(folder), uid) for uid in reader.GetGDCMSeriesIDs(str(folder))), key=len
    )
    image = SimpleITK.ReadImage(names)
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize(
    ("folder", "description"),
    [
        ("real/ircadb01_dicom", "512x512x129, 0.57x0.57x1.6 mm, axes LPS"),
        ("real/cptac_pda_dicom", "512x512x35, 0.859x0.859x5 mm, axes LPS"),
        ("dicom/jpeg2000_ct", "512x512x20, 0.977x0.977x2 mm, axes LPS"),
        ("dicom/ct_liver_seg", "512x512x3, 0.811x0.811x1 mm, axes LPS"),
    ],
)
def test_real_dicom_equals_simpleitk(folder, description):
    volume = read_scan(real(folder))
    array, affine = simpleitk(real(folder))
    assert volume.grid.describe() == description and volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)


def test_real_dicom_facts():
    assert read_scan(real("real/cptac_pda_dicom")).header["padding"]["hu"] == -3024
    header = read_scan(real("dicom/jpeg2000_ct")).header
    assert header["slice_thickness_mm"] == 3 and header["contrast_agent"] == "APPLIED" and header["kernel"] == "Br38f/3"
    assert read_scan(real("dicom/ct_liver_seg")).header["left_aside"] == {"SEG": 3}
    enhanced = read_scan(real("dicom/enhanced_ct_2frames.dcm"))
    assert enhanced.grid.describe() == "512x512x2, 0.389x0.389x10 mm, axes RPI"
    assert {s.path.name for s in find_scans([str(real("real"))])} == {"ircadb01_dicom", "cptac_pda_dicom", "ct.nii.gz"}


def test_a_real_series_from_a_zip_with_a_slice_missing(tmp_path):
    files = sorted(real("real/cptac_pda_dicom").iterdir())
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for path in files[:10] + files[11:14]:
            archive.write(path, path.name)
    with pytest.raises(GeometryError, match=r"1 missing slice.*1-1[02]\.dcm and 1-1[02]\.dcm"):
        read_scan(tmp_path / "s.zip")


def test_real_nifti_equals_nibabel(tmp_path):
    path = real("real/totalsegmentator_ct/ct.nii.gz")
    volume, image = read_scan(path), nib.load(path)
    assert volume.array.dtype == np.int16 and read_volume(path).array.dtype == np.int32
    np.testing.assert_array_equal(volume.array, np.asanyarray(image.dataobj))
    np.testing.assert_array_equal(volume.affine, image.affine)
    write_scan(tmp_path / "ct.nii.gz", volume)
    np.testing.assert_array_equal(read_scan(tmp_path / "ct.nii.gz").array, volume.array)
    with pytest.raises(ScanError, match="label map"):
        read_scan(path.with_name("labels.nii.gz"))
    assert set(np.unique(read_labels(path.with_name("labels.nii.gz"), scheme_from("abdomen")).array)) == {0, 1, 2, 3, 4}


def test_real_labels_round_trip(tmp_path):
    path = real("kits23_labels/case_00010.nii.gz")
    labels = read_labels(path, scheme_from("kits"))
    assert labels.codes == "IPL"
    write_labels(tmp_path / "labels.nii.gz", labels)
    back = nib.load(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(back.dataobj), np.asanyarray(nib.load(path).dataobj))
    np.testing.assert_array_equal(back.affine, nib.load(path).affine)


def test_the_benchmark_runs_and_ends_in_json(tmp_path):
    script = Path(__file__).parents[1] / "benchmarks" / "reading.py"
    small = ["--slices", "4", "--size", "48", "--repeats", "1", "--out", str(tmp_path / "r.json")]
    done = subprocess.run([sys.executable, str(script), *small], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result == json.loads((tmp_path / "r.json").read_text())
    assert set(result["times"]["dicom"]) == {"hilum", "SimpleITK", "pydicom"} and result["machine"]["cores"] >= 1
