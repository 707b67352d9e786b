"""What a model folder says, in memory: the network's description, and everything that is needed to use it.

Comes in: what ``loading`` has read and checked. Goes out: ``Model``, which builds its networks again. Knows no files.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from hilum import networks
from hilum.config import InferenceOptions
from hilum.files import plain
from hilum.labels import LabelScheme
from hilum.model.tensors import State, StoredTensors, fit, weights_name
from hilum.prepare.plan import Plan


@dataclass(frozen=True)
class NetworkSpec:
    """What ``networks.build`` needs to build the network again.

    Attributes:
        name: file name in ``hilum/networks``, or a dotted name.
        options: planned and chosen options, merged.
        in_channels: image channels; of a cascade one more for each label of the model before.
        out_channels: classes, background included; regions where the head is "regions".
        dims: 2 or 3.
        head: "labels" (softmax: one class a voxel), or "regions" (sigmoid: each region of the scheme by itself).
    """

    name: str
    options: dict[str, Any]
    in_channels: int
    out_channels: int
    dims: int
    head: Literal["labels", "regions"] = "labels"

    def build(self) -> nn.Module:
        """A fresh network."""
        return networks.build(self.name, self.options, self.in_channels, self.out_channels, self.dims)

    def bare(self) -> nn.Module:
        """A network of shapes alone, on PyTorch's "meta" device: no memory and no weights drawn."""
        with torch.device("meta"), _NothingDrawn():
            return self.build()


@dataclass(frozen=True)
class Exported:
    """What stands in the place of weights in a model that was exported (``"engine"`` in ``model.json``).

    Attributes:
        engine: what runs the networks: "onnx" (ONNX Runtime) or "openvino".
        precision: in which the network was asked to compute: "fp32", "bf16", "fp16".
        int8: whether weights and activations were quantised to 8 bits.
        activation_bytes: the most that lives at once of what the network computes for one patch, in fp32.
        networks: the files of each fold, in the order in which the engine reads them.
        source: name and hash of the model that was exported.
    """

    engine: str
    precision: str
    int8: bool
    activation_bytes: int
    networks: tuple[tuple[Path, ...], ...]
    source: dict[str, str]


@dataclass(frozen=True, eq=False)
class Model:
    """A model folder, read and checked.

    Attributes:
        folder: where it lies.
        spec: the network.
        plan: what the data decided (spacing, patch, normalisation).
        scheme: what the classes mean.
        inference: overlap and mirroring.
        postprocess: steps as in a recipe, in order.
        card: facts for people: what it was trained on, scores, warnings.
        weights: one state dict in fp32 for each fold, read from the disk when asked; none of an exported model.
        recipe_toml: the recipe it was trained with, or "".
        hash: 12 hexadecimal digits that change with any weight or setting.
        first: of a cascade: the model before this one.
        exported: of a model without weights of PyTorch: the networks' files and what runs them.
    """

    folder: Path
    spec: NetworkSpec
    plan: Plan
    scheme: LabelScheme
    inference: InferenceOptions
    postprocess: tuple[dict[str, Any], ...]
    card: dict[str, Any]
    weights: tuple[State, ...]
    recipe_toml: str
    hash: str
    first: Model | None = None
    exported: Exported | None = None

    @property
    def folds(self) -> int:
        """How many networks are averaged."""
        return len(self.weights if self.exported is None else self.exported.networks)

    @property
    def name(self) -> str:
        """The folder's name; the run's where the folder is the ``model`` of a run."""
        return self.folder.resolve().parent.name if self.folder.name == "model" else self.folder.name

    def network(self, fold: int = 0, device: str | torch.device = "cpu", *, in_file: bool = False) -> nn.Module:
        """The network of a fold with its weights, ready to predict (eval mode, no gradients); not of an export.

        Args:
            fold: which.
            device: where.
            in_file: leave weights in the file, where they were stored as fp32; then they must not be written.
        """
        assert self.exported is None, "an exported network is run by its engine"
        stored = self.weights[fold]
        if in_file and isinstance(stored, StoredTensors):
            state = {name: stored.in_file(name) for name in stored}
        else:
            state = dict(stored)
        file = self.folder / weights_name(fold, len(self.weights))
        network = self.spec.bare()
        fit(network.state_dict(), state, file)
        if set(dict(network.named_buffers())) - set(state):  # numbers of its own that no file holds
            network = self.spec.build()
        network.load_state_dict(state, assign=True)
        return network.to(device).eval().requires_grad_(False)

    def facts(self) -> dict[str, Any]:
        """Everything but the weights, as plain JSON types, for people and programs."""
        table: dict[str, Any] = plain(
            {
                "name": self.name,
                "hash": self.hash,
                "folder": str(self.folder),
                "card": self.card,
                "network": asdict(self.spec),
                "engine": "torch" if self.exported is None else asdict(self.exported),
                "parameters": _count(self.weights[0]) if self.weights else None,
                "folds": self.folds,
                "plan": self.plan.to_json(),
                "scheme": self.scheme.to_json(),
                "inference": asdict(self.inference),
                "postprocess": list(self.postprocess),
            }
        )
        return table


class _NothingDrawn(TorchFunctionMode):
    """Leaves out what initialises tensors: drawing on "meta" would import 70 MB of PyTorch's compiler for nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init" or func in _DRAWING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


_DRAWING = {torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.fill_, torch.Tensor.zero_}


def _count(state: State) -> int:
    shapes = state.bare() if isinstance(state, StoredTensors) else state
    return sum(tensor.numel() for tensor in shapes.values())
