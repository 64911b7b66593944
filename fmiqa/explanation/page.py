"""The page that shows an explanation: one HTML file with all its pictures, which asks nothing of the network."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from fmiqa.explanation.stimuli import stimuli
from fmiqa.explanation.words import HOW
from fmiqa.visualize.cards import embedded
from fmiqa.visualize.drawing import heat

if TYPE_CHECKING:
    from fmiqa.explanation.explain import ExplainedMap, Explanation

__all__ = ["page"]

_LOSSLESS = 2**17  # pixels up to which a picture is embedded without loss
_LARGEST, _OVERLAY, _THUMB = 1600, 480, 224  # longest sides in pixels: pictures, error maps, background of small ones
_LEVELS = 64  # of an error map's colours
_BRIGHTEST = 0.995  # share of pixels that are below full colour
_FAINTEST = 0.01  # the least loss of full colour, so that rounding is not shown as loss

_LOCAL = (
    "Where a map loses quality: 1 less its local SSIM (or gradient similarity) is enlarged to the picture, each value "
    "at the centre of what its position sees; near the borders, where no window fits, the outermost values are "
    "repeated. Colour and opacity rise in proportion to the loss, up to the loss that {brightest:.1%} of the pixels "
    "stay below. They compare places within one picture, not pictures with each other: the legend has the scale."
)
_SHARES = (
    "How the loss is shared: the metric's quality is pooled from the scores of its maps, each raised to a power and "
    "weighted. What is missing to 1 is the sum of what each map takes off: its weight, times 1 less its raised score. "
    "In a geometric mean over layers, it is the logarithms that add up. The shares add up to all of the loss."
)
_SELECTIVITY = (
    "Selectivity is the share of the stimuli that excite a map less than half as much as the strongest one does: a map "
    "of high selectivity responds to little else."
)


def page(explanation: Explanation) -> str:
    """The page as HTML."""
    e = explanation
    height, width = e.test.shape[1:]
    limits = [_limit(error) for error in (e.error, *e.errors)]
    overlays = [_overlay(error, limit) for error, limit in zip((e.error, *e.errors), limits, strict=True)]
    large, small = _file(e.test, _LARGEST, 92), _file(e.test, _THUMB, 80)
    shown = e.maps[: len(e.errors)]
    most = max(shown[0].share, 1e-9)
    items = (
        _item(number, m, m.share / most, limit, _image(overlay, "Where this map sees a loss", width, height))
        for number, (m, limit, overlay) in enumerate(zip(shown, limits[1:], overlays[1:], strict=True), 1)
    )
    others = e.maps[len(shown) :]
    taken = f"{_percent(sum(m.share for m in others))} of the loss"
    rest = f"{len(others)} other maps take {taken}." if len(others) > 1 else f"1 other map takes {taken}."
    names = [escape(name, quote=True) for name in e.names]
    smaller = f" They are shown at {_LARGEST} pixels on the longer side." if max(height, width) > _LARGEST else ""
    said = (
        "Shown: where all maps together see a loss, each with its weight."
        if e.loss > 0
        else "No map sees a difference between the two pictures."
    )
    notes = (HOW.format(count=len(stimuli()[0])), _SELECTIVITY, _SHARES, _LOCAL.format(brightest=_BRIGHTEST))
    text = Template((Path(__file__).parent / "page.html").read_text("utf-8"))
    thumb = f'style="--thumb:url(data:image/{small[0]};base64,{base64.b64encode(small[1]).decode()})"'
    return text.substitute(
        title=escape(f"{e.names[0]}: {e.verdict}"),
        thumb=thumb,
        heading=_heading(e),
        verdict=_verdict(e),
        width=f"{max(width, 480)}px",
        ratio=f"{width / height:.4f}",
        gradient=_gradient(),
        reference=_image(_file(e.reference, _LARGEST, 92), f"Reference, {e.names[1]}", width, height),
        test=_image(large, f"Test image, {e.names[0]}", width, height),
        heat=_heat(_image(overlays[0], "Where the test image is judged worse", width, height)),
        reference_name=names[1],
        test_name=names[0],
        limit=f"{limits[0]:.2g}",
        said=said,
        pictures=f"Reference {names[1]}, test image {names[0]}, {width}x{height} pixels.{smaller}",
        lead=_lead(e),
        count=len(e.maps),
        all_thumb=_image(overlays[0], "Where all maps together see a loss", width, height),
        items="\n".join(items),
        others=f'<p class="note">{rest}</p>' if others else "",
        notes="".join(f'<p class="note">{escape(note)}</p>' for note in notes),
        footer=escape(f"{e.metric}; torch {torch.__version__}"),
    )


def _heading(e: Explanation) -> str:
    if e.rating is None:
        return f"Quality {e.quality:.4f}"
    return f"Rated {float(e.rating.score):.0f} of 100: {escape(e.rating.words[0])}"


def _verdict(e: Explanation) -> str:
    if e.rating is None:
        best = "" if abs(1 - e.loss - e.quality) > 1e-4 else ": 1 is the quality of the reference itself"
        return f'<p class="note">Higher is better{best}.</p>'
    score, low, high = (float(end) for end in (e.rating.score, e.rating.low, e.rating.high))
    return (
        f'<div class="rating" role="img" aria-label="{score:.0f} on a scale from 0 to 100; interval from {low:.0f} to '
        f'{high:.0f}"><i style="left:{low:.1f}%;width:{high - low:.1f}%"></i><b style="left:{score:.1f}%"></b>'
        "<span>0</span><span>100</span></div>"
        f'<p class="note">100 is a picture without any visible difference from its reference, 0 the worst that the '
        f"metric was fitted to. Such an interval, here from {low:.0f} to {high:.0f}, held nine of ten mean opinions of "
        f"observers on pictures that the metric had not seen. Quality before the rating: {e.quality:.4f}, "
        "where the reference itself has 1.</p>"
    )


def _lead(e: Explanation) -> str:
    if e.loss <= 0:
        return "The metric looks at the pictures through these maps, and none of them sees a difference."
    return (
        f"The metric looks at the pictures through {len(e.maps)} maps, each of which detects something of its own. "
        f"Together they take {e.loss:.4f} off a quality of 1. Those that take most stand first."
    )


def _item(number: int, m: ExplainedMap, part: float, limit: float, picture: str) -> str:
    words = escape(m.words[0].upper() + m.words[1:])
    name = escape(str(m.map))
    said = escape(f"Shown: where map {number} sees a loss. It detects: {m.words}.", quote=True)
    return (
        f'<li><div class="thumb">{picture}</div><div><p class="detects">{words}</p>'
        f'<div class="bar" aria-hidden="true"><span style="width:{100 * part:.1f}%"></span></div>'
        f'<p class="facts"><b>{_percent(m.share)}</b> of the loss; its score {m.score:.3f}; selectivity '
        f"{m.selectivity:.0%}</p>"
        f'<p class="facts">map {number}, <code>{name}</code></p>'
        f'<button type="button" aria-pressed="false" data-limit="{limit:.2g}" data-said="{said}" '
        f'aria-label="Show on the picture where map {number} sees a loss">Show on the picture</button></div></li>'
    )


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _limit(error: Tensor) -> float:
    """The loss of full colour."""
    ordered = error.flatten().sort().values  # quantile() takes no more than 2^24 numbers
    return max(float(ordered[int(_BRIGHTEST * (len(ordered) - 1))]), _FAINTEST)


def _overlay(error: Tensor, limit: float) -> tuple[str, bytes]:
    """An error map as a picture in few colours, some transparent, which makes a small file."""
    shrunk = _resized(error[None].float(), _OVERLAY)[0]
    steps = ((shrunk / limit).clamp(0, 1) * (_LEVELS - 1)).round().to(torch.uint8)
    palette = _colours(_LEVELS)
    picture = Image.fromarray(steps.numpy())
    picture.putpalette(palette[:3].T.flatten().tolist())
    content = io.BytesIO()
    picture.save(content, "png", optimize=True, transparency=bytes(palette[3].tolist()))
    return "png", content.getvalue()


def _file(image: Tensor, longest: int, quality: int) -> tuple[str, bytes]:
    """A picture (3, H, W) as the content of an image file, no larger than so many pixels a side."""
    pixels = image.float() / 255 if image.dtype == torch.uint8 else image.float()
    pixels = (_resized(pixels, longest).clamp(0, 1) * 255).round().to(torch.uint8)
    kind = "png" if pixels[0].numel() <= _LOSSLESS and longest > _THUMB else "jpeg"
    content = io.BytesIO()
    picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    picture.save(content, kind, quality=quality, subsampling=0)  # full colours, which are compared too
    return kind, content.getvalue()


def _resized(planes: Tensor, longest: int) -> Tensor:
    """(C, H, W), made smaller where a side is longer."""
    height, width = planes.shape[1:]
    factor = longest / max(height, width)
    if factor >= 1:
        return planes
    size = max(1, round(height * factor)), max(1, round(width * factor))
    return interpolate(planes[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def _image(file: tuple[str, bytes], alt: str, width: int, height: int) -> str:
    return embedded(file[1], file[0], alt, width, height)


def _heat(image: str) -> str:
    return image.replace("<img ", '<img class="heat" ', 1)


def _colours(count: int) -> Tensor:
    """(4, count) the colours from no loss to full colour, in equal steps of the loss."""
    steps = torch.linspace(0, 1, count, device="cpu")
    return heat(steps.square()[None])[:, 0]  # at whose root heat() puts its colours


def _gradient() -> str:
    """The same as CSS."""
    stops = _colours(9).T.tolist()
    return f"linear-gradient(90deg,{','.join(f'rgb({r} {g} {b}/{a / 255:.2f})' for r, g, b, a in stops)})"
