"""Simple pictures that feature maps are probed with: stripes, checkers, spots, edges, colours, grain.

Each stimulus is made in several places (phases), so that some position of a map sees it where it suits the map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

__all__ = ["SIDE", "Stimulus", "stimuli"]

SIDE = 80
"""The side of the pictures in pixels, as the network sees them."""

_PERIODS = (3.0, 4.3, 6.1, 8.7, 12.3, 17.5, 25.0)  # steps of half an octave
_HUES = {  # angles of Cr over Cb in degrees, at the luma of mid-grey; each has its opposite six places on
    "violet-blue": 0, "violet": 30, "magenta": 60, "crimson": 90, "red": 120, "orange": 150,
    "olive": 180, "yellow-green": 210, "green": 240, "turquoise": 270, "sky blue": 300, "blue": 330,
}  # fmt: skip
_OPPOSITES = (("blue", "orange"), ("red", "green"), ("red", "sky blue"), ("green", "magenta"), ("turquoise", "crimson"),
              ("yellow-green", "violet"), ("violet-blue", "olive"))  # fmt: skip
_PLAIN = {
    "black": (0, 0, 0), "grey": (0.5, 0.5, 0.5), "white": (1, 1, 1), "red": (1, 0, 0), "orange": (1, 0.55, 0),
    "yellow": (1, 1, 0), "green": (0, 0.8, 0), "turquoise": (0, 0.85, 0.85), "blue": (0, 0, 1),
    "violet": (0.55, 0, 1), "magenta": (1, 0, 1), "pink": (1, 0.6, 0.75), "brown": (0.5, 0.3, 0.1),
}  # fmt: skip
_BLACK, _WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_LINES = ("vertical", "steep (/)", "diagonal (/)", "flat (/)", "horizontal", "flat (\\)", "diagonal (\\)", "steep (\\)")
_SIDES = ("right", "lower right", "bottom", "lower left", "left", "upper left", "top", "upper right")

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Stimulus:
    """A simple pattern.

    Args:
        kind: "stripes", "edges", "coloured stripes", "coloured edges", "coloured" (either), "checkers", "spots",
            "grain" or "plain".
        colours: The names of its colours, where there are any; empty also means: of whatever colours.
        direction: Degrees from which side to which it changes, 0 = to the right, 90 = downwards; None where it has no
            direction, or any.
        size: Pixels, as the network sees them: from one stripe to the next alike, side of squares, diameter of spots,
            grain.
    """

    kind: str
    colours: tuple[str, ...] = ()
    direction: float | None = None
    size: float | None = None

    def words(self, scale: float = 1.0) -> str:
        """The pattern in words.

        Args:
            scale: What sizes are multiplied by: pixels of the picture for each pixel that the network sees.

        Example:
            >>> Stimulus("stripes", direction=0.0, size=6.1).words(scale=2)
            'vertical stripes about 12 pixels apart'
            >>> Stimulus("coloured edges", ("blue", "orange")).words()
            'blue against orange, at edges of any direction'
        """
        count = max(1, round((self.size or 0) * scale))
        pixels = f"about {count} pixel{'s' * (count > 1)}"
        line = "" if self.direction is None else f"{_LINES[round(self.direction % 180 / 22.5)]} "
        anywhere = " of any direction" if self.direction is None else ""
        pair = " against ".join(self.colours) or "colours against each other"
        if self.kind == "stripes":
            return f"{line}stripes{anywhere} {pixels} apart"
        if self.kind == "coloured stripes":
            return f"{pair}, in {line}stripes{anywhere} {pixels} apart"
        if self.kind == "coloured edges":
            return f"{pair}, at {line}edges{anywhere}"
        if self.kind == "coloured":
            return pair
        if self.kind == "edges":
            lighter = "" if self.direction is None else f", lighter towards the {_SIDES[round(self.direction / 45)]}"
            return f"{line}edges{anywhere}{lighter}"
        if self.kind == "checkers":
            turned = "on their corners " if self.direction else ""
            return f"checkers {turned}with squares of {pixels}"
        if self.kind == "spots":
            return f"{' or '.join(self.colours) or 'light or dark'} spots {pixels} across"
        if self.kind == "grain":
            return f"grain of {pixels}"
        return f"plain {' or '.join(self.colours)}" if self.colours else "plain areas of many colours"


@lru_cache(maxsize=1)
def stimuli() -> tuple[tuple[Stimulus, ...], Tensor, Tensor]:
    """All stimuli, the same at every call.

    Returns:
        The S stimuli; P pictures of them, (P, 3, SIDE, SIDE) uint8 on the CPU; (P,) the number of each one's stimulus.

    Example:
        >>> found, pictures, numbers = stimuli()
        >>> pictures.shape[1:], len(numbers) == len(pictures), int(numbers.max()) + 1 == len(found)
        (torch.Size([3, 80, 80]), True, True)
    """
    found, pictures, numbers = [], [], []
    for number, (stimulus, phases) in enumerate(_made()):
        found.append(stimulus)
        pictures += phases
        numbers += [number] * len(phases)
    pixels = (torch.stack(pictures).clamp(0, 1) * 255).round().to(torch.uint8)
    return tuple(found), pixels, torch.tensor(numbers, device="cpu")


def _made() -> Iterator[tuple[Stimulus, list[Tensor]]]:
    quarters = [0.0, 0.25, 0.5, 0.75]
    for eighth, period in product(range(8), _PERIODS):
        waves = [_mixed(_wave(22.5 * eighth, period, phase), _BLACK, _WHITE) for phase in quarters]
        yield Stimulus("stripes", direction=22.5 * eighth, size=period), waves
    for direction in (45.0 * eighth for eighth in range(8)):
        steps = [_mixed(_step(direction, offset), _BLACK, _WHITE) for offset in (-4, -2, 0, 2)]
        yield Stimulus("edges", direction=direction), steps
    for first, second in _OPPOSITES:
        a, b = _pair(_HUES[first], _HUES[second])
        for direction, period in product((0.0, 45.0, 90.0, 135.0), (6.1, 17.5)):
            waves = [_mixed(_wave(direction, period, phase), a, b) for phase in quarters]
            yield Stimulus("coloured stripes", (first, second), direction, period), waves
        for direction in (0.0, 45.0, 90.0, 135.0):
            steps = [_mixed(_step(direction + turn, offset), a, b) for turn in (0, 180) for offset in (-3, 1)]
            yield Stimulus("coloured edges", (first, second), direction), steps
    for direction, side in product((0.0, 45.0), (2.2, 3.1, 4.4, 6.2, 8.8, 12.5)):
        squares = [_checkers(direction, side, *phases) for phases in product((0.0, 0.25), (0.0, 0.25))]
        squares += [1 - square for square in squares]
        yield Stimulus("checkers", direction=direction, size=side), [_mixed(s, _BLACK, _WHITE) for s in squares]
    for diameter, light in product((3.0, 5.0, 8.0, 13.0), (True, False)):
        spots = [_spots(diameter, *phases) for phases in product((0.0, 0.5), (0.0, 0.5))]
        ends = (_BLACK, _WHITE) if light else (_WHITE, _BLACK)
        yield Stimulus("spots", ("light" if light else "dark",), size=diameter), [_mixed(s, *ends) for s in spots]
    generator = torch.Generator("cpu").manual_seed(0)
    for grain in (1, 2):
        coarse = torch.rand(4, SIDE // grain, SIDE // grain, generator=generator, device="cpu")
        noise = coarse.repeat_interleave(grain, 1).repeat_interleave(grain, 2)
        yield Stimulus("grain", size=grain), [_mixed(one, _BLACK, _WHITE) for one in noise]
    for name, colour in _PLAIN.items():
        yield Stimulus("plain", (name,)), [_mixed(torch.zeros(SIDE, SIDE, device="cpu"), colour, colour)]


def _pair(first: float, second: float) -> tuple[Colour, Colour]:
    """Two hues at the luma of mid-grey (BT.601), as far apart in RGB as black is from a primary colour."""
    chroma = []
    for angle in (math.radians(first), math.radians(second)):
        cb, cr = math.cos(angle), math.sin(angle)
        raw = (1.402 * cr, -0.344 * cb - 0.714 * cr, 1.772 * cb)
        chroma.append([part / math.hypot(*raw) for part in raw])
    apart = math.dist(*chroma)
    a, b = ([0.5 + part / apart for part in one] for one in chroma)
    return (a[0], a[1], a[2]), (b[0], b[1], b[2])


def _mixed(weight: Tensor, first: Colour, second: Colour) -> Tensor:
    """(3, SIDE, SIDE), the second colour where the weight is 1."""
    a, b = (torch.tensor(colour, device="cpu").view(3, 1, 1) for colour in (first, second))
    return a + weight * (b - a)


def _along(direction: float) -> Tensor:
    """(SIDE, SIDE) pixels from the centre in a direction."""
    place = torch.arange(SIDE, device="cpu") - (SIDE - 1) / 2
    turn = math.radians(direction)
    return place * math.cos(turn) + place[:, None] * math.sin(turn)


def _wave(direction: float, period: float, phase: float) -> Tensor:
    return 0.5 + 0.5 * torch.sin(2 * math.pi * (_along(direction) / period + phase))


def _step(direction: float, offset: float) -> Tensor:
    return (_along(direction) - offset + 0.5).clamp(0, 1)


def _checkers(direction: float, side: float, right: float, down: float) -> Tensor:
    across, along = (
        torch.sin(2 * math.pi * (_along(turn) / (2 * side) + phase))
        for turn, phase in ((direction, right), (direction + 90, down))
    )
    return 0.5 + 0.5 * torch.tanh(3 * across * along) / math.tanh(3)


def _spots(diameter: float, right: float, down: float) -> Tensor:
    """Discs on a square lattice, two and a half diameters apart."""
    apart = 2.5 * diameter
    across, along = ((_along(turn) / apart + phase + 0.5) % 1 - 0.5 for turn, phase in ((0.0, right), (90.0, down)))
    return (diameter / 2 - apart * torch.hypot(across, along) + 0.5).clamp(0, 1)
