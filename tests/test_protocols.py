"""Every protocol: its empty policy, its strange labels, its regions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hilum.errors import GeometryError, LabelError, UsageError
from hilum.judge.evaluate import scheme_of, score_case
from hilum.judge.protocols import PROTOCOLS, protocol_named
from hilum.judge.ranking import rank_teams
from hilum.judge.scoring import ScoreOptions
from hilum.labels import SCHEMES, scheme_from
from hilum.volume import Volume

SHAPE = (12, 20, 20)
AFFINE = np.diag([2.0, 1.0, 1.0, 1.0])


def volume(array: np.ndarray, affine: np.ndarray = AFFINE, source: str = "x.nii.gz") -> Volume:
    return Volume(array, affine, source)


def kidney(*, tumour: bool = True, cyst: bool = True) -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    array[2:10, 4:16, 4:16] = 1
    if tumour:
        array[3:7, 6:10, 6:10] = 2
    if cyst:
        array[7:9, 11:14, 11:14] = 3
    return array


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_contract(name: str) -> None:
    """Each protocol scores a pair, an empty pair and itself, and says what empty means."""
    protocol = protocol_named(name)
    assert protocol.name == name
    assert protocol.about.endswith(".")
    assert len(protocol.empty_policy) > 30
    scheme = SCHEMES[protocol.scheme]
    labels = kidney() if 3 in scheme.values else kidney(cyst=False)
    moved, empty = np.roll(labels, 1, axis=2), np.zeros_like(labels)
    for truth, prediction in ((labels, moved), (labels, empty), (empty, labels), (empty, empty), (labels, labels)):
        score = protocol.score(_pair(truth, prediction, protocol.same_grid), scheme, ScoreOptions())
        for region, metrics in score.values.items():
            for metric, value in metrics.items():
                assert isinstance(value, float), (region, metric, type(value))
                if not math.isfinite(value):
                    assert f"{region}/{metric}" in score.reasons, (region, metric)
        assert all(math.isfinite(value) for value in score.sums.values())


def _pair(truth: np.ndarray, prediction: np.ndarray, same_grid: bool):  # type: ignore[no-untyped-def]
    from hilum.judge.pair import make_pair

    return make_pair(volume(truth), volume(prediction), same_grid)[0]


def test_unknown_protocol_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'kits23'"):
        protocol_named("kits-23")


def test_kits23_empty_rules() -> None:
    truth = volume(kidney(tumour=False, cyst=False))
    same, more = score_case(truth, truth, "kits23"), score_case(truth, volume(kidney(cyst=False)), "kits23")
    assert same["tumor"] == {"dice": 1.0, "surface_dice": 1.0}
    assert more["tumor"] == {"dice": 0.0, "surface_dice": 0.0}
    assert more["kidney_and_mass"]["dice"] == 1.0


def test_kits23_believes_the_spacing_of_the_prediction() -> None:
    truth, moved = volume(kidney()), np.roll(kidney(), 1, axis=0)
    honest = score_case(truth, volume(moved), "kits23")["tumor"]
    flattened = score_case(truth, volume(moved, np.eye(4)), "kits23")["tumor"]
    assert honest["dice"] == flattened["dice"]
    assert honest["surface_dice"] < flattened["surface_dice"] == 1.0  # 2 mm is beyond the tolerance, 1 mm within


def test_kits19_counts_cysts_as_kidney_and_unknown_labels_as_tumour() -> None:
    truth = kidney()
    missing = np.where(truth == 3, 1, truth).astype(np.uint8)
    assert score_case(volume(truth), volume(missing), "kits19")["kits19"]["tu_dice"] == 1.0
    assert score_case(volume(truth), volume(missing), "kits19-raw")["kits19"]["tu_dice"] < 1.0
    strange = np.where(truth == 1, 4, truth).astype(np.uint8)
    values = score_case(volume(truth), volume(strange), "kits19")["kits19"]
    assert values["tk_dice"] == 1.0
    assert values["tu_dice"] < 0.3
    nothing = volume(np.zeros(SHAPE, np.uint8))
    assert math.isnan(score_case(nothing, nothing, "kits19")["kits19"]["composite"])


def test_nnunet_names_and_nan() -> None:
    values = score_case(volume(kidney(cyst=False)), volume(kidney(cyst=False)), "nnunet")
    assert list(values) == ["1", "2", "3", "(1, 2, 3)", "(2, 3)", "(2,)"]
    assert math.isnan(values["3"]["Dice"])
    assert values["3"]["TN"] == np.prod(SHAPE)
    assert values["(2, 3)"]["n_ref"] == 64


def test_msd_scores_labels_by_themselves_at_the_tolerances_given() -> None:
    truth, moved = volume(kidney(cyst=False)), volume(np.roll(kidney(cyst=False), 1, axis=2))
    values = score_case(truth, moved, "msd", options=ScoreOptions(tolerances_mm=(0.5, 7.0)))
    assert list(values) == ["liver", "tumour"]
    assert list(values["liver"]) == ["dice", "nsd_0.5mm", "nsd_7mm"]
    assert values["tumour"]["nsd_0.5mm"] < values["tumour"]["nsd_7mm"] == 1.0


def test_lits_corrected_differs_where_the_scorer_errs() -> None:
    truth = np.zeros((5, 5, 40), np.uint8)
    truth[:] = 1
    prediction = truth.copy()
    truth[2, 2, [2, 3, 20, 21, 36, 37]] = 2
    prediction[1:4, 1:4, 1:39] = 2
    official = score_case(volume(truth), volume(prediction), "lits", SCHEMES["lits"])
    mended = score_case(volume(truth), volume(prediction), "lits-corrected")
    assert official["detection_counts"]["TP_0.5"] == -2
    assert official["lesion"]["assd"] == 9001
    assert mended["detection_counts"]["TP_0.5"] == 0
    assert math.isnan(mended["lesion"]["assd"])
    assert official["tumor_burden"]["tumor_burden_max"] < 0 < mended["tumor_burden"]["tumor_burden_max"]


def test_lits_without_liver_and_without_lesions() -> None:
    truth = np.where(kidney() == 3, 1, kidney()).astype(np.uint8)
    nothing = volume(np.zeros(SHAPE, np.uint8))
    missed = score_case(volume(truth), nothing, "lits")
    assert missed["liver"]["dice_per_case"] == 0
    assert missed["liver"]["msd"] == 9001
    assert math.isnan(score_case(volume(truth), nothing, "lits-corrected")["liver"]["msd"])
    healthy = volume(kidney(tumour=False, cyst=False))
    clean, false = score_case(healthy, healthy, "lits"), score_case(healthy, volume(truth), "lits")
    assert clean["lesion"]["dice_per_case"] == 1
    assert false["lesion"]["dice_per_case"] == 0
    assert false["detection_counts"]["FP_0.5"] == 1


def test_lits_casts_to_signed_bytes() -> None:
    truth = volume(np.where(kidney() == 3, 1, kidney()).astype(np.uint8))
    high = truth.array.copy()
    high[0, 0] = 200  # negative in 8 bits with a sign: background
    assert score_case(truth, volume(high), "lits")["liver"]["dice_per_case"] == 1.0


def test_plain_has_everything() -> None:
    truth, prediction = volume(kidney()), volume(np.roll(kidney(), 1, axis=1))
    values = score_case(truth, prediction, "plain")
    assert list(values) == ["kidney_and_mass", "mass", "tumor"]
    tumour = values["tumor"]
    assert tumour["volume_gt_ml"] == 64 * 2 / 1000
    assert tumour["volume_error_ml"] == tumour["relative_volume_error"] == 0
    assert tumour["dice"] == 0.75
    assert tumour["medpy_hd_mm"] == tumour["robust_hd100_mm"] == 1.0
    assert tumour["lesions_gt"] == tumour["lesion_f1"] == 1.0
    assert tumour["lesions_missed"] == tumour["lesions_invented"] == 0
    assert "lesion_f1" not in values["kidney_and_mass"]
    mine = scheme_from({"name": "mine", "values": {"spleen": 5}})
    spleen = volume((kidney() > 0).astype(np.uint8) * 5)
    assert score_case(spleen, spleen, "plain", mine)["spleen"]["dice"] == 1.0


def test_plain_compares_by_place() -> None:
    truth = volume(kidney())
    turned = volume(np.roll(kidney(), 1, axis=1)).oriented("LPS")
    straight = score_case(truth, volume(np.roll(kidney(), 1, axis=1)), "plain")
    np.testing.assert_equal(score_case(truth, turned, "plain"), straight)
    shifted = AFFINE.copy()
    shifted[0, 3] = 5
    with pytest.raises(GeometryError, match=r"5\.0 mm away"):
        score_case(truth, volume(kidney(), shifted), "plain")
    with pytest.raises(LabelError, match="does not know: 4"):
        score_case(truth, volume(np.where(kidney() == 1, 4, kidney()).astype(np.uint8)), "plain")


@pytest.mark.parametrize("protocol", ["plain", "kits23", "lits", "nnunet"])
def test_what_is_no_label_map_is_refused(protocol: str) -> None:
    truth = volume(np.where(kidney() == 3, 1, kidney()).astype(np.uint8))
    with pytest.raises(GeometryError, match="shape"):
        score_case(truth, volume(kidney()[:-1]), protocol)
    with pytest.raises(LabelError, match="no integers"):
        score_case(truth, volume(kidney() * 0.5), protocol)
    with pytest.raises(LabelError, match="no integers"):
        score_case(truth, volume(np.full(SHAPE, np.nan)), protocol)
    with pytest.raises(LabelError):
        score_case(truth, volume(np.full(SHAPE, -1000, np.int16)), protocol)
    whole = volume(truth.array.astype(np.float32))
    np.testing.assert_equal(score_case(truth, whole, protocol), score_case(truth, truth, protocol))


def test_a_fixed_protocol_refuses_other_labels() -> None:
    assert scheme_of(protocol_named("kits23"), SCHEMES["kits19"]).name == "kits"
    with pytest.raises(UsageError, match="plain"):
        scheme_of(protocol_named("kits23"), SCHEMES["abdomen"])


def test_ranking_refuses_what_it_cannot_rank() -> None:
    assert rank_teams({}) == []
    with pytest.raises(UsageError, match="six means"):
        rank_teams({"a": [1.0, 2.0]})
    with pytest.raises(UsageError, match="six means"):
        rank_teams({"a": [math.nan] * 6})
