"""The gate: what it lets pass, what it holds up, and that each estimate is near its truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hilum.errors import GeometryError, LabelError
from hilum.labels import SCHEMES, scheme_from
from hilum.phantom import make_case
from hilum.results.everything import measure_all
from hilum.results.measure import measure
from hilum.results.quality import noise_hu, quality
from hilum.results.uncertainty import uncertainty
from hilum.volume import Volume

KITS = SCHEMES["kits"]
SEED = 5


def states(answer: dict[str, Any]) -> dict[str, str]:
    return {check["check"]: check["state"] for check in answer["checks"]}


@pytest.mark.parametrize("sd", [5.0, 12.0, 40.0])
def test_noise_is_estimated_over_structure(sd: float) -> None:
    rng = np.random.default_rng(0)
    scan = np.full((12, 120, 120), 40.0)
    scan += np.linspace(-30, 60, 120)  # a ramp is no noise
    scan[:, 30:60, 30:60] += 50  # nor is an edge
    assert noise_hu(scan + rng.normal(0, sd, scan.shape)) == pytest.approx(sd, rel=0.08)
    assert noise_hu(np.full((3, 50, 50), -1000)) is None and noise_hu(np.zeros((4, 2, 2))) is None


@pytest.mark.parametrize(("phase", "guess"), [("none", "none"), ("arterial", "corticomedullary")])
def test_the_phase_of_phantoms_is_guessed(phase: str, guess: str) -> None:
    case = make_case(SEED, small=True, phase=phase)
    answer = quality(case.labels, measure(case.labels, KITS, case.ct), KITS, case.ct)
    assert answer["phase"]["guess"] == guess, answer["phase"]


@pytest.mark.parametrize(("hu", "guess"), [(42, "none"), (290, "arterial"), (140, "portal venous or later")])
def test_the_aorta_tells_the_phase_where_it_is_labelled(hu: int, guess: str) -> None:
    scheme = scheme_from({"name": "mine", "values": {"liver": 1, "aorta": 2}})
    array = np.zeros((12, 30, 30), np.uint8)
    array[2:10, 4:14, 4:24], array[:, 20:24, 12:16] = 1, 2
    labels = Volume(array, np.diag([2.0, 2.0, 2.0, 1.0]))
    scan = labels.with_array(np.where(array == 2, hu, np.where(array == 1, 60, -80)).astype(np.int16))
    phase = quality(labels, measure(labels, scheme, scan), scheme, scan)["phase"]
    assert phase["guess"] == guess and f"aorta {hu} HU" in phase["reason"]


def test_a_sound_case_passes_and_each_fault_is_named() -> None:
    case = make_case(SEED, small=True, phase="nephrographic")
    table = measure(case.labels, KITS, case.ct)
    answer = quality(case.labels, table, KITS, case.ct)
    assert answer["look"] is False and answer["why"] == [] and "look" not in states(answer).values()
    assert answer["phase"]["guess"] == "nephrographic or later"
    start = int(np.flatnonzero(case.labels.array.any(axis=(0, 1)))[0]) + 5
    cut = case.labels.cropped((0, 0, start), case.labels.shape)
    answer = quality(cut, measure(cut, KITS), KITS)
    assert states(answer)["field of view"] == "look" and "cuts the" in answer["why"][0]
    assert states(answer)["noise"] == states(answer)["phase"] == "unknown"
    thick = Volume(case.labels.array[:, :, ::3], case.labels.affine @ np.diag([1, 1, 3.0, 1]))
    assert states(quality(thick, measure(thick, KITS), KITS))["slice spacing"] == "look"
    small = Volume(case.labels.array, case.labels.affine @ np.diag([0.5, 0.5, 0.5, 1]))
    assert states(quality(small, measure(small, KITS), KITS))["volume of the right kidney"] == "look"
    noisy = case.ct.with_array(case.ct.array + np.random.default_rng(0).normal(0, 60, case.ct.shape).astype(np.int16))
    assert states(quality(case.labels, table, KITS, noisy))["noise"] == "look"
    empty = case.labels.with_array(np.zeros_like(case.labels.array))
    assert quality(empty, measure(empty, KITS), KITS)["why"] == ["No organ was found."]


def shares_of(case: Any, soft: float) -> dict[str, Volume]:
    """Probabilities that fall from the tumour's border over some voxels."""
    from scipy.ndimage import distance_transform_edt

    mask = case.labels.array == 2
    away = distance_transform_edt(~mask) - distance_transform_edt(mask)
    share = 1 / (1 + np.exp(away / soft))
    return {"tumour": case.labels.with_array((255 * share).round().astype(np.uint8))}


def test_probabilities_give_an_interval_that_widens_with_doubt() -> None:
    case = make_case(SEED, small=True)
    table = measure(case.labels, KITS)
    sure, unsure = (uncertainty(case.labels, table, KITS, probabilities=shares_of(case, s)) for s in (0.2, 1.0))
    assert sure is not None and unsure is not None
    for answer in (sure, unsure):
        entry = answer["labels"]["tumour"]
        assert entry["low_ml"] <= entry["volume_ml"] <= entry["high_ml"]
    width = [x["labels"]["tumour"]["high_ml"] - x["labels"]["tumour"]["low_ml"] for x in (sure, unsure)]
    assert width[0] < 0.5 * width[1]
    (first,) = (x for x in sure["lesions"])
    (second,) = (x for x in unsure["lesions"])
    assert first["confidence"] > 0.9 > second["confidence"] and first["low_ml"] <= table["lesions"][0]["volume_ml"]
    assert second["high_ml"] == pytest.approx(unsure["labels"]["tumour"]["high_ml"], rel=0.02)
    gate = quality(case.labels, table, KITS, unsure=unsure)
    assert states(gate)["confidence of lesion 1"] == ("look" if second["confidence"] < 0.75 else "ok")


def test_folds_give_a_range_a_vote_and_a_disagreement() -> None:
    case = make_case(SEED, small=True)
    table = measure(case.labels, KITS)
    without = case.labels.with_array(np.minimum(case.labels.array, 1))
    answer = uncertainty(case.labels, table, KITS, folds=[case.labels, without])
    assert answer is not None and answer["from"] == "folds"
    assert answer["lesions"] == [{"id": 1, "confidence": 0.5}]
    tumour = answer["labels"]["tumour"]
    assert tumour["low_ml"] == 0 and tumour["high_ml"] == tumour["volume_ml"] > 0
    assert answer["disagreement"]["tumour"] == pytest.approx(2 / 3, abs=1e-4)  # Dice 1, 0, 0
    gate = quality(case.labels, table, KITS, unsure=answer)
    assert any("folds disagree about tumour" in text for text in gate["why"])
    assert uncertainty(case.labels, table, KITS) is None


def test_what_does_not_fit_is_refused() -> None:
    case = make_case(SEED, small=True)
    elsewhere = Volume(case.labels.array, case.labels.affine @ np.diag([1, 1, 1.2, 1]))
    for words in ({"probabilities": {"tumour": elsewhere}}, {"folds": [elsewhere]}):
        with pytest.raises(GeometryError):
            measure_all(case.labels, KITS, **words)  # type: ignore[arg-type]
    wrong = case.labels.with_array(np.full(case.labels.shape, 2.5, np.float32))
    with pytest.raises(LabelError, match="probabilities"):
        measure_all(case.labels, KITS, probabilities={"tumour": wrong})
    whole = measure_all(case.labels, KITS)
    assert whole["uncertainty"] is None and whole["followup"] is None and whole["quality"]["look"] is False
