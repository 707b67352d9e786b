"""The parts that both planned U-Nets are made of.

Comes in: a table of options. Goes out: checked ``UNetOptions`` and the layers that follow them. Knows no network by
name.

Topology and parameter names are nnU-Net v2's (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), so that its state
dicts load: convolution with bias, instance normalisation (affine, eps 1e-5), leaky ReLU (slope 0.01); transposed
convolutions of kernel = stride on the way up; a 1x1 segmentation layer at every resolution. Weights start as He et
al. 2015 propose for that slope. Shapes: B batch, C channels, K classes, D H W space (2D networks: H W).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from hilum.errors import RecipeError
from hilum.networks._norm import InstanceNorm
from hilum.networks._own import check_multiple

CONV: dict[int, Callable[..., nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
POOL: dict[int, Callable[..., nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
UP: dict[int, Callable[..., nn.ConvTranspose2d | nn.ConvTranspose3d]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
SLOPE = 0.01


@dataclass(frozen=True)
class UNetOptions:
    """A planned U-Net, stage by stage from the finest.

    Attributes:
        features: channels of each stage.
        kernels: (D, H, W) kernel of each stage, odd numbers.
        strides: (D, H, W) stride into each stage; the first is 1, 1, 1.
        depths: convolutions (plain) or residual blocks of each encoder stage.
        decoder_convs: convolutions of each decoder stage, from the coarsest; one fewer than stages.
        deep_supervision: logits at every resolution while training.
    """

    features: tuple[int, ...]
    kernels: tuple[tuple[int, int, int], ...]
    strides: tuple[tuple[int, int, int], ...]
    depths: tuple[int, ...]
    decoder_convs: tuple[int, ...]
    deep_supervision: bool = True

    def kernel(self, stage: int, dims: int) -> tuple[int, ...]:
        """The kernel of a stage along the last ``dims`` axes."""
        return self.kernels[stage][3 - dims :]

    def stride(self, stage: int, dims: int) -> tuple[int, ...]:
        """The stride into a stage along the last ``dims`` axes."""
        return self.strides[stage][3 - dims :]


def read_options(options: Mapping[str, Any], depth_key: str, depths: Sequence[int], decoder_convs: int) -> UNetOptions:
    """Options checked.

    Args:
        options: the table; ``features``, ``kernels`` and ``strides`` must be there (the plan gives them).
        depth_key: the name under which this network takes the depth of its encoder's stages.
        depths: the depths if the table is silent; the last one repeats for deeper stages.
        decoder_convs: the decoder's convolutions a stage if the table is silent.

    Raises:
        RecipeError: an unknown key, a missing one, lists of different lengths, numbers that make no network.
    """
    # the plan speaks of convolutions; a network that counts blocks instead leaves that number aside
    known = {"features", "kernels", "strides", "convs_per_stage", depth_key, "decoder_convs", "deep_supervision"}
    unknown, missing = sorted(set(options) - known), sorted({"features", "kernels", "strides"} - set(options))
    if unknown or missing:
        said = f"unknown keys {unknown}" if unknown else f"keys {missing} are missing"
        raise RecipeError(said, where="network.options", wanted=f"keys of {sorted(known)}")
    features = _whole(options["features"], "features", 1)
    kernels, strides = _triples(options["kernels"], "kernels"), _triples(options["strides"], "strides")
    stages = len(features)
    if stages < 2 or len(kernels) != stages or len(strides) != stages:
        raise RecipeError(
            f"{stages} features, {len(kernels)} kernels and {len(strides)} strides",
            where="network.options",
            wanted="one of each for every stage, and at least two stages",
        )
    if strides[0] != (1, 1, 1) or any(n % 2 == 0 for kernel in kernels for n in kernel):
        raise RecipeError(
            f"first stride {strides[0]} and kernels {kernels}",
            where="network.options",
            wanted="a first stride of 1, 1, 1 and odd kernels",
        )
    given = options.get(depth_key, [*depths, *[depths[-1]] * stages][:stages])
    return UNetOptions(
        features,
        kernels,
        strides,
        _repeated(given, depth_key, stages),
        _repeated(options.get("decoder_convs", decoder_convs), "decoder_convs", stages - 1),
        bool(options.get("deep_supervision", True)),
    )


def check_divisible(options: UNetOptions, patch: Sequence[int]) -> None:
    """Raise RecipeError unless each axis of the patch (D, H, W) can be halved as often as the strides ask."""
    check_multiple(patch, [math.prod(stride[axis] for stride in options.strides) for axis in range(3)])


class ConvNormAct(nn.Module):
    """Convolution, instance normalisation and, unless ``act`` is False, a leaky ReLU."""

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        act: bool = True,
        bias: bool = True,
    ):
        super().__init__()
        padding = tuple((n - 1) // 2 for n in kernel)
        self.conv = CONV[dims](in_channels, out_channels, tuple(kernel), tuple(stride), padding, bias=bias)
        self.norm = InstanceNorm(out_channels)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, ...) to (B, out_channels, ...)."""
        x = self.norm(self.conv(x))
        return F.leaky_relu(x, SLOPE, inplace=True) if self.act else x


class ConvStack(nn.Module):
    """Convolutions one after the other; the first one strides."""

    def __init__(
        self,
        dims: int,
        count: int,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        stride: Sequence[int],
    ):
        super().__init__()
        ones = (1,) * dims
        self.convs = nn.Sequential(
            *(
                ConvNormAct(dims, out_channels if i else in_channels, out_channels, kernel, ones if i else stride)
                for i in range(count)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, ...) to (B, out_channels, ...)."""
        out: torch.Tensor = self.convs(x)
        return out


class Decoder(nn.Module):
    """The way up: transposed convolution, skip beside it, convolutions; logits at every resolution."""

    def __init__(self, options: UNetOptions, out_channels: int, dims: int):
        super().__init__()
        self.stages, self.transpconvs, self.seg_layers = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for count, below in zip(options.decoder_convs, range(len(options.features) - 1, 0, -1), strict=True):
            deep, width, stride = options.features[below], options.features[below - 1], options.stride(below, dims)
            self.transpconvs.append(UP[dims](deep, width, stride, stride))
            kernel = options.kernel(below - 1, dims)
            self.stages.append(ConvStack(dims, count, 2 * width, width, kernel, (1,) * dims))
            self.seg_layers.append(CONV[dims](width, out_channels, 1))

    def forward(self, skips: list[torch.Tensor], every_scale: bool) -> list[torch.Tensor]:
        """Encoder features, finest first, to logits, finest first (only the finest unless ``every_scale``)."""
        x, logits = skips[-1], []
        for i, (up, stage, head) in enumerate(zip(self.transpconvs, self.stages, self.seg_layers, strict=True)):
            x = stage(torch.cat((up(x), skips[-(i + 2)]), 1))
            if every_scale or i == len(self.stages) - 1:
                logits.append(head(x))
        return logits[::-1]


class UNet(nn.Module):
    """An encoder that hands over its features at every resolution, and the decoder.

    Args:
        encoder: (B, C, ...) to a list of features, finest first.
        options: the stages.
        out_channels: classes, background included.
        dims: 2 or 3.
    """

    def __init__(self, encoder: nn.Module, options: UNetOptions, out_channels: int, dims: int):
        super().__init__()
        self.encoder, self.decoder = encoder, Decoder(options, out_channels, dims)
        self.deep_supervision = options.deep_supervision
        self.apply(he_init)

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """(B, C, ...) to logits (B, K, ...); in training with deep supervision a list of them, finest first."""
        every_scale = self.training and self.deep_supervision
        logits: list[torch.Tensor] = self.decoder(self.encoder(x), every_scale)
        return logits if every_scale else logits[0]


def he_init(module: nn.Module) -> None:
    """He et al. 2015 (arXiv 1502.01852), equation 15, for a leaky ReLU's slope; biases 0."""
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _whole(value: Any, name: str, least: int) -> tuple[int, ...]:
    items: list[Any] = list(value) if isinstance(value, list | tuple) else [None]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= least for n in items):
        raise RecipeError(f"{name} = {value!r}", where="network.options", wanted=f"whole numbers of at least {least}")
    return tuple(items)


def _triples(value: Any, name: str) -> tuple[tuple[int, int, int], ...]:
    rows = [_whole(row, name, 1) for row in value] if isinstance(value, list | tuple) else []
    if not rows or any(len(row) not in (2, 3) for row in rows):
        raise RecipeError(f"{name} = {value!r}", where="network.options", wanted="D, H, W (or H, W) for every stage")
    full = [(1, *row) if len(row) == 2 else row for row in rows]
    return tuple((d, h, w) for d, h, w in full)


def _repeated(value: Any, name: str, count: int) -> tuple[int, ...]:
    items = _whole([value] * count if isinstance(value, int) else value, name, 1)
    if len(items) != count:
        raise RecipeError(f"{name} = {value!r}", where="network.options", wanted=f"one number, or {count}")
    return items
