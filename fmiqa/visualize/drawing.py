"""Pictures of what was found: relevance and lost quality laid over images, segments outlined, grids with titles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from fmiqa._checks import check_picture, check_tensor, is_positive
from fmiqa._plotting import new_figure
from fmiqa.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["heat", "outlined", "overlay_error", "overlay_loss", "overlay_relevance", "picture_grid"]

_RED, _BLUE, _ORANGE, _YELLOW = (214, 39, 40), (31, 90, 200), (213, 94, 0), (240, 228, 66)
_HEAT = ((255, 237, 160), (254, 178, 76), (240, 59, 32), (128, 0, 38))  # ColorBrewer's YlOrRd
_DENSEST = 0.65  # opacity of heat
_FAINT = 0.45  # of an image's contrast, beneath colours
_STRONGEST = 0.995  # share of pixels whose relevance is below full colour


def overlay_relevance(image: Tensor, relevance: Tensor, *, limit: float | None = None) -> Tensor:
    """Signed relevance over a greyed image: red where pixels raise the map, blue where they lower it.

    Args:
        image: (3, H, W) uint8 or float in [0, 1].
        relevance: (H, W).
        limit: The relevance of full colour; by default the .995 quantile of its magnitude.

    Returns:
        (3, H, W) uint8.

    Raises:
        InputError: Arguments that are not tensors, or of shapes that do not go together.

    Example:
        >>> overlay_relevance(torch.rand(3, 8, 9), torch.randn(8, 9)).shape
        torch.Size([3, 8, 9])
    """
    _check(image, relevance)
    size = relevance.abs()
    top = float(size.flatten().quantile(_STRONGEST)) if limit is None else limit
    strength = (size / top if top > 0 else size).clamp(0, 1)
    red, blue = _colour(_RED), _colour(_BLUE)
    return _blended(_greyed(image), torch.where(relevance.cpu() > 0, red, blue), strength)


def overlay_loss(image: Tensor, quality: Tensor, *, limit: float | None = None) -> Tensor:
    """Where quality is lost, in orange over a greyed image.

    Args:
        image: (3, H, W) uint8 or float in [0, 1].
        quality: (H, W) at most 1, such as local SSIM.
        limit: The loss 1 - quality of full colour; by default the .995 quantile.

    Returns:
        (3, H, W) uint8.

    Raises:
        InputError: Arguments that are not tensors, or of shapes that do not go together.
    """
    _check(image, quality)
    loss = (1 - quality).clamp(min=0)
    top = float(loss.flatten().quantile(_STRONGEST)) if limit is None else limit
    return _blended(_greyed(image), _colour(_ORANGE), (loss / top if top > 0 else loss).clamp(0, 1))


def overlay_error(image: Tensor, error: Tensor, *, limit: float = 1.0) -> Tensor:
    """An error map as heat over a greyed image: from yellow by orange and red to dark red.

    Where the error is 0 there is no colour. Colours mean the same in all pictures of one `limit`; they stand at the
    root of the error, so that small errors can be told apart.

    Args:
        image: (3, H, W) uint8 or float in [0, 1].
        error: (H, W) at least 0, such as `SelectedFeatureIQM.error_map` gives.
        limit: The error of full dark red.

    Returns:
        (3, H, W) uint8.

    Raises:
        InputError: Arguments that are not tensors, or of shapes that do not go together; a limit that is not positive.

    Example:
        >>> picture = overlay_error(torch.zeros(3, 1, 3), torch.tensor([[0.0, 4 / 9, 1.0]]))
        >>> picture[:, 0].T.tolist()
        [[126, 126, 126], [200, 83, 65], [127, 44, 69]]
    """
    _check(image, error)
    colour, at = _heat(error, limit)
    return _blended(_greyed(image), colour, _DENSEST * at.clamp(max=1))


def heat(error: Tensor, *, limit: float = 1.0) -> Tensor:
    """The colours of `overlay_error` alone, to lie over a picture, with an opacity that rises all the way to `limit`.

    Args:
        error: (H, W), at least 0.
        limit: The error of full dark red.

    Returns:
        (4, H, W) uint8, red, green, blue and opacity.

    Raises:
        InputError: The error is not a tensor (H, W); a limit that is not positive.

    Example:
        >>> heat(torch.tensor([[0.0, 4 / 9, 1.0]]))[:, 0].T.tolist()
        [[255, 237, 160, 0], [240, 59, 32, 170], [128, 0, 38, 255]]
    """
    if check_tensor(error, "error (H, W)").ndim != 2:
        raise InputError(f"error is (H, W), got {tuple(error.shape)}")
    colour, at = _heat(error, limit)
    return torch.cat([colour, 255 / (len(_HEAT) - 1) * at[None]]).round().to(torch.uint8)


def _heat(error: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """(3, H, W) colours, and (H, W) between which of them each pixel is."""
    if not is_positive(limit):
        raise InputError(f"limit is the error of full dark red, a positive number, got {limit!r}")
    at = (error.detach().cpu().float() / limit).clamp(0, 1).sqrt() * (len(_HEAT) - 1)
    colour = torch.zeros(3, 1, 1, device="cpu")
    for place, stop in enumerate(_HEAT):
        colour = colour + _colour(stop) * (1 - (at - place).abs()).clamp(min=0)
    return colour, at


def outlined(image: Tensor, mask: Tensor) -> Tensor:
    """A segment as it is, the rest darkened, its border in yellow.

    Args:
        image: (3, H, W) uint8 or float in [0, 1].
        mask: (H, W) bool.

    Returns:
        (3, H, W) uint8.

    Raises:
        InputError: Arguments that are not tensors, or of shapes that do not go together.
    """
    _check(image, mask)
    inside = mask.float()[None, None]
    border = (F.max_pool2d(inside, 3, 1, 1) > 0)[0, 0] & ~(-F.max_pool2d(-inside, 3, 1, 1) > 0)[0, 0]
    pixels = _pixels(image)
    shown = torch.where(mask, pixels, 0.35 * pixels)
    return torch.where(border, _colour(_YELLOW), shown).round().to(torch.uint8)


def picture_grid(
    pictures: Sequence[Tensor], titles: Sequence[str] | None = None, *, columns: int = 4, side: float = 2.0
) -> Figure:
    """Pictures in rows, each under its title.

    Args:
        pictures: (3, h, w) each, uint8 or float in [0, 1], of any sizes.
        titles: One each.
        columns: Pictures a row.
        side: Inches that a picture is wide.

    Returns:
        A matplotlib figure.

    Raises:
        InputError: No pictures, pictures of another form, or not a title for each; matplotlib is not installed.
    """
    if not pictures or columns < 1 or (titles is not None and len(titles) != len(pictures)):
        given = "none" if titles is None else str(len(titles))
        raise InputError(f"a grid needs pictures and a title for each; got {len(pictures)} and {given} titles")
    for number, picture in enumerate(pictures):
        check_picture(picture, f"picture {number}")
    columns = min(columns, len(pictures))
    lines = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    most = 0 if titles is None else max(title.count("\n") + 1 for title in titles)
    heights = [side * max(p.shape[1] / p.shape[2] for p in line) + 0.1 + 0.17 * most for line in lines]
    figure = new_figure(columns * (side + 0.1), sum(heights))
    places = figure.subplots(len(lines), columns, squeeze=False, height_ratios=heights).flatten().tolist()
    for ax in places:
        ax.axis("off")
    for number, (ax, picture) in enumerate(zip(places, pictures, strict=False)):
        ax.imshow(_pixels(picture).round().byte().permute(1, 2, 0).numpy(), interpolation="nearest")
        if titles is not None:
            ax.set_title(titles[number], fontsize=8)
    return figure


def _check(image: Tensor, over: Tensor) -> None:
    check_picture(image, "image")
    check_tensor(over, "what lies over the image (H, W)")
    if image.shape[1:] != over.shape:
        raise InputError(
            f"an image (3, H, W) and what lies over it (H, W), got {tuple(image.shape)}, {tuple(over.shape)}"
        )


def _pixels(image: Tensor) -> Tensor:
    """As floats from 0 to 255."""
    return image.cpu().float() if image.dtype == torch.uint8 else image.detach().cpu().float().clamp(0, 1) * 255


def _greyed(image: Tensor) -> Tensor:
    """Grey of low contrast about a light mean, so that colours over it can be told."""
    grey = _pixels(image).mean(0, keepdim=True).expand(3, -1, -1)
    return 255 * (1 - _FAINT) * 0.9 + _FAINT * grey


def _colour(colour: tuple[int, int, int]) -> Tensor:
    return torch.tensor(colour, dtype=torch.float32, device="cpu").view(3, 1, 1)


def _blended(below: Tensor, colour: Tensor, strength: Tensor) -> Tensor:
    return (below + strength.cpu() * (colour - below)).round().clamp(0, 255).to(torch.uint8)
