"""Slices as pictures and back: worked windows, exact round trips on any axes, resuming, bad pictures, MONAI's chain."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hilum.cli import main
from hilum.errors import GeometryError, InputError, UsageError
from hilum.phantom import write_set
from hilum.scans import read_labels, read_scan, read_volume
from hilum.survey.planes import AXES, Cut, crop_box, nearest
from hilum.survey.slices import SliceOptions, export_slices, kept_slices
from hilum.survey.stack import stack
from hilum.volume import Volume
from making_cases import AFFINE, SHAPE, body, write, write_lits

REAL = Path(__file__).parents[2] / "shared" / "data"


def export(root: Path, out: Path, kind: str = "lits", **options: Any) -> dict[str, Any]:
    return export_slices(kind, root, out, SliceOptions(**options), workers=1)


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_window_and_contrast_are_the_formula() -> None:
    plane = np.array([[-1000, -79, 112, 304, 900]], np.int16)
    cut = Cut.of("axial", ((0, 1), (0, 1), (0, 5)), 0)
    grey = cut.grey(plane, (-79.0, 304.0), 1.5)
    assert grey.tolist() == [[0, 0, round(255 * ((112 + 79) / 383) ** 1.5), 255, 255]]


@given(n=st.integers(1, 40), more=st.integers(0, 60), seed=st.integers(0, 99))
def test_larger_and_back_is_exact(n: int, more: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, (n, n + 3)).astype(np.uint8)
    assert np.array_equal(nearest(nearest(labels, (n + more, n + 3 + more)), labels.shape), labels)


def test_a_slice_looks_as_radiologists_see_it() -> None:
    array = np.arange(24).reshape(2, 3, 4)
    box = ((0, 2), (0, 3), (0, 4))
    assert np.array_equal(Cut.of("axial", box, 0).plane(array, 1), array[1])
    assert np.array_equal(Cut.of("coronal", box, 0).plane(array, 2), array[::-1, 2])
    assert np.array_equal(Cut.of("sagittal", box, 0).plane(array, 3), array[::-1, :, 3])


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("crop", ["none", "body", "labels", "positive"])
def test_the_way_back_is_exact_whatever_the_files_axes(axis: str, crop: str, tmp_path: Path) -> None:
    hu, labels = body(2)
    codes = {"none": "RAS", "body": "IPL", "labels": "LPS", "positive": "ASR"}[crop]
    turn = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(tuple(codes)))
    affine = AFFINE @ nib.orientations.inv_ornt_aff(turn, hu.shape)
    for name, array in (("volume-7.nii", hu), ("segmentation-7.nii", labels)):
        write(tmp_path / "set" / name, nib.apply_orientation(array, turn), affine)
    export(tmp_path / "set", tmp_path / "png", axis=axis, crop=crop, resize=64, empty=0.0)
    answer = stack(tmp_path / "png", tmp_path / "maps", workers=1)
    assert answer == {"cases": ["volume-7"], "without": [], "failed": {}}
    there, back = read_volume(tmp_path / "set" / "segmentation-7.nii"), read_volume(tmp_path / "maps/volume-7.nii.gz")
    assert back.codes == codes and back.grid.same_as(there.grid, 1e-4)
    if crop in ("none", "labels", "body"):
        assert np.array_equal(back.array, there.array)
    else:
        inside, box = (
            back.oriented().array,
            crop_box("positive", read_scan(tmp_path / "set/volume-7.nii").oriented(), None),
        )
        part = tuple(slice(*pair) for pair in box)
        assert np.array_equal(inside[part], there.oriented().array[part]) and inside.sum() == inside[part].sum()


@settings(max_examples=15, deadline=None)
@given(resize=st.sampled_from([8, 16, 24]), seed=st.integers(0, 5))
def test_smaller_slices_come_back_the_same_from_then_on(resize: int, seed: int) -> None:
    labels = body(seed)[1].transpose(2, 1, 0)
    cut = Cut.of("axial", tuple((0, n) for n in labels.shape), resize)
    small = cut.labels(labels[8])
    volume = np.zeros_like(labels)
    cut.put_back(volume, 8, small)
    assert set(np.unique(volume)) <= set(np.unique(labels)) and not volume[:8].any()
    with pytest.raises(GeometryError, match="wanted"):
        cut.put_back(volume, 8, np.zeros((3, 3), np.uint8))


def test_pictures_tables_and_what_is_left_out(tmp_path: Path) -> None:
    write_lits(tmp_path / "set", 0)
    report = export(tmp_path / "set", tmp_path / "png", empty=0.5, window_hu=(-100.0, 400.0))
    hu, labels = (array.transpose(2, 1, 0)[:, ::-1, ::-1] for array in body(0))
    labelled = [i for i in range(SHAPE[2]) if labels[i].any()]
    kept = report["cases"]["volume-0"]["slices"]
    assert set(labelled) <= set(kept) and len(kept) - len(labelled) == round(0.5 * (SHAPE[2] - len(labelled)))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "png" / "slices.csv").read_text())))
    assert [int(row["slice"]) for row in rows] == kept
    for row in rows:
        index = int(row["slice"])
        assert np.array_equal(picture(tmp_path / "png" / row["label"]), labels[index])
        wanted = np.round(255 * np.clip((hu[index].astype(np.float32) + 100) / 500, 0, 1))
        assert np.array_equal(picture(tmp_path / "png" / row["image"]), wanted)
        assert [int(row["pixels_1"]), int(row["pixels_2"])] == [(labels[index] == v).sum() for v in (1, 2)]
    cut = Cut.of("axial", tuple((0, n) for n in labels.shape), 0)
    volume = Volume(np.ascontiguousarray(labels), np.diag([-1.0, 1, 1, 1]))
    assert kept_slices(cut, volume, 0.0) == labelled and kept_slices(cut, None, 0.0) == list(range(SHAPE[2]))


def test_a_killed_run_goes_on_and_bad_cases_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (0, 1, 2):
        write_lits(tmp_path / "set", number)
    (tmp_path / "set" / "volume-1.nii").write_bytes(b"no scan")
    first = export(tmp_path / "set", tmp_path / "png")
    assert list(first["failed"]) == ["volume-1"] and list(first["cases"]) == ["volume-0", "volume-2"]
    (tmp_path / "png" / "images" / "volume-2" / "0003.png").unlink()
    asked: list[str] = []
    real = read_scan
    monkeypatch.setattr("hilum.survey.slices.read_scan", lambda path: (asked.append(Path(path).name), real(path))[1])
    assert export(tmp_path / "set", tmp_path / "png") == first and asked == ["volume-2.nii"]
    export(tmp_path / "set", tmp_path / "png", resize=16)
    assert asked[1:] == ["volume-0.nii", "volume-1.nii", "volume-2.nii"]
    assert picture(tmp_path / "png" / "images" / "volume-0" / "0003.png").shape == (16, 16)
    export_slices("lits", tmp_path / "set", tmp_path / "png", SliceOptions(), where="case == 'volume-2'", workers=1)
    assert [folder.name for folder in (tmp_path / "png" / "images").iterdir()] == ["volume-2"]


def test_bad_pictures_are_named_and_the_rest_is_stacked(tmp_path: Path) -> None:
    for number in range(6):
        write_lits(tmp_path / "set", number)
    export(tmp_path / "set", tmp_path / "png")
    made = tmp_path / "made"
    shutil.copytree(tmp_path / "png" / "labels", made)
    for file in sorted((made / "volume-1").iterdir()):  # flat names do as well
        shutil.move(file, made / f"volume-1_{file.name}")
    (made / "volume-1").rmdir()
    (made / "volume-2" / "0004.png").unlink()
    Image.new("RGB", (SHAPE[0], SHAPE[1])).save(made / "volume-3" / "0004.png")
    Image.new("L", (SHAPE[0], SHAPE[1]), 255).save(made / "volume-4" / "0004.png")
    Image.new("L", (8, 8)).save(made / "volume-5" / "0004.png")
    answer = stack(tmp_path / "png", tmp_path / "maps", labels=made, workers=1)
    assert answer["cases"] == ["volume-0", "volume-1"] and list(answer["failed"]) == [
        f"volume-{n}" for n in range(2, 6)
    ]
    for case, word in (("volume-2", "No such file"), ("volume-3", "RGB"), ("volume-4", "255"), ("volume-5", "8x8")):
        assert word in answer["failed"][case] and "0004.png" in answer["failed"][case]
    shutil.rmtree(made)
    made.mkdir()
    with pytest.raises(InputError, match="holds no picture"):
        stack(tmp_path / "png", tmp_path / "maps", labels=made)
    with pytest.raises(InputError, match="no such file"):
        stack(tmp_path / "set", tmp_path / "maps")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"window_hu": (400.0, -100.0)}, "window"),
        ({"gamma": 0.0}, "gamma"),
        ({"resize": 3}, "resize"),
        ({"empty": 2.0}, "empty"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        SliceOptions(**options)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lits(tmp_path / "set", 0)
    words = ["data", "slices", f"lits={tmp_path / 'set'}", "--out", str(tmp_path / "png"), "--quiet"]
    assert main([*words, "--window", "-79,304", "--gamma", "1.5", "--resize", "256", "--empty", "drop"]) == 0
    options = json.loads((tmp_path / "png" / "slices.json").read_text())["options"]
    assert options["window_hu"] == [-79, 304] and options["empty"] == 0 and options["resize"] == 256
    assert main(["data", "stack", str(tmp_path / "png"), "--out", str(tmp_path / "maps"), "--quiet"]) == 0
    assert main([*words, "--window", "soft"]) == 2 and main([*words, "--empty", "few"]) == 2
    assert "1 label maps" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["folder", "kits23", "lits", "msd", "ircadb", "dicom", "nnunet"])
def test_every_layout_of_the_phantom_there_and_back(layout: str, tmp_path: Path) -> None:
    kind = {"dicom": "folder", "nnunet": "phantom"}.get(layout, layout)
    (case,) = write_set(
        tmp_path / "set", 1, 3, layout=layout, shape=(48, 40, 24), spacing_mm=(8.0, 8.0, 8.0), workers=1
    )
    report = export(tmp_path / "set", tmp_path / "png", kind, empty=0.0)
    answer = stack(tmp_path / "png", tmp_path / "maps", workers=1)
    assert answer["cases"] == [case.name] and report["cases"][case.name]["slices"]
    from hilum.datasets import open_dataset

    dataset = open_dataset(kind, tmp_path / "set")
    assert dataset.scheme is not None and dataset.cases[0].labels is not None
    truth = read_labels(dataset.cases[0].labels, dataset.scheme)
    back = read_labels(tmp_path / "maps" / f"{case.name}.nii.gz", dataset.scheme)
    scan = read_scan(dataset.cases[0].image)
    assert np.array_equal(back.oriented().array, truth.oriented().array) and back.grid.same_as(scan.grid)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MONAI's own
def test_monais_chain_gives_the_same_pictures(tmp_path: Path) -> None:
    transforms = pytest.importorskip("monai.transforms")
    write_lits(tmp_path / "set", 0)
    report = export(
        tmp_path / "set", tmp_path / "png", window_hu=(-79.0, 304.0), gamma=1.5, crop="positive", resize=0, empty=1.0
    )
    keys = ["image", "label"]
    chain = transforms.Compose(
        [
            transforms.LoadImaged(keys),
            transforms.EnsureChannelFirstd(keys),
            transforms.Orientationd(keys, "LPS", labels=None),  # MONAI names where an axis comes from as RAS+ does
            transforms.CropForegroundd(keys, source_key="image", allow_smaller=True),
            transforms.ScaleIntensityRanged("image", -79, 304, 0, 1, clip=True),
            transforms.AdjustContrastd("image", gamma=1.5),
            transforms.ToTensord(keys),
        ]
    )
    made = chain({"image": tmp_path / "set" / "volume-0.nii", "label": tmp_path / "set" / "segmentation-0.nii"})
    first = report["cases"]["volume-0"]["slices"][0]
    for index in report["cases"]["volume-0"]["slices"]:
        for key, times in (("image", 255), ("label", 1)):
            wanted = np.round(np.asarray(made[key])[0, :, :, index - first].T * times)
            mine = picture(tmp_path / "png" / f"{key}s" / "volume-0" / f"{index:04d}.png")
            assert np.abs(wanted - mine).max() <= (1 if key == "image" else 0), (key, index)


@pytest.mark.skipif(not (REAL / "real").is_dir(), reason="../shared/data/real is absent")
def test_a_real_scan_there_and_back(tmp_path: Path) -> None:
    folder = REAL / "real" / "totalsegmentator_ct"
    words = ["--scheme", "abdomen", "--window", "-100,400", "--resize", "256", "--crop", "body", "--empty", "0.1"]
    assert main(["data", "slices", f"folder={folder}", "--out", str(tmp_path / "png"), "--quiet", *words]) == 0
    assert stack(tmp_path / "png", tmp_path / "maps", workers=1)["cases"]
    (file,) = (tmp_path / "maps").iterdir()
    assert np.array_equal(read_volume(file).array, read_volume(folder / "labels.nii.gz").array)
