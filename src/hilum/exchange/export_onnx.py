"""A network to an ``.onnx`` file: as it is, with half-size weights, or with 8 bits by static quantisation.

Comes in: a network in eval mode and the one shape it will be given. Goes out: the file. Names inside: ``image`` in,
``logits`` out.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hilum.inference.engines import require

OPSET = 18
_WORTH = 1024  # numbers in a tensor from which half the bytes are worth a cast


def write_onnx(
    network: torch.nn.Module, stem: Path, shape: tuple[int, ...], *, half: bool, shown: Sequence[np.ndarray]
) -> list[Path]:
    """Write ``STEM.onnx``.

    Args:
        network: one tensor in, one tensor out.
        stem: the file's path without its ending.
        shape: (1, C, d, h, w), or (1, C, h, w): fixed in the file.
        half: keep weights as fp16; they are made fp32 again when the file is opened.
        shown: inputs to quantise on; none keeps fp32. Weights are int8 by channel, activations uint8 by tensor.
    """
    onnx = require("onnx", "onnx")
    file = stem.with_name(f"{stem.name}.onnx")
    with tempfile.TemporaryDirectory(dir=stem.parent, prefix=".making-") as folder:
        made = Path(folder) / "network.onnx"
        with _silence():
            torch.onnx.export(
                network,
                (torch.zeros(shape),),
                str(made),
                input_names=["image"],
                output_names=["logits"],
                opset_version=OPSET,
                external_data=False,
                dynamo=True,
                verbose=False,
            )
        if shown:
            made = _quantised(made, shown)
        table = onnx.load(str(made))
    if half:
        _halve(onnx, table)
    onnx.checker.check_model(table)
    onnx.save(table, str(file))
    return [file]


def _quantised(file: Path, shown: Sequence[np.ndarray]) -> Path:
    quantization = require("onnxruntime.quantization", "onnx")
    out = file.with_name("quantised.onnx")

    class Shown(quantization.CalibrationDataReader):  # type: ignore[name-defined,misc]
        left = iter(shown)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {"image": image}

    with _silence():
        quantization.quantize_static(
            str(file), str(out), Shown(), quant_format=quantization.QuantFormat.QDQ, per_channel=True
        )
    return out


def _halve(onnx: Any, table: Any) -> None:
    """Weights as fp16, each followed by a cast to fp32."""
    casts = []
    for tensor in table.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or int(np.prod(tensor.dims)) < _WORTH:
            continue
        name = tensor.name
        short = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(short, f"{name}_fp16"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}_fp16"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *table.graph.node]
    del table.graph.node[:]
    table.graph.node.extend(nodes)


@contextmanager
def _silence() -> Iterator[None]:
    """Exporters warn of what is theirs (torchvision absent, old calls of their own): nothing a user can act on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
