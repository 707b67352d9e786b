from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hilum.cli import main
from hilum.errors import ModelError, UsageError
from hilum.exchange.nnunet import import_nnunet
from hilum.exchange.nnunet_checkpoint import read_checkpoint
from hilum.inference.predict import Predictor
from hilum.labels import SCHEMES
from hilum.model import load_model
from hilum.volume import Volume
from making_nnunet import (
    REGIONS,
    configuration,
    dataset,
    network_of,
    plans,
    trained,
    write_checkpoint,
)
from threshold_model import grid_of


def scan(shape: tuple[int, int, int], codes: str = "LPS", seed: int = 0) -> Volume:
    hu = np.random.default_rng(seed).normal(80, 120, shape).astype(np.int16)
    return Volume.on(grid_of(shape, (2.0, 1.5, 1.5)), hu).oriented(codes)


@pytest.mark.parametrize(("dims", "residual"), [(3, False), (3, True), (2, False), (2, True)])
def test_every_tensor_arrives_under_our_names(tmp_path: Path, dims: int, residual: bool) -> None:
    name = "2d" if dims == 2 else "3d_fullres"
    config = configuration(dims, residual)
    source = trained(tmp_path, config, name, folds=2, axes=(0, 1) if dims == 2 else (0, 1, 2))
    made = import_nnunet(source, tmp_path / "m")
    model = load_model(tmp_path / "m")
    assert model.spec.name == ("residual_unet" if residual else "plain_unet") and len(model.weights) == 2
    for fold in range(2):
        theirs = network_of(config, 1, 4, fold)
        image = torch.randn((1, 1, *config["patch_size"]), generator=torch.Generator().manual_seed(1))
        assert torch.equal(model.network(fold)(image), theirs(image))
    state = network_of(config, 1, 4).state_dict()
    assert made.facts["tensors"] == len(state) and made.facts["second_names_left_aside"] > len(state)
    assert model.plan.normalisation.low == -80 and model.plan.conventions.axes == "file"
    assert model.inference.mirror and model.inference.mirror_axes == ((0, 1) if dims == 2 else (0, 1, 2))


def test_what_is_computed_is_what_nnunet_computes(tmp_path: Path) -> None:
    """On a scan as small as one patch and at the plan's spacing: clip, normalise, network, argmax."""
    config = configuration()
    import_nnunet(trained(tmp_path, config), tmp_path / "m")
    volume = scan((8, 12, 16))
    made = Predictor(load_model(tmp_path / "m"), "cpu", mirror=False, precision="fp32").segment(volume)
    hu = torch.from_numpy(volume.oriented("SPL").array.astype(np.float32))
    image = (hu.clamp(-80, 300) - 90) / 60
    expected = network_of(config, 1, 4)(image[None, None])[0].argmax(0).numpy()
    assert np.array_equal(made.oriented("SPL").array, expected) and made.codes == volume.codes


def test_smaller_scans_are_padded_with_what_becomes_nought(tmp_path: Path) -> None:
    config = configuration()
    import_nnunet(trained(tmp_path, config), tmp_path / "m")
    volume = scan((5, 9, 13))
    made = Predictor(load_model(tmp_path / "m"), "cpu", mirror=False, precision="fp32").segment(volume)
    hu = torch.from_numpy(volume.oriented("SPL").array.astype(np.float32))
    image = torch.nn.functional.pad((hu.clamp(-80, 300) - 90) / 60, (1, 2, 1, 2, 1, 2))
    expected = network_of(config, 1, 4)(image[None, None])[0].argmax(0).numpy()[1:6, 1:10, 1:14]
    assert np.array_equal(made.oriented("SPL").array, expected)


def test_axes_are_the_files_and_transposed(tmp_path: Path) -> None:
    config = configuration()
    table = plans(**{"3d_fullres": config}) | {"transpose_forward": [1, 0, 2], "transpose_backward": [1, 0, 2]}
    import_nnunet(trained(tmp_path, config, table=table), tmp_path / "m")
    model = load_model(tmp_path / "m")
    volume = scan((16, 16, 16), "RAS")
    case = Predictor(model, "cpu").prepare(volume)
    assert case.source_inside.codes == "ASR"  # the file's order backwards is SAR; its first two axes change places
    import_nnunet(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres", tmp_path / "n", axes="SPL")
    case = Predictor(load_model(tmp_path / "n"), "cpu").prepare(volume)
    assert case.source_inside.codes == "PSL"
    made = Predictor(model, "cpu", mirror=False).segment(volume)
    assert made.grid.same_as(volume.grid)


def test_only_the_box_that_is_not_nought_is_looked_at(tmp_path: Path) -> None:
    import_nnunet(trained(tmp_path, configuration()), tmp_path / "m")
    inner = scan((10, 14, 18))
    whole = inner.padded((1, 2, 3), (3, 0, 4), 0)
    predictor = Predictor(load_model(tmp_path / "m"), "cpu", mirror=False, precision="fp32")
    alone, within = predictor.segment(inner), predictor.segment(whole)
    assert np.array_equal(within.array[1:-3, 2:, 3:-4], alone.array)
    assert within.array.sum() == alone.array.sum()


def test_each_scan_is_normalised_by_itself(tmp_path: Path) -> None:
    config = configuration(normalization_schemes=["ZScoreNormalization"], use_mask_for_norm=[False])
    import_nnunet(trained(tmp_path, config), tmp_path / "m")
    volume = scan((8, 12, 16))
    made = Predictor(load_model(tmp_path / "m"), "cpu", mirror=False, precision="fp32").segment(volume)
    hu = torch.from_numpy(volume.oriented("SPL").array.astype(np.float32))
    image = (hu - hu.mean()) / hu.std(correction=0)
    logits = network_of(config, 1, 4)(image[None, None])[0]
    best = logits.topk(2, dim=0).values
    clear = (best[0] - best[1] > 1e-4).numpy()
    assert np.array_equal(made.oriented("SPL").array[clear], logits.argmax(0).numpy()[clear])


def test_within_a_mask_only_what_is_not_nought_counts(tmp_path: Path) -> None:
    config = configuration(normalization_schemes=["ZScoreNormalization"], use_mask_for_norm=[True])
    import_nnunet(trained(tmp_path, config), tmp_path / "m")
    volume = scan((8, 12, 16))
    hu = volume.array.copy()
    hu[:3, :4] = 0  # a corner outside the body: the box stays whole
    case = Predictor(load_model(tmp_path / "m"), "cpu").prepare(volume.with_array(hu))
    seen = hu[hu != 0]
    assert case.normalisation is not None and abs(case.normalisation.mean - seen.mean()) < 1.0
    assert abs(case.normalisation.apply(case.image_DHW).mean()) < 0.01


def test_regions_are_written_in_their_order(tmp_path: Path) -> None:
    config = configuration()
    facts = dataset(REGIONS, [1, 3, 2])
    made = import_nnunet(trained(tmp_path, config, facts=facts, outputs=3), tmp_path / "m")
    model = load_model(tmp_path / "m")
    assert model.spec.head == "regions" and model.scheme.writers() == ((0, 1), (1, 3), (2, 2))
    assert [x.name for x in model.scheme.labels] == ["kidney", "tumour", "cyst"] and made.facts["head"] == "regions"
    volume = scan((8, 12, 16))
    labels = Predictor(model, "cpu", mirror=False, precision="fp32").segment(volume)
    hu = torch.from_numpy(volume.oriented("SPL").array.astype(np.float32))
    shares = network_of(config, 1, 3)(((hu.clamp(-80, 300) - 90) / 60)[None, None])[0].sigmoid().detach().numpy()
    expected = np.zeros(shares.shape[1:], np.uint8)
    for share, value in zip(shares, (1, 3, 2), strict=True):
        expected[share > 0.5] = value
    assert np.array_equal(labels.oriented("SPL").array, expected)


def test_a_cascade_takes_the_model_before_it(tmp_path: Path) -> None:
    low = configuration(spacing=[4.0, 3.0, 3.0], next_stage="3d_cascade_fullres")
    full = configuration()
    table = plans(**{
        "3d_lowres": low,
        "3d_fullres": full,
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    })  # fmt: skip
    source = trained(tmp_path, full, "3d_cascade_fullres", table=table, in_channels=4)
    with pytest.raises(ModelError, match="cascade after '3d_lowres', whose folder is not there"):
        import_nnunet(source, tmp_path / "m")
    trained(tmp_path, low, "3d_lowres", table=table)
    import_nnunet(source, tmp_path / "m")
    model = load_model(tmp_path / "m")
    assert model.first is not None and model.first.plan.spacing_mm == (4.0, 3.0, 3.0) and model.spec.in_channels == 4
    volume = scan((8, 12, 16))
    predictor = Predictor(model, "cpu", mirror=False, precision="fp32")
    made = predictor.segment(volume)
    assert predictor.first is not None
    before = predictor.first.predict(predictor.first.prepare(volume)).labels.oriented("SPL").array
    hu = torch.from_numpy(volume.oriented("SPL").array.astype(np.float32))
    channels = [
        (hu.clamp(-80, 300) - 90) / 60,
        *(torch.from_numpy((before == v).astype(np.float32)) for v in (1, 2, 3)),
    ]
    logits = network_of(full, 4, 4)(torch.stack(channels)[None])[0]
    assert np.array_equal(made.oriented("SPL").array, logits.argmax(0).numpy()) and len(np.unique(before)) > 1
    (tmp_path / "m" / "first" / "model.json").write_text(
        (tmp_path / "m" / "first" / "model.json").read_text().replace('"overlap": 0.5', '"overlap": 0.25')
    )
    with pytest.raises(ModelError, match="another model than the one"):
        load_model(tmp_path / "m")


def test_plans_of_before_2_3_are_understood(tmp_path: Path) -> None:
    config = configuration()
    new = import_nnunet(trained(tmp_path / "new", config), tmp_path / "a")
    given = config["architecture"]["arch_kwargs"]
    old = {key: value for key, value in config.items() if key != "architecture"} | {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 6,
        "n_conv_per_stage_encoder": given["n_conv_per_stage"],
        "n_conv_per_stage_decoder": given["n_conv_per_stage_decoder"],
        "pool_op_kernel_sizes": given["strides"],
        "conv_kernel_sizes": given["kernel_sizes"],
        "num_pool_per_axis": [1, 1, 1],
    }
    source = trained(tmp_path / "old", config, table=plans(**{"3d_fullres": old}))
    import_nnunet(source, tmp_path / "b")
    assert load_model(tmp_path / "a").plan == load_model(tmp_path / "b").plan and new.facts["network"] == "plain_unet"


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch EVIL_WAS_HERE",)


def test_a_checkpoint_that_runs_a_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = trained(tmp_path, configuration())
    file = source / "fold_0" / "checkpoint_final.pth"
    torch.save({"network_weights": {}, "evil": Evil()}, file)
    with pytest.raises(ModelError, match=r"holds more than numbers and tensors \((posix|nt).system\)"):
        import_nnunet(source, tmp_path / "m")
    file.write_bytes(pickle.dumps({"network_weights": Evil()}))
    with pytest.raises(ModelError, match=r"checkpoint_final.pth"):
        import_nnunet(source, tmp_path / "m")
    assert not (tmp_path / "EVIL_WAS_HERE").exists() and not (tmp_path / "m").exists()


def test_damaged_and_other_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint_final.pth"
    with pytest.raises(ModelError, match="is missing"):
        read_checkpoint(file)
    file.write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(ModelError, match=r"checkpoint_final\.pth"):
        read_checkpoint(file)
    torch.save({"model": {}}, file)
    with pytest.raises(ModelError, match="no checkpoint of nnU-Net v2"):
        read_checkpoint(file)


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    config = configuration()
    source = trained(tmp_path, config)
    state = network_of(config, 1, 4).state_dict()
    write_checkpoint(source / "fold_0" / "checkpoint_final.pth", state | {"extra.weight": torch.ones(2)}, "3d_fullres")
    with pytest.raises(ModelError, match=r"1 are not the network's, such as extra.weight"):
        import_nnunet(source, tmp_path / "m")
    del state["decoder.seg_layers.0.bias"]
    write_checkpoint(source / "fold_0" / "checkpoint_final.pth", state, "3d_fullres")
    with pytest.raises(ModelError, match=r"1 tensors are missing, such as decoder.seg_layers.0.bias"):
        import_nnunet(source, tmp_path / "m")


def _other(config: dict[str, Any], key: str, value: Any) -> None:
    config["architecture"]["arch_kwargs"][key] = value


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda c: c["architecture"].update(network_class_name="x.primus.PrimusM"), "PrimusM"),
        (lambda c: _other(c, "norm_op", "torch.nn.modules.batchnorm.BatchNorm3d"), "BatchNorm3d"),
        (lambda c: _other(c, "nonlin", "torch.nn.ReLU"), "torch.nn.ReLU"),
        (lambda c: _other(c, "squeeze_excitation", True), "squeeze_excitation = True"),
        (lambda c: c.update(normalization_schemes=["CTNormalization"] * 2), "2 image channels"),
        (lambda c: c.update(normalization_schemes=["RescaleTo01Normalization"]), "RescaleTo01Normalization"),
        (lambda c: c.update(preprocessor_name="MyPreprocessor"), "MyPreprocessor"),
        (lambda c: c.update(resampling_fn_data="no_resampling_data_or_seg_to_shape"), "no_resampling"),
    ],
)  # fmt: skip
def test_what_hilum_cannot_take_is_refused_by_its_name(tmp_path: Path, change: Any, found: str) -> None:
    config = configuration()
    source = trained(tmp_path, config)
    change(config)
    (source / "plans.json").write_text(json.dumps(plans(**{"3d_fullres": config})))
    with pytest.raises(ModelError, match=found):
        import_nnunet(source, tmp_path / "m")


def test_more_channels_readers_and_odd_labels_are_refused(tmp_path: Path) -> None:
    config = configuration()
    source = trained(tmp_path, config)
    for facts, found in (
        (dataset() | {"channel_names": {"0": "T1", "1": "T2"}}, "2 image channels"),
        (dataset({"background": 0, "kidney": 1, "tumor": 3}), "labels \\[1, 3\\]"),
        (dataset(REGIONS), "regions_class_order"),
    ):
        (source / "dataset.json").write_text(json.dumps(facts))
        with pytest.raises(ModelError, match=found):
            import_nnunet(source, tmp_path / "m")


def test_post_processing_comes_from_its_json_and_never_from_the_pickle(tmp_path: Path) -> None:
    source = trained(tmp_path, configuration())
    (source / "crossval_results_folds_0").mkdir()
    (source / "crossval_results_folds_0" / "postprocessing.pkl").write_bytes(pickle.dumps(Evil()))
    made = import_nnunet(source, tmp_path / "m")
    assert made.facts["postprocess"] == [] and any("postprocessing.pkl was left aside" in note for note in made.notes)
    steps = {
        "postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"] * 2,
        "postprocessing_kwargs": [{"labels_or_regions": [1, 2, 3]}, {"labels_or_regions": 2, "background_label": 0}],
    }
    file = source / "crossval_results_folds_0" / "postprocessing.json"
    file.write_text(json.dumps(steps))
    import_nnunet(source, tmp_path / "m")
    assert load_model(tmp_path / "m").postprocess == (
        {"step": "largest_component", "labels": ["kidney", "tumor", "cyst"]},
        {"step": "largest_component", "labels": ["tumor"]},
    )
    file.write_text(json.dumps(steps | {"postprocessing_fns": ["evil", "evil"]}))
    with pytest.raises(ModelError, match="'evil'"):
        import_nnunet(source, tmp_path / "m")


def test_folders_and_folds_are_found_or_listed(tmp_path: Path) -> None:
    source = trained(tmp_path / "Dataset001_Test", configuration(), folds=2)
    made = import_nnunet(tmp_path / "Dataset001_Test", tmp_path / "m", folds=["1"], scheme=SCHEMES["kits"])
    assert made.facts["folds"] == ["1"] and load_model(tmp_path / "m").scheme == SCHEMES["kits"]
    with pytest.raises(UsageError, match=r"folds \['7'\] are not there"):
        import_nnunet(source, tmp_path / "m", folds=["7"])
    with pytest.raises(ModelError, match=r"checkpoint_best.pth.*choose with --checkpoint"):
        import_nnunet(source, tmp_path / "m", checkpoint="best")
    with pytest.raises(ModelError, match="of scheme 'lits'"):
        import_nnunet(source, tmp_path / "m", scheme=SCHEMES["lits"])
    trained(tmp_path / "Dataset001_Test", configuration(2), "2d")
    with pytest.raises(UsageError, match="2 models in this folder"):
        import_nnunet(tmp_path / "Dataset001_Test", tmp_path / "m")
    with pytest.raises(UsageError, match="no trained nnU-Net model"):
        import_nnunet(tmp_path / "nothing", tmp_path / "m")


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = trained(tmp_path, configuration())
    assert main(["model", "import", str(source), "--out", str(tmp_path / "m"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["network"] == "plain_unet" and answer["tensors"] > 0 and (tmp_path / "m" / "model.json").is_file()
    assert main(["model", "import", str(tmp_path / "none"), "--out", str(tmp_path / "n")]) == 2
