"""Augmentation: identity is exact, applying repeats, labels move with the image, recipes are checked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.errors import RecipeError
from hilum.patches import intensity, spatial
from hilum.patches.acquisition import ACQUISITION
from hilum.patches.augment import (
    PRESETS,
    AugmentParameters,
    AugmentSettings,
    ItemParameters,
    apply_item,
    draw_item,
    settings_from,
    source_box,
)

SHAPE = (12, 16, 20)
KINDS = ("rotation", "scale", "crop", "elastic", *ACQUISITION, *intensity.CHANGES)
EVERYTHING = AugmentSettings(mirror=(0, 1, 2), **{f"{name}_probability": 1.0 for name in KINDS})


def draw(chosen: AugmentSettings, batch: int, *arguments: Any, **options: Any) -> AugmentParameters:
    return AugmentParameters(tuple(draw_item(chosen, *arguments, **options) for _ in range(batch)))


def source_shapes(parameters: AugmentParameters, patch: spatial.Shape3) -> list[spatial.Shape3]:
    return [source_box(item, patch) for item in parameters.items]


def apply(parameters: AugmentParameters, images: Any, labels: Any, shape: spatial.Shape3) -> tuple[torch.Tensor, ...]:
    done = [apply_item(*item, shape, torch.clone) for item in zip(parameters.items, images, labels, strict=True)]
    return torch.stack([image for image, _ in done]), torch.stack([label for _, label in done])


def boxes(parameters: AugmentParameters, seed: int = 0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    shapes = source_shapes(parameters, SHAPE)
    images = [torch.randn((1, *shape), generator=generator) for shape in shapes]
    return images, [torch.randint(0, 4, shape, generator=generator, dtype=torch.uint8) for shape in shapes]


def ellipsoid(shape: tuple[int, int, int]) -> torch.Tensor:
    """Bright, off centre, with three different axes: any mix-up of axes or signs shows."""
    z, y, x = (torch.arange(n) - (n - 1) / 2 for n in shape)
    return ((z - 3) / 5)[:, None, None] ** 2 + ((y + 4) / 7)[:, None] ** 2 + ((x - 5) / 9) ** 2 <= 1


def dice(a: torch.Tensor, b: torch.Tensor) -> float:
    return 2 * (a & b).sum().item() / (a.sum() + b.sum()).item()


def test_identity_gives_the_input_back_exactly() -> None:
    images, labels = torch.randn(2, 1, *SHAPE), torch.randint(0, 3, (2, *SHAPE))
    out, out_labels = apply(AugmentParameters((ItemParameters(), ItemParameters())), images, labels, SHAPE)
    assert torch.equal(out, images) and torch.equal(out_labels, labels) and out_labels.dtype == labels.dtype
    assert draw(PRESETS["none"], 2, 3, np.random.default_rng(0)).items == (ItemParameters(), ItemParameters())


def test_identity_matrix_interpolates_nothing() -> None:
    matrix = spatial.turn_and_scale((0, 0, 0), (1, 1, 1), (3, 1, 1))
    assert spatial.source_shape(matrix, SHAPE) == SHAPE
    image, labels = torch.randn(1, *SHAPE), torch.randint(0, 3, SHAPE)
    out, out_labels = spatial.resample(image, labels, matrix, SHAPE)
    torch.testing.assert_close(out, image, rtol=0, atol=1e-5)
    assert torch.equal(out_labels, labels)


def test_mirror_twice_is_the_input() -> None:
    image, labels = torch.randn(1, *SHAPE), torch.randint(0, 3, SHAPE)
    item = ItemParameters(flips=(0, 2))
    once = apply_item(item, image, labels, SHAPE)
    assert not torch.equal(once[0], image)
    twice = apply_item(item, *once, SHAPE)
    assert torch.equal(twice[0], image) and torch.equal(twice[1], labels)


@pytest.mark.parametrize("dims", [2, 3])
def test_draw_and_apply_repeat_and_leave_their_input_alone(dims: int) -> None:
    first = draw(EVERYTHING, 2, dims, np.random.default_rng(5))
    assert first == draw(EVERYTHING, 2, dims, np.random.default_rng(5))
    assert first != draw(EVERYTHING, 2, dims, np.random.default_rng(6))
    images, labels = boxes(first)
    before = [image.clone() for image in images]
    once, again = apply(first, images, labels, SHAPE), apply(first, images, labels, SHAPE)
    assert torch.equal(once[0], again[0]) and torch.equal(once[1], again[1])
    assert all(torch.equal(a, b) for a, b in zip(before, images, strict=True))
    assert once[0].shape == (2, 1, *SHAPE) and once[0].isfinite().all()
    assert once[1].shape == (2, *SHAPE) and once[1].dtype == torch.uint8 and once[1].max() <= 3


def test_changes_without_interpolation_leave_their_input_alone() -> None:
    image, labels = torch.randn(1, *SHAPE), torch.zeros(SHAPE, dtype=torch.uint8)
    before = image.clone()
    for name, arguments in (("noise", (0.1, 7)), ("brightness", (1.2,)), ("contrast", (0.8,)), ("gamma", (1.3,))):
        out, _ = apply_item(ItemParameters(changes=((name, arguments),)), image, labels, SHAPE)
        assert torch.equal(image, before) and not torch.equal(out, before), name


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_labels_move_with_the_image(spacing: tuple[float, float, float], seed: int) -> None:
    moves = AugmentSettings(rotation_probability=1, scale_probability=1, mirror=(0, 1, 2))
    parameters = draw(moves, 1, 3, np.random.default_rng(seed), spacing_mm=spacing)
    shape = (32, 40, 44)
    mask = ellipsoid(source_shapes(parameters, shape)[0])
    image, labels = apply(parameters, [mask.float()[None]], [mask.to(torch.uint8)], shape)
    assert dice(image[0, 0] > 0.5, labels[0] == 1) > 0.95
    assert labels.sum() > 100


def test_quarter_turn_in_plane_is_exact() -> None:
    # about D by +90 degrees: offset (y, x) reads (-x, y)
    image, labels = torch.randn(1, 4, 9, 9), torch.randint(0, 9, (4, 9, 9))
    out, out_labels = spatial.resample(
        image, labels, spatial.turn_and_scale((90, 0, 0), (1, 1, 1), (1, 1, 1)), (4, 9, 9)
    )
    torch.testing.assert_close(out, torch.rot90(image, -1, (2, 3)), rtol=0, atol=1e-5)
    assert torch.equal(out_labels, torch.rot90(labels, -1, (1, 2)))


def test_resample_agrees_with_grid_sample() -> None:
    source, patch = (18, 21, 24), (9, 11, 12)
    matrix = spatial.turn_and_scale((20, -13, 8), (1.3, 1.3, 1.3), (1.5, 1, 1))
    image = torch.randn(2, *source)
    out, _ = spatial.resample(image, torch.zeros(source, dtype=torch.uint8), matrix, patch)
    steps = torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in patch], indexing="ij")
    points = torch.stack(steps, -1).double() @ torch.tensor(matrix, dtype=torch.float64).T
    grid = (points / (torch.tensor(source) - 1) * 2).flip(-1)[None].float()
    wanted = torch.nn.functional.grid_sample(image[None], grid, align_corners=True, padding_mode="border")[0]
    torch.testing.assert_close(out, wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_turning_slices_agrees_with_the_general_way(channels: int) -> None:
    matrix = spatial.turn_and_scale((25, 0, 0), (1, 1.2, 1.2), (5, 1, 0.8))
    source = spatial.source_shape(matrix, SHAPE)
    assert source[0] == SHAPE[0] and source != SHAPE
    image, labels = torch.randn(channels, *source), torch.randint(0, 4, source, dtype=torch.uint8)
    flat, flat_labels = spatial.resample(image, labels, matrix, SHAPE)
    # one more slice at either end, and the same matrix takes the general way
    thick, thick_labels = torch.nn.functional.pad(image, (0,) * 4 + (1, 1)), torch.zeros((source[0] + 2, *source[1:]))
    thick_labels[1:-1] = labels
    general, general_labels = spatial.resample(thick, thick_labels, matrix, SHAPE)
    torch.testing.assert_close(flat, general, rtol=0, atol=2e-5)
    assert (flat_labels == general_labels).float().mean() > 0.999


def test_a_scale_of_two_reads_every_other_half_voxel() -> None:
    ramp = torch.arange(10.0).expand(1, 10, 10, 10)
    out, _ = spatial.resample(
        ramp,
        torch.zeros(10, 10, 10, dtype=torch.uint8),
        spatial.turn_and_scale((0, 0, 0), (2, 2, 2), (1, 1, 1)),
        (4,) * 3,
    )
    torch.testing.assert_close(out[0, 0, 0], torch.tensor([3.75, 4.25, 4.75, 5.25]))


@settings(max_examples=40, deadline=None)
@given(
    degrees=st.tuples(*[st.floats(-180, 180)] * 3),
    scale=st.floats(0.5, 2),
    depth_mm=st.floats(0.5, 6),
    patch=st.tuples(*[st.integers(1, 40)] * 3),
)
def test_source_box_holds_every_point(
    degrees: tuple[float, float, float], scale: float, depth_mm: float, patch: tuple[int, int, int]
) -> None:
    matrix = spatial.turn_and_scale(degrees, (scale,) * 3, (depth_mm, 1, 1))
    box = spatial.source_shape(matrix, patch)
    corners = np.array(np.meshgrid(*[(-(n - 1) / 2, (n - 1) / 2) for n in patch])).reshape(3, -1)
    assert (np.abs(np.array(matrix) @ corners).max(axis=1) <= (np.array(box) - 1) / 2 + 1e-5).all()
    assert all((b - p) % 2 == 0 and b >= p for b, p in zip(box, patch, strict=True))


def test_thick_slices_and_two_dimensions_never_mix_slices() -> None:
    for dims, in_plane in ((2, False), (3, True)):
        for item in draw(EVERYTHING, 20, dims, np.random.default_rng(0), in_plane=in_plane).items:
            assert item.matrix is not None and item.matrix[0] == (1.0, 0.0, 0.0)
            assert item.matrix[1][0] == item.matrix[2][0] == 0
            changes = dict(item.changes)
            assert changes["blur"][0] == 0 and changes["low_resolution"][0] == 1
            assert dims == 3 or 0 not in item.flips


def test_the_light_preset_never_mixes_slices() -> None:
    matrices = [item.matrix for item in draw(PRESETS["light"], 100, 3, np.random.default_rng(0)).items if item.matrix]
    assert matrices and all(matrix[0] == (1.0, 0.0, 0.0) for matrix in matrices)


def test_only_allowed_axes_are_mirrored() -> None:
    items = draw(PRESETS["default"], 200, 3, np.random.default_rng(0), allow_mirror=(0, 1)).items
    assert {axis for item in items for axis in item.flips} == {0, 1}


def test_frequencies_and_bounds_of_the_default_preset() -> None:
    items = draw(PRESETS["default"], 4000, 3, np.random.default_rng(0)).items
    assert np.mean([item.matrix is not None for item in items]) == pytest.approx(1 - 0.8 * 0.8, abs=0.03)
    names = [name for item in items for name, _ in item.changes]
    for name, expected in (
        ("gamma", 0.3),
        ("inverted_gamma", 0.1),
        ("blur", 0.2 * 0.5),
        ("low_resolution", 0.25 * 0.5),
    ):
        assert names.count(name) / 4000 == pytest.approx(expected, abs=0.03), name
    assert np.mean([0 in item.flips for item in items]) == pytest.approx(0.5, abs=0.03)
    powers = [arguments[0] for item in items for name, arguments in item.changes if name == "gamma"]
    assert min(powers) >= 0.7 and max(powers) <= 1.5
    assert np.mean(np.array(powers) < 1) == pytest.approx(0.5, abs=0.06)


def test_blur_is_a_gaussian_and_keeps_constants() -> None:
    point = torch.zeros(1, 1, 31, 31)
    point[..., 15, 15] = 1
    out = intensity.blur(point.clone(), 0.0, 1.0, 2.0)[0, 0]
    assert out.sum().item() == pytest.approx(1, abs=1e-5)
    assert (out[17, 15] / out[15, 15]).item() == pytest.approx(math.exp(-0.5 * 4), rel=1e-4)
    assert (out[15, 17] / out[15, 15]).item() == pytest.approx(math.exp(-0.5 * 1), rel=1e-4)
    constant = torch.full((1, 5, 6, 7), 3.0)
    torch.testing.assert_close(intensity.blur(constant.clone(), 1.0, 1.0, 1.0), constant)


def test_low_resolution_agrees_with_down_and_up_sampling() -> None:
    image = torch.randn(1, 12, 16, 20)
    interpolate = torch.nn.functional.interpolate
    small = interpolate(image[None], size=(6, 8, 10), mode="nearest-exact")
    wanted = interpolate(small, size=(12, 16, 20), mode="trilinear")[0]
    torch.testing.assert_close(intensity.low_resolution(image.clone(), 0.5, 0.5, 0.5), wanted)
    assert torch.equal(intensity.low_resolution(image.clone(), 1.0, 1.0, 1.0), image)


@pytest.mark.parametrize("change", [intensity.gamma, intensity.inverted_gamma])
def test_gamma_keeps_mean_and_deviation_and_order(change: intensity.Change) -> None:
    image = torch.randn(1, *SHAPE)
    out = change(image.clone(), 1.4)
    assert out.mean().item() == pytest.approx(image.mean().item(), abs=1e-4)
    assert out.std().item() == pytest.approx(image.std().item(), rel=1e-4)
    assert out.flatten()[image.flatten().argsort()].diff().min() > -1e-5


def test_gamma_of_nothing_but_air_stays_air() -> None:
    air = torch.full((1, *SHAPE), -2.5)
    torch.testing.assert_close(intensity.gamma(air.clone(), 0.7), air)


def test_contrast_keeps_the_range_and_brightness_multiplies() -> None:
    image = torch.randn(1, *SHAPE)
    out = intensity.contrast(image.clone(), 1.25)
    assert out.min() >= image.min() and out.max() <= image.max() and out.std() > image.std()
    torch.testing.assert_close(intensity.brightness(image.clone(), 0.8), image * 0.8)


def test_noise_has_its_deviation_and_comes_from_its_seed() -> None:
    zero = torch.zeros(1, 24, 24, 24)
    once = intensity.noise(zero.clone(), 0.1, 3)
    assert once.std().item() == pytest.approx(0.1, rel=0.05)
    assert torch.equal(once, intensity.noise(zero.clone(), 0.1, 3))
    assert not torch.equal(once, intensity.noise(zero.clone(), 0.1, 4))


def test_recipes_override_presets() -> None:
    assert settings_from("light") is not None and settings_from("none") == AugmentSettings()
    changed = settings_from("default", {"rotation_degrees": 15, "mirror": False, "noise_sd": [0, 0.2]})
    assert (changed.rotation_degrees, changed.mirror, changed.noise_sd) == (15.0, (), (0.0, 0.2))
    assert changed.gamma_probability == PRESETS["default"].gamma_probability
    assert settings_from("none", {"mirror": True}).mirror == (0, 1, 2)
    assert settings_from("none", {"mirror": [2, 1]}).mirror == (1, 2)
    assert settings_from("default", {"spatial_in_plane": True}).spatial_in_plane


@pytest.mark.parametrize(
    ("preset", "options", "message"),
    [
        ("hefty", {}, r"patches.augment = 'hefty'; wanted one of \['none', 'light', 'default', .*patches.augment_own"),
        ("none", {"rotaton_degrees": 3}, "did you mean 'rotation_degrees'"),
        ("none", {"zoom": 3}, "rotation_probability"),
        ("none", {"noise_probability": 2}, "from 0 to 1"),
        ("none", {"noise_probability": True}, "from 0 to 1"),
        ("none", {"gamma_range": [1.5, 0.7]}, "two ascending numbers"),
        ("none", {"scale_range": [0, 1]}, "two ascending numbers"),
        ("none", {"crop_range": [0.5, 1.1]}, "to 1, e.g."),
        ("none", {"elastic_share": [0.1, 0.5]}, "0 to 0.4"),
        ("none", {"histogram_points": 2}, "a whole number from 3 to 256"),
        ("none", {"gamma_evenly": 1}, "true or false"),
        ("none", {"window_shift_hu": -5}, "0 to 1000"),
        ("none", {"spatial_in_plane": 1}, "true or false"),
        ("none", {"mirror": [3]}, "2 left-right"),
    ],
)
def test_wrong_recipes_are_refused(preset: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        settings_from(preset, options)


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu() -> None:
    certain = {f"{name}_probability": 1 for name in ("rotation", "scale", "crop", "elastic", "thickness", "window")}
    certain |= {f"{name}_probability": 1 for name in intensity.CHANGES} | {"noise_probability": 0}
    # noise has the same seed but other numbers on another kind of device
    parameters = draw(settings_from("strong", certain | {"ct_noise_probability": 0}), 2, 3, np.random.default_rng(1))
    images, labels = boxes(parameters)
    here = apply(parameters, images, labels, SHAPE)
    there = apply(parameters, [x.cuda() for x in images], [x.cuda() for x in labels], SHAPE)
    torch.testing.assert_close(there[0].cpu(), here[0], rtol=1e-3, atol=1e-3)
    assert (there[1].cpu() == here[1]).float().mean() > 0.999


@pytest.mark.gpu
@pytest.mark.parametrize("preset", list(PRESETS))
def test_nothing_waits_for_the_gpu(preset: str) -> None:
    parameters = draw(PRESETS[preset], 20, 3, np.random.default_rng(1))
    images, labels = boxes(parameters)
    images, labels = [x.cuda() for x in images], [x.cuda() for x in labels]
    apply(parameters, images, labels, SHAPE)  # what is compiled and set up once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        apply(parameters, images, labels, SHAPE)
    finally:
        torch.cuda.set_sync_debug_mode("default")
