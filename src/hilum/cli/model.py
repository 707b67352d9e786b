"""``hilum model``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from hilum.cli.words import add_verb, answered


def model_list(options: argparse.Namespace) -> int:
    """Models that ship with hilum; networks that can be trained."""
    from hilum.model import built_in_models

    models = built_in_models()
    lines = [f"{name:12} {text}" for name, text in models.items()]
    if options.networks:
        from hilum.networks import overview

        return answered(options, *overview())
    return answered(options, models, "\n".join(lines))


def model_show(options: argparse.Namespace) -> int:
    """A model's card, plan and labels."""
    from hilum.model import load_model

    facts = load_model(options.model).facts()
    return answered(options, facts, json.dumps(facts, indent=1, ensure_ascii=False))


def model_words(verbs: Any) -> None:
    """Words of ``hilum model ...``."""
    parser = verbs.add_parser("model", help="models: list, show")
    parts = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    words = add_verb(parts, "list", model_list, "models that ship with hilum", "hilum model list")
    words.add_argument("--networks", action="store_true", help="networks that can be trained instead")
    words = add_verb(parts, "show", model_show, "a model's card, plan and labels", "hilum model show demo")
    words.add_argument("model", metavar="MODEL")
