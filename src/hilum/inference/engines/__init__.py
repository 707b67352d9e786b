"""What runs a network: PyTorch, ONNX Runtime or OpenVINO, behind one small interface.

Comes in: a Model, a device, a precision. Goes out: an ``Engine``: for each fold a function from prepared images to
logits. Only the network's forward pass differs; tiles, folds, mirroring, slabs and the way back to the scan's grid are
the same for all.

    torch       weights of a model folder; any device, precision and batch
    onnx        an exported model; the processor; batch 1 and the plan's patch (extra ``onnx``)
    openvino    the same (extra ``openvino``)
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

import torch

from hilum import device as devices
from hilum.errors import UsageError

if TYPE_CHECKING:
    from hilum.model import Exported, Model

Network = Callable[[torch.Tensor], torch.Tensor]


class Engine(Protocol):
    """The networks of a model, ready to run.

    Attributes:
        networks: one a fold: images (B, C, d, h, w), or (B, C, h, w) in 2D, fp32 on the device, to logits
            (B, K, ...) of the same size.
        precision: in which convolutions run: "fp32", "bf16", "fp16" or "int8".
    """

    @property
    def networks(self) -> Sequence[Network]:
        """See above."""

    @property
    def precision(self) -> str:
        """See above."""


def open_engine(model: Model, device: torch.device, precision: str = "auto") -> Engine:
    """The engine that a model is for.

    Args:
        model: weights, or exported networks.
        device: from ``choose_device``.
        precision: "auto", "fp32", "bf16", "fp16"; an exported network has its own, chosen when it was exported.

    Raises:
        UsageError: a precision that the device or the export has not, or an extra that is not installed.
        ModelError: an exported network cannot be opened.
    """
    if model.exported is None:
        from hilum.inference.engines.with_torch import TorchEngine

        return TorchEngine(model, device, precision)
    _check_precision(model.exported, precision)
    if model.exported.engine == "onnx":
        from hilum.inference.engines.with_onnx import OnnxEngine

        return OnnxEngine(model.exported)
    from hilum.inference.engines.with_openvino import OpenVinoEngine

    return OpenVinoEngine(model.exported)


def choose_device(model: Model, device: str) -> torch.device:
    """The device of a name; "auto" is the processor for exported networks.

    Raises:
        UsageError: no such device, or a GPU for an exported network.
    """
    if model.exported is None:
        return devices.choose(device)
    if device not in ("auto", "cpu"):
        fix = "take --device cpu, or the model that it was exported from"
        raise UsageError(f"device {device!r} for the exported model {model.name!r}", wanted="auto or cpu", fix=fix)
    return torch.device("cpu")


def require(module: str, extra: str) -> ModuleType:
    """A module of an extra, imported now.

    OpenVINO and NNCF tell their makers that they are used, over the network, if ``openvino_telemetry`` can be imported:
    here it cannot. hilum sends nothing anywhere.

    Raises:
        UsageError: it is not installed; with the extra's name.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: an ImportError
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{module} is not installed ({error})", wanted=f"the extra {extra!r}", fix=f"pip install 'hilum[{extra}]'"
        ) from None


def one_by_one(images: torch.Tensor, network: Network) -> torch.Tensor:
    """Run a network that takes one image at a time on a batch."""
    if len(images) == 1:
        return network(images)
    return torch.cat([network(image[None]) for image in images])


def _check_precision(exported: Exported, wanted: str) -> None:
    if wanted not in ("auto", exported.precision):
        raise UsageError(
            f"precision {wanted!r} for a model that was exported in {exported.precision}",
            wanted=f"auto or {exported.precision}",
            fix=f"export it again with --precision {wanted}",
        )
