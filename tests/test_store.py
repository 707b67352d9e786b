"""The store: what is in it, what makes a case stale, and that nothing half-done is ever read."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hilum.datasets import CaseRef
from hilum.errors import DatasetError, InputError, OutputError, UsageError
from hilum.labels import LabelScheme, scheme_from
from hilum.prepare import store as store_module
from hilum.prepare.plan import Normalisation, Plan
from hilum.prepare.store import LOCATIONS, Store, build_store, open_store
from hilum.scans import write_labels, write_scan
from hilum.volume import Volume

LITS = scheme_from({"name": "odd", "values": {"liver": 3, "tumour": 9}})
PLAN = Plan(
    dims=3,
    spacing_mm=(2.0, 2.0, 2.0),
    patch=(16, 16, 16),
    batch=2,
    features=(8, 16),
    kernels=((3, 3, 3),) * 2,
    strides=((1, 1, 1), (2, 2, 2)),
    convs_per_stage=(2, 2),
    normalisation=Normalisation("ct", -50.0, 300.0, 100.0, 70.0),
    separate_z=False,
    median_shape=(20, 22, 24),
)


def write_case(folder: Path, name: str, seed: int = 0) -> CaseRef:
    """30 x 32 x 34 mm with a liver (3) and a tumour (9), in LAS order."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((30, 32, 34), np.uint8)
    labels[3:27, 4:28, 5:30], labels[10:16, 10:16, 10:16] = 3, 9
    array = np.where(labels > 0, 100, -900) + rng.integers(-20, 20, labels.shape)
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    case = CaseRef(name, folder / f"{name}.nii.gz", folder / f"{name}-labels.nii.gz", name)
    assert case.labels is not None
    write_scan(case.image, Volume(array.astype(np.int16), affine))
    write_labels(case.labels, Volume(labels, affine))
    return case


@pytest.fixture
def cases(tmp_path: Path) -> list[CaseRef]:
    return [write_case(tmp_path / "in", name, seed) for seed, name in enumerate(("one", "two", "one.b"))]


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of cases that are really prepared, as they happen."""
    names: list[str] = []
    real = store_module._prepare

    def spy(folder: Path, case: CaseRef, *rest: object) -> None:
        names.append(case.name)
        real(folder, case, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(store_module, "_prepare", spy)
    return names


def test_what_is_in_it(tmp_path: Path, cases: list[CaseRef]) -> None:
    store = build_store(tmp_path / "store", cases, PLAN, LITS, workers=2)
    assert store.names == ("one", "two", "one.b")
    case = store.case("one")
    assert case.image_DHW.shape == case.labels_DHW.shape == case.grid.shape == (17, 16, 15)
    assert case.image_DHW.dtype == np.int16 and case.labels_DHW.dtype == np.uint8
    assert isinstance(case.image_DHW, np.memmap) and not case.image_DHW.flags.writeable
    assert set(np.unique(case.labels_DHW)) == {0, 1, 2}  # classes, not the file's 3 and 9
    assert case.counts == tuple(np.bincount(case.labels_DHW.ravel()))
    assert np.median(case.image_DHW[case.labels_DHW > 0]) == pytest.approx(100, abs=10)
    assert case.grid.spacing_mm == pytest.approx((2.0, 2.0, 2.0)) and case.grid.codes == "SPL"
    for index, places in case.locations.items():
        assert places.dtype == np.int32 and len(places) == case.counts[index]
        assert (case.labels_DHW[tuple(places.T)] == index).all()


def test_lesions_are_kept_one_by_one(tmp_path: Path) -> None:
    case = write_case(tmp_path, "one")
    assert case.labels is not None
    labels = np.zeros((30, 32, 34), np.uint8)
    labels[3:27, 4:28, 5:30], labels[8:18, 8:18, 8:18], labels[22:24, 22:24, 22:24] = 3, 9, 9
    write_labels(case.labels, Volume(labels, np.diag([-1.0, 1.0, 1.0, 1.0])))
    prepared = build_store(tmp_path / "store", [case], replace(PLAN, spacing_mm=(1.0, 1.0, 1.0)), LITS).case("one")
    assert list(prepared.lesions) == [2]  # the liver is no lesion
    assert sorted(len(voxels) for voxels in prepared.lesions[2]) == [8, 256]
    for voxels in prepared.lesions[2]:
        assert (prepared.labels_DHW[tuple(voxels.T)] == 2).all() and np.ptp(voxels, axis=0).max() < 10


def test_locations_are_a_seeded_sample(tmp_path: Path) -> None:
    case = write_case(tmp_path, "one")
    plan = replace(PLAN, spacing_mm=(1.0, 1.0, 1.0))
    places = [build_store(tmp_path / x, [case], plan, LITS).case("one").locations for x in ("a", "b")]
    assert len(places[0][1]) == LOCATIONS and len(np.unique(places[0][1], axis=0)) == LOCATIONS
    assert len(places[0][2]) == 216
    assert all(np.array_equal(places[0][k], places[1][k]) for k in (1, 2))


def test_built_cases_are_kept(tmp_path: Path, cases: list[CaseRef], prepared: list[str]) -> None:
    build_store(tmp_path / "store", cases[:2], PLAN, LITS, workers=1)
    build_store(tmp_path / "store", cases, PLAN, LITS, workers=1)
    assert prepared == ["one", "two", "one.b"]
    # what has no part in preparing makes nothing stale
    build_store(tmp_path / "store", cases, replace(PLAN, patch=(8, 8, 8), batch=4), LITS, workers=1)
    assert prepared == ["one", "two", "one.b"]


@pytest.mark.parametrize("change", ["image", "labels", "plan", "scheme", "array", "json"])
def test_what_makes_a_case_stale(tmp_path: Path, cases: list[CaseRef], prepared: list[str], change: str) -> None:
    folder = tmp_path / "store"
    store = build_store(folder, cases, PLAN, LITS, workers=1)
    prepared.clear()
    plan, scheme, stale = PLAN, LITS, ["one"]
    if change == "image":
        write_case(tmp_path / "in", "one", seed=5)
    elif change == "labels":
        assert cases[0].labels is not None
        os.utime(cases[0].labels, (1, 1))
    elif change == "plan":
        plan, stale = replace(PLAN, spacing_mm=(3.0, 2.0, 2.0)), ["one", "two", "one.b"]
    elif change == "scheme":
        scheme, stale = scheme_from({"name": "more", "values": {"cyst": 1, "liver": 3, "tumour": 9}}), list(store.names)
    elif change == "array":
        file = folder / json.loads((folder / "one.json").read_text())["files"]["image"]["name"]
        file.write_bytes(file.read_bytes()[:-7])
    else:
        (folder / "one.json").write_text("{")
    again = build_store(folder, cases, plan, scheme, workers=1)
    assert sorted(prepared) == sorted(stale)
    for name in again.names:
        assert again.case(name).image_DHW.shape == again.case(name).grid.shape
    assert len(list(folder.glob("*.npy"))) == 12 and len(list(folder.glob("*.json"))) == 4  # nothing old is left


def test_a_damaged_or_replaced_case_is_not_read(tmp_path: Path, cases: list[CaseRef]) -> None:
    folder = tmp_path / "store"
    store = build_store(folder, cases[:1], PLAN, LITS)
    with pytest.raises(UsageError, match="no case 'two'"):
        store.case("two")
    file = next(folder.glob("one.*.labels.npy"))
    whole = file.read_bytes()
    file.write_bytes(whole[:200])
    with pytest.raises(InputError, match="prepare the data again"):
        store.case("one")
    build_store(folder, cases[:1], replace(PLAN, spacing_mm=(3.0, 3.0, 3.0)), LITS)
    with pytest.raises(InputError, match="another plan"):
        store.case("one")


def test_opened_again(tmp_path: Path, cases: list[CaseRef]) -> None:
    built = build_store(tmp_path / "store", cases, PLAN, LITS)
    opened = open_store(tmp_path / "store")
    assert set(opened.names) == set(built.names) and opened.plan == PLAN
    assert opened.scheme.values == LITS.values
    assert np.array_equal(opened.case("two").image_DHW, built.case("two").image_DHW)
    with pytest.raises(InputError):
        open_store(tmp_path)
    table = json.loads((tmp_path / "store" / "store.json").read_text())
    (tmp_path / "store" / "store.json").write_text(json.dumps({**table, "format": 8}))
    with pytest.raises(InputError, match="format 8"):
        open_store(tmp_path / "store")


def test_bad_cases_are_named_and_good_ones_kept(tmp_path: Path, cases: list[CaseRef], prepared: list[str]) -> None:
    missing = CaseRef("gone", tmp_path / "gone.nii.gz", tmp_path / "gone-labels.nii.gz", "gone")
    with pytest.raises(DatasetError, match=r"1 of 4 cases cannot be used: \[gone\]"):
        build_store(tmp_path / "store", [missing, *cases], PLAN, LITS, workers=2)
    assert (tmp_path / "store" / "two.json").is_file()
    with pytest.raises(DatasetError, match="file names"):
        build_store(tmp_path / "store", [replace(cases[0], name="a/b")], PLAN, LITS)


def test_full_disk_leaves_whole_cases_or_none(
    tmp_path: Path, cases: list[CaseRef], monkeypatch: pytest.MonkeyPatch, prepared: list[str]
) -> None:
    real = np.save

    def full(handle: object, array: np.ndarray, **options: object) -> None:
        if len(prepared) == 2 and array.dtype == np.uint8:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle, array, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OutputError, match="disk is full"):
        build_store(tmp_path / "store", cases, PLAN, LITS, workers=1)
    monkeypatch.undo()
    assert sorted(p.name for p in (tmp_path / "store").glob("*.json")) == ["one.json", "store.json"]
    assert not [file for file in os.listdir(tmp_path / "store") if ".part-" in file]
    assert len(build_store(tmp_path / "store", cases, PLAN, LITS, workers=1).names) == 3


def test_leftovers_of_killed_runs_are_never_read(tmp_path: Path, cases: list[CaseRef]) -> None:
    folder = tmp_path / "store"
    build_store(folder, cases[:1], PLAN, LITS)
    old, young = folder / ".part-a-two.json", folder / ".part-b-two.json"
    for part in (old, young):
        part.write_text('{"key": ')
    os.utime(old, (1, 1))
    assert open_store(folder).names == ("one",)
    build_store(folder, cases[:1], PLAN, LITS)
    assert young.exists() and not old.exists()


def _build(folder: Path, cases: list[CaseRef], plan: Plan, scheme: LabelScheme) -> Store:
    return build_store(folder, cases, plan, scheme, workers=1)


def test_several_processes_at_once(tmp_path: Path, cases: list[CaseRef]) -> None:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        stores = [pool.submit(_build, tmp_path / "store", cases, PLAN, LITS) for _ in range(2)]
        names = [store.result().names for store in stores]
    assert names[0] == names[1]
    alone = build_store(tmp_path / "alone", cases, PLAN, LITS)
    for name in names[0]:
        ours, theirs = open_store(tmp_path / "store").case(name), alone.case(name)
        assert np.array_equal(ours.image_DHW, theirs.image_DHW) and np.array_equal(ours.labels_DHW, theirs.labels_DHW)
    assert len(list((tmp_path / "store").glob("*.npy"))) == 12
