"""NIfTI: every version, byte order and scaling against nibabel; geometry choices; files that read back."""

import gzip
import logging
import resource
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.errors import GeometryError, OutputError, ScanError, UsageError
from hilum.scans import read_volume, write_labels, write_scan
from hilum.scans.nifti import read_nifti, rescaled
from hilum.volume import Volume

AFFINE = np.array([[-0.7, 0.1, 0, 30], [0.1, 0.7, 0, -20], [0, 0, 2.5, -400], [0, 0, 0, 1]])
HU = np.random.default_rng(0).integers(-1024, 1500, (7, 6, 5)).astype(np.int16)


def save(path, array=HU, kind=nib.Nifti1Image, slope=None, inter=None, affine=AFFINE, **codes):
    image = kind(array, affine)
    image.header.set_slope_inter(slope, inter)
    image.set_sform(affine, codes.get("sform", 1))
    image.set_qform(affine, codes.get("qform", 0))
    nib.save(image, path)
    return path


def patched(path, offset, values):
    """The same gzipped file with some plain bytes replaced."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[offset : offset + len(values)] = values
    path.write_bytes(gzip.compress(bytes(data)))
    return path


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("number", ["u1", "i1", "i2", "u2", "i4", "f4", "f8"])
def test_voxels_and_affine_are_nibabels(tmp_path, kind, name, order, number):
    array = np.clip(HU, 0, 100).astype(number)
    header = kind.header_class(endianness=order)
    image = kind(array, AFFINE, header)
    image.header.set_data_dtype(number)
    nib.save(image, tmp_path / name)

    volume = read_nifti(tmp_path / name)

    expected = nib.load(tmp_path / name)
    assert volume.array.dtype == np.dtype(number) and volume.array.dtype.isnative
    np.testing.assert_array_equal(volume.array, np.asanyarray(expected.dataobj))
    np.testing.assert_array_equal(volume.affine, expected.affine)
    assert volume.array.flags.f_contiguous and volume.array.flags.writeable
    assert volume.header["format"] == ("NIfTI-1" if kind is nib.Nifti1Image else "NIfTI-2")


@pytest.mark.parametrize(
    ("slope", "inter", "number"),
    [
        (1, 0, "int16"),
        (None, None, "int16"),
        (1, -1024, "int16"),
        (2, 10, "int16"),
        (0.5, 0, "float32"),
        (1, 0.5, "float32"),
    ],
)
def test_scaling_keeps_whole_numbers_whole(tmp_path, slope, inter, number):
    stored = np.clip(HU, -500, 1000)
    path = save(tmp_path / "a.nii.gz", stored)
    numbers = (np.nan, np.nan) if slope is None else (slope, inter)
    patched(path, 112, struct.pack("<ff", *numbers))

    volume = read_nifti(path)

    assert volume.array.dtype == number
    np.testing.assert_allclose(volume.array, stored * float(slope or 1) + float(inter or 0), rtol=1e-6)


def test_slope_zero_means_unscaled(tmp_path):
    path = patched(save(tmp_path / "a.nii.gz"), 112, struct.pack("<ff", 0, 7))
    np.testing.assert_array_equal(read_nifti(path).array, HU)


@given(
    st.sampled_from(["u1", "i1", "u2", "i2", "i4", "u4"]),
    st.integers(-3, 3),
    st.integers(-40000, 40000),
    st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_rescaling_equals_exact_arithmetic(number, slope, intercept, seed):
    info = np.iinfo(number)
    array = np.random.default_rng(seed).integers(max(info.min, -(10**5)), min(info.max, 10**5), 50).astype(number)
    exact = [int(v) * slope + intercept for v in array]
    result = rescaled(array, float(slope), float(intercept))
    if min(exact) >= -32768 and max(exact) <= 32767:
        assert result.dtype == np.int16
    np.testing.assert_array_equal(result.astype(np.float64), exact)


def test_trailing_axes_of_one_are_dropped_and_real_ones_refused(tmp_path):
    nib.save(nib.Nifti1Image(HU[..., None, None], AFFINE), tmp_path / "a.nii.gz")
    assert read_nifti(tmp_path / "a.nii.gz").shape == HU.shape
    nib.save(nib.Nifti1Image(np.stack([HU, HU], -1), AFFINE), tmp_path / "b.nii.gz")
    with pytest.raises(GeometryError, match=r"4 axes \(shape 7x6x5x2\)"):
        read_nifti(tmp_path / "b.nii.gz")
    nib.save(nib.Nifti1Image(HU[..., 0], AFFINE), tmp_path / "c.nii.gz")
    with pytest.raises(GeometryError, match=r"2 axes \(shape 7x6\)"):
        read_nifti(tmp_path / "c.nii.gz")


def test_sform_holds_then_qform_then_voxel_sizes(tmp_path, caplog):
    assert read_nifti(save(tmp_path / "s.nii.gz")).header["geometry"] == "sform"
    only_q = read_nifti(save(tmp_path / "q.nii.gz", sform=0, qform=1, affine=np.diag([-1, 1, 2, 1.0])))
    assert only_q.header["geometry"] == "qform"
    np.testing.assert_allclose(only_q.affine, np.diag([-1, 1, 2, 1.0]), atol=1e-6)
    assert not caplog.records

    image = nib.Nifti1Image(HU, None)
    image.header.set_zooms((0.5, 0.5, 3))
    nib.save(image, tmp_path / "none.nii.gz")
    with caplog.at_level(logging.WARNING):
        volume = read_nifti(tmp_path / "none.nii.gz")
    assert volume.header["geometry"] == "pixdim only" and "neither qform nor sform" in caplog.text
    np.testing.assert_allclose(volume.affine, nib.load(tmp_path / "none.nii.gz").affine)


def test_forms_that_disagree_are_told(tmp_path, caplog):
    path = save(tmp_path / "a.nii.gz", affine=np.diag([1, 1, 2, 1.0]), qform=1)
    patched(path, 268, struct.pack("<f", 25.0))  # qoffset_x
    with caplog.at_level(logging.WARNING):
        volume = read_nifti(path)
    assert "disagree by up to 25.0 mm; the sform is used" in caplog.text
    assert volume.affine[0, 3] == 0 and volume.header["qform_off_by_mm"] == 25


@pytest.mark.parametrize("size", [0.0, -1.0, np.nan])
def test_voxel_sizes_must_be_positive(tmp_path, size):
    path = patched(save(tmp_path / "a.nii.gz"), 80, struct.pack("<f", size))
    with pytest.raises(GeometryError, match="voxel sizes") as error:
        read_nifti(path)
    assert "a.nii.gz" in str(error.value)


def test_a_broken_affine_is_named(tmp_path):
    for value, words in ((np.nan, "finite"), (0.0, "singular")):
        path = save(tmp_path / "a.nii.gz", affine=np.diag([1, 1, 1, 1.0]))
        patched(path, 280, struct.pack("<f", value))  # srow_x[0]
        with pytest.raises(GeometryError, match=f"a.nii.gz: sform: .*{words}"):
            read_nifti(path)


def test_qform_that_is_no_rotation(tmp_path, caplog):
    path = save(tmp_path / "a.nii.gz", affine=np.diag([1, 1, 1, 1.0]), sform=0, qform=1)
    patched(path, 256, struct.pack("<fff", 1, 1, 1))
    with pytest.raises(GeometryError, match="qform is no rotation"):
        read_nifti(path)
    path = save(tmp_path / "b.nii.gz", affine=np.diag([1, 1, 1, 1.0]), sform=1, qform=1)
    patched(path, 256, struct.pack("<fff", 1, 1, 1))
    with caplog.at_level(logging.WARNING):
        assert read_nifti(path).header["geometry"] == "sform"
    assert "no rotation" in caplog.text


def test_kind_of_voxels(tmp_path):
    colour = np.zeros((4, 4, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nib.save(nib.Nifti1Image(colour, np.eye(4)), tmp_path / "rgb.nii.gz")
    with pytest.raises(ScanError, match="type 128, which is no plain number"):
        read_nifti(tmp_path / "rgb.nii.gz")


def test_header_pair_and_extensions(tmp_path):
    nib.save(nib.Nifti1Pair(HU, AFFINE), tmp_path / "a.hdr")
    (tmp_path / "a.hdr").rename(tmp_path / "a.nii")
    with pytest.raises(ScanError, match="another file"):
        read_nifti(tmp_path / "a.nii")
    image = nib.Nifti1Image(HU, AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 500))
    nib.save(image, tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(read_nifti(tmp_path / "b.nii.gz").array, HU)


def test_the_sibling_is_not_read(tmp_path):
    save(tmp_path / "x.nii", np.ones_like(HU))
    save(tmp_path / "x.nii.gz", np.full_like(HU, 2))
    assert (read_volume(tmp_path / "x.nii.gz").array == 2).all()


def test_a_header_that_promises_too_much_asks_for_no_memory(tmp_path):
    path = patched(save(tmp_path / "a.nii.gz"), 42, struct.pack("<3h", 30000, 30000, 30000))
    with pytest.raises(ScanError, match="too small for that"):
        read_nifti(path)


def test_several_gzip_members_are_one_file(tmp_path):
    data = gzip.decompress(save(tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(data[:400]) + gzip.compress(data[400:]))
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii.gz").array, HU)


# writing


@pytest.mark.parametrize("name", ["a.nii.gz", "sub/folder/a.nii"])
def test_what_is_written_comes_back(tmp_path, name):
    volume = Volume(HU, AFFINE.astype(np.float32))
    write_scan(tmp_path / name, volume)
    back = nib.load(tmp_path / name)
    np.testing.assert_array_equal(np.asanyarray(back.dataobj), HU)
    np.testing.assert_array_equal(back.affine, volume.affine)
    assert back.header["sform_code"] == 1 and back.header["qform_code"] == 1
    np.testing.assert_allclose(back.get_qform(), volume.affine, atol=1e-4)
    assert back.header.get_data_dtype() == np.int16
    assert sorted(p.name for p in (tmp_path / name).parent.iterdir()) == [Path(name).name]


def test_sheared_grids_have_no_qform(tmp_path):
    sheared = AFFINE.copy()
    sheared[1, 2] = 0.6
    write_labels(tmp_path / "a.nii.gz", Volume((HU > 0).astype(np.uint8), sheared))
    back = nib.load(tmp_path / "a.nii.gz")
    assert back.header["qform_code"] == 0 and back.header["sform_code"] == 1
    np.testing.assert_array_equal(back.affine, sheared.astype(np.float32))


@given(st.integers(0, 10**6), st.permutations("RAS"), st.tuples(*[st.booleans()] * 3))
@settings(max_examples=25, deadline=None)
def test_labels_round_trip_on_any_grid(tmp_path_factory, seed, axes, flips):
    rng = np.random.default_rng(seed)
    codes = "".join({"R": "RL", "A": "AP", "S": "SI"}[a][f] for a, f in zip(axes, flips, strict=True))
    angle = rng.uniform(-0.3, 0.3)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = (turn * rng.uniform(0.4, 5, 3)).astype(np.float32)
    affine[:3, 3] = rng.uniform(-500, 500, 3).astype(np.float32)
    labels = Volume(rng.integers(0, 4, (5, 6, 7)).astype(np.uint8), affine).oriented(codes)
    path = tmp_path_factory.mktemp("w") / "labels.nii.gz"
    write_labels(path, labels)
    back = read_nifti(path)
    np.testing.assert_array_equal(back.array, labels.array)
    assert back.array.dtype == np.uint8
    assert back.grid.distance_mm(labels.grid) < 1e-3


def test_a_grid_read_from_nifti_is_written_unchanged(tmp_path):
    scan = read_nifti(save(tmp_path / "ct.nii.gz", affine=np.array(AFFINE) * 1.00001))
    write_labels(tmp_path / "labels.nii.gz", scan.with_array(np.zeros(scan.shape, np.uint8)))
    np.testing.assert_array_equal(read_nifti(tmp_path / "labels.nii.gz").affine, scan.affine)


def test_equal_voxels_give_equal_files(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_scan(tmp_path / name, Volume(HU, AFFINE))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_fractions_stay_fractions(tmp_path):
    write_scan(tmp_path / "a.nii.gz", Volume(HU + np.float32(0.5), AFFINE))
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii.gz").array, HU + np.float32(0.5))


def test_other_names_are_refused(tmp_path):
    with pytest.raises(UsageError, match="ends in"):
        write_scan(tmp_path / "a.mha", Volume(HU, AFFINE))


def test_a_file_that_reads_back_differently_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    from hilum.scans import nifti

    volume = Volume((HU > 0).astype(np.uint8), AFFINE)
    for change, words in (
        (lambda v: v.with_array(1 - v.array), "voxels read back differently"),
        (lambda v: Volume(v.array, v.affine + np.eye(4) * 0.01), "affine reads back differently"),
    ):
        right = nifti.read_nifti
        monkeypatch.setattr(nifti, "read_nifti", lambda p, c=change, r=right: c(r(p)))
        with pytest.raises(OutputError, match=words):
            write_labels(tmp_path / "a.nii.gz", volume)
        monkeypatch.setattr(nifti, "read_nifti", right)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.nii.gz"
    write_labels(path, Volume((HU > 0).astype(np.uint8), AFFINE))
    before = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 2000, (64, 64, 16)).astype(np.int16) - 1000
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot be written|disk is full"):
            write_scan(path, Volume(noise, AFFINE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]
