from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hilum.errors import ModelError, UsageError
from hilum.exchange import import_model
from hilum.inference.predict import Predictor
from hilum.labels import SCHEMES
from hilum.model import load_model
from hilum.volume import Volume
from threshold_model import grid_of

pytest.importorskip("monai")
NETWORKS: dict[str, dict[str, Any]] = {
    "SegResNet": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1], "dropout_prob": 0.2},
    "SegResNetDS": {"init_filters": 8, "blocks_down": [1, 1], "norm": "INSTANCE", "dsdepth": 1},
    "DynUNet": {
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, 2],
        "upsample_kernel_size": [2, 2],
        "filters": [4, 6, 8],
        "deep_supervision": True,
        "deep_supr_num": 1,
    },
}


def config(kind: str, activation: str = "softmax") -> dict[str, Any]:
    return {
        "roi": [16, 16, 8],
        "network_def": {"_target_": kind, "spatial_dims": 3, "in_channels": 1, "out_channels": 3, **NETWORKS[kind]},
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 2.0], "mode": "bilinear"},
                {
                    "_target_": "ScaleIntensityRanged", "keys": "image",
                    "a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1, "clip": True,
                },
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": "@roi", "overlap": 0.5, "mode": "gaussian"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", activation: True},
                {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing"},
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            ],
        },
    }  # fmt: skip


def bundle(folder: Path, kind: str, table: dict[str, Any] | None = None) -> torch.nn.Module:
    import monai.networks.nets as nets

    torch.manual_seed(3)
    given = {key: value for key, value in config(kind)["network_def"].items() if key != "_target_"}
    network: torch.nn.Module = getattr(nets, kind)(**given).eval()
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    (folder / "models").mkdir(exist_ok=True)
    channels = {"0": "background", "1": "liver", "2": "tumour"}
    outputs = {"pred": {"channel_def": channels}}
    metadata = {"version": "0.1", "description": "a test", "network_data_format": {"outputs": outputs}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (folder / "configs" / "inference.json").write_text(json.dumps(table or config(kind)))
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return network


@pytest.mark.parametrize("kind", sorted(NETWORKS))
@pytest.mark.filterwarnings("ignore")
def test_a_bundle_answers_as_its_network_does(tmp_path: Path, kind: str) -> None:
    network = bundle(tmp_path / "b", kind)
    made = import_model(tmp_path / "b", tmp_path / "m")
    model = load_model(tmp_path / "m")
    assert made.facts["network"] == kind and model.plan.conventions.axes == "RAS" and model.inference.overlap == 0.5
    assert [label.name for label in model.scheme.labels] == ["liver", "tumour"]
    hu = np.random.default_rng(0).normal(50, 80, (8, 16, 16)).astype(np.int16)
    volume = Volume.on(grid_of(hu.shape, (2.0, 1.5, 1.5)), hu)
    labels = Predictor(model, "cpu", precision="fp32").segment(volume)
    inside = torch.from_numpy(volume.oriented("RAS").array.astype(np.float32))
    logits = network(((inside.clamp(-57, 164) + 57) / 221)[None, None])
    best = logits[0].topk(2, dim=0).values
    clear = (best[0] - best[1] > 1e-4).numpy()
    assert np.array_equal(labels.oriented("RAS").array[clear], logits[0].argmax(0).numpy()[clear])
    assert clear.mean() > 0.99


@pytest.mark.filterwarnings("ignore")
def test_regions_need_to_be_told(tmp_path: Path) -> None:
    bundle(tmp_path / "b", "SegResNet", config("SegResNet", "sigmoid"))
    with pytest.raises(ModelError, match="--labels SCHEME"):
        import_model(tmp_path / "b", tmp_path / "m")
    import_model(tmp_path / "b", tmp_path / "m", scheme=SCHEMES["kits"])
    assert load_model(tmp_path / "m").spec.head == "regions"


def _without(table: dict[str, Any], place: int) -> None:
    del table["preprocessing"]["transforms"][place]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda t: t["network_def"].update(_target_="UNETR"), "wants the network 'UNETR'"),
        (lambda t: t["network_def"].update(init_filters="$import os"), "by an expression"),
        (lambda t: t["inferer"].update(_target_="SimpleInferer"), "SimpleInferer"),
        (lambda t: t["preprocessing"]["transforms"].append({"_target_": "CropForegroundd"}), "CropForegroundd"),
        (lambda t: _without(t, 3), "spacing"),
        (lambda t: t["network_def"].update(in_channels=4), "4 channels"),
        (lambda t: t["inferer"].update(roi_size=[15, 16, 8]), "multiples"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_taken_is_named(tmp_path: Path, change: Any, found: str) -> None:
    table = config("SegResNet")
    change(table)
    bundle(tmp_path / "b", "SegResNet", table)
    with pytest.raises(ModelError, match=found):
        import_model(tmp_path / "b", tmp_path / "m")


@pytest.mark.filterwarnings("ignore")
def test_programs_in_weights_and_idle_options_are_refused(tmp_path: Path) -> None:
    bundle(tmp_path / "b", "SegResNet")
    with pytest.raises(UsageError, match="--folds for a MONAI bundle"):
        import_model(tmp_path / "b", tmp_path / "m", folds=["0"])
    torch.save(Path, tmp_path / "b" / "models" / "model.pt")
    with pytest.raises(ModelError, match="no plain state dict"):
        import_model(tmp_path / "b", tmp_path / "m")
    (tmp_path / "b" / "models" / "model.pt").rename(tmp_path / "b" / "models" / "model.ts")
    with pytest.raises(ModelError, match="TorchScript is not run"):
        import_model(tmp_path / "b", tmp_path / "m")
