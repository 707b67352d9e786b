"""Batches: the same at any step whatever was asked before, normalised, mirrored only where allowed, faults arrive."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from hilum.config import PatchOptions
from hilum.errors import RecipeError, ScanError
from hilum.labels import SCHEMES
from hilum.patches.augment import PRESETS
from hilum.patches.batches import Batches, lesion_weights, mirror_axes
from hilum.prepare.plan import Normalisation, Plan
from hilum.prepare.store import build_store

KITS, ABDOMEN = SCHEMES["kits"], SCHEMES["abdomen"]


@dataclass(frozen=True)
class FakeNormalisation:
    low: float = -100.0
    high: float = 300.0

    def apply(self, values: Any) -> Any:
        return (values.clip(self.low, self.high) - 100) / 50


@dataclass(frozen=True)
class FakePlan:
    dims: int = 3
    patch: tuple[int, int, int] = (8, 12, 12)
    batch: int = 2
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    separate_z: bool = False
    normalisation: FakeNormalisation = FakeNormalisation()
    context: int = 0


@dataclass
class FakeCase:
    image_DHW: np.ndarray
    labels_DHW: np.ndarray
    locations: dict[int, np.ndarray]
    lesions: dict[int, tuple[np.ndarray, ...]] = field(default_factory=dict)
    counts: tuple[int, ...] = ()


class FakeStore:
    """Two cases whose label says how bright the image is: HU 0 for background, 100 for class 1, 200 for class 2."""

    def __init__(self, shape: tuple[int, int, int] = (16, 20, 20)) -> None:
        self.cases, self.threads = {}, set()
        for name in ("a", "b"):
            labels = np.zeros(shape, np.uint8)
            labels[4:9, 5:13, 3:10] = 1
            labels[6:9, 9:13, 6:14] = 2
            places = {k: np.argwhere(labels == k).astype(np.int32) for k in (1, 2)}
            self.cases[name] = FakeCase((labels * 100).astype(np.int16), labels, places)

    def case(self, name: str) -> FakeCase:
        self.threads.add(threading.current_thread().name)
        return self.cases[name]


def batches(store: FakeStore | None = None, plan: FakePlan | None = None, **changes: Any) -> Batches:
    given: dict[str, Any] = {"scheme": KITS, "device": "cpu", "seed": 1, "options": PatchOptions(), **changes}
    return Batches(store or FakeStore(), ("a", "b"), plan or FakePlan(), **given)  # type: ignore[arg-type]


def same(a: Any, b: Any) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.names == b.names


def test_shapes_and_types() -> None:
    with batches() as source:
        batch = source.batch(0)
    assert batch.images.shape == (2, 1, 8, 12, 12) and batch.images.dtype == torch.float32
    assert batch.labels.shape == (2, 8, 12, 12) and batch.labels.dtype == torch.int64
    assert len(batch.names) == 2 and set(batch.names) <= {"a", "b"}


def test_two_dimensions() -> None:
    with batches(plan=FakePlan(dims=2, patch=(1, 12, 12), batch=3)) as source:
        for step in range(6):
            batch = source.batch(step)
            assert batch.images.shape == (3, 1, 12, 12) and batch.labels.shape == (3, 12, 12)
            assert all(axis != 0 for item in source.parameters(step).items for axis in item.flips)


def test_any_order_and_any_prefetch_give_the_same_batches() -> None:
    with batches() as source:
        forwards = [source.batch(step) for step in range(6)]
    with batches(prefetch=0) as resumed:
        assert all(same(resumed.batch(step), forwards[step]) for step in (5, 2, 3, 2))
    with batches(seed=2) as other:
        assert not same(other.batch(0), forwards[0])


def test_boxes_are_cut_in_threads_and_the_waiting_is_counted() -> None:
    store = FakeStore()
    with batches(store) as source:
        assert source.wait_seconds == 0
        source.batch(0)
        assert source.wait_seconds > 0
    assert store.threads and all(name.startswith("patches") for name in store.threads)


def test_unaugmented_patches_are_the_prepared_voxels() -> None:
    with batches(augmented=False) as source:
        for step in range(4):
            batch = source.batch(step)
            torch.testing.assert_close(batch.images[:, 0], (batch.labels * 100.0 - 100) / 50)
            assert batch.labels[-1].any(), "the last item is centred on foreground"


def test_labels_stay_on_their_voxels_under_the_spatial_changes() -> None:
    options = PatchOptions(
        augment="none", augment_options={"rotation_probability": 1, "scale_probability": 1, "mirror": True}
    )
    with batches(plan=FakePlan(patch=(14, 18, 18)), options=options) as source:
        for step in range(4):
            batch = source.batch(step)
            looks_like = ((batch.images[:, 0] + 2) / 2).clip(0)  # air, outside the case, is background
            # interpolation blurs the borders only
            assert ((looks_like - batch.labels).abs() <= 0.5 + 1e-4).float().mean() > 0.97


def test_patch_larger_than_the_case_is_padded_with_air_and_background() -> None:
    with batches(plan=FakePlan(patch=(20, 20, 24)), augmented=False) as source:
        batch = source.batch(0)
    assert (batch.images[:, :, :2] == -4).all() and (batch.images[:, :, :, :, :2] == -4).all()
    assert (batch.labels[:, :2] == 0).all() and batch.labels.any()


def test_sided_schemes_are_never_mirrored_left_to_right() -> None:
    assert mirror_axes(3, KITS) == (0, 1, 2) and mirror_axes(2, KITS) == (1, 2)
    assert mirror_axes(3, ABDOMEN) == (0, 1) and mirror_axes(2, ABDOMEN) == (1,)
    with batches(scheme=ABDOMEN) as source:
        flips = {axis for step in range(60) for item in source.parameters(step).items for axis in item.flips}
    assert flips == {0, 1}


def test_thick_slices_are_not_mixed() -> None:
    with batches(plan=FakePlan(spacing_mm=(5.0, 1.0, 1.0), separate_z=True)) as source:
        matrices = [item.matrix for step in range(40) for item in source.parameters(step).items if item.matrix]
    assert matrices and all(matrix[0] == (1.0, 0.0, 0.0) for matrix in matrices)


def test_lesions_count_double() -> None:
    assert dict(lesion_weights(KITS)) == {1: 1.0, 2: 2.0, 3: 2.0}


def test_faults_in_threads_reach_the_caller() -> None:
    class Damaged(FakeStore):
        def case(self, name: str) -> FakeCase:
            raise ScanError("is cut off", where=f"{name}.npy")

    with batches(Damaged()) as source:
        for _ in range(2):
            with pytest.raises(ScanError, match=r"[ab]\.npy: is cut off"):
                source.batch(3)


def test_wrong_options_are_refused_before_anything_runs() -> None:
    with pytest.raises(RecipeError, match="much"):
        batches(options=PatchOptions(augment="much"))


@dataclass(frozen=True)
class Files:
    name: str
    image: Path
    labels: Path
    patient: str


def test_a_real_store(tmp_path: Path) -> None:
    plan = Plan(
        dims=3, spacing_mm=(1.0, 1.0, 1.0), patch=(8, 12, 12), batch=2, features=(8, 16), kernels=((3, 3, 3),) * 2,
        strides=((1, 1, 1), (2, 2, 2)), convs_per_stage=(2, 2), separate_z=False, median_shape=(20, 28, 24),
        normalisation=Normalisation("ct", -100.0, 300.0, 100.0, 50.0),
    )  # fmt: skip
    cases = []
    for seed, name in enumerate(("a", "b")):
        labels = np.zeros((24, 28, 20), np.uint8)  # R, A, S
        labels[5:15, 8:20, 4:12], labels[9:13, 10:14, 6:9] = 1, 2
        scan = labels * 100 + np.random.default_rng(seed).integers(-40, 41, labels.shape)
        scan[0] = -1000
        files = tmp_path / f"{name}.nii.gz", tmp_path / f"{name}_labels.nii.gz"
        nibabel.Nifti1Image(scan.astype(np.int16), np.eye(4)).to_filename(files[0])
        nibabel.Nifti1Image(labels, np.eye(4)).to_filename(files[1])
        cases.append(Files(name, *files, patient=name))
    store = build_store(tmp_path / "store", cases, plan, KITS, workers=1)  # type: ignore[arg-type]
    assert (store.case("a").image_DHW == -1000).any()
    with Batches(store, store.names, plan, PatchOptions(augment="none"), KITS, "cpu", 0) as source:
        for step in range(5):
            batch = source.batch(step)
            body = batch.images[:, 0] > -4
            assert ((batch.images[:, 0] * 50 + 100 - batch.labels * 100)[body].abs() <= 40.01).all()
            assert batch.labels[-1].any()


@pytest.mark.gpu
def test_cuda_batches_are_repeatable() -> None:
    with batches(device="cuda") as source:
        first = [source.batch(step) for step in range(4)]
        assert first[0].images.is_cuda and all(same(source.batch(step), first[step]) for step in range(4))


def test_every_preset_feeds_batches() -> None:
    for preset in PRESETS:
        with batches(options=PatchOptions(augment=preset), plan=FakePlan(patch=(6, 12, 12))) as source:
            for step in range(3):
                batch = source.batch(step)
                assert batch.images.isfinite().all() and int(batch.labels.max()) <= 2


def test_a_scanner_s_changes_reach_the_batch_before_the_window_clips() -> None:
    changed = {"ct_noise_probability": 1, "ct_noise_hu": [200, 200], "ct_noise_mm": [0.4, 0.4]}
    with batches(options=PatchOptions(augment="none", augment_options=changed)) as source:
        noisy = source.batch(0).images
    with batches(options=PatchOptions(augment="none")) as source:
        clean = source.batch(0).images
    assert noisy.min() == -4 and noisy.max() == 4, "200 HU of noise, cut off at -100 and 300 HU"
    assert (noisy - clean).std() > 1
