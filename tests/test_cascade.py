"""Two networks by one recipe: what the first finds in cases that it has not seen is given to the second."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hilum.config import CascadeOptions, LocatorOptions, PrepareOptions, Recipe, read_recipe, to_toml
from hilum.datasets import Dataset
from hilum.errors import RecipeError, TrainingError
from hilum.inference.cascade import with_earlier
from hilum.inference.predict import Predictor
from hilum.labels import SCHEMES
from hilum.model import load_model
from hilum.prepare.earlier import EarlierStore
from hilum.prepare.preprocess import stream_scan
from hilum.progress import Progress
from hilum.scans import read_labels, read_scan
from hilum.training import cascade as module
from hilum.training.checkpoint import checkpoint_facts
from hilum.training.loop import train
from hilum.training.setup import check_recipe
from hilum.training.tracking import read_log
from making_runs import Interrupting, losses, make_cases, one_thread, recipe, same_weights

__all__ = ["one_thread"]  # a fixture that works by itself

OPTIONS = CascadeOptions(use="always", spacing_mm=(2.0, 2.0, 2.0), patch=(8, 8, 8), steps=2)


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_cases(tmp_path_factory.mktemp("cubes"), 3)


def asked(options: CascadeOptions = OPTIONS, **training: Any) -> Recipe:
    made: Recipe = recipe(**{"steps": 2, "validation_cases": 0, **training})
    return replace(made, cascade=options)


class Saying(Progress):
    """A progress that remembers."""

    def __init__(self) -> None:
        super().__init__("")
        self.said: list[str] = []

    def stage(self, title: str, total: int = 0) -> Progress:
        return self

    def say(self, text: str) -> None:
        self.said.append(text)


def seen_by(folder: Path) -> set[str]:
    return set(load_model(folder / "model").card["trained_on"]["cases"])


def test_both_stages_by_one_recipe(tmp_path: Path, cubes: Dataset) -> None:
    options, saying = asked(), Saying()
    (tmp_path / "r.toml").write_text(to_toml(options))
    assert read_recipe(tmp_path / "r.toml") == options
    result = train(options, cubes, tmp_path / "run", device="cpu", progress=saying)
    model = load_model(result.model)
    first = model.first
    assert first is not None and first.plan.spacing_mm == (2.0, 2.0, 2.0) and model.plan.spacing_mm == (1.0, 1.0, 1.0)
    assert model.spec.in_channels == 1 + len(model.scheme.labels) and first.spec.in_channels == 1
    assert len([text for text in saying.said if text.startswith("First network")]) == 3
    before = model.card["stage_before"]
    assert before["spacing_mm"] == [2, 2, 2] and before["networks_trained"] == 3 and before["out_of_fold"] == "nested"
    assert set(before["dice_in_training_cases"]) == set(before["dice_in_held_out_cases"]) == {"liver", "lesion"}
    assert first.card["recipe"] == "cubes_first" and set(first.card["trained_on"]["cases"]) == seen_by(tmp_path / "run")
    facts = read_log(result.log)[0]["facts"]
    assert facts["patch_share_of_median_case"] == pytest.approx(16**3 / 24**3, abs=1e-4)
    held_out = next(case for case in cubes.cases if case.name in result.held_out)
    assert Predictor(model, "cpu").segment(read_scan(held_out.image)).shape == (24, 24, 24)
    assert train(options, cubes, tmp_path / "run", device="cpu").was_finished


@pytest.mark.parametrize(
    ("fold", "out_of_fold", "networks"),
    [(1, "nested", 3), (1, "folds", 3), ("all", "nested", 4)],
)
def test_no_case_is_found_in_by_a_network_that_has_seen_it(
    tmp_path: Path, cubes: Dataset, fold: int | str, out_of_fold: Any, networks: int
) -> None:
    result = train(asked(replace(OPTIONS, out_of_fold=out_of_fold), steps=1), cubes, tmp_path, fold=fold, device="cpu")
    names, model = {case.name for case in cubes.cases}, load_model(result.model)
    store = EarlierStore(tmp_path / "earlier", 2)
    by = {name: store.facts(name)["model"] for name in names}
    folders = {file.parent.parent.name for file in (tmp_path / "first").glob("*/model/model.json")}
    assert len(folders) == networks and set(by.values()) <= folders
    for name, folder in by.items():
        seen = seen_by(tmp_path / "first" / folder)
        assert name not in seen
        if out_of_fold == "nested":  # nor has it seen what the run holds out
            assert not seen & set(result.held_out)
    # the one that travels has seen all that the second has, and it alone finds in the held-out cases
    assert model.first is not None and set(model.first.card["trained_on"]["cases"]) == seen_by(tmp_path)
    assert {by[name] for name in result.held_out} == ({"without_1"} if fold == 1 else set())
    if fold == 1 and out_of_fold == "folds":  # as nnU-Net has it
        assert all(len(seen_by(tmp_path / "first" / folder)) == 2 for folder in folders)


def test_what_it_is_given_is_what_segmenting_gives_it(tmp_path: Path, cubes: Dataset) -> None:
    """The held-out case's findings, kept on the fine grid while training, are those of inference, voxel by voxel."""
    result = train(asked(steps=1), cubes, tmp_path, device="cpu")
    model, (name,) = load_model(result.model), result.held_out
    assert model.first is not None
    scan = read_scan(next(case for case in cubes.cases if case.name == name).image)
    found = with_earlier(stream_scan(scan, model.plan, name), Predictor(model.first, "cpu")).earlier_DHW
    kept = EarlierStore(tmp_path / "earlier", 2).classes(name)
    assert found is not None and kept.shape == (24, 24, 24) and np.array_equal(kept, found) and kept.any()


def test_the_second_network_learns_from_the_first(tmp_path: Path, cubes: Dataset, monkeypatch: Any) -> None:
    """Where the first network is always right, the second one is right soon, though the images say nothing."""

    def right(case: Any, predictor: Predictor, progress: Any = None) -> Any:
        labels = read_labels(next(str(c.labels) for c in cubes.cases if c.name == case.name), SCHEMES["lits"])
        return replace(case, earlier_DHW=labels.oriented().array.astype(np.uint8))

    monkeypatch.setattr(module, "with_earlier", right)
    options = asked(replace(OPTIONS, steps=1), steps=60, epoch_steps=30, learning_rate=0.03, validation_cases=0)
    blind = PrepareOptions(**{**vars(options.prepare), "normalisation": "window", "window_hu": (5000.0, 6000.0)})
    result = train(replace(options, prepare=blind), cubes, tmp_path / "run", device="cpu")
    assert read_log(result.log)[-1]["patch_dice"]["liver"] > 0.9
    assert load_model(result.model).card["stage_before"]["dice_in_held_out_cases"]["liver"] == 1.0


@pytest.mark.parametrize("after", [1, 4, 8])
def test_it_goes_on_at_any_stage(tmp_path: Path, cubes: Dataset, after: int) -> None:
    """Two steps of each of three first networks, then two of the second: stopped in the first of them, in a next one
    between its steps, and at the very end."""
    options = asked(checkpoint_minutes=0.0)
    train(options, cubes, tmp_path / "straight", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train(options, cubes, tmp_path / "cut", device="cpu", progress=Counting(after))
    done = len(list((tmp_path / "cut" / "first").glob("*/model/model.json")))
    assert done == min(3, (after - 1) // 2)
    train(options, cubes, tmp_path / "cut", device="cpu")
    for part in ("", *(f"first/{folder}" for folder in ("without_0", "without_0_1", "without_0_2"))):
        assert losses(tmp_path / "cut" / part) == losses(tmp_path / "straight" / part)
        assert same_weights(tmp_path / "cut" / part, tmp_path / "straight" / part)


class Counting(Interrupting):
    """Pulls the plug at the n-th training step of all stages together."""

    count = 0

    def __init__(self, after: int, title: str = ""):
        super().__init__(after, KeyboardInterrupt, title)
        Counting.count = 0 if not title else Counting.count

    def stage(self, title: str, total: int = 0) -> Progress:
        return Counting(self.after, title or "-")

    def step(self, count: int = 1, note: str = "") -> None:
        if self.title == "Training":
            Counting.count += count
            if Counting.count >= self.after:
                raise KeyboardInterrupt


def test_once_the_second_has_begun_its_first_networks_stay(tmp_path: Path, cubes: Dataset) -> None:
    """More steps extend the second network alone, also where both have the recipe's own number of steps."""
    options = asked(replace(OPTIONS, steps=0), steps=2)
    train(options, cubes, tmp_path, device="cpu")
    first = load_model(tmp_path).first
    assert first is not None and first.card["steps"] == 2
    kept = next((tmp_path / "earlier").glob("case0.*.npy"))
    stamp, gone = kept.stat().st_mtime_ns, next((tmp_path / "earlier").glob("case1.*.npy"))
    gone.unlink()
    result = train(asked(replace(OPTIONS, steps=0), steps=4), cubes, tmp_path, device="cpu")
    again = load_model(tmp_path).first
    assert result.steps == 4 and again is not None and again.hash == first.hash
    assert gone.is_file() and kept.stat().st_mtime_ns == stamp  # what was lost is found again, and nothing else


def test_beginning_anew_forgets_both_stages(tmp_path: Path, cubes: Dataset) -> None:
    train(asked(), cubes, tmp_path, device="cpu")
    saying = Saying()
    train(asked(replace(OPTIONS, steps=1)), cubes, tmp_path, device="cpu", resume=False, progress=saying)
    first = load_model(tmp_path).first
    assert first is not None and first.card["steps"] == 1
    assert checkpoint_facts(tmp_path / "first" / "without_0_1" / "checkpoint")["step"] == 1  # type: ignore[index]


def test_runs_of_other_folds_share_the_first_networks(tmp_path: Path, cubes: Dataset) -> None:
    options = asked(replace(OPTIONS, folder=str(tmp_path / "shared"), out_of_fold="folds"))
    for fold, trained in ((0, 3), (1, 0)):
        saying = Saying()
        train(options, cubes, tmp_path / f"{fold}", fold=fold, device="cpu", progress=saying)
        assert sum("is finished" in text for text in saying.said) == 3 - trained
    assert {folder.name for folder in (tmp_path / "shared").glob("without_*")} == {f"without_{k}" for k in range(3)}
    one, two = load_model(tmp_path / "0").first, load_model(tmp_path / "1").first
    assert one is not None and two is not None and one.hash != two.hash
    other = replace(options, data=replace(options.data, seed=1))
    with pytest.raises(RecipeError, match=r"begun differently|other cases"):
        train(other, cubes, tmp_path / "2", device="cpu")


def test_a_first_network_that_has_seen_other_cases_is_refused(tmp_path: Path, cubes: Dataset) -> None:
    """However it came there: what it says of itself counts."""
    held_out = train(asked(), cubes, tmp_path / "run", device="cpu").held_out
    file = tmp_path / "run" / "first" / "without_0_1" / "model" / "model.json"
    table = json.loads(file.read_text())
    table["card"]["trained_on"]["cases"] += held_out
    file.write_text(json.dumps(table))
    with pytest.raises(RecipeError, match=r"trained on other cases .* without fold 0_1"):
        train(asked(steps=3), cubes, tmp_path / "run", device="cpu")


def test_planned_trains_a_first_network_only_where_the_rule_says_so(tmp_path: Path, cubes: Dataset) -> None:
    saying, options = Saying(), asked(replace(OPTIONS, use="planned", spacing_mm=(), patch=()), steps=1)
    result = train(options, cubes, tmp_path / "large", device="cpu", progress=saying)
    assert load_model(result.model).first is None and not (tmp_path / "large" / "first").exists()
    assert any("no cascade" in text for text in saying.said)
    small = replace(options, prepare=replace(options.prepare, patch=(8, 8, 8)))
    result = train(small, cubes, tmp_path / "small", device="cpu")
    first = load_model(result.model).first
    assert first is not None and 1.7 < first.plan.spacing_mm[0] < 2 and first.plan.patch == (8, 8, 8)
    nothing = replace(options, cascade=replace(options.cascade, use="always"))
    with pytest.raises(RecipeError, match=r"cascade.spacing_mm: .*no cascade is worth it"):
        train(nothing, cubes, tmp_path / "none", device="cpu")


def test_without_a_cascade_it_is_said_where_one_might_pay(tmp_path: Path, cubes: Dataset) -> None:
    for patch, said in (((8, 8, 8), True), ((16, 16, 16), False)):
        saying, options = Saying(), asked(CascadeOptions(), steps=1)
        options = replace(options, prepare=replace(options.prepare, patch=patch))
        train(options, cubes, tmp_path / str(patch[0]), device="cpu", progress=saying)
        assert any("a cascade may do better" in text for text in saying.said) is said


def test_regions_budget_and_planned_names(tmp_path: Path, cubes: Dataset) -> None:
    options = asked(budget="8s", steps=2)
    options = replace(options, network=replace(options.network, head="regions"))
    first, second = module.first_recipe(options, (2.0, 2.0, 2.0), 4), module.second_recipe(options)
    assert first.training.budget == "1.0s" and second.training.budget == "4.0s" and first.cascade.use == "never"
    model = load_model(train(options, cubes, tmp_path, device="cpu").model)
    assert model.spec.in_channels == 3 and model.spec.out_channels == 2 and model.first is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cascade": replace(OPTIONS, spacing_mm=(2.0, 2.0))}, "cascade.spacing_mm"),
        ({"cascade": replace(OPTIONS, spacing_mm=(2.0, 0.0, 2.0))}, "cascade.spacing_mm"),
        ({"cascade": replace(OPTIONS, patch=(8, 8))}, "cascade.patch"),
        ({"cascade": replace(OPTIONS, batch=-1)}, "cascade.batch: -1"),
        ({"cascade": replace(OPTIONS, steps=-1)}, "cascade.steps: -1"),
        ({"cascade": replace(OPTIONS, budget_share=1.0)}, "cascade.budget_share: 1.0"),
        ({"prepare": PrepareOptions(dims=2)}, "prepare.dims = 2"),
        ({"locator": LocatorOptions(spacing_mm=4.0)}, "a cascade and a locator"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_recipe(replace(asked(), **change))


def test_own_augmentations_folds_and_patches_that_do_not_fit_are_refused(tmp_path: Path, cubes: Dataset) -> None:
    own = replace(asked(), patches=replace(asked().patches, augment_own=("test_cascade.leave",)))
    with pytest.raises(RecipeError, match="would not move what the first network found"):
        check_recipe(own)
    two = replace(asked(), data=replace(asked().data, folds=2))
    with pytest.raises(RecipeError, match=r"data.folds: 2 folds.*out_of_fold"):
        train(two, cubes, tmp_path / "two", device="cpu")
    folds = replace(two, cascade=replace(OPTIONS, out_of_fold="folds", steps=1))
    assert train(folds, cubes, tmp_path / "folds", device="cpu").steps == 2
    with pytest.raises(RecipeError, match=r"cascade.patch.*the first network at 2 x 2 x 2 mm.*\[9, 8, 8\]"):
        train(asked(replace(OPTIONS, patch=(9, 8, 8))), cubes, tmp_path / "odd", device="cpu")


def leave(image: torch.Tensor, labels: torch.Tensor, generator: Any) -> Any:
    """An augmentation of one's own."""
    return image, labels


def test_a_signal_in_the_first_stage_says_how_to_go_on(tmp_path: Path, cubes: Dataset) -> None:
    with pytest.raises(TrainingError, match=r"stopped by SIGTERM after step 1 of 2.*run the same command again"):
        train(asked(), cubes, tmp_path, device="cpu", progress=Interrupting(1, signal.SIGTERM))
    assert train(asked(), cubes, tmp_path, device="cpu").steps == 2
