"""What a small change of an image does to its feature maps: only what the change can touch is computed again.

A window of some pixels reaches a few positions of the first layer, some more of the next. The network is run once on
the whole image and its values are kept; then, for many changed windows in one batch, each operation runs on the part of
its input that has changed and as much around it as its kernel sees. What goes from operation to operation is the change
itself, new value less kept one: a convolution or an average of no change is exactly 0, and so is what a maximum or a
function of single positions makes of it, so that a window changes nothing beyond its reach, on any processor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmiqa._runtime.precision import strict_float32
from fmiqa.errors import InputError
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.features.graph import Operation, walk
from fmiqa.features.receptive_field import Window, window_of
from fmiqa.maps import MapIndex

__all__ = ["Replay"]


class Replay:
    """A network's maps of one image, and how their means move when windows of it are replaced.

    Args:
        extractor: The network; it sees the image at its own size (no `viewing`).
        image: (3, H, W), float in [0, 1] or uint8, on the network's device.
        maps: The feature maps.
        local: Whether to compute only what a window can touch. False runs whole images: for networks with operations
            that are not local, and to check. None: local where the network allows it.

    Attributes:
        local: Whether only what a window can touch is computed.

    Raises:
        InputError: A network that sees images at another scale, or, with `local`, one that is not; maps or an image
            that the network cannot take.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> extractor = FeatureExtractor("alexnet", weights=None)
        >>> replay = Replay(extractor, torch.rand(3, 96, 96), MapIndex(["conv1:3", "conv2:5"]))
        >>> grey = torch.full((2, 4, 3, 10, 10), 0.5)  # 4 samples of 2 windows
        >>> replay.mean_change(grey, torch.tensor([0, 40]), torch.tensor([7, 70])).shape
        torch.Size([2, 2])
    """

    def __init__(
        self, extractor: FeatureExtractor, image: Tensor, maps: MapIndex, *, local: bool | None = None
    ) -> None:
        if not extractor.viewing.is_native:
            raise InputError(
                "windows of pixels are replaced in the image as the network sees it; give an extractor without "
                "viewing conditions, and the image at the size it should be seen at"
            )
        self.extractor = extractor
        self.image = extractor.normalize(image[None])
        self._operations = extractor.operations(maps)
        self._channels = maps.channels
        order = [layer.name for operation in self._operations for layer, _ in operation.outputs]
        asked = MapIndex(f"{layer}:{c}" for layer in order for c in self._channels[layer])
        self._columns = asked.positions(maps)
        self._windows = {o.name: _replayed_window(extractor.network, o) for o in self._operations}
        obstacles = [str(o.target) for o in self._operations if self._windows[o.name] is None]
        if local and obstacles:
            raise InputError(
                f"{', '.join(obstacles)} of this network is not known to be local; leave local=None to run whole images"
            )
        self.local = not obstacles if local is None else local
        self._kept: dict[str, Tensor] = {}  # (H, W, C) the value of each operation
        self._padded: dict[str, Tensor] = {}  # (H, W, C) the input of each maximum pooling, with its padding
        self._largest = 0
        with torch.inference_mode(), strict_float32(extractor.device):
            if self.local:
                self._keep()
            else:
                self._means = self._mean(self.image)

    @torch.inference_mode()
    def mean_change(self, patches: Tensor, tops: Tensor, lefts: Tensor) -> Tensor:
        """How the maps' spatial means move when windows are replaced, each window alone; mean over its samples.

        Args:
            patches: (W, S, 3, h, w) new pixels in [0, 1]: S samples of each of W windows.
            tops: (W,) the windows' first rows.
            lefts: (W,) the windows' first columns.

        Returns:
            (W, M) the mean of a map with the new pixels less that without; where runs are `local`, exactly 0 if the
            window reaches no position of the map.
        """
        patches = (patches.to(self.image) - self.extractor.mean) / self.extractor.std
        with strict_float32(self.extractor.device):
            change = self._locally(patches, tops, lefts) if self.local else self._wholly(patches, tops, lefts)
        return change[:, self._columns]

    def elements(self, height: int, width: int) -> int:
        """About how many elements are alive at once for one sample of a window of this size."""
        if not self.local:
            height, width = self.image.shape[-2:]
            shapes = self.extractor.layer_shapes(height, width, self._all_channels())
            return 4 * max([self.image.numel(), *(c * h * w for c, h, w in shapes.values())])
        self._largest = 0
        corner = torch.zeros(1, dtype=torch.long, device=self.image.device)
        self.mean_change(self.image.new_zeros(1, 1, 3, height, width), corner, corner)
        return 4 * self._largest

    def _all_channels(self) -> list[str]:
        return [str(m) for m in self.extractor.maps if m.layer in self._channels]

    def _mean(self, images: Tensor) -> Tensor:
        asked = [f"{layer}:{c}" for layer, channels in self._channels.items() for c in channels]
        found = dict(self.extractor.features_of_normalized(images, MapIndex(asked)))
        return torch.cat([maps.mean((2, 3)) for maps in found.values()], 1)

    def _wholly(self, patches: Tensor, tops: Tensor, lefts: Tensor) -> Tensor:
        changes = []
        for samples, top, left in zip(patches, tops.tolist(), lefts.tolist(), strict=True):
            images = self.image.repeat(len(samples), 1, 1, 1)
            images[..., top : top + samples.shape[-2], left : left + samples.shape[-1]] = samples
            changes.append(self._mean(images).mean(0) - self._means[0])
        return torch.stack(changes)

    def _keep(self) -> None:
        def run(operation: Operation, values: Mapping[str, Tensor]) -> Tensor:
            own = {name: values[name].clone() for name in operation.inputs}  # some operations write in place
            value: Tensor = operation.run(self.extractor.network, self.image, own)
            window = self._windows[operation.name]
            if window is not None and isinstance(window.module, nn.MaxPool2d):
                before = values[operation.inputs[0]]
                self._padded[operation.name] = _channels_last(_padded(window, before, value.shape[-2:]))
            return value

        for operation, value in walk(self._operations, run):
            self._kept[operation.name] = _channels_last(value)

    def _locally(self, patches: Tensor, tops: Tensor, lefts: Tensor) -> Tensor:
        samples = patches.shape[1]

        def changed(operation: Operation, found: Mapping[str, _Region]) -> _Region:
            window = self._windows[operation.name]
            if operation.kind == "placeholder":
                old = _part(self._kept[operation.name], tops, lefts, *patches.shape[-2:])
                region = _Region(tops, lefts, (patches.permute(0, 1, 3, 4, 2) - old[:, None]).flatten(0, 1))
            elif window is not None and window.module is not None:
                region = self._through(operation, window, found[operation.inputs[0]])
            else:
                region = self._pointwise(operation, [found[name] for name in operation.inputs])
            self._largest = max(self._largest, region.change[0].numel())
            return region

        changes = []
        for operation, region in walk(self._operations, changed):
            kept = self._kept[operation.name]
            for layer, channels in operation.outputs:
                change = region.change if channels is None else region.change[..., channels]
                if layer.rectify:
                    old = region.of(kept if channels is None else kept[..., channels])
                    change = (old + change).relu() - old.relu()
                moved = change.unflatten(0, (-1, samples)).mean(1)
                changes.append(moved.sum((1, 2)) / (kept.shape[0] * kept.shape[1]))
        return torch.cat(changes, 1)

    def _through(self, operation: Operation, window: Window, before: _Region) -> _Region:
        """A convolution or pooling, where the region before it reaches."""
        kept = self._kept[operation.name]
        counts, spans, starts = [], [], []
        for axis, start in enumerate((before.top, before.left)):
            size, step, reach = before.change.shape[1 + axis], window.stride[axis], window.span(axis)
            touched = min((size - 1 + reach) // step + 1, kept.shape[axis])
            first = -torch.div(reach - window.padding[axis] - start, step, rounding_mode="floor")
            counts.append(touched)
            starts.append(first.clamp(0, kept.shape[axis] - touched))
            spans.append((touched - 1) * step + reach + 1)
        to = starts[0], starts[1]
        top, left = to[0] * window.stride[0], to[1] * window.stride[1]
        shifted = before._replace(top=before.top + window.padding[0], left=before.left + window.padding[1])
        change = shifted.widened(top, left, spans[0], spans[1])
        self._largest = max(self._largest, change[0].numel())
        if not isinstance(window.module, nn.MaxPool2d):  # linear: the output changes by what it makes of the change
            return _Region(*to, _looked_through(window, change, operation.filters))
        padded = shifted.repeated(_part(self._padded[operation.name], top, left, spans[0], spans[1]))
        values = _looked_through(window, padded + change, None)
        return _Region(*to, values - shifted.repeated(_part(kept, *to, counts[0], counts[1])))

    def _pointwise(self, operation: Operation, before: list[_Region]) -> _Region:
        """An operation that takes each position by itself."""
        if len(before) > 1:
            before = self._joined(before, self._kept[operation.name].shape)
        values = {
            name: (b.of(self._kept[name]) + b.change).permute(0, 3, 1, 2)
            for name, b in zip(operation.inputs, before, strict=True)
        }
        result = _channels_last_batch(operation.run(self.extractor.network, self.image, values))
        region = before[0]
        touched = torch.stack([(b.change != 0).any(-1, keepdim=True) for b in before]).any(0)
        return region._replace(change=torch.where(touched, result - region.of(self._kept[operation.name]), 0.0))

    def _joined(self, before: list[_Region], size: torch.Size) -> list[_Region]:
        """Regions of several inputs of one size (H, W, ...), each made as wide as all of them together."""
        top = torch.stack([b.top for b in before]).amin(0)
        left = torch.stack([b.left for b in before]).amin(0)
        height = min(size[0], max(int((b.top - top).max()) + b.change.shape[1] for b in before))
        width = min(size[1], max(int((b.left - left).max()) + b.change.shape[2] for b in before))
        top, left = top.clamp(max=size[0] - height), left.clamp(max=size[1] - width)
        return [_Region(top, left, b.widened(top, left, height, width)) for b in before]


class _Region(NamedTuple):
    """The part of some map that W windows change, S samples each."""

    top: Tensor  # (W,)
    left: Tensor  # (W,)
    change: Tensor  # (W S, h, w, C) new values less those kept

    def of(self, kept: Tensor) -> Tensor:
        """(W S, h, w, C) the same part of what was kept, (H, W, C)."""
        return self.repeated(_part(kept, self.top, self.left, *self.change.shape[1:3]))

    def repeated(self, parts: Tensor) -> Tensor:
        """(W S, ...) one part a window, once for each sample."""
        return parts.repeat_interleave(len(self.change) // len(parts), 0)

    def widened(self, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
        """(W S, height, width, C) the change in another part of the map, 0 where this region is not."""
        rows, columns = _along(top, height) - self.top[:, None], _along(left, width) - self.left[:, None]
        tall, wide = self.change.shape[1:3]
        inside = ((rows >= 0) & (rows < tall))[:, :, None] & ((columns >= 0) & (columns < wide))[:, None, :]
        rows, columns = (self.repeated(v.clamp(0, n - 1)) for v, n in ((rows, tall), (columns, wide)))
        number = torch.arange(len(self.change), device=self.change.device)[:, None, None]
        moved = self.change[number, rows[:, :, None], columns[:, None, :]]
        return torch.where(self.repeated(inside)[..., None], moved, 0.0)


def _replayed_window(network: nn.Module, operation: Operation) -> Window | None:
    """The window of an operation that can be run on a part of its input; None for any other.

    The module must compute what its class does, so that it can be run without its padding and bias.
    """
    window = window_of(network, operation)
    if window is None or window.module is None:
        return window
    module = window.module
    kind = next(kind for kind in (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d) if isinstance(module, kind))
    own = type(module).forward is not kind.forward or module._forward_pre_hooks or module._forward_hooks
    if own or (kind is nn.Conv2d and type(module)._conv_forward is not nn.Conv2d._conv_forward):
        return None
    if kind is nn.AvgPool2d:
        plain = module.count_include_pad or not any(window.padding)
        return window if plain and not module.ceil_mode and module.divisor_override is None else None
    return window


def _padded(window: Window, value: Tensor, after: torch.Size) -> Tensor:
    """A maximum pooling's input, padded, cut or filled up to what the output of size `after` was made from."""
    ends = []
    for axis in (1, 0):
        needed = (after[axis] - 1) * window.stride[axis] + window.span(axis) + 1
        ends += [window.padding[axis], needed - window.padding[axis] - value.shape[2 + axis]]
    return F.pad(value, ends, value=-torch.inf)


def _looked_through(window: Window, values: Tensor, filters: list[int] | None) -> Tensor:
    """What a convolution or pooling makes of (N, H, W, C), without padding and bias."""
    x, module = values.permute(0, 3, 1, 2), window.module
    if isinstance(module, nn.MaxPool2d):
        found = F.max_pool2d(x, window.kernel, window.stride, 0, window.dilation)
    elif isinstance(module, nn.AvgPool2d):
        found = F.avg_pool2d(x, window.kernel, window.stride)
    elif filters is None or module.groups > 1:
        found = F.conv2d(x, module.weight, None, window.stride, 0, window.dilation, module.groups)
        found = found if filters is None else found[:, filters]
    else:
        found = F.conv2d(x, module.weight[filters], None, window.stride, 0, window.dilation)
    return _channels_last_batch(found)


def _along(start: Tensor, count: int) -> Tensor:
    return start[:, None] + torch.arange(count, device=start.device)


def _part(kept: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """(W, height, width, C) a part of (H, W, C) for each window."""
    return kept[_along(top, height)[:, :, None], _along(left, width)[:, None, :]]


def _channels_last(value: Tensor) -> Tensor:
    """(1, C, H, W) -> (H, W, C)."""
    return value[0].permute(1, 2, 0).contiguous()


def _channels_last_batch(values: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, W, C)."""
    return values.permute(0, 2, 3, 1).contiguous()
