"""Activation maximisation: the picture that excites a feature map most.

Erhan, Bengio, Courville & Vincent, "Visualizing higher-layer features of a deep network" (2009) climb the gradient of a
unit's activation in the pixels, under a bound on the norm. Olah, Mordvintsev & Schubert, "Feature visualization"
(Distill, 2017) climb in a Fourier basis scaled by 1/f, in colours without correlation, and show the network a picture
that is shifted, turned and scaled anew at each step, so that it looks like something.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from fmiqa._progress import progress_bar
from fmiqa._result import Saved
from fmiqa._runtime.precision import strict_float32
from fmiqa.errors import InputError
from fmiqa.features.extractor import FeatureExtractor, check_extractor
from fmiqa.features.graph import Operation, walk
from fmiqa.maps import FeatureMap, MapIndex

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["MaximalImages", "Method", "maximize_activation"]

Method = Literal["fourier", "pixels"]

_SEEDS = 1_000_003  # a map's start does not depend on the others
_STEP = 0.05  # of Adam, in Fourier coefficients
_START = 0.05  # standard deviation of the coefficients at the start
_LEAK = 0.1  # of values below 0 while climbing: a map that is 0 everywhere has no slope
_SHIFT, _TURN, _SCALE = 8.0, math.radians(8), 0.08  # largest shift in pixels, turn, and change of scale
# Root of the covariance of natural images' colours (Olah et al. 2017), its largest column scaled to length 1.
_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
_CONTRAST = 0.5  # root mean square about grey of the 2009 form's picture: its norm bound, all that pixels can have
_NOISE = 0.06  # root mean square of its start
_CLIMB = 0.02  # length of its steps, in root mean squares of the picture


@dataclass(frozen=True, eq=False)
class MaximalImages(Saved):
    """For each feature map, the picture that excites it.

    Args:
        maps: The M maps.
        images: (M, 3, H, W) float32 in [0, 1].
        activations: (M,) the map's spatial mean on its picture.
        options: How they were made.
    """

    maps: MapIndex
    images: Tensor
    activations: Tensor
    options: dict[str, Any] = field(default_factory=dict)

    kind: ClassVar[str] = "fmiqa activation maximisation 1"
    binary: ClassVar[bool] = True

    def of(self, map: FeatureMap | str) -> Tensor:
        """(3, H, W) the picture of one map."""
        return self.images[self.maps.positions(MapIndex([map]))[0]]

    def to_dict(self) -> dict[str, Any]:
        """Everything but tensors, as plain values for JSON."""
        return {"maps": [str(m) for m in self.maps], "options": self.options}

    def tensors(self) -> dict[str, Tensor]:
        """Pictures and activations."""
        return {"images": self.images, "activations": self.activations}

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The result again."""
        return cls(MapIndex(content["maps"]), tensors["images"], tensors["activations"], content["options"])


def maximize_activation(
    extractor: FeatureExtractor,
    maps: Iterable[FeatureMap | str],
    *,
    method: Method = "fourier",
    size: tuple[int, int] = (128, 128),
    steps: int = 512,
    batch: int = 32,
    seed: int = 0,
    progress: bool = False,
) -> MaximalImages:
    """Climb to pictures that excite feature maps, those of a layer in one batch.

    Args:
        extractor: The network. One with a `Viewing`, such as that of a ready-made metric, resizes the pictures in each
            step, which is slow: give `native(extractor)`.
        maps: The feature maps; each gets one picture that raises its spatial mean.
        method: `"fourier"`, today's form (Olah et al. 2017); `"pixels"`, that of 2009: steps along the gradient in the
            pixels, under a bound on the picture's norm.
        size: Height and width of the pictures, in pixels.
        steps: Number of steps of the climb.
        batch: How many pictures are made at once.
        seed: Seed of the start and of the shifts, turns and scales.
        progress: Show a progress bar.

    Returns:
        The pictures, and how much they excite their maps.

    Raises:
        InputError: Unknown maps or method, steps or batch under 1, pictures too small for the network.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> extractor = FeatureExtractor("alexnet", weights=None)
        >>> found = maximize_activation(extractor, ["conv1:3", "conv2:5"], size=(64, 64), steps=3, progress=False)
        >>> found.images.shape, found.activations.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2]))
    """
    chosen = maps if isinstance(maps, MapIndex) else MapIndex(maps)
    check_extractor(extractor)
    if method not in get_args(Method):
        raise InputError(f"method is one of {', '.join(get_args(Method))}, got {method!r}")
    if steps < 1 or batch < 1 or min(size) < 1:
        raise InputError(f"steps, batch and sizes are at least 1, got {steps}, {batch} and {size}")
    positions = extractor.maps.positions(chosen)
    batches = [
        members[start : start + batch]
        for layer in chosen.channels
        for members in [[i for i, m in enumerate(chosen) if m.layer == layer]]
        for start in range(0, len(members), batch)
    ]
    images = torch.empty(len(chosen), 3, *size, device=extractor.device)
    activations = torch.empty(len(chosen), device=extractor.device)
    with _bar(progress, steps * len(batches)) as bar, strict_float32(extractor.device):
        for members in batches:
            own = [chosen[i] for i in members]
            noise = torch.stack([_noise(seed * _SEEDS + positions[i], size) for i in members]).to(extractor.device)
            climb = _climb_fourier if method == "fourier" else _climb_pixels
            images[members] = climb(extractor, own, noise, steps, seed, bar)
            with torch.no_grad():
                activations[members] = _excitement(extractor, images[members], own).to(activations.dtype)
    options = {
        "network": extractor.network_name,
        "weights_sha256": extractor.weights_sha256,
        "stage": extractor.stage,
        "method": method,
        "steps": steps,
        "seed": seed,
    }
    return MaximalImages(chosen, images.cpu(), activations.cpu(), options)


def _excitement(extractor: FeatureExtractor, images: Tensor, maps: list[FeatureMap]) -> Tensor:
    """(n,) of each picture the mean of its own map, all of one layer."""
    wanted = MapIndex(dict.fromkeys(maps))
    (values,) = extractor(images, wanted).values()
    own = torch.tensor([wanted.channels[m.layer].index(m.channel) for m in maps], device=images.device)
    means: Tensor = values.mean((2, 3))
    return means.gather(1, own[:, None])[:, 0]


def _inclination(extractor: FeatureExtractor, images: Tensor, maps: list[FeatureMap]) -> Tensor:
    """The sum of what each picture is to raise: its map's mean, with a leak below 0 where the map ends in a ReLU."""
    wanted = MapIndex(dict.fromkeys(maps))
    normalized = extractor.normalize(images)

    def run(operation: Operation, values: Mapping[str, Tensor]) -> Tensor:
        if not operation.outputs:
            return operation.run(extractor.network, normalized, values)  # type: ignore[no-any-return]
        own = {name: values[name].clone() for name in operation.inputs}  # it may write in place
        value: Tensor = operation.run(extractor.network, normalized, own)
        ((layer, channels),) = operation.outputs
        if layer.rectify:
            value = F.leaky_relu(value, _LEAK)
        elif extractor.stage == "relu":
            value = value - _LEAK * values[operation.inputs[0]].neg().relu()
        return value if channels is None else value[:, channels]

    own = torch.tensor([wanted.channels[m.layer].index(m.channel) for m in maps], device=images.device)
    for operation, value in walk(extractor.operations(wanted), run):
        if operation.outputs:
            return value.mean((2, 3)).gather(1, own[:, None]).sum()
    raise AssertionError("the maps' layer holds them")


def _climb_fourier(
    extractor: FeatureExtractor, maps: list[FeatureMap], noise: Tensor, steps: int, seed: int, bar: Any
) -> Tensor:
    size = (noise.shape[2], noise.shape[3])
    spectrum = torch.fft.rfft2(noise, norm="ortho") * _START
    coefficients = torch.view_as_real(spectrum).clone().requires_grad_()
    scale, colours = _natural_scale(size, noise.device), _colours(noise.device)
    optimizer = torch.optim.Adam([coefficients], lr=_STEP)
    generator = torch.Generator().manual_seed(seed)

    def picture() -> Tensor:
        planes = torch.fft.irfft2(torch.view_as_complex(coefficients) * scale, s=size, norm="ortho")
        return torch.einsum("ck,nkhw->nchw", colours, planes).sigmoid()

    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        (-_inclination(extractor, _moved(picture(), generator), maps)).backward()
        with torch.device("cpu"):  # it counts its steps on the default device
            optimizer.step()
        bar.update()
    return picture().detach()


def _climb_pixels(
    extractor: FeatureExtractor, maps: list[FeatureMap], noise: Tensor, steps: int, seed: int, bar: Any
) -> Tensor:
    bound = _CONTRAST * math.sqrt(noise[0].numel())
    x = noise * _NOISE
    for _ in range(steps):
        x.requires_grad_()
        value = _inclination(extractor, x + 0.5, maps)
        (slope,) = torch.autograd.grad(value, x)
        with torch.no_grad():
            x = x + slope * (_CLIMB * math.sqrt(noise[0].numel()) / _norm(slope).clamp(min=1e-30))
            x = (x * (bound / _norm(x)).clamp(max=1)).clamp(-0.5, 0.5)
        bar.update()
    return (x + 0.5).detach()


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)
    return norm


def _natural_scale(size: tuple[int, int], device: torch.device) -> Tensor:
    """(H, W / 2 + 1) amplitudes that fall as 1 / f, as those of natural images do."""
    down = torch.fft.fftfreq(size[0], device=device)[:, None]
    across = torch.fft.rfftfreq(size[1], device=device)
    frequency: Tensor = (down.square() + across.square()).sqrt()
    return 1 / frequency.clamp(min=1 / max(size))


def _colours(device: torch.device) -> Tensor:
    """(3, 3) from planes without correlation to red, green and blue."""
    root = torch.tensor(_COLOURS, device=device)
    longest: Tensor = torch.linalg.vector_norm(root, dim=0).max()
    return root / longest


def _moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """All pictures shifted, turned and scaled at random, alike; seen in a mirror beyond their borders."""
    across, down, turn, size = (2 * torch.rand(4, generator=generator, device="cpu") - 1).tolist()
    height, width = images.shape[2:]
    angle, scale = turn * _TURN, 1 + size * _SCALE
    cosine, sine = math.cos(angle) / scale, math.sin(angle) / scale
    theta = images.new_tensor([
        [cosine, -sine * height / width, 2 * across * _SHIFT / width],
        [sine * width / height, cosine, 2 * down * _SHIFT / height],
    ])  # fmt: skip
    grid = F.affine_grid(theta.expand(len(images), -1, -1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _noise(seed: int, size: tuple[int, int]) -> Tensor:
    return torch.randn(3, *size, generator=torch.Generator().manual_seed(seed), device="cpu")


def _bar(progress: bool, total: int) -> Any:
    return progress_bar(show=progress, total=total, desc="activation maximisation", unit="step")
