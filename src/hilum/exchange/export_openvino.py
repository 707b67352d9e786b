"""A network to OpenVINO's ``.xml`` and ``.bin``: as it is, with half-size weights, or with 8 bits by NNCF.

Comes in: a network in eval mode and the one shape it will be given. Goes out: the two files. The type in which OpenVINO
computes is no property of the files: the engine says it when they are opened.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch

from hilum.inference.engines import require


def write_openvino(
    network: torch.nn.Module, stem: Path, shape: tuple[int, ...], *, half: bool, shown: Sequence[np.ndarray]
) -> list[Path]:
    """Write ``STEM.xml`` and ``STEM.bin``.

    Args:
        network: one tensor in, one tensor out.
        stem: the files' path without their endings.
        shape: (1, C, d, h, w), or (1, C, h, w): fixed in the file.
        half: keep weights as fp16.
        shown: inputs to quantise on; none keeps floating point.
    """
    openvino = require("openvino", "openvino")
    xml = stem.with_name(f"{stem.name}.xml")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's, of branches on shapes, which are fixed here
        model = openvino.convert_model(network, example_input=torch.zeros(shape), input=[shape])
        if shown:
            nncf = require("nncf", "openvino")
            logging.getLogger("nncf").setLevel(logging.ERROR)
            with redirect_stdout(StringIO()):  # its progress bars
                model = nncf.quantize(model, nncf.Dataset(list(shown)), subset_size=len(shown))
        openvino.save_model(model, str(xml), compress_to_fp16=half)
    return [xml, xml.with_suffix(".bin")]
