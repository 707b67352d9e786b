from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hilum.config import InferenceOptions
from hilum.errors import ModelError, OutputError, UsageError
from hilum.labels import SCHEMES
from hilum.model import NetworkSpec, built_in_models, load_model, save_model
from hilum.networks import plan_options
from hilum.prepare.plan import Normalisation, Plan

PLAN = Plan(
    dims=3,
    spacing_mm=(3.0, 0.8, 0.8),
    patch=(8, 16, 16),
    batch=2,
    features=(4, 8),
    kernels=((1, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (1, 2, 2)),
    convs_per_stage=(2, 2),
    normalisation=Normalisation("ct", -80.0, 300.0, 100.0, 70.0),
    separate_z=True,
    median_shape=(40, 100, 100),
)
KITS = SCHEMES["kits"]
STEPS = ({"step": "keep_largest"}, {"step": "drop_small", "min_ml": 0.1})


def spec(name: str = "plain_unet") -> NetworkSpec:
    return NetworkSpec(name, plan_options(PLAN), 1, KITS.class_count, 3)


def weights(seed: int = 0, name: str = "plain_unet") -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return spec(name).build().state_dict()


def save(folder: Path, *, seed: int = 0, **more: object) -> Path:
    given = {"inference": InferenceOptions(0.25, True), "postprocess": STEPS, "card": {"description": "a test"}} | more
    return save_model(folder, spec(), weights(seed), PLAN, KITS, **given)  # type: ignore[arg-type]


def test_round_trip(tmp_path: Path) -> None:
    save(tmp_path / "m", recipe_toml="name = 'x'\n")
    model = load_model(tmp_path / "m")
    assert (model.spec, model.plan, model.scheme) == (spec(), PLAN, KITS)
    assert (model.inference, model.postprocess) == (InferenceOptions(0.25, True), STEPS)
    assert model.card == {"description": "a test"} and model.recipe_toml == "name = 'x'\n" and model.name == "m"
    assert all(torch.equal(model.weights[0][key], value) for key, value in weights().items())
    network = model.network()
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert network(torch.zeros(1, 1, 8, 16, 16)).shape == (1, 4, 8, 16, 16)
    facts = json.loads(json.dumps(model.facts(), allow_nan=False))
    assert facts["parameters"] == sum(x.numel() for x in weights().values()) and facts["hash"] == model.hash


def test_nothing_is_left_beside(tmp_path: Path) -> None:
    save(tmp_path / "m")
    save(tmp_path / "m", seed=1)
    assert [item.name for item in tmp_path.iterdir()] == ["m"]
    assert sorted(f.name for f in (tmp_path / "m").iterdir()) == ["model.json", "recipe.toml", "weights.safetensors"]
    assert torch.equal(load_model(tmp_path / "m").weights[0]["decoder.seg_layers.0.bias"], torch.zeros(4))


def test_hash_follows_weights_and_settings(tmp_path: Path) -> None:
    kinds = {
        "same": {},
        "again": {},
        "weights": {"seed": 1},
        "card": {"card": {"description": "another"}},
        "overlap": {"inference": InferenceOptions(0.5, True)},
    }
    hashes = {name: load_model(save(tmp_path / name, **more)).hash for name, more in kinds.items()}  # type: ignore[arg-type]
    assert hashes["same"] == hashes["again"] and len(set(hashes.values())) == 4
    assert all(len(h) == 12 for h in hashes.values())


def test_half_precision_files_are_half_as_large_and_come_back_as_fp32(tmp_path: Path) -> None:
    full, half = save(tmp_path / "full"), save(tmp_path / "half", dtype="float16")
    sizes = [(f / "weights.safetensors").stat().st_size for f in (full, half)]
    assert sizes[1] < 0.6 * sizes[0]
    back = load_model(half).weights[0]
    assert all(x.dtype == torch.float32 and torch.equal(x, weights()[key].half().float()) for key, x in back.items())


def test_several_folds(tmp_path: Path) -> None:
    save_model(tmp_path / "m", spec(), [weights(0), weights(1)], PLAN, KITS)
    model = load_model(tmp_path / "m")
    assert len(model.weights) == 2
    for fold in (0, 1):
        network = model.network(fold)
        assert all(torch.equal(x, network.state_dict()[key]) for key, x in weights(fold).items())


def test_state_dicts_with_nnunets_duplicates_are_stored_once(tmp_path: Path) -> None:
    state = weights()
    state |= {f"decoder.{key}": x for key, x in state.items() if key.startswith("encoder")}
    save_model(tmp_path / "m", spec(), state, PLAN, KITS)
    assert set(load_model(tmp_path / "m").weights[0]) == set(weights())


def edit(folder: Path, **changes: object) -> None:
    table = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(table | changes))


def drop(folder: Path, key: str) -> None:
    table = json.loads((folder / "model.json").read_text())
    del table[key]
    (folder / "model.json").write_text(json.dumps(table))


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: flip(f / "weights.safetensors"), r"weights\.safetensors: is damaged: its checksum"),
        (lambda f: (f / "weights.safetensors").write_bytes(b"x"), r"weights\.safetensors: is damaged"),
        (lambda f: (f / "weights.safetensors").unlink(), r"weights\.safetensors: is missing"),
        (lambda f: (f / "model.json").write_text('{"format": 1, "net'), r"model\.json: is not JSON"),
        (lambda f: (f / "model.json").write_text("[1]"), r"model\.json: is no description"),
        (lambda f: (f / "model.json").unlink(), "no model.json in this folder"),
        (lambda f: edit(f, format=2), r"model\.json: has format 2; wanted format 1"),
        (lambda f: edit(f, plan={"format": 1}), r"model\.json: holds values that cannot be used"),
        (lambda f: edit(f, scheme="nothing"), r"model\.json: holds values that cannot be used"),
        (lambda f: edit(f, network={"name": "plain_unet"}), r"model\.json: holds values"),
        (lambda f: edit(f, weights=[]), "lists no weights"),
        (lambda f: edit(f, weights=[{"file": "../w.safetensors", "sha256": ""}]), "outside the folder"),
        (lambda f: drop(f, "plan"), r"lacks \['plan'\]"),
    ],
)
def test_damage_is_said_in_one_sentence(tmp_path: Path, damage, said: str) -> None:
    folder = save(tmp_path / "m")
    damage(folder)
    with pytest.raises(ModelError, match=said) as caught:
        load_model(folder)
    assert ("\n" not in str(caught.value) and caught.value.fix) or caught.value.wanted


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"features": [4, 8], "decoder_convs": 1}, r"4 are not the network's, such as decoder\.stages\.0\.convs\.1"),
        ({"features": [4, 8], "convs_per_stage": 3}, "tensors are missing, such as encoder"),
        ({"features": [4, 6]}, r"is \(8, 4, 3, 3, 3\) where the network has \(6, 4, 3, 3, 3\)"),
    ],
)
def test_weights_of_another_network(tmp_path: Path, other: dict[str, object], said: str) -> None:
    folder = save(tmp_path / "m")
    table = json.loads((folder / "model.json").read_text())["network"]
    edit(folder, network=table | {"options": table["options"] | other})
    with pytest.raises(ModelError, match=said):
        load_model(folder)


def test_weights_that_cannot_be_saved(tmp_path: Path) -> None:
    broken = weights() | {"decoder.seg_layers.0.bias": torch.full((4,), float("nan"))}
    with pytest.raises(ModelError, match=r"NaN or infinity, such as decoder\.seg_layers\.0\.bias"):
        save_model(tmp_path / "m", spec(), broken, PLAN, KITS)
    with pytest.raises(ModelError, match="do not fit"):
        save_model(tmp_path / "m", spec(), {"x": torch.zeros(1)}, PLAN, KITS)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_model_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.txt").write_text("all of it")
    with pytest.raises(OutputError, match="is no model folder"):
        save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "text.txt").read_text() == "all of it"


def test_a_run_stands_for_its_model(tmp_path: Path) -> None:
    save(tmp_path / "run7" / "model")
    assert load_model(tmp_path / "run7").name == "run7"


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilum.model.loading.BUILT_IN", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "models" / "tiny")
    assert built_in_models() == {"tiny": "a test"}
    assert load_model("tiny").folder == tmp_path / "models" / "tiny"
    with pytest.raises(UsageError, match=r"no model 'dmeo'; wanted a model folder, or one of \['tiny'\]"):
        load_model("dmeo")


def test_every_built_in_model_loads() -> None:
    for name, text in built_in_models().items():
        assert load_model(name).name == name and text


def test_other_networks_and_dimensions(tmp_path: Path) -> None:
    flat = replace(PLAN, dims=2, patch=(1, 16, 16), kernels=((1, 3, 3), (1, 3, 3)))
    two = NetworkSpec("residual_unet", plan_options(flat) | {"blocks_per_stage": [1, 2]}, 1, 4, 2)
    save_model(tmp_path / "m", two, two.build().state_dict(), flat, KITS)
    assert load_model(tmp_path / "m").network()(torch.zeros(1, 1, 16, 16)).shape == (1, 4, 16, 16)
