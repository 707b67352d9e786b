"""The plan: nnU-Net's published defaults come out, wishes are met or refused with what works."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.config import PrepareOptions
from hilum.errors import ModelError, RecipeError
from hilum.labels import scheme_from
from hilum.prepare.fingerprint import CaseFacts, Fingerprint, Intensities
from hilum.prepare.memory import PLAIN, RESIDUAL, encoder_of, memory_bytes
from hilum.prepare.plan import Normalisation, Plan, make_plan

KITS = scheme_from("kits")
HU = Intensities(low=-58.0, median=104.0, high=302.0, mean=101.0, std=76.9, samples=1000)


def facts(shape: tuple[int, ...], spacing_mm: tuple[float, ...], count: int = 50) -> list[CaseFacts]:
    return [CaseFacts(f"case {i}", shape, spacing_mm, HU, {1: 9, 2: 9, 3: 9}, {}) for i in range(count)]  # type: ignore[arg-type]


def planned(cases: list[CaseFacts], **options: object) -> Plan:
    return make_plan(Fingerprint(tuple(cases), HU, ()), PrepareOptions(**options), KITS)  # type: ignore[arg-type]


ISOTROPIC = facts((526, 512, 512), (0.78125, 0.78125, 0.78125))
THICK = facts((60, 512, 512), (5.0, 0.8, 0.8))


def test_isotropic_kits_gives_nnunets_default() -> None:
    plan = planned(ISOTROPIC)
    assert plan.patch == (128, 128, 128) and plan.batch == 2
    assert plan.features == (32, 64, 128, 256, 320, 320)
    assert plan.kernels == ((3, 3, 3),) * 6
    assert plan.strides == ((1, 1, 1), *((2, 2, 2),) * 5)
    assert plan.convs_per_stage == (2,) * 6
    assert not plan.separate_z
    assert plan.median_shape == (526, 512, 512)


def test_thick_slices_get_flat_kernels_and_a_flat_patch() -> None:
    plan = planned(THICK)
    assert plan.separate_z and plan.spacing_mm == (5.0, 0.8, 0.8)
    assert plan.kernels[:4] == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3))  # 5 mm against 0.8, 1.6, 3.2
    assert plan.strides[1:4] == ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert plan.patch == (28, 256, 256)


def test_thick_slices_take_the_10th_percentile_but_not_finer_than_in_plane() -> None:
    mixed = [*facts((60, 512, 512), (5.0, 0.8, 0.8), 8), *facts((100, 512, 512), (3.0, 0.8, 0.8), 2)]
    assert planned(mixed).spacing_mm[0] == pytest.approx(np.percentile([5.0] * 8 + [3.0] * 2, 10))
    fine = [*facts((60, 512, 512), (5.0, 0.8, 0.8), 8), *facts((600, 512, 512), (0.5, 0.8, 0.8), 2)]
    assert planned(fine).spacing_mm == (0.8, 0.8, 0.8)


def test_coarse_but_long_axis_keeps_the_median() -> None:
    assert planned(facts((400, 512, 512), (3.0, 0.8, 0.8))).spacing_mm == (3.0, 0.8, 0.8)


def test_two_dimensions() -> None:
    plan = planned(THICK, dims=2)
    assert plan.dims == 2 and plan.patch == (1, 512, 512) and plan.batch == 12
    assert set(plan.kernels) == {(1, 3, 3)} and set(plan.strides[1:]) == {(1, 2, 2)}
    assert plan.median_shape == (60, 512, 512)
    assert planned(THICK, dims=2, spacing_mm=(1.6, 1.6)).spacing_mm == (5.0, 1.6, 1.6)


def test_memory_of_128_cubed_is_worked_out_by_hand() -> None:
    # two stages of 2 and 4 features, 8^3 voxels, 3 classes: down 2*(512*2 + 64*4), up 512*(3*2 + 3), in activations
    activations = 2 * (512 * 2 + 64 * 4) + 512 * (3 * 2 + 3)
    found = memory_bytes((8, 8, 8), 1, (2, 4), ((1, 1, 1), (2, 2, 2)), 3)
    assert found == pytest.approx(activations * 8e9 / (2 * 560e6))
    plan = planned(ISOTROPIC)
    assert memory_bytes(plan.patch, 2, plan.features, plan.strides, 4) / 1e9 == pytest.approx(6.5, abs=0.1)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(16, 600)] * 3),
    spacing=st.tuples(st.floats(0.5, 6), st.floats(0.4, 3), st.floats(0.4, 3)),
    memory_gb=st.floats(0.3, 30),
    dims=st.sampled_from([2, 3]),
)
def test_any_data_give_a_plan_that_fits(
    shape: tuple[int, ...], spacing: tuple[float, ...], memory_gb: float, dims: int
) -> None:
    plan = planned(facts(shape, spacing, 3), memory_gb=memory_gb, dims=dims, base_features=8)
    assert (np.array(plan.patch) % np.prod(plan.strides, axis=0) == 0).all()
    assert len(plan.features) == len(plan.kernels) == len(plan.strides) == len(plan.convs_per_stage)
    assert memory_bytes(plan.patch, plan.batch, plan.features, plan.strides, 4) <= memory_gb * 1e9
    assert plan.batch >= 2
    assert dims == 3 or plan.patch[0] == 1


def test_less_memory_gives_a_smaller_patch() -> None:
    sizes = [np.prod(planned(ISOTROPIC, memory_gb=gb).patch) for gb in (0.5, 1.0, 4.0, 8.0, 24.0)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1] / 20


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_memory_grows_with_every_axis(axis: int) -> None:
    plan, larger = planned(ISOTROPIC), [128, 128, 128]
    larger[axis] += 32
    small = memory_bytes(plan.patch, 2, plan.features, plan.strides, 4)
    assert memory_bytes(larger, 2, plan.features, plan.strides, 4) > small


def test_batch_stays_below_5_percent_of_the_data() -> None:
    many = planned(facts((64, 64, 64), (3.0, 3.0, 3.0), 1000), memory_gb=8)
    few = planned(facts((64, 64, 64), (3.0, 3.0, 3.0), 100), memory_gb=8)
    assert few.batch == 5 < many.batch
    assert planned(facts((64, 64, 64), (3.0, 3.0, 3.0), 2)).batch == 2


def test_wishes_are_met() -> None:
    plan = planned(
        ISOTROPIC, spacing_mm=(3.0, 1.5, 1.5), patch=(64, 96, 128), batch=5, base_features=8, max_features=32
    )
    assert plan.spacing_mm == (3.0, 1.5, 1.5) and plan.patch == (64, 96, 128) and plan.batch == 5
    assert max(plan.features) == 32 and plan.features[0] == 8


def test_a_wished_batch_must_fit() -> None:
    assert np.prod(planned(ISOTROPIC, batch=8).patch) < np.prod(planned(ISOTROPIC).patch)


def test_a_patch_that_cannot_be_halved_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"nearest that works is \[96, 96, 96\]"):
        planned(ISOTROPIC, patch=(100, 100, 100))
    assert planned(ISOTROPIC, patch=(96, 96, 96)).patch == (96, 96, 96)
    with pytest.raises(RecipeError, match=r"nearest that works is \[192, 224\]"):
        planned(ISOTROPIC, patch=(200, 211), dims=2)


@settings(max_examples=30, deadline=None)
@given(patch=st.tuples(*[st.integers(9, 200)] * 3))
def test_the_nearest_patch_works(patch: tuple[int, ...]) -> None:
    try:
        planned(ISOTROPIC, patch=patch, memory_gb=1000.0)
    except RecipeError as error:
        assert error.fix is not None
        nearest = tuple(json.loads(error.fix.rpartition("is ")[2]))
        assert planned(ISOTROPIC, patch=nearest, memory_gb=1000.0).patch == nearest


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"spacing_mm": (1.0, 1.0)}, "spacing_mm"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "spacing_mm"),
        ({"patch": (64,)}, "patch"),
        ({"patch": (2, 64, 64), "dims": 2}, r"\[1, H, W\]"),
        ({"patch": (4, 4, 4)}, "cannot be halved once"),
        ({"batch": -1}, "batch"),
        ({"memory_gb": 0.0}, "memory_gb"),
        ({"memory_gb": 1e-4}, "even the smallest patch"),
        ({"base_features": 64, "max_features": 32}, "max_features"),
        ({"normalisation": "window"}, "window_hu"),
        ({"normalisation": "window", "window_hu": (240.0, -160.0)}, "window_hu"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        planned(ISOTROPIC, **options)


def test_options_without_effect_and_large_patches_warn(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        planned(ISOTROPIC, window_hu=(0.0, 1.0))
        assert "no effect" in caplog.text
        planned(ISOTROPIC, patch=(256, 256, 256))
        assert "needs about" in caplog.text


def test_normalisation_kinds() -> None:
    ct = planned(ISOTROPIC).normalisation
    assert ct == Normalisation("ct", -58.0, 302.0, 101.0, 76.9)
    zscore = planned(ISOTROPIC, normalisation="zscore").normalisation
    window = planned(ISOTROPIC, normalisation="window", window_hu=(-160.0, 240.0)).normalisation
    hu = np.array([-32768, -1000, -160, 40, 101, 240, 3000], np.int16)
    kept = hu.copy()
    assert ct.apply(hu) == pytest.approx((np.clip(kept, -58.0, 302.0) - 101.0) / 76.9, abs=1e-5)
    assert zscore.apply(hu) == pytest.approx((kept - 101.0) / 76.9, abs=1e-3)
    assert window.apply(hu).tolist() == pytest.approx([0, 0, 0, 0.5, 261 / 400, 1, 1])
    assert ct.apply(hu).dtype == np.float32 and np.array_equal(hu, kept)


def test_normalisation_is_the_same_in_torch() -> None:
    torch = pytest.importorskip("torch")
    hu = np.random.default_rng(0).integers(-2000, 3000, (4, 5, 6)).astype(np.int16)
    normalisation = planned(ISOTROPIC).normalisation
    for dtype in (torch.int16, torch.float32):
        tensor = torch.from_numpy(hu).to(dtype)
        found = normalisation.apply(tensor)
        assert found.dtype == torch.float32
        assert np.abs(found.numpy() - normalisation.apply(hu)).max() < 1e-6
        assert torch.equal(tensor, torch.from_numpy(hu).to(dtype))


def test_json_round_trip_and_other_formats() -> None:
    plan = planned(THICK)
    table = json.loads(json.dumps(plan.to_json()))
    assert Plan.from_json(table) == plan
    with pytest.raises(ModelError, match="format 7"):
        Plan.from_json({**table, "format": 7})
    del table["strides"]
    with pytest.raises(ModelError, match="strides"):
        Plan.from_json(table)


@pytest.mark.parametrize(
    ("memory_gb", "patches"),
    [  # what nnU-Net 2.8.1's ResEnc M, L and XL planners give for these median shapes and spacings
        (8, [(128, 128, 128), (40, 224, 192), (28, 224, 224), (96, 160, 160)]),
        (24, [(192, 192, 192), (64, 320, 256), (40, 320, 320), (128, 224, 224)]),
        (40, [(256, 224, 224), (64, 384, 384), (48, 448, 384), (192, 256, 256)]),
    ],
)
def test_residual_encoders_get_nnunets_presets(memory_gb: float, patches: list[tuple[int, ...]]) -> None:
    data = [
        ISOTROPIC,
        facts((104, 512, 512), (3.0, 0.78, 0.78)),
        THICK,
        facts((200, 300, 300), (1.5, 1.5, 1.5)),
    ]
    for cases, patch in zip(data, patches, strict=True):
        fingerprint = Fingerprint(tuple(cases), HU, ())
        plan = make_plan(fingerprint, PrepareOptions(memory_gb=memory_gb), KITS, RESIDUAL)
        assert plan.patch == patch and plan.batch == 2


def test_which_networks_count_as_residual() -> None:
    assert encoder_of("residual_unet") is RESIDUAL and encoder_of("vnet") is PLAIN


def test_memory_of_a_residual_encoder_is_worked_out_by_hand() -> None:
    # down: a stem and one block (3 convolutions), then a widened skip and three blocks (7); up: one convolution, one
    # transposed, three classes
    activations = 3 * 512 * 2 + 7 * 64 * 4 + 512 * (2 * 2 + 3)
    found = memory_bytes((8, 8, 8), 1, (2, 4), ((1, 1, 1), (2, 2, 2)), 3, RESIDUAL, 8)
    assert found == pytest.approx(activations * 8e9 / (2 * 680e6))
