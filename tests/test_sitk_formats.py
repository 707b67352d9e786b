"""NRRD and MetaImage: voxels by ITK's index, places in the patient, damaged files."""

import numpy as np
import pytest
import SimpleITK

from hilum.errors import GeometryError, ScanError
from hilum.scans import read_scan, read_volume

HU = np.random.default_rng(1).integers(-1024, 1500, (5, 6, 7)).astype(np.int16)


def image():
    made = SimpleITK.GetImageFromArray(HU)
    made.SetSpacing((0.7, 0.8, 2.5))
    made.SetOrigin((10, -20, 30))
    made.SetDirection((0, 1, 0, 0.8, 0, -0.6, -0.6, 0, -0.8))
    return made


@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd"])
@pytest.mark.parametrize("compressed", [False, True])
def test_indices_and_places_are_itks(tmp_path, name, compressed):
    made = image()
    SimpleITK.WriteImage(made, str(tmp_path / name), compressed)
    volume = read_scan(tmp_path / name)
    assert volume.shape == (7, 6, 5) and volume.array.dtype == np.int16 and volume.array.flags.f_contiguous
    for index in ((0, 0, 0), (6, 5, 4), (2, 3, 1)):
        assert volume.array[index] == made.GetPixel(*index)
        x, y, z = made.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(volume.world(index), (-x, -y, z), atol=1e-5)


def test_axes_and_components(tmp_path):
    SimpleITK.WriteImage(SimpleITK.JoinSeries([image()]), str(tmp_path / "one.mha"))
    assert read_volume(tmp_path / "one.mha").shape == (7, 6, 5)
    SimpleITK.WriteImage(SimpleITK.JoinSeries([image(), image()]), str(tmp_path / "two.mha"))
    with pytest.raises(GeometryError, match="4 axes"):
        read_volume(tmp_path / "two.mha")
    SimpleITK.WriteImage(image()[:, :, 0], str(tmp_path / "flat.mha"))
    with pytest.raises(GeometryError, match="2 axes"):
        read_volume(tmp_path / "flat.mha")
    SimpleITK.WriteImage(SimpleITK.Compose(image(), image()), str(tmp_path / "vector.nrrd"))
    with pytest.raises(ScanError, match="2 numbers a voxel"):
        read_volume(tmp_path / "vector.nrrd")


def test_damage_is_one_sentence(tmp_path):
    SimpleITK.WriteImage(image(), str(tmp_path / "whole.mha"))
    whole = (tmp_path / "whole.mha").read_bytes()
    SimpleITK.WriteImage(image(), str(tmp_path / "packed.mha"), True)
    packed = (tmp_path / "packed.mha").read_bytes()
    for name, data in (
        ("cut.mha", whole[:-100]),
        ("packed_cut.mha", packed[:-20]),
        ("packed_bad.mha", packed[:-20] + bytes(20)),
        ("text.nrrd", b"hello\n"),
        ("text.mha", b"hello\n"),
        ("empty.mha", b""),
        ("zero.mha", whole.replace(b"0.69999999999999996", b"0.0")),
        ("lost.mhd", whole[: whole.index(b"LOCAL")] + b"gone.raw\n"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises((ScanError, GeometryError)) as error:
            read_volume(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value), name
