"""``hilum train`` and ``hilum recipes``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from hilum.cli.words import add_verb, answered, progress_of, quoted
from hilum.errors import UsageError


def train(options: argparse.Namespace) -> int:
    """Train, then judge on the held-out cases."""
    from hilum.config import read_recipe
    from hilum.runs import train_and_validate

    overrides = [*(options.set or [])]
    if options.data:
        name, equals, path = options.data.partition("=")
        if not equals or not name or not path:
            raise UsageError(f"--data {options.data!r}", wanted="NAME=PATH, e.g. folder=/data/ct")
        overrides += [f"data.dataset={quoted(name)}", f"data.path={quoted(path)}"]
    for key in ("epochs", "steps"):
        if getattr(options, key) is not None:
            overrides.append(f"training.{key}={getattr(options, key)}")
    if options.steps is not None and options.epochs is None:
        overrides.append("training.epochs=0")
    if options.track:
        overrides.append(f"training.track={json.dumps(options.track)}")
    if options.cascade:
        overrides.append(f"cascade.use={quoted(options.cascade)}")
    if options.folds:
        overrides.append(f"data.folds_file={quoted(options.folds)}")
    if options.budget:
        overrides.append(f"training.budget={quoted(options.budget)}")
    recipe = read_recipe(options.recipe, overrides)
    answer = train_and_validate(
        recipe,
        Path(options.out),
        fold=options.fold,
        device=options.device,
        resume=not options.restart,
        progress=progress_of(options),
    )
    return answered(options, answer, answer["text"], 1 if answer["failed"] else 0)


def recipes(options: argparse.Namespace) -> int:
    """Recipes that ship with hilum."""
    from hilum.config import built_in_recipes, read_recipe

    table = {name: read_recipe(path).description for name, path in built_in_recipes().items()}
    return answered(options, table, "\n".join(f"{name:16} {text}" for name, text in table.items()))


def train_words(verbs: Any) -> None:
    """Words of ``hilum train`` and ``hilum recipes``."""
    text = "train a network by a recipe, then judge it on the held-out cases"
    example = "hilum train default --data folder=/data/my_cts --out runs/mine --budget 2h"
    words = add_verb(verbs, "train", train, text, example)
    words.add_argument("recipe", metavar="RECIPE", help="a TOML file or a built-in recipe (hilum recipes lists them)")
    words.add_argument("--data", metavar="NAME=PATH", help="data set kind and place, e.g. folder=/data/ct")
    words.add_argument("--out", required=True, metavar="RUN", help="folder of this run; an interrupted run goes on")
    words.add_argument("--fold", default="0", metavar="K|all", help="which fold is held out; all: none (default: 0)")
    words.add_argument("--folds", metavar="FILE", help="who is held out when (hilum data folds writes one)")
    words.add_argument("--budget", metavar="TIME", help="training time such as 30min or 2h; the schedule fits itself")
    words.add_argument(
        "--epochs", type=int, metavar="N", help="epochs (of training.epoch_steps steps); a larger N extends"
    )
    words.add_argument("--steps", type=int, metavar="N", help="steps; a larger N extends a finished run")
    words.add_argument(
        "--track",
        action="append",
        choices=("tensorboard", "mlflow"),
        help="tell these as well (log.jsonl is always there)",
    )
    words.add_argument(
        "--cascade",
        choices=("never", "planned", "always"),
        help="a first network at low resolution, whose labels the recipe's own is given; planned: where nnU-Net's rule "
        "says that it pays (a patch covers less than a quarter of the median case)",
    )
    words.add_argument("--set", action="append", metavar="KEY=VALUE", help="override, e.g. training.steps=500")
    words.add_argument("--device", default="auto", metavar="cpu|cuda|auto", help="default: a GPU if there is one")
    words.add_argument("--restart", action="store_true", help="begin anew although RUN holds a checkpoint")
    words.add_argument("--resume", action="store_true", help="go on where RUN stopped (this is the default)")
    add_verb(verbs, "recipes", recipes, "recipes that ship with hilum", "hilum recipes")
