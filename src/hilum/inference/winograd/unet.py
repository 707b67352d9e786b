"""A planned U-Net (plain or with a residual encoder) in fp32 on a processor: the same numbers, in less time and memory.

Comes in: a network of ``hilum/networks`` and the patch. Goes out: a function from images to logits. Of any other
network ``compiled`` makes nothing, and PyTorch runs it as it is.

Half the arithmetic of a U-Net is done at the finest resolution. There, convolutions go by Winograd's tiles along D and
H (a quarter of the multiplications), piece by piece in a core's cache; instance normalisation takes exact moments; the
way up and the skip are never laid side by side. Measured in docs/log.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from hilum.cores import cpu_count
from hilum.inference.winograd.fields import ROWS, Field, Shape, Store
from hilum.inference.winograd.layers import Direct, Norm, Pointwise, Winograd, head, normalise
from hilum.inference.winograd.native import Moments
from hilum.inference.winograd.pool import one_core_each
from hilum.inference.winograd.sources import FieldSource, Up, UpSource
from hilum.networks._blocks import SLOPE, ConvNormAct, ConvStack, UNet
from hilum.networks.plain_unet import PlainEncoder
from hilum.networks.residual_unet import ResidualBlock, ResidualEncoder

# Beyond this many weights a layer's transformed kernels take more memory than its few voxels are worth.
_MOST_WEIGHTS = 128 * 256 * 27
# Below this many voxels a whole layer fits a core's cache, and tiles gain nothing.
_FEWEST_VOXELS = 2048
_FEWEST_CHANNELS = 8
_CORE_BYTES = 40 * 10**6
LetGo = Callable[[torch.Tensor | None], None]


def compiled(
    network: nn.Module,
    patch: Shape,
    store: Store | None = None,
    let_go: LetGo | None = None,
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The network as a function (B, C, d, h, w) -> (B, K, d, h, w), or None if it is none of the kind.

    Args:
        network: in eval mode, fp32, on the processor. Its weights are taken over one by one and it is left without, so
            that they never lie in memory twice.
        patch: (d, h, w) of every image to come.
        store: memory for fields; the folds of a model, which take turns, share one.
        let_go: called with weights that will not be read for a while (they may lie in a file), or None: all.
    """
    known = isinstance(network, UNet) and isinstance(network.encoder, PlainEncoder | ResidualEncoder)
    flat = any(isinstance(part, nn.Conv2d) for part in network.modules())
    here = hasattr(torch, "mkldnn_convolution") and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    if not known or flat or not here:
        return None
    with torch.inference_mode():
        return _Runner(network, patch, store or Store(), let_go)


class _Layer:
    """A convolution and its normalisation at one resolution.

    Args:
        block: the layer.
        shape: (D, H, W) of what comes in.
        sources: how many fields come in.
    """

    def __init__(self, block: ConvNormAct, shape: Shape, sources: int = 1):
        conv = block.conv
        weight = conv.weight.detach()
        del conv.weight
        stride = conv.stride
        depth, height, width = (n // s for n, s in zip(shape, stride, strict=True))
        self.shape: Shape = depth, height, width
        self.dealt = is_dealt(self.shape)
        size = weight.shape[2:]
        fits = self.dealt and size[1:] == (3, 3) and size[0] in (1, 3) and set(stride) == {1}
        fits = fits and weight.shape[1] >= _FEWEST_CHANNELS and weight.numel() <= _MOST_WEIGHTS
        self.tiled = Winograd(weight, self.shape[0], sources) if fits else None
        self.direct = None if fits else Direct(weight, stride, dealt=self.dealt)
        self.channels = weight.shape[0]
        self.norm = norm_of(block)

    def __call__(self, store: Store, x: Field) -> Field:
        """A field to the next one."""
        out, found = self.sums(store, x)
        return normalise(out, found, self.norm)

    def fields(self) -> list[tuple[Shape, int]]:
        """What it makes: shape and channels."""
        return [(self.shape, self.channels)]

    def sums(self, store: Store, x: Field) -> tuple[Field, list[Moments]]:
        """The same before the normalisation."""
        out = store.field(self.shape, self.channels, self.dealt)
        if self.tiled is not None:
            return out, self.tiled([FieldSource(x)], out)
        assert self.direct is not None
        return out, self.direct(x, out)

    def beside(self, store: Store, up: UpSource, skip: Field) -> Field:
        """What comes from below and the skip, together, to the next field."""
        out = store.field(self.shape, self.channels, self.dealt)
        if self.tiled is not None:
            return normalise(out, self.tiled([up, FieldSource(skip)], out), self.norm)
        assert self.direct is not None
        depth, height, _ = self.shape
        both = torch.cat([up.planes(0, depth, 0, height)[0], skip.read(0, depth)], dim=3)
        return normalise(out, self.direct(Field(both, self.shape, dealt=False), out), self.norm)


class _Block:
    """Two convolutions beside a skip."""

    def __init__(self, block: ResidualBlock, shape: Shape):
        self.first = _Layer(block.conv1, shape)
        self.shape = self.first.shape
        self.second = _Layer(block.conv2, self.shape)
        stride = tuple(n // s for n, s in zip(shape, self.shape, strict=True))
        convs = [part for part in block.skip if isinstance(part, ConvNormAct)]
        self._skip = Pointwise(convs[0].conv.weight.detach() if convs else None, stride) if len(block.skip) else None
        self._norm = norm_of(convs[0]) if convs else None
        self._beside = (self.shape, self.second.channels if convs else block.conv1.conv.in_channels)
        self._after = Norm(self.second.norm.weight, self.second.norm.bias, self.second.norm.eps, SLOPE)

    def fields(self) -> list[tuple[Shape, int]]:
        """What it makes: shape and channels."""
        return [*self.first.fields(), *self.second.fields(), self._beside]

    def __call__(self, store: Store, x: Field) -> Field:
        """A field to the next one."""
        inner = self.first(store, x)
        out, found = self.second.sums(store, inner)
        store.give_back(inner)
        if self._skip is None:
            return normalise(out, found, self._after, beside=x)
        skip = store.field(self.shape, x.channels if self._norm is None else out.channels, out.dealt)
        of_skip = self._skip(x, skip)
        if self._norm is not None:
            normalise(skip, of_skip, self._norm)
        normalise(out, found, self._after, beside=skip)
        store.give_back(skip)
        return out


class _Runner:
    """The network's layers in order."""

    def __init__(self, network: nn.Module, patch: Shape, store: Store, let_go: LetGo | None):
        encoder: Any = network.encoder
        decoder: Any = network.decoder
        self._store, self._patch = store, patch
        residual = isinstance(encoder, ResidualEncoder)
        stem = _layers(encoder.stem, patch) if residual else []
        self._stages: list[list[Any]] = []
        shape, shapes = patch, []
        for stage in encoder.stages:
            layers: list[Any] = _blocks(stage.blocks, shape) if residual else _layers(stage[0], shape)
            shape = layers[-1].shape
            self._stages.append(layers)
            shapes.append(shape)
        self._stages[0] = [*stem, *self._stages[0]]
        self._down = [_layers(stage, at, sources=2) for stage, at in zip(decoder.stages, shapes[-2::-1], strict=True)]
        self._ups = [
            Up(up.weight.detach(), up.bias.detach(), tiled=layers[0].tiled is not None)
            for up, layers in zip(decoder.transpconvs, self._down, strict=True)
        ]
        for layer in self._layers():
            if layer.direct is not None:
                layer.direct.let_go = let_go
        last = decoder.seg_layers[-1]
        self._head = (last.weight.detach().clone(), last.bias.detach().clone())
        made = [layer.fields() for stage in [*self._stages, *self._down] for layer in stage]
        each = {key: 3 if residual else 2 for keys in made for key in keys}
        if let_go is not None:
            let_go(None)  # most are packed now
        # fields that may live at once, logits three times, and what each core needs for its piece
        fields = sum(count * 4 * math.prod(shape) * channels for (shape, channels), count in each.items())
        logits = 3 * 4 * len(last.weight) * math.prod(patch)
        self.activation_bytes = int(1.1 * fields) + logits + cpu_count() * _CORE_BYTES

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, d, h, w) to (B, K, d, h, w)."""
        assert tuple(images.shape[2:]) == self._patch, (images.shape, self._patch)
        with torch.inference_mode(), one_core_each():
            return torch.stack([self._one(image) for image in images])

    def _layers(self) -> Iterator[_Layer]:
        for layer in (layer for stage in [*self._stages, *self._down] for layer in stage):
            yield from (layer.first, layer.second) if isinstance(layer, _Block) else (layer,)

    def _one(self, image: torch.Tensor) -> torch.Tensor:
        store, skips = self._store, []
        image_field = x = Field(image.permute(1, 2, 3, 0).contiguous(), self._patch, dealt=False)
        for stage in self._stages:
            for place, layer in enumerate(stage):
                out = layer(store, x)
                if place and x is not image_field:
                    store.give_back(x)  # the last one's field is a skip
                x = out
            skips.append(x)
            store.forget(x.shape)  # what lies idle there while coarser ones are needed
        x = skips.pop()
        for up, (first, *others) in zip(self._ups, self._down, strict=True):
            skip = skips.pop()
            store.forget(x.shape)
            out = first.beside(store, UpSource(x, up), skip)
            store.give_back(x, skip)
            store.forget(x.shape)
            x = out
            for layer in others:
                out = layer(store, x)
                store.give_back(x)
                x = out
        logits = head(x, *self._head)
        store.give_back(x)
        return logits


def is_dealt(shape: Shape) -> bool:
    """Whether fields of this resolution are kept for tiles."""
    return shape[0] % 2 == 0 and shape[1] % ROWS == 0 and shape[0] * shape[1] * shape[2] >= _FEWEST_VOXELS


def norm_of(block: ConvNormAct) -> Norm:
    """What follows the convolution."""
    norm = block.norm
    return Norm(norm.weight.detach().clone(), norm.bias.detach().clone(), norm.eps, SLOPE if block.act else None)


def _layers(stack: ConvStack, shape: Shape, sources: int = 1) -> list[_Layer]:
    layers: list[_Layer] = []
    for block in stack.convs:
        before = (layers[-1].shape, 1) if layers else (shape, sources)
        layers.append(_Layer(block, *before))  # type: ignore[arg-type]
    return layers


def _blocks(blocks: Sequence[nn.Module] | nn.Sequential, shape: Shape) -> list[_Block]:
    made: list[_Block] = []
    for block in blocks:
        made.append(_Block(block, made[-1].shape if made else shape))  # type: ignore[arg-type]
    return made
