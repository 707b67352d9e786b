"""Bending, cropping, stretching: never folded, never outside the box, labels with the image, one interpolation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.patches import spatial
from hilum.patches.augment import (
    PRESETS,
    AugmentSettings,
    ItemParameters,
    apply_item,
    draw_item,
    settings_from,
    source_box,
)
from hilum.patches.elastic import Bend, displacements, spline_weights

IDENTITY = spatial.turn_and_scale((0, 0, 0), (1, 1, 1), (1, 1, 1))
CPU = torch.device("cpu")
BENDS = AugmentSettings(elastic_probability=1, elastic_mm=(8, 16), elastic_share=(0.3, 0.4))


def normalise(image: torch.Tensor) -> torch.Tensor:
    return (image.clamp(-100, 300) - 100) / 50


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 60), distance=st.floats(1, 80))
def test_spline_weights_are_shares(n: int, distance: float) -> None:
    weights = spline_weights(n, distance)
    assert (weights >= 0).all() and weights.sum(axis=1) == pytest.approx(np.ones(n), abs=1e-6)
    if weights.shape[1] > 4 and n > 1:  # a straight line of control points gives a straight line
        line = weights @ np.arange(weights.shape[1])
        assert np.diff(line) == pytest.approx(np.full(n - 1, 1 / distance), abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), distance=st.floats(4, 20), share=st.floats(0, 0.4))
def test_nothing_folds(seed: int, distance: float, share: float) -> None:
    shape = (9, 14, 17)
    field = displacements(Bend((distance,) * 3, (share * distance,) * 3, seed), shape, CPU)(slice(None)).double()
    assert field.abs().max() <= share * distance + 1e-5
    here = torch.stack(torch.meshgrid(*[torch.arange(n).double() for n in shape], indexing="ij")) + field
    steps = [here.diff(dim=axis) for axis in (1, 2, 3)]
    along = [step[:, : shape[0] - 1, : shape[1] - 1, : shape[2] - 1] for step in steps]
    volume = torch.linalg.det(torch.stack(along, -1).movedim(0, -2))
    assert volume.min() > 0


def test_pieces_of_a_field_are_the_field() -> None:
    field = displacements(Bend((6.0, 7.0, 8.0), (1.0, 2.0, 3.0), 5), (9, 10, 11), CPU)
    whole = field(slice(None))
    torch.testing.assert_close(torch.cat([field(slice(0, 4)), field(slice(4, 9))], dim=1), whole)
    assert [float(axis.abs().max()) > limit / 4 for axis, limit in zip(whole, (1, 2, 3), strict=True)] == [True] * 3


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), dims=st.sampled_from([2, 3]), in_plane=st.booleans(), depth_mm=st.floats(0.7, 6))
def test_the_box_holds_all_that_is_read(seed: int, dims: int, in_plane: bool, depth_mm: float) -> None:
    shape = (1, 14, 18) if dims == 2 else (8, 14, 18)
    item = draw_item(
        replace(BENDS, rotation_probability=0.5, scale_probability=0.5, scale_per_axis=True, crop_probability=0.5),
        dims, np.random.default_rng(seed), spacing_mm=(depth_mm, 1, 1), in_plane=in_plane,
    )  # fmt: skip
    assert item.matrix is not None and item.bend is not None
    box = source_box(item, shape)
    # a wider box gives the same patch: nothing outside the first was wanted
    more = tuple(n + 4 if k or not item.bend.flat else n for k, n in enumerate(box))
    image = torch.randn((1, *more), generator=torch.Generator().manual_seed(seed))
    labels = (image[0] > 0).to(torch.uint8)
    wide, wide_labels = apply_item(item, image, labels, shape)
    tight, tight_labels = apply_item(item, *spatial.crop(image, labels, box), shape)
    torch.testing.assert_close(wide, tight, rtol=0, atol=1e-3)
    assert (wide_labels == tight_labels).float().mean() > 0.99


@pytest.mark.parametrize(("dims", "in_plane"), [(2, False), (3, True), (3, False)])
def test_bent_labels_stay_on_the_bent_image(dims: int, in_plane: bool) -> None:
    shape = (1, 40, 44) if dims == 2 else (24, 40, 44)
    item = draw_item(BENDS, dims, np.random.default_rng(1), in_plane=in_plane)
    box = source_box(item, shape)
    z, y, x = (torch.arange(n) - (n - 1) / 2 for n in box)
    inside = (z / 9)[:, None, None] ** 2 + ((y + 3) / 12)[:, None] ** 2 + ((x - 4) / 14) ** 2 <= 1
    image, labels = apply_item(item, inside.float()[None], inside.to(torch.uint8), shape)
    found = image[0] > 0.5
    overlap = 2 * (found & (labels == 1)).sum() / (found.sum() + labels.sum())
    assert overlap > 0.97 and labels.sum() > 500
    assert not torch.equal(labels, spatial.crop(image, inside.to(torch.uint8), shape)[1]), "it is bent"
    if in_plane:  # every slice alike
        flat = apply_item(item, y[:, None].expand(1, *box).contiguous(), inside.to(torch.uint8), shape)[0]
        torch.testing.assert_close(flat, flat[:, :1].expand(flat.shape), rtol=0, atol=1e-5)


def test_a_bend_of_nothing_changes_nothing() -> None:
    image, labels = torch.randn(1, 6, 8, 9), torch.randint(0, 5, (6, 8, 9))
    for bend in (Bend((5.0, 5.0, 5.0), (0.0, 0.0, 0.0), 1), Bend((0.0, 5.0, 5.0), (0.0, 0.0, 0.0), 1)):
        out, out_labels = apply_item(ItemParameters(IDENTITY, bend=bend), image, labels, (6, 8, 9))
        torch.testing.assert_close(out, image, rtol=0, atol=1e-5)
        assert torch.equal(out_labels, labels)


def test_a_crop_shows_a_part_enlarged() -> None:
    # half of each edge, in steps of half a voxel; its middle lies an eighth of the way from first to last voxel away
    matrix = spatial.turn_and_scale((0, 0, 0), (2, 2, 2), (1, 1, 1))
    item = ItemParameters(matrix, shift=(0.0, 0.0, 0.125))
    assert source_box(item, (8, 8, 8)) == (8, 8, 8)
    ramp = torch.arange(8.0).expand(1, 8, 8, 8)
    out, _ = apply_item(item, ramp, torch.zeros(8, 8, 8, dtype=torch.uint8), (8, 8, 8))
    torch.testing.assert_close(out[0, 0, 0], torch.arange(8) * 0.5 + 1.75 + 7 / 8)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), low=st.floats(0.2, 0.99), dims=st.sampled_from([2, 3]))
def test_crops_stay_inside_the_patch(seed: int, low: float, dims: int) -> None:
    item = draw_item(
        AugmentSettings(crop_probability=1, crop_range=(low, 1)),
        dims,
        np.random.default_rng(seed),
        spacing_mm=(2, 1, 1),
    )
    shape = (1 if dims == 2 else 12, 20, 24)
    assert source_box(item, shape) == shape
    assert item.matrix is not None and low - 1e-9 <= item.matrix[1][1] <= 1


def test_views_and_magnifications() -> None:
    def sizes(**changed: object) -> np.ndarray:
        chosen = AugmentSettings(scale_probability=1, scale_range=(0.5, 1.0), **changed)
        items = [draw_item(chosen, 3, np.random.default_rng(seed)) for seed in range(200)]
        return np.array([np.diag(item.matrix) for item in items])

    assert (sizes() >= 1).all() and (sizes().std(axis=1) < 1e-12).all(), "things look smaller: more is read"
    assert (sizes(scale_of_view=True) <= 1).all()
    each = sizes(scale_per_axis=True)
    assert (np.abs(np.corrcoef(each.T) - np.eye(3)) < 0.25).all()


def test_the_winner_of_kits23_moves_within_slices_and_together() -> None:
    items = [draw_item(PRESETS["kits23_winner"], 3, np.random.default_rng(seed)) for seed in range(2000)]
    moved = [np.array(item.matrix) for item in items if item.matrix]
    assert len(moved) / 2000 == pytest.approx(0.5, abs=0.04)
    assert all((m[0] == (1, 0, 0)).all() and (m[1:, 0] == 0).all() for m in moved)
    views = np.array([np.linalg.norm(m, axis=0)[1:] for m in moved])
    assert views.min() >= 0.65 - 1e-9 and views.max() <= 1.35 + 1e-9
    assert np.ptp(views) > 0.65 and np.corrcoef(views.T)[0, 1] == pytest.approx(0, abs=0.1)
    turns = np.degrees([np.arctan2(m[2, 1], m[1, 1]) for m in moved])
    assert 14 < np.abs(turns).max() <= 14.9
    names = [name for item in items for name, _ in item.changes]
    assert set(names) == {"gamma", "histogram"} and not any(item.acquisition for item in items)
    assert names.count("histogram") / 2000 == pytest.approx(0.5, abs=0.04)
    assert names.count("gamma") / 2000 == pytest.approx(0.2, abs=0.03)
    powers = [arguments[0] for item in items for name, arguments in item.changes if name == "gamma"]
    assert min(powers) >= 0.5 and max(powers) <= 3 and np.mean(powers) == pytest.approx(1.75, abs=0.12)


def test_flat_patches_turn_all_around_where_nnunet_turns_them() -> None:
    def largest(preset: str, **options: object) -> float:
        chosen = settings_from(preset, {"rotation_probability": 1, "scale_probability": 0})
        items = [draw_item(chosen, 3, np.random.default_rng(seed), **options) for seed in range(100)]
        return max(abs(float(np.degrees(np.arctan2(item.matrix[2][1], item.matrix[1][1])))) for item in items)

    assert largest("default", in_plane=True) > 160 and largest("default") < 60 and largest("light", in_plane=True) <= 15


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("in_plane", [False, True])
def test_image_and_labels_are_interpolated_at_most_once(
    preset: str, in_plane: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    counted = {"grid_sample": "image", "_between": "image", "_take": "read"}
    for name, what in counted.items():
        function = getattr(spatial, name)
        monkeypatch.setattr(
            spatial, name, lambda *a, _f=function, _w=what, **k: (calls.append(_w), _f(*a, **k))[1]
        )  # fmt: skip
    resample = spatial.resample
    monkeypatch.setattr(spatial, "resample", lambda *a, **k: (calls.append("resample"), resample(*a, **k))[1])
    chosen = replace(
        PRESETS[preset], **{f"{kind}_probability": 1.0 for kind in ("spatial", "rotation", "scale", "crop", "elastic")}
    )
    for item, often in ((draw_item(chosen, 3, np.random.default_rng(2), in_plane=in_plane), 1), (ItemParameters(), 0)):
        calls.clear()
        box = source_box(item, (6, 12, 14))
        apply_item(item, torch.randn(1, *box), torch.zeros(box, dtype=torch.uint8), (6, 12, 14), normalise)
        assert calls.count("resample") == calls.count("image") == often
        assert (item.matrix is not None) == bool(often)
        assert calls.count("read") <= 9, "eight neighbours of the image and one of the labels"


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    preset=st.sampled_from(list(PRESETS)),
    dims=st.sampled_from([2, 3]),
    in_plane=st.booleans(),
)
def test_labels_stay_in_the_set_and_images_finite(seed: int, preset: str, dims: int, in_plane: bool) -> None:
    shape = (1, 12, 16) if dims == 2 else (6, 12, 16)
    rng = np.random.default_rng(seed)
    item = draw_item(PRESETS[preset], dims, rng, spacing_mm=(3, 1, 1), in_plane=in_plane)
    box = source_box(item, shape)
    image = torch.from_numpy(rng.normal(0, 300, (1, *box)).astype(np.float32))
    labels = torch.from_numpy(rng.choice([0, 2, 7], box).astype(np.uint8))
    before = image.clone()
    out, out_labels = apply_item(item, image, labels, shape, normalise)
    assert torch.equal(image, before), "what came in is left alone"
    assert out.shape == (1, *shape) and out.isfinite().all() and out.dtype == torch.float32
    assert set(out_labels.unique().tolist()) <= {0, 2, 7} and out_labels.dtype == torch.uint8


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_what_they_were_and_change_nothing(threads: int) -> None:
    before = torch.get_num_threads()
    matrix = spatial.turn_and_scale((20, -13, 8), (1, 1, 1), (1, 1, 1))
    shape = (20, 60, 60)  # several pieces
    box = spatial.source_shape(matrix, shape)
    image = torch.randn((1, *box), generator=torch.Generator().manual_seed(0))
    labels = (image[0] > 0).to(torch.uint8)
    alone = spatial.resample(image, labels, matrix, shape)
    try:
        torch.set_num_threads(threads)
        found = spatial.resample(image, labels, matrix, shape)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], alone[0]) and torch.equal(found[1], alone[1])
