"""DICOM series: order, HU, geometry against SimpleITK, every fault named, series chosen, zips and multi-frame files."""

import logging
import zipfile

import numpy as np
import pytest
import SimpleITK
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from hilum.errors import GeometryError, InputError, ScanError, UsageError
from hilum.scans import read_scan, read_volume
from making_dicom import ROOT, body, change, make_multiframe, make_series

HU = body()


def by_sitk(paths):
    image = SimpleITK.ReadImage([str(p) for p in paths])
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"step": (0, 0, -2.5)},
        {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "step": (-3, 0, 0)},  # sagittal
        {"ImageOrientationPatient": [0.8, 0.6, 0, -0.6, 0.8, 0]},
        {"syntax": ImplicitVRLittleEndian},
        {"PixelRepresentation": 0, "intercept": -1024, "BitsStored": 12, "HighBit": 11},
        {"intercept": -8192},
    ],
)
def test_voxels_and_places_are_simpleitks(tmp_path, facts):
    paths = make_series(tmp_path, HU, **facts)
    volume = read_scan(tmp_path)
    down = volume.world((0, 0, 1)) - volume.world((0, 0, 0))
    first = volume.world((0, 0, 0)) * (-1, -1, 1)
    listed = paths if np.allclose(first, (-10, -20, 30), atol=1e-4) else paths[::-1]
    array, affine = by_sitk(listed)
    assert volume.array.dtype == np.int16 and volume.array.flags.f_contiguous
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-5)
    assert np.cross(volume.affine[:3, 0], volume.affine[:3, 1]) @ down > 0


def test_names_and_order_do_not_matter(tmp_path):
    order = np.random.default_rng(0).permutation(8)
    names = [f"IMG{n}" for n in order]
    folder = tmp_path / "s"
    for k in range(8):
        make_series(folder, HU[k : k + 1], origin=(-10, -20, 30 + 2.5 * k), name=names[k], InstanceNumber=1)
    (folder / "DICOMDIR").write_bytes(b"x" * 500)
    (folder / "notes.txt").write_text("not a slice")
    (folder / "empty").write_bytes(b"")
    volume = read_scan(folder)
    np.testing.assert_array_equal(volume.array.transpose(2, 1, 0), HU)
    assert volume.codes == "LPS" and volume.header["files"] == 8


def test_hu_by_each_slices_own_slope_and_intercept(tmp_path):
    paths = make_series(tmp_path, HU, slopes=[1, 2] * 4)
    array = read_scan(tmp_path).array.transpose(2, 1, 0)
    np.testing.assert_array_equal(array[::2], HU[::2])
    np.testing.assert_array_equal(array[1::2], np.round(HU[1::2] / 2) * 2)
    change(paths[3], RescaleIntercept="-100")
    np.testing.assert_array_equal(read_scan(tmp_path).array[:, :, 3], array[3].T - 100)


def test_fractional_slopes_and_large_values_become_float32(tmp_path):
    make_series(tmp_path / "a", HU, slopes=[0.5] * 8)
    scan = read_scan(tmp_path / "a")
    np.testing.assert_array_equal(scan.array.transpose(2, 1, 0), HU)
    assert read_volume(tmp_path / "a").array.dtype == np.float32 and scan.array.dtype == np.int16  # whole after all
    make_series(tmp_path / "b", HU.astype(float) * 40, slopes=[2] * 8, intercept=20000)
    scan = read_scan(tmp_path / "b")
    assert scan.array.dtype == np.float32
    np.testing.assert_array_equal(scan.array.transpose(2, 1, 0), HU.astype(np.float32) * 40)


def test_jitter_of_a_hundredth_of_a_millimetre_is_accepted(tmp_path):
    rng = np.random.default_rng(0)
    for path in make_series(tmp_path, HU):
        z = 30 + 2.5 * (int(path.stem)) + rng.uniform(-0.01, 0.01)
        change(path, ImagePositionPatient=[-10 + rng.uniform(-0.01, 0.01), -20, round(z, 4)])
    volume = read_scan(tmp_path)
    assert volume.spacing_mm[2] == pytest.approx(2.5, abs=0.005)


def error_of(folder, kind=GeometryError, **options):
    with pytest.raises(kind) as error:
        read_scan(folder, **options)
    text = str(error.value)
    assert "\n" not in text and folder.name in text
    return text


def test_missing_slices_are_named(tmp_path):
    paths = make_series(tmp_path / "s", body(12))
    paths[4].unlink()
    text = error_of(tmp_path / "s")
    assert "1 missing slice: 11 are there, none at 40.00 mm (between 003.dcm and 005.dcm)" in text
    paths[5].unlink()
    assert "2 missing slices: 10 are there, none at 40.00, 42.50 mm (between 003.dcm and 006.dcm)" in error_of(
        tmp_path / "s"
    )


def test_duplicated_slices_are_named(tmp_path):
    paths = make_series(tmp_path / "s", HU)
    (tmp_path / "s" / "copy.dcm").write_bytes(paths[3].read_bytes())
    text = error_of(tmp_path / "s")
    assert "1 duplicated slice in 9" in text and "003.dcm" in text and "copy.dcm" in text and "37.50 mm" in text


def test_changing_spacing_is_named(tmp_path):
    make_series(tmp_path / "s", HU)
    make_series(tmp_path / "s", HU[:6], origin=(-10, -20, 30 + 7 * 2.5 + 5), step=(0, 0, 5), name="far{:03d}.dcm")
    text = error_of(tmp_path / "s")
    assert "the spacing changes: 2.5 mm mostly, but 5 mm between 007.dcm and far000.dcm at 47.50 mm" in text
    paths = make_series(tmp_path / "t", HU)
    change(paths[4], ImagePositionPatient=[-10, -20, 40.7])
    text = error_of(tmp_path / "t")
    assert "the spacing changes" in text and "004.dcm" in text


def test_slowly_changing_spacing_is_named(tmp_path):
    for path in make_series(tmp_path / "s", body(20)):
        k = int(path.stem)
        change(path, ImagePositionPatient=[-10, -20, 30 + 2.5 * k + 0.003 * k * k])
    assert "lie off the regular stack" in error_of(tmp_path / "s")


def test_slices_that_jump_sideways_are_named(tmp_path):
    paths = make_series(tmp_path / "s", HU)
    change(paths[4], ImagePositionPatient=[-8, -20, 40])
    assert "1 slice of 8 lie off the regular stack, by up to 2.00 mm: 004.dcm" in error_of(tmp_path / "s")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
            "mixed orientation: 1 slice of 8 has directions 0/1/0/0/0/-1",
        ),
        ({"PixelSpacing": [0.8, 0.8]}, "mixed pixel spacing: 1 slice of 8 has pixels in mm of 0.8/0.8"),
        ({"FrameOfReferenceUID": ROOT + "5"}, "1 of 8 slices have another frame of reference: 002.dcm"),
        ({"ImagePositionPatient": None}, "1 slice of 8 have no Image Position: 002.dcm"),
        ({"PixelSpacing": None}, "have no Pixel Spacing: 002.dcm"),
        ({"PixelSpacing": [0, 0.7]}, "mixed pixel spacing"),
    ],
)
def test_slices_that_differ_are_named(tmp_path, facts, words):
    paths = make_series(tmp_path / "s", HU)
    change(paths[2], **facts)
    text = error_of(tmp_path / "s")
    assert words in text and "002.dcm" in text


def test_sizes_that_differ_are_named(tmp_path):
    make_series(tmp_path / "s", HU)
    make_series(tmp_path / "s", body(1, 16, 16), origin=(-10, -20, 50), name="small.dcm")
    assert "mixed size: 1 slice of 9 has 16x16 pixels, the others 20x24 pixels: small.dcm" in error_of(tmp_path / "s")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"PixelSpacing": [0, 0.7]}, "wanted two spacings above 0 mm"),
        ({"PixelSpacing": [-0.8, 0.7]}, "wanted two spacings above 0 mm"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "wanted two unit vectors"),
        ({"ImageOrientationPatient": [1, 0, 0]}, "ImageOrientationPatient is"),
    ],
)
def test_headers_that_make_no_sense(tmp_path, facts, words):
    for path in make_series(tmp_path / "s", HU):
        change(path, **facts)
    with pytest.raises(GeometryError) as error:
        read_scan(tmp_path / "s")
    assert words in str(error.value)


def test_a_tilted_gantry_is_refused_unless_resampling_is_asked_for(tmp_path):
    shift = 2.5 * np.tan(np.radians(15))
    make_series(tmp_path / "s", HU, step=(0, shift, 2.5))
    assert "tilted by 15.0 degrees" in error_of(tmp_path / "s")
    volume = read_scan(tmp_path / "s", resample_tilt=True)
    assert "15.00 degrees" in volume.header["resampled"]
    assert volume.grid.obliqueness_degrees < 1e-3 and volume.array.dtype == np.int16


def test_two_series_in_one_folder(tmp_path):
    make_series(tmp_path / "s", HU, series="1", name="a{}", SeriesDescription="native")
    make_series(tmp_path / "s", HU + 50, series="2", name="b{}", SeriesDescription="portal venous")
    text = error_of(tmp_path / "s", ScanError)
    assert "holds 2 CT series" in text and f"{ROOT}1 (number 1, 'native', 8 images)" in text and "--series" in text
    for name in (ROOT + "2", "2", "portal venous"):
        volume = read_scan(tmp_path / "s", series=name)
        np.testing.assert_array_equal(volume.array.transpose(2, 1, 0), HU + 50)
    with pytest.raises(UsageError, match="no series 'delayed'"):
        read_scan(tmp_path / "s", series="delayed")


def test_what_is_left_aside(tmp_path):
    make_series(tmp_path / "s", HU)
    make_series(tmp_path / "s", HU[:2], series="3", name="scout{}", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    make_series(tmp_path / "s", HU[:3], series="4", name="seg{}", Modality="SEG")
    for path in make_series(tmp_path / "s", HU[:1], series="5", name="dose{}"):
        change(path, ImagePositionPatient=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    assert read_scan(tmp_path / "s").header["left_aside"] == {"localizer": 2, "SEG": 3, "secondary capture": 1}
    make_series(tmp_path / "mr", HU, Modality="MR")
    assert "holds no CT images, only 8 MR" in error_of(tmp_path / "mr", ScanError)


def test_facts_without_names(tmp_path):
    make_series(tmp_path, HU, PixelPaddingValue=-1000)
    header = read_scan(tmp_path).header
    assert header["manufacturer"] == "Maker" and header["kvp"] == 120 and header["kernel"] == "B30f"
    assert header["study_date"] == "20240102" and header["slices"] == 8
    assert header["transfer_syntax"] == "Explicit VR Little Endian"
    assert header["padding"] == {"hu": -1000, "voxels": int((HU == -1000).sum())}
    assert "0815" not in str(header) and "Test" not in str(header)


def test_absent_facts_do_no_harm(tmp_path, caplog):
    without = ("Manufacturer", "KVP", "FrameOfReferenceUID", "SliceThickness", "SeriesDescription", "SeriesNumber")
    make_series(tmp_path, HU, **dict.fromkeys((*without, "RescaleSlope", "RescaleIntercept", "RescaleType")))
    with caplog.at_level(logging.WARNING):
        volume = read_scan(tmp_path)
    np.testing.assert_array_equal(volume.array.transpose(2, 1, 0), HU)
    assert "stored values are taken as HU" in caplog.text and "rescale" in volume.header


def test_nested_folders_and_zip(tmp_path):
    make_series(tmp_path / "p" / "study" / "s", HU, name="IM{}")
    expected = read_scan(tmp_path / "p")
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((tmp_path / "p").rglob("IM*")):
            archive.write(path, path.relative_to(tmp_path))
        archive.writestr("__MACOSX/._IM0", b"x" * 200)
        archive.writestr("notes.txt", "hello")
    make_series(tmp_path / "p", HU[:1], name="scout", ImageType=["DERIVED", "SECONDARY", "LOCALIZER"])
    assert read_scan(tmp_path / "p").header["left_aside"] == {"localizer": 1}
    volume = read_scan(tmp_path / "p.zip")
    np.testing.assert_array_equal(volume.array, expected.array)
    np.testing.assert_array_equal(volume.affine, expected.affine)
    whole = (tmp_path / "p.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-200])
    (tmp_path / "bad.zip").write_bytes(whole[:300] + b"\xff" * 50 + whole[350:])
    for name in ("cut.zip", "bad.zip"):
        with pytest.raises(ScanError, match=name):
            read_scan(tmp_path / name)


def test_multiframe_in_any_frame_order(tmp_path):
    make_multiframe(tmp_path / "ct.dcm", HU, order=[3, 0, 7, 1, 2, 6, 5, 4])
    for path in (tmp_path / "ct.dcm", tmp_path):
        volume = read_scan(path)
        np.testing.assert_array_equal(volume.array.transpose(2, 1, 0), HU)
        np.testing.assert_allclose(volume.spacing_mm, (0.7, 0.8, 2.5))
    np.testing.assert_allclose(volume.world((0, 0, 0)), (10, 20, 30))
    assert volume.header["slice_thickness_mm"] == 2.5


def test_multiframe_faults_name_the_frame(tmp_path):
    (tmp_path / "s").mkdir()
    make_multiframe(tmp_path / "s" / "ct.dcm", HU, order=[0, 1, 2, 3, 3, 5, 6, 7])
    assert "ct.dcm frame 4 and ct.dcm frame 5" in error_of(tmp_path / "s")


def test_single_slices(tmp_path):
    (path,) = make_series(tmp_path / "s", HU[:1])
    assert "single slice" in error_of(tmp_path / "s")
    with pytest.raises(ScanError, match="is one slice of a series"):
        read_scan(path)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_files_cut_off(tmp_path, syntax):
    paths = make_series(tmp_path / "s", HU, syntax=syntax)
    whole = paths[2].read_bytes()
    for size, words in (
        (len(whole) - 100, "damaged or cut off"),
        (len(whole) - 970, "002.dcm"),
        (250, "002.dcm"),
        (0, "is empty"),
    ):
        paths[2].write_bytes(whole[:size])
        with pytest.raises(InputError) as error:
            read_scan(tmp_path / "s")
        assert words in str(error.value) and "002.dcm" in str(error.value), size


def test_overlay_bits_are_dropped(tmp_path):
    stored = np.clip(HU + 1024, 0, 2000).astype(np.uint16)
    make_series(tmp_path, (stored | 0x8000).view(np.int16), PixelRepresentation=1, BitsStored=12, HighBit=11)
    with pytest.raises(ScanError, match="none below 0"):  # no intercept in these headers
        read_scan(tmp_path)
    expected = ((stored.astype(np.int16) << 4) >> 4).astype(np.int16)
    np.testing.assert_array_equal(read_volume(tmp_path).array.transpose(2, 1, 0), expected)


def test_eight_bits_and_big_endian(tmp_path):
    import pydicom

    folder = tmp_path / "big"
    for path in make_series(folder, HU):
        ds = pydicom.dcmread(path)
        ds.PixelData = ds.pixel_array.astype(">i2").tobytes()
        ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        pydicom.dcmwrite(path, ds, implicit_vr=False, little_endian=False)
    np.testing.assert_array_equal(read_scan(folder).array.transpose(2, 1, 0), HU)
    folder = tmp_path / "eight"
    stored = np.clip(HU, 0, 255).astype(np.uint8)
    for path in make_series(folder, HU, PixelRepresentation=0, intercept=-1024):
        ds = pydicom.dcmread(path)
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
        ds.PixelData = stored[int(path.stem)].tobytes()
        ds.save_as(path)
    np.testing.assert_array_equal(read_scan(folder).array.transpose(2, 1, 0), stored.astype(int) - 1024)
