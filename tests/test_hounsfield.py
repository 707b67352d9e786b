"""What passes as CT and what does not; the number types that come out."""

import numpy as np
import pytest

from hilum.errors import GeometryError, ScanError
from hilum.scans.hounsfield import as_ct, check_hu
from hilum.volume import Volume

RNG = np.random.default_rng(0)
HU = RNG.integers(-1024, 1500, (8, 8, 8))


def volume(array, spacing=(1, 1, 1)):
    return Volume(np.asarray(array), np.diag([*spacing, 1.0]), "ct.nii.gz")


@pytest.mark.parametrize("kind", ["int16", "int32", "int64", "float32", "float64"])
def test_whole_numbers_become_int16(kind):
    scan = as_ct(volume(np.asfortranarray(HU.astype(kind))))
    assert scan.array.dtype == np.int16 and scan.array.flags.f_contiguous
    np.testing.assert_array_equal(scan.array, HU)


def test_int16_is_not_copied():
    scan = volume(HU.astype(np.int16))
    assert as_ct(scan).array is scan.array


@pytest.mark.parametrize("array", [HU + 0.25, HU.astype(float) * 40, HU.astype(np.int64) * 40])
def test_others_become_float32(array):
    scan = as_ct(volume(array))
    assert scan.array.dtype == np.float32
    np.testing.assert_allclose(scan.array, array, rtol=1e-6)


def test_one_late_fraction_is_seen():
    array = HU.astype(np.float32)
    array[7, 7, 7] += 0.5
    assert as_ct(volume(array)).array.dtype == np.float32


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (RNG.integers(0, 4, (8, 8, 8)).astype(np.uint8), "looks like a label map"),
        (RNG.integers(0, 4, (8, 8, 8)).astype(np.float32), "looks like a label map"),
        (RNG.integers(-1, 120, (8, 8, 8)) // 4 * 4 - 1, "looks like a label map"),
        (RNG.integers(0, 256, (8, 8, 8)), "none below 0"),
        (HU + 1024, "none below 0"),
        (RNG.random((8, 8, 8)), "look normalised"),
        (RNG.normal(0, 1, (8, 8, 8)), "look normalised"),
        (np.zeros((8, 8, 8), np.int16), "every voxel is 0"),
        (np.where(HU > 1000, np.nan, HU), r"\d+ of 512 voxels are NaN or infinite"),
        (np.where(HU > 1000, np.inf, HU), "NaN or infinite"),
    ],
)
def test_what_is_no_ct(array, words):
    with pytest.raises(ScanError, match=words) as error:
        as_ct(volume(array))
    assert str(error.value).startswith("ct.nii.gz: ")


@pytest.mark.parametrize(
    "array",
    [
        np.where(HU < 0, -3024, HU),  # padding
        np.clip(HU, -200, 300),  # a clipped window
        np.clip(HU, -10, 400),
        RNG.normal(60, 20, (8, 8, 8)).round() - 30,  # a crop inside an organ
    ],
)
def test_what_is_ct(array):
    check_hu(volume(array.astype(np.int16)))


@pytest.mark.parametrize("spacing", [(0.0008, 0.0008, 0.003), (700, 700, 2500)])
def test_spacings_in_other_units(spacing):
    with pytest.raises(GeometryError, match="another unit"):
        as_ct(volume(HU, spacing))
