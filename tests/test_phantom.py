"""Synthetic CT: repeatable, anatomically placed, in Hounsfield units that radiology would expect."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hilum.errors import OutputError, UsageError
from hilum.labels import SCHEMES
from hilum.phantom import PhantomCase, make_case, write_set
from hilum.phantom.acquisition import Scanner, acquire
from hilum.phantom.contrast import draw_contrast
from hilum.phantom.patient import draw_patient
from hilum.phantom.shapes import Ellipsoid, Noise, Tube, ellipsoid_distance, smooth_cut, smooth_union, tube_distance
from hilum.phantom.tissues import ENHANCED, PLAIN
from hilum.progress import Progress
from hilum.scans import read_labels, read_scan


@pytest.fixture(scope="module")
def cases() -> dict[int, PhantomCase]:
    return {seed: make_case(seed, small=True) for seed in (0, 1, 2, 3, 4, 8)}


@pytest.fixture(scope="module")
def abdomen() -> PhantomCase:
    return make_case(3, small=True, labels="abdomen")


def test_same_seed_same_bytes(cases: dict[int, PhantomCase]) -> None:
    again = make_case(2, small=True)
    assert again.ct.array.tobytes() == cases[2].ct.array.tobytes()
    assert again.labels.array.tobytes() == cases[2].labels.array.tobytes()
    assert again.facts == cases[2].facts
    assert again.ct.array.tobytes() != cases[1].ct.array.tobytes()


def test_types_and_layout(cases: dict[int, PhantomCase]) -> None:
    for case in cases.values():
        assert case.ct.array.dtype == np.int16 and case.labels.array.dtype == np.uint8
        assert case.ct.codes == "LPS" and case.ct.grid.same_as(case.labels.grid)
        assert case.ct.array.min() >= -1024 and case.ct.array.max() > 250
        assert json.loads(json.dumps(case.facts)) == case.facts


def test_labels_follow_the_scheme_and_every_case_has_a_tumour(cases: dict[int, PhantomCase]) -> None:
    for case in cases.values():
        SCHEMES["kits"].check(case.labels.array)
        assert {0, 1, 2} <= set(np.unique(case.labels.array).tolist())
    cysts = [3 in case.labels.array for case in cases.values()]
    assert any(cysts) and not all(cysts)


def test_trunk_is_kits_with_liver_and_spleen_beside(cases: dict[int, PhantomCase], abdomen: PhantomCase) -> None:
    made = make_case(3, small=True, labels="trunk")
    kits, trunk = cases[3].labels.array, made.labels.array
    assert (made.ct.array == cases[3].ct.array).all()
    assert (np.where(trunk <= 3, trunk, 0) == kits).all(), "KiTS' own labels, untouched"
    assert ((trunk == 4) == (abdomen.labels.array == 3)).all() and ((trunk == 6) == (abdomen.labels.array == 4)).all()
    assert SCHEMES["trunk"].labels[:3] == SCHEMES["kits"].labels
    sick = next(s for s in range(60) if any(x.kind == "liver tumour" for x in draw_patient(s).lesions))
    found = make_case(sick, shape=(100, 88, 40), spacing_mm=(3.8, 3.8, 6.0), labels="trunk").labels.array
    assert set(np.unique(found)) >= {0, 1, 4, 5, 6}


def test_kidneys_are_whole_within_the_field(cases: dict[int, PhantomCase]) -> None:
    for case in cases.values():
        for axis in range(3):
            assert not case.labels.array.take([0, -1], axis=axis).any()


def test_the_patient_is_not_mirrored(abdomen: PhantomCase) -> None:
    labels = abdomen.labels
    right, left, liver, spleen = (labels.world(np.argwhere(labels.array == v).mean(axis=0)) for v in (1, 2, 3, 4))
    assert right[0] > 40 and left[0] < -40 and liver[0] > 20 and spleen[0] < -60
    bone = labels.world(np.argwhere(abdomen.ct.array[40:80] > 350).mean(axis=0) + np.array([40, 0, 0]))
    assert bone[1] < liver[1] - 30, "the spine lies behind the liver"
    lung = abdomen.ct.world(np.argwhere(_inside(abdomen) & (abdomen.ct.array < -700)).mean(axis=0))
    assert lung[2] > right[2] + 30, "the lungs lie above the kidneys"


def _inside(case: PhantomCase) -> np.ndarray:
    """The posterior inside of the body: between the skin's first and last rows, away from the bowel's gas."""
    y = case.ct.world(np.stack(np.meshgrid(*map(np.arange, case.ct.shape), indexing="ij"), axis=-1))
    ct = case.ct.array
    before = np.cumsum(ct > -300, axis=1) > 3
    behind = np.cumsum((ct > -300)[:, ::-1], axis=1)[:, ::-1] > 3
    return before & behind & (y[..., 1] < -20)


def test_hounsfield_units_of_organs(abdomen: PhantomCase) -> None:
    ct, labels = abdomen.ct.array, abdomen.labels.array
    assert abdomen.facts["phase"] in ("arterial", "nephrographic")
    medians = {name: np.median(ct[labels == v]) for name, v in (("liver", 3), ("spleen", 4), ("kidney", 1))}
    assert 50 < medians["liver"] < 130 and 80 < medians["spleen"] < 150 and 110 < medians["kidney"] < 230
    assert -1010 < np.median(ct[:, 0]) < -985, "air in front of the patient"
    body = ct[(ct > -150) & (ct < -50)]
    assert len(body) > 0.1 * ct.size and abs(np.median(body) + 100) < 10, "fat"
    muscle = ct[(ct > 20) & (ct < 90) & (labels == 0)]
    assert 45 < np.median(muscle) < 70
    assert (ct > 400).sum() > 500, "bone"


def test_lesions_stand_out(cases: dict[int, PhantomCase]) -> None:
    for case in cases.values():
        ct, labels = case.ct.array, case.labels.array
        kidney, tumour = np.median(ct[labels == 1]), np.median(ct[labels == 2])
        assert 15 < kidney - tumour < 140
        for cyst in (lesion for lesion in case.facts["lesions"] if lesion["kind"] == "cyst"):
            assert cyst["volume_ml"] > 0.5


def test_sizes_are_those_of_people() -> None:
    patients = [draw_patient(seed, small=True) for seed in range(60)]
    radii = np.array([np.prod(k.radii) * p.torso.scale**3 for p in patients for k in p.kidneys]) * 4 / 3 * np.pi / 1000
    assert 190 < np.median(radii) < 260  # the outline, of which the sinus takes about a tenth
    tumours = [lesion for p in patients for lesion in p.lesions if lesion.kind == "tumour"]
    volumes = np.array([np.prod(t.shape.radii) for t in tumours]) * 4 / 3 * np.pi / 1000
    assert 22 < np.median(volumes) < 48
    with_cyst = np.mean([any(lesion.kind == "cyst" for lesion in p.lesions) for p in patients])
    assert 0.3 < with_cyst < 0.7
    assert {p.contrast.phase for p in patients} == {"arterial", "nephrographic"}


def test_facts_tell_what_the_labels_hold(cases: dict[int, PhantomCase]) -> None:
    for case in cases.values():
        ml = case.labels.voxel_ml
        volumes = case.facts["volumes_ml"]
        assert (case.labels.array == 1).sum() * ml == pytest.approx(
            volumes["right_kidney"] + volumes["left_kidney"], abs=0.01
        )
        for label, kind in ((2, "tumour"), (3, "cyst")):
            told = sum(lesion["volume_ml"] for lesion in case.facts["lesions"] if lesion["kind"] == kind)
            assert (case.labels.array == label).sum() * ml == pytest.approx(told, abs=0.01)
        for lesion in case.facts["lesions"]:
            assert (lesion["centre_mm"][0] > 0) == (lesion["side"] == "right")


def test_one_patient_on_two_grids() -> None:
    spacing = (4.0, 4.0, 5.0)
    coarse = make_case(4, shape=(100, 80, 40), spacing_mm=spacing, small=True)
    fine = make_case(4, small=True)
    assert coarse.ct.spacing_mm == pytest.approx(spacing) and coarse.ct.shape == (100, 80, 40)
    for name in ("right_kidney", "left_kidney"):
        assert coarse.facts["volumes_ml"][name] == pytest.approx(fine.facts["volumes_ml"][name], rel=0.06)


def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch, cases: dict[int, PhantomCase]) -> None:
    monkeypatch.setattr("hilum.phantom.canvas.SLAB_VOXELS", 100_000)
    again = make_case(0, small=True)
    assert (again.labels.array == cases[0].labels.array).all()
    assert (again.ct.array == cases[0].ct.array).all()


def test_phases() -> None:
    for phase, enhanced in ENHANCED.items():
        hu = draw_contrast(np.random.default_rng(0), phase, 0.0).hu
        assert set(hu) == set(PLAIN) and set(enhanced) <= set(PLAIN)
        assert (hu["cortex"] > 90) == (phase != "none")
        assert (hu["aorta"] > 200) == (phase == "arterial")
    case = make_case(1, small=True, phase="none")
    assert case.facts["phase"] == "none" and np.median(case.ct.array[case.labels.array == 1]) < 50


@pytest.mark.parametrize(
    "options",
    [
        {"labels": "msd"},
        {"phase": "late"},
        {"appearance": "odd"},
        {"shape": (4, 100, 100)},
        {"spacing_mm": (0.0, 1.0, 1.0)},
        {"seed": -1},
    ],
)
def test_wrong_use_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        make_case(**{"seed": 0, "small": True, **options})  # type: ignore[arg-type]


def test_distances() -> None:
    x, y, z = (np.array(a, dtype=np.float32) for a in ([0, 3, 10], [0, 4, 0], [0, 0, 0]))
    ball = ellipsoid_distance(x + np.float32(1e-3), y, z, (5.0, 5.0, 5.0))
    assert ball == pytest.approx([-5, 0, 5], abs=0.01)
    tube = tube_distance(Tube(((0, 0, 0), (10, 0, 0)), (2, 4)), x, y, z)
    assert tube == pytest.approx([-2, 4 - 2.6, -4], abs=1e-4)
    a, b = np.float32([-1.0, 5.0]), np.float32([20.0, 5.0])
    assert smooth_union(a, b, 4.0) == pytest.approx([-1, 4])
    assert smooth_cut(a, b, 4.0)[0] == pytest.approx(-1)
    low, high = Ellipsoid((1, 2, 3), (1, 2, 3)).bounds()
    assert low.tolist() == [0, 0, 0] and high.tolist() == [2, 4, 6]


def test_noise_has_spread_one_wherever_it_is_sampled() -> None:
    noise = Noise(np.random.default_rng(1), 12.0)
    z, y, x = (np.linspace(-150, 150, n) for n in (40, 50, 60))
    whole = noise.on(z, y, x)
    assert abs(whole.mean()) < 0.1 and 0.9 < whole.std() < 1.1
    assert (noise.on(z[7:9], y, x) == whole[7:9]).all()


def test_acquisition_blurs_and_adds_noise() -> None:
    hu = np.full((6, 64, 64), 40, np.float32)
    hu[:, :, 32:] = 240
    scanner = Scanner(0.7, 0.08, 20.0, 0.6, (0.0, 0.0))
    image = np.stack(list(acquire(hu, (1.0, 1.0, 2.0), scanner, np.random.default_rng(0))))
    flat = image[:, :, :24].astype(float)
    assert image.dtype == np.int16 and flat.mean() == pytest.approx(40, abs=1.5)
    assert flat.std() == pytest.approx(scanner.noise_spread((1.0, 1.0, 2.0)), rel=0.1)
    beside = np.corrcoef(flat[:, :, :-1].ravel(), flat[:, :, 1:].ravel())[0, 1]
    assert beside > 0.15, "neighbours share noise"
    assert 90 < image[:, :, 31:33].mean() < 190, "the edge is blurred"


TINY = {"small": True, "shape": (40, 36, 20), "spacing_mm": (9.0, 9.0, 9.0)}


def test_write_set_round_trip_and_resume(tmp_path: Path) -> None:
    out = tmp_path / "set"
    first = write_set(out, 2, 5, workers=1, **TINY)  # type: ignore[arg-type]
    assert [case.name for case in first] == ["case_000", "case_001"]
    assert read_scan(first[0].image).codes == "LPS"
    kits = read_labels(first[0].labels, SCHEMES["kits"])
    ml = kits.voxel_ml * (kits.array == 1).sum()
    volumes = first[0].facts["volumes_ml"]
    assert ml == pytest.approx(volumes["right_kidney"] + volumes["left_kidney"], abs=0.01)
    stamp = first[0].image.stat().st_mtime_ns
    first[1].labels.unlink()
    again = write_set(out, 3, 5, workers=1, **TINY)  # type: ignore[arg-type]
    assert len(again) == 3 and again[0].image.stat().st_mtime_ns == stamp and again[1].labels.is_file()
    assert [case.facts for case in again[:2]] == [case.facts for case in first]
    with pytest.raises(OutputError, match="another seed"):
        write_set(out, 3, 6, workers=1, **TINY)  # type: ignore[arg-type]
    shorter = write_set(out, 1, 5, workers=1, **TINY)  # type: ignore[arg-type]
    assert len(shorter) == 1


@pytest.mark.parametrize(
    ("layout", "files"),
    [
        ("nnunet", ["imagesTr/case_000_0000.nii.gz", "labelsTr/case_000.nii.gz"]),
        ("kits", ["case_00000/imaging.nii.gz", "case_00000/segmentation.nii.gz"]),
    ],
)
def test_layouts(tmp_path: Path, layout: str, files: list[str]) -> None:
    write_set(tmp_path / "s", 1, 0, layout=layout, workers=1, **TINY)  # type: ignore[arg-type]
    assert all((tmp_path / "s" / file).is_file() for file in files)


def test_workers_change_nothing(tmp_path: Path) -> None:
    one = write_set(tmp_path / "one", 2, 1, workers=1, **TINY)  # type: ignore[arg-type]
    progress = Progress()
    two = write_set(tmp_path / "two", 2, 1, workers=2, progress=progress, **TINY)  # type: ignore[arg-type]
    for a, b in zip(one, two, strict=True):
        assert (read_scan(a.image).array == read_scan(b.image).array).all()
        assert a.facts == b.facts


def test_write_set_refuses(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="not an empty folder"):
        write_set(tmp_path, 1, 0, workers=1)
    for wrong in (
        {"layout": "x"},
        {"labels": "x"},
        {"layout": "kits23", "labels": "lits"},
        {"phase": "late"},
        {"workers": 0},
    ):
        with pytest.raises(UsageError):
            write_set(tmp_path / "new", 1, 0, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        write_set(tmp_path / "new", 0, 0)
