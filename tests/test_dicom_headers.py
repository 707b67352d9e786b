"""The quick walk over headers says what pydicom says."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from hilum.scans import dicom_headers
from hilum.scans.dicom_headers import is_dicom, read_head
from making_dicom import body, make_multiframe, make_series

SHARED = Path(__file__).parents[2] / "shared" / "data"


def nested() -> Sequence:
    inner, outer = Dataset(), Dataset()
    inner.CodeValue, inner.SeriesInstanceUID = "x", "1.2.3"
    outer.ConceptNameCodeSequence = Sequence([inner, inner])
    outer.Rows = 7
    return Sequence([outer, outer])


def heads(data: bytes):
    quick = read_head(io.BytesIO(data))
    whole = dicom_headers._by_pydicom(io.BytesIO(data))
    return quick, whole


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("undefined", [False, True])
def test_the_walk_equals_pydicom(tmp_path, syntax, undefined, monkeypatch):
    (path,) = make_series(tmp_path, body(1), syntax=syntax, PixelPaddingValue=-2000)
    ds = pydicom.dcmread(path)
    ds.ReferencedImageSequence = nested()
    ds.RequestAttributesSequence = nested()
    for keyword in ("ReferencedImageSequence", "RequestAttributesSequence"):
        ds[keyword].is_undefined_length = undefined
        for item in ds[keyword].value:
            item.is_undefined_length_sequence_item = undefined
    ds.add_new(0x00091001, "OB", b"\1\2\3\4")
    ds.add_new(0x00090010, "LO", "PRIVATE")
    ds.save_as(path)
    quick, whole = heads(path.read_bytes())
    padding = [values.pop("PixelPaddingValue")[0] % 65536 for values in (quick.values, whole.values)]
    assert padding[0] == padding[1]
    assert quick == quick and vars(quick) == vars(whole)
    assert quick.values["Rows"] == (24.0,) and quick.values["SeriesInstanceUID"] != "1.2.3"
    pixels = path.read_bytes()[quick.pixel_start :][: quick.pixel_length]
    np.testing.assert_array_equal(np.frombuffer(pixels, "<i2").reshape(24, 20), pydicom.dcmread(path).pixel_array)

    # and it was the walk that answered, not the fallback
    monkeypatch.setattr(dicom_headers, "_by_pydicom", None)
    assert read_head(io.BytesIO(path.read_bytes())) is not None


@pytest.mark.parametrize(
    "folder", ["real/ircadb01_dicom", "real/cptac_pda_dicom", "dicom/jpeg2000_ct", "dicom/ct_liver_seg"]
)
def test_real_headers(folder, monkeypatch):
    if not SHARED.is_dir():
        pytest.skip("shared/data is absent: no real DICOM to compare")
    for path in sorted((SHARED / folder).iterdir())[:4]:
        quick, whole = heads(path.read_bytes()[: 1 << 18])
        for values in (quick.values, whole.values):
            if "PixelPaddingValue" in values:
                values["PixelPaddingValue"] = (values["PixelPaddingValue"][0] % 65536,)
        assert vars(quick) == vars(whole)
        if whole.values["Modality"] == "CT":
            with monkeypatch.context() as patch:
                patch.setattr(dicom_headers, "_by_pydicom", None)
                assert read_head(io.BytesIO(path.read_bytes())) is not None


def test_other_character_sets_and_groups_go_to_pydicom(tmp_path):
    (path,) = make_series(tmp_path, body(1), SpecificCharacterSet=["", "ISO 2022 IR 87"], SeriesDescription="山田")
    assert read_head(io.BytesIO(path.read_bytes())).values["SeriesDescription"] == "山田"
    make_multiframe(tmp_path / "m.dcm", body(2), order=[1, 0])
    head = read_head(io.BytesIO((tmp_path / "m.dcm").read_bytes()))
    assert [f["ImagePositionPatient"][2] for f in head.frames] == [32.5, 30.0]


def test_headers_longer_than_what_is_read_at_once(tmp_path):
    (path,) = make_series(tmp_path, body(1))
    ds = pydicom.dcmread(path)
    ds.add_new(0x00091001, "OB", bytes(100_000))
    ds.add_new(0x00090010, "LO", "PRIVATE")
    ds.save_as(path)
    quick, whole = heads(path.read_bytes())
    assert vars(quick) == vars(whole) and quick.pixel_start > 100_000


@pytest.mark.parametrize(
    ("start", "answer"),
    [
        (b"\0" * 128 + b"DICM", True),
        (b"\x08\0\x05\0CS" + bytes(126), True),
        (b"\x08\0\0\0\x04\0\0\0" + bytes(124), True),
        (b"\x02\0\0\0UL" + bytes(126), True),
        (b"hello" * 30, False),
        (b"\x08\0\x05\0zz\1\1" + bytes(124), False),
        (b"", False),
        (b"\x89PNG" + bytes(128), False),
    ],
)
def test_first_bytes(start, answer):
    assert is_dicom(start) is answer
