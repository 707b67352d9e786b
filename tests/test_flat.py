"""Two dimensions and two and a half: neighbours as channels, slices of one size, contrast; training and inference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hilum.config import InferenceOptions, PatchOptions, PrepareOptions
from hilum.datasets import open_dataset
from hilum.errors import ModelError, RecipeError
from hilum.files import read_json, write_json
from hilum.inference.predict import Predictor
from hilum.labels import SCHEMES
from hilum.model import NetworkSpec, load_model, save_model
from hilum.patches.batches import Batches
from hilum.prepare.fingerprint import fingerprint
from hilum.prepare.normalisation import Normalisation
from hilum.prepare.plan import Plan, check_options, make_plan
from hilum.prepare.preprocess import prepare_labels, prepare_scan, stream_scan, undo_labels
from hilum.prepare.store import build_store
from making_cases import write_lits
from threshold_model import blocks, labels_of, scan_of
from threshold_model import make_plan as small_plan

LITS = SCHEMES["lits"]
SPACING_MM = (5.0, 1.5, 1.0)


def flat(**options: Any) -> Plan:
    plan = small_plan((1, 16, 16), SPACING_MM, dims=2)
    return replace(plan, normalisation=Normalisation("window", -160.0, 240.0, -160.0, 400.0), **options)


def test_a_window_bent_by_a_contrast_is_the_formula() -> None:
    hu = np.array([-500, -79, 112, 304, 900], np.int16)
    made = Normalisation("window", -79.0, 304.0, -79.0, 383.0, gamma=1.5).apply(hu)
    assert made == pytest.approx([0, 0, ((112 + 79) / 383) ** 1.5, 1, 1]) and made.dtype == np.float32
    tensor = Normalisation("window", -79.0, 304.0, -79.0, 383.0, gamma=1.5).apply(torch.from_numpy(hu))
    assert tensor.numpy() == pytest.approx(made)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"context": 1}, "dims = 2"),
        ({"inplane": (64, 64)}, "dims = 2"),
        ({"context": 9, "dims": 2}, "0 to 8"),
        ({"inplane": (64,), "dims": 2}, "rows and columns"),
        ({"inplane": (64, 64), "spacing_mm": (1.0, 1.0), "dims": 2}, "one of them"),
        ({"inplane": (64, 64), "patch": (128, 128), "dims": 2}, "larger"),
        ({"gamma": 1.5}, "window"),
        ({"gamma": 0.0, "normalisation": "window", "window_hu": (0.0, 1.0)}, "prepare.gamma"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(RecipeError, match=word):
        check_options(PrepareOptions(**options))


def test_the_plan_follows_and_travels(tmp_path: Path) -> None:
    for number in (0, 1):
        write_lits(tmp_path, number)
    options = PrepareOptions(
        dims=2, context=1, inplane=(64, 48), normalisation="window", window_hu=(-79.0, 304.0), gamma=1.5, batch=4
    )
    plan = make_plan(fingerprint(open_dataset("lits", tmp_path).cases, LITS, 0), options, LITS)
    assert plan.patch == (1, 64, 48) and plan.channels == 3 and plan.normalisation.gamma == 1.5
    assert plan.spacing_mm == pytest.approx((10.0, 28 * 8 / 64, 32 * 8 / 48)) and plan.median_shape == (16, 64, 48)
    assert Plan.from_json(plan.to_json()) == plan
    old = flat().to_json()
    assert "context" not in old and "inplane" not in old and Plan.from_json(old) == flat()


def test_slices_of_one_size_and_back_on_any_axes() -> None:
    classes = blocks((9, 31, 37))
    plan = flat(inplane=(64, 80))
    for codes in ("SPL", "LPS", "IPL"):
        scan = scan_of(classes, SPACING_MM, codes)
        case = prepare_scan(scan, plan)
        assert case.image_DHW.shape == (9, 64, 80)
        streamed = np.empty((9, 64, 80), np.int16)
        stream_scan(scan, plan).slabs.fill(streamed, 0, 1)
        assert np.array_equal(streamed, case.image_DHW)
        labels = prepare_labels(labels_of(classes, SPACING_MM, codes), case, plan)
        back = undo_labels(labels, case)
        assert back.codes == codes and back.shape == scan.shape and np.array_equal(back.affine, scan.affine)
        assert (back.oriented().array == classes).mean() > 0.97
    same = flat(inplane=(31, 37))
    case = prepare_scan(scan_of(classes, SPACING_MM), same)
    labels = prepare_labels(labels_of(classes, SPACING_MM), case, same)
    assert np.array_equal(labels, classes) and np.array_equal(undo_labels(labels, case).array, classes)


@pytest.mark.parametrize("context", [0, 1, 2])
def test_channels_of_a_batch_are_the_slice_and_its_neighbours(context: int, tmp_path: Path) -> None:
    write_lits(tmp_path / "set", 0)
    cases = open_dataset("lits", tmp_path / "set").cases
    plan = replace(flat(context=context), spacing_mm=(10.0, 8.0, 8.0), patch=(1, 16, 16), batch=6)
    store = build_store(tmp_path / "store", cases, plan, LITS, workers=1)
    image = np.asarray(store.case(cases[0].name).image_DHW)
    padded = np.pad(image, ((context, context), (0, 0), (0, 0)), constant_values=-1024)
    options = PatchOptions(augment="none", foreground=0.5)
    with Batches(store, store.names, plan, options, LITS, "cpu", 3) as source:
        places = source.sampler.draw(6, 0).places
        batch = source.batch(0)
    assert batch.images.shape == (6, 1 + 2 * context, 16, 16) and batch.labels.shape == (6, 16, 16)
    for item, place in enumerate(places):
        z, y, x = place.corner
        wanted = plan.normalisation.apply(padded[z : z + 1 + 2 * context, y : y + 16, x : x + 16])
        assert torch.equal(batch.images[item], torch.from_numpy(wanted))
    with Batches(store, store.names, plan, PatchOptions(augment="default"), LITS, "cpu", 3) as source:
        augmented = source.batch(1)
    assert augmented.images.shape == batch.images.shape and torch.isfinite(augmented.images).all()


@pytest.mark.parametrize(("channel", "shift"), [(0, -2), (1, -1), (2, 0), (4, 2)])
@pytest.mark.parametrize("streamed", [False, True])
def test_channels_of_inference_are_the_slice_and_its_neighbours(
    channel: int, shift: int, streamed: bool, tmp_path: Path
) -> None:
    plan = flat(context=2)
    spec = NetworkSpec("own_networks.neighbours", {"channel": channel}, plan.channels, 3, 2)
    state = {"edge": torch.tensor([0.5])}
    save_model(tmp_path / "m", spec, [state], plan, LITS, InferenceOptions(), (), {"description": "neighbours"})
    predictor = Predictor(load_model(tmp_path / "m"), "cpu", skip_air=False)
    classes = blocks((11, 21, 40))
    scan = scan_of(classes, SPACING_MM, "LPS")
    found = predictor.predict(predictor.prepare(scan, streamed=streamed)).labels.oriented().array
    bright = scan.oriented().array > 40  # half of the window: what the network calls label 1
    wanted = np.zeros_like(bright)
    for z in range(len(wanted)):
        if 0 <= z + shift < len(wanted):
            wanted[z] = bright[z + shift]
    assert np.array_equal(found, wanted)


def test_a_model_whose_channels_do_not_fit_its_plan_is_refused(tmp_path: Path) -> None:
    plan = flat(context=1)
    spec = NetworkSpec("own_networks.neighbours", {"channel": 0}, plan.channels, 3, 2)
    state = {"edge": torch.zeros(1)}
    save_model(tmp_path / "m", spec, [state], plan, LITS, InferenceOptions(), (), {"description": "neighbours"})
    assert load_model(tmp_path / "m").plan.context == 1
    table = read_json(tmp_path / "m" / "model.json")
    table["plan"]["context"] = 2
    write_json(tmp_path / "m" / "model.json", table)
    with pytest.raises(ModelError, match="wants 3 image channels where there are 5"):
        load_model(tmp_path / "m")
