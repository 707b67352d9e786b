"""THE CASCADE: networks at low resolution first, then the recipe's own, which is given what they found.

    RUN/first/                     plan and prepared cases at low resolution (or ``cascade.folder``)
    RUN/first/without_0_1/         one of the first networks: a run like any, trained on the other folds' cases
    RUN/earlier/CASE.npy           what a first network that has not seen the case found in it, on the fine grid

Comes in: the job of a run whose recipe wants a cascade. Goes out: the job of its second stage, which trains the first
networks, asks them and is then a run like any. Stopped anywhere, it goes on there.

nnU-Net v2 trains one first network a fold and takes what each finds in the cases that it has not seen; the first
networks of the other folds have then seen the cases that a run holds out ("folds"). Nested, nothing that the second
stage learns from has seen them: for each other fold one is trained without that fold and without the one held out. For
a single fold both ways train as many. The first network that has seen all training cases travels with the model, and
finds what the held-out cases get.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hilum.config import CascadeOptions, InferenceOptions, Recipe, seconds_of
from hilum.datasets.folds import Folds
from hilum.errors import RecipeError
from hilum.files import read_json
from hilum.inference.cascade import with_earlier
from hilum.inference.predict import Predictor
from hilum.judge.overlap import dice, joint_counts, region_counts
from hilum.labels import LabelScheme
from hilum.model import load_model
from hilum.prepare.earlier import EarlierStore
from hilum.prepare.fingerprint import Fingerprint, read_pair
from hilum.prepare.low_resolution import Spacing, low_resolution
from hilum.prepare.memory import encoder_of
from hilum.prepare.preprocess import stream_scan
from hilum.prepare.store import case_key
from hilum.training.checkpoint import checkpoint_facts
from hilum.training.setup import RunSetup, all_folds

if TYPE_CHECKING:
    from hilum.training.loop import Job

FIRST, FOUND = "first", "earlier"


@dataclass(frozen=True)
class Part:
    """One of the first networks.

    Attributes:
        name: of its folder: which folds it has not seen.
        training: names of the cases that it learns from.
        predicts: names of the cases in which it finds what the second stage is given.
    """

    name: str
    training: tuple[str, ...]
    predicts: tuple[str, ...]


def wants_cascade(recipe: Recipe) -> bool:
    """Whether a recipe may have a first stage."""
    return recipe.cascade.use != "never"


def cascade(job: Job) -> Job:
    """The job of the second stage, or of a run without a first one where the plan says that none is worth it.

    Args:
        job: of a recipe with a cascade.

    Raises:
        RecipeError: a cascade that cannot be; the message names the key.
        DatasetError: too few cases, or cases that cannot be used.
    """
    options, setup = job.recipe.cascade, job.set_up()
    facts = Fingerprint.from_json(read_json(job.out / "fingerprint.json"))
    encoder = encoder_of(job.recipe.network.name)
    found = low_resolution(setup.plan, facts, job.recipe.prepare, setup.scheme, encoder)
    job.progress.say(found.said[0].upper() + found.said[1:])
    if found.spacing_mm is None and options.use == "planned":
        return replace(job, make=_always(setup))
    spacing = _given(options) or found.spacing_mm
    if spacing is None:
        raise RecipeError(
            found.said, where="cascade.spacing_mm", wanted="a spacing in millimetres", fix='or cascade.use = "planned"'
        )
    parts = parts_of(job, setup)
    low = first_recipe(job.recipe, spacing, len(parts))
    return replace(job, recipe=second_recipe(job.recipe), make=lambda second: _first_stage(second, setup, low, parts))


def parts_of(job: Job, setup: RunSetup) -> tuple[Part, ...]:
    """The first networks of a run; the last one travels with its model.

    Raises:
        RecipeError: too few folds.
    """
    folds = all_folds(job.recipe, [setup.cases[name] for name in setup.store.names], job.out)
    nested, own = job.recipe.cascade.out_of_fold == "nested", str(job.fold)
    others = [index for index in range(len(folds)) if str(index) != own]
    if nested and own != "all" and len(others) < 2:
        raise RecipeError(
            f"{len(folds)} folds, of which one is held out",
            where="data.folds",
            wanted="at least 3, so that a first network is left cases to learn from",
            fix='or cascade.out_of_fold = "folds"',
        )
    parts = []
    for index in others:
        left_out = {index, *([int(own)] if nested and own != "all" else [])}
        parts.append(Part(_name(left_out), _without(setup.store.names, folds, left_out), tuple(folds[index])))
    last = "all" if own == "all" else _name({int(own)})
    return (*parts, Part(last, setup.training, setup.held_out))


def first_recipe(recipe: Recipe, spacing_mm: Spacing, parts: int) -> Recipe:
    """The recipe of the first networks: the same network, data, loss and augmentation on coarser voxels."""
    options, training = recipe.cascade, recipe.training
    prepare = recipe.prepare
    return replace(
        recipe,
        name=f"{recipe.name}_first",
        description=f"First stage of {recipe.name} at {' x '.join(f'{mm:g}' for mm in spacing_mm)} mm",
        prepare=replace(
            prepare,
            spacing_mm=spacing_mm,
            patch=options.patch or prepare.patch,
            batch=options.batch or prepare.batch,
        ),
        cascade=CascadeOptions(),
        training=replace(
            training,
            steps=options.steps or training.total_steps,
            epochs=0,
            budget=_share(training.budget, options.budget_share / parts),
            patience=0,
            keep="last",
            track=(),
        ),
        inference=InferenceOptions(
            recipe.inference.overlap, recipe.inference.mirror, mirror_axes=recipe.inference.mirror_axes
        ),
        postprocess=(),
    )


def second_recipe(recipe: Recipe) -> Recipe:
    """The recipe with what the first networks leave of its budget."""
    left = _share(recipe.training.budget, 1 - recipe.cascade.budget_share)
    return replace(recipe, training=replace(recipe.training, budget=left))


def _first_stage(job: Job, setup: RunSetup, low: Recipe, parts: Sequence[Part]) -> RunSetup:
    """Train what is left to train, ask it what is left to ask, and add that to the second stage's set-up."""
    given = job.recipe.cascade.folder
    home = Path(given).expanduser() if given else job.out / FIRST
    begun = checkpoint_facts(job.out / "checkpoint") is not None
    base = _coarse_set_up(replace(job, recipe=low, out=home))
    for number, part in enumerate(parts, 1):
        folder = home / part.name
        # once the second stage has begun, its first networks stay what they are
        if not (begun and (folder / "model" / "model.json").is_file()):
            job.progress.say(f"First network {number} of {len(parts)}: learns from {len(part.training)} cases")
            mine = replace(base, training=part.training, held_out=part.predicts, first_networks=len(parts))
            replace(job, recipe=low, out=folder, fold=part.name, make=_always(mine)).run()
    earlier = EarlierStore(job.out / FOUND, setup.scheme.class_count - 1)
    for part in parts:
        _find(job, setup, earlier, part, home / part.name)
    job.ranks.wait()
    spec = replace(setup.spec, in_channels=setup.plan.channels + earlier.labels)
    return replace(
        setup,
        spec=spec,
        earlier=earlier,
        first=home / parts[-1].name / "model",
        before={
            "recipe": low.name,
            "network": base.spec.name,
            "spacing_mm": list(base.plan.spacing_mm),
            "patch": list(base.plan.patch),
            "networks_trained": len(parts),
            "out_of_fold": job.recipe.cascade.out_of_fold,
            "dice_in_training_cases": _mean_dice(earlier, setup.training),
            "dice_in_held_out_cases": _mean_dice(earlier, setup.held_out),
        },
    )


def _always(setup: RunSetup) -> Callable[[Job], RunSetup]:
    """What makes a job's set-up where it is there already."""
    return lambda _: setup


def _coarse_set_up(job: Job) -> RunSetup:
    try:
        return job.set_up()
    except RecipeError as error:
        raise RecipeError(
            f"the first network at {' x '.join(f'{mm:g}' for mm in job.recipe.prepare.spacing_mm)} mm: {error.found}",
            where="cascade.patch, cascade.batch or cascade.spacing_mm",
            wanted=error.wanted,
            fix=error.fix,
        ) from None


def _find(job: Job, setup: RunSetup, earlier: EarlierStore, part: Part, folder: Path) -> None:
    """Ask a first network about cases that it has not seen; each rank asks about its own.

    Raises:
        RecipeError: it has seen other cases than this run's folds say.
    """
    model = load_model(folder / "model")
    if set(model.card["trained_on"]["cases"]) != set(part.training):
        raise RecipeError(
            "this first network was trained on other cases than this run's folds ask for",
            where=folder,
            wanted=f"the {len(part.training)} cases without fold {part.name.removeprefix('without_')}",
            fix="choose another cascade.folder or --out",
        )
    assert not set(part.training) & set(part.predicts), part.name

    def key(name: str) -> str:
        text = [case_key(setup.cases[name], setup.plan, setup.scheme), model.hash]
        return hashlib.sha256(json.dumps(text).encode()).hexdigest()

    mine = part.predicts[job.ranks.rank :: job.ranks.world]
    todo = [name for name in mine if not earlier.has(name, key(name))]
    bar = job.progress.stage(f"Finding at low resolution ({part.name})", len(todo))
    predictor = Predictor(model, str(job.device)) if todo else None
    for name in todo:
        assert predictor is not None
        scan, _ = read_pair(setup.cases[name], setup.scheme)
        classes = with_earlier(stream_scan(scan, setup.plan, name), predictor).earlier_DHW
        truth = setup.store.case(name).labels_DHW
        assert classes is not None and classes.shape == truth.shape, (name, truth.shape)
        facts = {"model": part.name, "dice": _dice(np.asarray(truth), classes, setup.scheme)}
        earlier.save(name, key(name), classes, facts)
        bar.step(note=name)


def _dice(truth_DHW: np.ndarray, classes_DHW: np.ndarray, scheme: LabelScheme) -> dict[str, float | None]:
    """By region, on the fine grid; None where neither has it."""
    values = scheme.value_lookup()
    joint = joint_counts(values[truth_DHW], values[classes_DHW])
    found = {region.name: float(dice(region_counts(joint, region.labels))) for region in scheme.regions}
    return {name: None if np.isnan(value) else value for name, value in found.items()}


def _mean_dice(earlier: EarlierStore, names: Sequence[str]) -> dict[str, float | None]:
    """By region, over the cases that have it."""
    tables: list[Mapping[str, Any]] = [earlier.facts(name).get("dice", {}) for name in names]
    regions = dict.fromkeys(region for table in tables for region in table)
    known = {region: [table[region] for table in tables if table.get(region) is not None] for region in regions}
    return {region: round(sum(values) / len(values), 4) if values else None for region, values in known.items()}


def _name(left_out: set[int]) -> str:
    return "_".join(["without", *(str(index) for index in sorted(left_out))])


def _without(names: Sequence[str], folds: Folds, left_out: set[int]) -> tuple[str, ...]:
    gone = {name for index in left_out for name in folds[index]}
    return tuple(name for name in names if name not in gone)


def _given(options: CascadeOptions) -> Spacing | None:
    if not options.spacing_mm:
        return None
    d, h, w = options.spacing_mm
    return d, h, w


def _share(budget: str, share: float) -> str:
    seconds = seconds_of(budget)
    return f"{seconds * share}s" if seconds else ""
