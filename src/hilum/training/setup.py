"""RECIPE + DATA SET -> WHAT A RUN NEEDS: folds, plan, prepared cases, the network's description.

Comes in: a recipe, a data set, a run's folder, a fold. Goes out: a ``RunSetup``; ``RUN/recipe.toml``,
``RUN/folds.json``, ``RUN/plan.json`` and ``RUN/prepared`` are written on the way. Knows no optimiser and no loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from hilum import networks
from hilum.config import Recipe, recipe_from, seconds_of, to_table, to_toml
from hilum.datasets import CaseRef, Dataset
from hilum.datasets.folds import Folds, make_folds, read_folds, write_folds
from hilum.errors import DatasetError, HilumError, RecipeError, UsageError
from hilum.files import plain, read_json, write_json, write_text
from hilum.inference import postprocess
from hilum.labels import LabelScheme, scheme_from
from hilum.model import NetworkSpec
from hilum.patches.augment import settings_from
from hilum.patches.own import own_changes
from hilum.patches.sampling import check_foreground
from hilum.patches.tiles import check_overlap
from hilum.prepare.earlier import EarlierStore
from hilum.prepare.fingerprint import Fingerprint, fingerprint
from hilum.prepare.memory import encoder_of
from hilum.prepare.plan import Plan, make_plan
from hilum.prepare.plan import check_options as check_wishes
from hilum.prepare.store import Store, build_store, files_key
from hilum.progress import Progress
from hilum.training.checkpoint import checkpoint_facts
from hilum.training.fitting import check_memory
from hilum.training.losses import check_loss
from hilum.training.optim import check_options
from hilum.training.trackers import check_trackers
from hilum.training.two_stages import check_cascade, check_locator

# what may change between the parts of one run: its length, its place, how it is shown and used afterwards
_MAY_CHANGE = {
    "name",
    "description",
    "inference",
    "postprocess",
    "data.path",
    "cascade.folder",
    "training.steps",
    "training.epochs",
    "training.budget",
    "training.validation_cases",
    "training.validation_share",
    "training.patience",
    "training.track",
    "training.cost_per_hour",
    "training.checkpoint_minutes",
}


@dataclass(frozen=True, eq=False)
class RunSetup:
    """Everything that is decided before the first step.

    Attributes:
        scheme: the labels.
        plan: what the data decided.
        spec: the network.
        store: prepared cases.
        training: names of the cases to learn from.
        held_out: names of the fold's other cases; empty for fold "all".
        cases: all of them, by name.
        earlier: of a cascade: what the model before found in the cases (``cascade``).
        first: of a cascade: the folder of that model.
        before: of a cascade: what the model's card says of the stage before.
        first_networks: of one of a cascade's first networks: how many of them the run trains.
    """

    scheme: LabelScheme
    plan: Plan
    spec: NetworkSpec
    store: Store
    training: tuple[str, ...]
    held_out: tuple[str, ...]
    cases: Mapping[str, CaseRef]
    earlier: EarlierStore | None = None
    first: Path | None = None
    before: Mapping[str, Any] = field(default_factory=dict)
    first_networks: int = 0

    def class_counts(self) -> tuple[int, ...]:
        """Voxels of each class index in the prepared cases to learn from, background first."""
        counts = [self.store.case(name).counts for name in self.training]
        return tuple(sum(of_class) for of_class in zip(*counts, strict=True))


def set_up(
    recipe: Recipe,
    dataset: Dataset,
    out: Path,
    fold: int | str,
    workers: int | None,
    progress: Progress,
    device: torch.device | None = None,
) -> RunSetup:
    """Split, fingerprint, plan, check the network against the plan and the device, prepare the cases.

    Raises:
        DatasetError: too few cases with labels.
        UsageError: a fold that does not exist.
        RecipeError: a plan and a network that do not fit together.
        TrainingError: a training step needs more memory than ``device`` has.
    """
    scheme = recipe.scheme
    cases = list(dataset.labelled)
    if not cases:
        raise DatasetError("no case has labels", where=dataset.name, wanted="cases with a scan and a label map")
    _split(recipe, cases, fold, {})  # what cannot be split is said before any scan is read
    write_text(out / "recipe.toml", to_toml(recipe))
    plan = _plan(recipe, scheme, cases, out, workers, progress)
    weights = _lesions_ml(scheme, out / "fingerprint.json") if recipe.data.stratify else {}
    training, held_out, folds = _split(recipe, cases, fold, weights)
    if folds:
        write_folds(out / "folds.json", folds)
    spec = network_spec(recipe, plan, scheme)
    if device is not None:
        check_memory(spec, plan, device, recipe.training.precision)
    store = build_store(out / "prepared", cases, plan, scheme, workers or 0, progress)
    return RunSetup(scheme, plan, spec, store, training, held_out, {case.name: case for case in cases})


def check_recipe(recipe: Recipe) -> None:
    """Find what is wrong with a recipe now, and not after hours of preparing.

    Raises:
        RecipeError: a name that does not exist, an option out of bounds.
        UsageError: a budget that is no time, an overlap that is no share.
    """
    check_wishes(recipe.prepare)
    check_foreground(recipe.patches.foreground)
    check_overlap(recipe.inference.overlap)
    postprocess.check(recipe.postprocess, recipe.scheme)
    networks.check_name(recipe.network.name)
    nested = recipe.network.head == "regions"
    if nested:
        recipe.scheme.writers()  # a scheme whose regions cannot become labels again is refused
    check_loss(recipe.training.loss, recipe.training.loss_options, recipe.scheme.class_count, nested)
    check_options(recipe.training)
    settings_from(recipe.patches.augment, recipe.patches.augment_options)
    own_changes(recipe.patches.augment_own)
    check_trackers(recipe.training.track)
    check_locator(recipe.locator, recipe.prepare.dims)
    check_cascade(recipe)
    if recipe.patches.within_mm < 0:
        raise RecipeError(
            f"patches.within_mm = {recipe.patches.within_mm}", wanted="millimetres, or 0 for the whole scan"
        )
    seconds_of(recipe.training.budget)


def network_spec(recipe: Recipe, plan: Plan, scheme: LabelScheme) -> NetworkSpec:
    """The planned network with the recipe's own options, its patch checked.

    Raises:
        RecipeError: options or a patch that make no network.
    """
    head = recipe.network.head
    outputs = scheme.class_count if head == "labels" else len(scheme.regions)
    spec = NetworkSpec(recipe.network.name, _network_options(recipe, plan), plan.channels, outputs, plan.dims, head)
    networks.check_patch(spec.name, spec.options, plan.patch)
    return spec


def _network_options(recipe: Recipe, plan: Plan) -> dict[str, Any]:
    planned = networks.plan_options(plan) | {"deep_supervision": recipe.training.deep_supervision}
    return planned | recipe.network.options


def check_same_run(recipe: Mapping[str, Any], fold: int | str, facts: Mapping[str, Any], where: Path) -> None:
    """Refuse to go on with another recipe or fold than the checkpoint's.

    Args:
        recipe: this run's, as ``config.to_table`` gives it.
        fold: this run's.
        facts: the checkpoint's.
        where: the run's folder, for the message.

    Raises:
        RecipeError: naming what differs.
    """
    begun = to_table(recipe_from(facts["recipe"]))  # what an older hilum did not know has its default
    before, now = _flat(_without_labels(begun)), _flat(_without_labels(recipe))
    differs = [
        f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in sorted(set(before) | set(now))
        if before.get(key) != now.get(key) and not _may_change(key)
    ]
    learnt, asked = scheme_from(facts["recipe"]["labels"]), scheme_from(recipe["labels"])
    if learnt != asked:  # a name and the table that it stands for are the same labels
        same_name = learnt.name == asked.name
        how = "mean something else now" if same_name else f"were {learnt.name!r} and are {asked.name!r}"
        differs.insert(0, f"labels {how}")
    if str(facts["fold"]) != str(fold):
        differs.insert(0, f"fold was {facts['fold']!r} and is {str(fold)!r}")
    if differs:
        raise RecipeError(
            f"this run was begun differently: {'; '.join(differs[:4])}",
            where=where,
            wanted="the same recipe (its steps and budget may change)",
            fix="choose another --out folder, or begin anew with --restart",
        )


def _plan(
    recipe: Recipe, scheme: LabelScheme, cases: list[CaseRef], out: Path, workers: int | None, progress: Progress
) -> Plan:
    """The plan that this folder holds if it was made for the same cases and wishes, else a new one.

    Once there is a checkpoint, files may have moved or changed: its network stays what it is.
    """
    begun = checkpoint_facts(out / "checkpoint") is not None
    asked = {
        "cases": [case.name for case in cases],
        "files": [files_key(case) for case in cases],
        "labels": scheme.to_json(),
        "prepare": to_table(recipe)["prepare"],
        "network": to_table(recipe)["network"],
    }
    plan_file, facts_file = out / "plan.json", out / "fingerprint.json"
    if plan_file.is_file() and facts_file.is_file():
        before = read_json(facts_file).get("asked", {})
        if all(before.get(key) == plain(value) for key, value in asked.items() if not (begun and key == "files")):
            return Plan.from_json(read_json(plan_file))
    facts = _facts_of_the_same(facts_file, asked) or fingerprint(cases, scheme, workers or 0, progress)
    plan = make_plan(facts, recipe.prepare, scheme, encoder_of(recipe.network.name))
    if not recipe.prepare.patch:  # networks with a topology of their own may need other edges than the planned one
        options = _network_options(recipe, plan)
        plan = replace(plan, patch=networks.fitting_patch(recipe.network.name, options, plan.patch))
    write_json(plan_file, plan.to_json())
    write_json(facts_file, plain({"asked": asked, **facts.to_json()}))
    return plan


def _facts_of_the_same(file: Path, asked: Mapping[str, Any]) -> Fingerprint | None:
    """The fingerprint in a file, if it is of the same scans and labels; wishes and network have no part in it."""
    try:
        found = read_json(file)
        same = all(found["asked"][key] == plain(asked[key]) for key in ("cases", "files", "labels"))
        return Fingerprint.from_json(found) if same else None
    except (HilumError, KeyError, TypeError):
        return None


def all_folds(recipe: Recipe, cases: Sequence[CaseRef], out: Path) -> Folds:
    """The held-out cases of every fold, as runs in a folder with a fingerprint have them."""
    weights = _lesions_ml(recipe.scheme, out / "fingerprint.json") if recipe.data.stratify else {}
    return _given_folds(recipe, cases) or make_folds(cases, recipe.data.folds, recipe.data.seed, weights)


def _given_folds(recipe: Recipe, cases: Sequence[CaseRef]) -> Folds | None:
    return read_folds(Path(recipe.data.folds_file).expanduser(), cases) if recipe.data.folds_file else None


def _lesions_ml(scheme: LabelScheme, fingerprint_file: Path) -> dict[str, float]:
    """Millilitres of lesion in each case."""
    lesions = [label.value for label in scheme.labels if label.is_lesion]
    facts = Fingerprint.from_json(read_json(fingerprint_file))
    return {case.name: sum(case.volumes_ml[value] for value in lesions) for case in facts.cases}


def _split(
    recipe: Recipe, cases: list[CaseRef], fold: int | str, weights: Mapping[str, float]
) -> tuple[tuple[str, ...], tuple[str, ...], Folds]:
    """Cases to learn from, cases held out, and all folds (none for fold "all")."""
    names = tuple(case.name for case in cases)
    if str(fold) == "all":
        return names, (), ()
    given = _given_folds(recipe, cases)
    count = recipe.data.folds if given is None else len(given)
    if not str(fold).isdecimal() or int(fold) >= count:
        raise UsageError(f"fold {fold!r}", wanted=f"0 to {count - 1}, or all")
    folds = make_folds(cases, count, recipe.data.seed, weights) if given is None else given
    held_out = folds[int(fold)]
    training = tuple(name for name in names if name not in held_out)
    if not training:
        raise DatasetError("no case is left to train on", wanted="cases of at least two patients, or fold all")
    return training, tuple(held_out), folds


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _without_labels(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key != "labels"}


def _may_change(key: str) -> bool:
    return key in _MAY_CHANGE or key.partition(".")[0] in _MAY_CHANGE
