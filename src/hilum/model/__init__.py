"""A model folder: weights and everything that is needed to use them, without any training code.

    MODEL/model.json            format, network, plan, labels, inference, post-processing, card, checksums
    MODEL/weights.safetensors   (weights_0.safetensors, weights_1.safetensors, ... where folds are averaged)
    MODEL/network.onnx          instead of weights in an exported model (network.xml and network.bin for OpenVINO)
    MODEL/recipe.toml           what a person chose when it was trained
    MODEL/locator               a small model of its own that finds organs at low resolution
    MODEL/first                 a model folder of its own, whose labels a cascade is given as more channels

Comes in: a folder, or the name of a model that ships with hilum. Goes out: a ``Model``, checked: format number,
checksums, labels, and that every tensor fits the network. Where training and inference meet; knows neither.
"""

from __future__ import annotations

from hilum.model.loading import built_in_models, load_model
from hilum.model.saving import save_exported, save_model
from hilum.model.spec import Exported, Model, NetworkSpec
from hilum.model.tensors import read_tensors, write_tensors

__all__ = [
    "Exported",
    "Model",
    "NetworkSpec",
    "built_in_models",
    "load_model",
    "read_tensors",
    "save_exported",
    "save_model",
    "write_tensors",
]
