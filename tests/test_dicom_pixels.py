"""Compressed pixels, missing decoders, colour."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from hilum.errors import ScanError
from hilum.scans import dicom_pixels, read_scan
from making_dicom import COMPRESSED, body, change, make_multiframe, make_series, set_pixels

HU = body(4, 40, 36)  # JPEG 2000 wants more than 32 pixels


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_series_are_bit_exact(tmp_path, name, signed):
    options = {"PixelRepresentation": signed} if signed else {"PixelRepresentation": 0, "intercept": -1024}
    make_series(tmp_path, HU, syntax=COMPRESSED[name], **options)
    volume = read_scan(tmp_path)
    np.testing.assert_array_equal(volume.array.transpose(2, 1, 0), HU)
    assert volume.header["transfer_syntax"] == COMPRESSED[name].name


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_multiframe(tmp_path, name):
    make_multiframe(tmp_path / "ct.dcm", HU, order=[2, 0, 3, 1], syntax=COMPRESSED[name])
    np.testing.assert_array_equal(read_scan(tmp_path / "ct.dcm").array.transpose(2, 1, 0), HU)


def test_deflated(tmp_path):
    for path in make_series(tmp_path, HU):
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        ds.save_as(path)
    np.testing.assert_array_equal(read_scan(tmp_path).array.transpose(2, 1, 0), HU)


def test_without_meta_header(tmp_path):
    for path in make_series(tmp_path, HU):
        whole = path.read_bytes()
        ds = pydicom.dcmread(path)
        start = 132 + 12 + ds.file_meta.FileMetaInformationGroupLength
        path.with_suffix("").write_bytes(whole[start:])
        path.unlink()
    np.testing.assert_array_equal(read_scan(tmp_path).array.transpose(2, 1, 0), HU)


def test_a_missing_decoder_names_the_syntax_and_the_cure(tmp_path, monkeypatch):
    class Without:
        is_available = False

    make_series(tmp_path, HU, syntax=COMPRESSED["JPEG-LS"])
    monkeypatch.setattr(dicom_pixels, "get_decoder", lambda uid: Without())
    with pytest.raises(ScanError, match=r"JPEG-LS Lossless .* no decoder.*pip install 'hilum\[dicom\]'"):
        read_scan(tmp_path)


def test_syntaxes_that_are_no_images(tmp_path):
    for path in make_series(tmp_path, HU, syntax=COMPRESSED["RLE"]):
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"  # MPEG-4
        ds.save_as(path)
    with pytest.raises(ScanError, match=r"MPEG-4.* cannot be decoded"):
        read_scan(tmp_path)


def test_damaged_frames_are_named(tmp_path):
    paths = make_series(tmp_path, HU, syntax=COMPRESSED["JPEG 2000"])
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:-200])
    with pytest.raises(ScanError, match=r"001\.dcm: the pixel data are damaged or cut off"):
        read_scan(tmp_path)


def test_colour_is_refused(tmp_path):
    for path in make_series(tmp_path, HU):
        ds = pydicom.dcmread(path)
        ds.SamplesPerPixel, ds.PlanarConfiguration, ds.PhotometricInterpretation = 3, 0, "RGB"
        set_pixels(ds, np.zeros((1, ds.Rows, ds.Columns, 3), np.int16), ds.file_meta.TransferSyntaxUID)
        ds.save_as(path)
    with pytest.raises(ScanError, match="3 samples and 16 bits"):
        read_scan(tmp_path)


def test_padding_keeps_its_value_and_is_counted(tmp_path):
    hu = HU.copy()
    hu[:, :2] = -3024
    paths = make_series(tmp_path, hu, intercept=-1024, PixelPaddingValue=-2000)
    volume = read_scan(tmp_path)
    assert volume.array.min() == -3024
    assert volume.header["padding"] == {"hu": -3024, "voxels": 4 * 2 * 36}
    for path in paths:
        change(path, SeriesDescription="grün")  # another character set
    assert read_scan(tmp_path).header["padding"]["voxels"] == 288
