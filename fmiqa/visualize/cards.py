"""A card for each selected map: what excites it, where it looks, what it detects, where its SSIM falls."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fmiqa.datasets.base import SampleSource
from fmiqa.errors import InputError
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.maps import FeatureMap, MapIndex
from fmiqa.measures import SSIM, Measure, get_measure
from fmiqa.scoring.checkpoint import Checkpoint
from fmiqa.selection import Selection
from fmiqa.visualize.activation_maximization import MaximalImages, maximize_activation
from fmiqa.visualize.difference import prediction_difference
from fmiqa.visualize.dissection.concepts import ConceptData
from fmiqa.visualize.dissection.planted import PlantedConcepts
from fmiqa.visualize.dissection.result import BestConcept, Dissection
from fmiqa.visualize.dissection.run import dissect
from fmiqa.visualize.drawing import overlay_loss, overlay_relevance
from fmiqa.visualize.exemplars import (
    Exemplar,
    ReferenceImages,
    as_seen,
    exemplars,
    local_quality,
    mean_activations,
    native,
)
from fmiqa.visualize.patches import ConditionalSampler

__all__ = ["STYLE", "Cards", "MapCard", "Picture", "embedded", "map_cards"]

_RUN = "fmiqa cards run 1"
_LOSSLESS = 2**17  # pixels up to which a picture is embedded without loss

STYLE = """
.fmiqa-card{border:1px solid #8886;border-radius:8px;padding:12px 16px;margin:16px 0;max-width:1100px}
.fmiqa-card h3{margin:0 0 4px;font-size:1.1em}
.fmiqa-card dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 12px;margin:4px 0 10px}
.fmiqa-card dt{color:#666}.fmiqa-card dd{margin:0}
.fmiqa-pictures{display:flex;flex-wrap:wrap;gap:12px;align-items:flex-start}
.fmiqa-pictures figure{margin:0;max-width:100%}
.fmiqa-pictures figcaption{font-size:.8em;color:#555;max-width:250px}
.fmiqa-pictures img{max-width:100%;height:auto;display:block;border-radius:4px}
"""


class Picture(NamedTuple):
    """A picture of a card.

    Args:
        caption: What it is.
        alt: The same for who cannot see it.
        image: (3, h, w) uint8 or float in [0, 1].
        width: The largest width on the page in pixels.
    """

    caption: str
    alt: str
    image: Tensor
    width: int


@dataclass(frozen=True, eq=False)
class MapCard:
    """What is known of one feature map.

    Args:
        map: The map.
        facts: Name and value of each.
        pictures: The pictures of the card.
    """

    map: FeatureMap
    facts: tuple[tuple[str, str], ...]
    pictures: tuple[Picture, ...]

    def to_html(self) -> str:
        """The card as a section of a page that has `STYLE`."""
        facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in self.facts)
        pictures = "".join(
            f"<figure>{_image(p)}<figcaption>{escape(p.caption)}</figcaption></figure>" for p in self.pictures
        )
        heading = f"<h3>{escape(str(self.map))}</h3><dl>{facts}</dl>"
        return f'<section class="fmiqa-card">{heading}<div class="fmiqa-pictures">{pictures}</div></section>'

    def _repr_html_(self) -> str:
        return f"<style>{STYLE}</style>{self.to_html()}"


class Cards(tuple[MapCard, ...]):
    """The cards of a selection; shows in notebooks."""

    def _repr_html_(self) -> str:
        return f"<style>{STYLE}</style>" + "".join(card.to_html() for card in self)


def map_cards(
    selection: Selection,
    extractors: FeatureExtractor | Mapping[str, FeatureExtractor],
    data: SampleSource,
    *,
    concepts: ConceptData | None = None,
    stride: int = 8,
    samples: int = 10,
    steps: int = 256,
    patches: int = 6,
    seed: int = 0,
    work: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Cards:
    """Look at each selected map in every way there is.

    Args:
        selection: The maps.
        extractors: The network, or for a selection from joined matrices source name -> network.
        data: Images to look at: exemplars come from its references; prediction difference analysis and the loss of
            SSIM are shown on its first reference and the one in the middle.
        concepts: Concepts for dissection; `PlantedConcepts()` by default.
        stride: Stride of prediction difference analysis.
        samples: Samples per window of prediction difference analysis.
        steps: Steps of activation maximisation.
        patches: Exemplars a map.
        seed: Seed of samples and starts.
        work: Folder where finished steps are kept, so that a stopped run goes on.
        progress: Show progress bars.

    Returns:
        The cards, in the order in which the maps were selected.

    Raises:
        InputError: No extractor for a source, unknown maps, an empty data set.
        ResumeError: `work` holds steps of another selection or other options.
    """
    networks = {"": extractors} if isinstance(extractors, FeatureExtractor) else dict(extractors)
    missing = {m.source for m in selection.maps} - set(networks)
    if missing or not len(data):
        raise InputError(
            "an extractor is needed for each source of the selection "
            f"(missing: {', '.join(sorted(missing)) or 'none'}), and images ({len(data)} given)"
        )
    planted = PlantedConcepts() if concepts is None else concepts
    kept = Checkpoint(work)
    kept.open(_RUN, {
        "maps": [str(m) for m in selection.maps],
        "networks": {n: [e.weights_sha256, e.stage, e.precision, e.viewing.options()] for n, e in networks.items()},
        "images": [str(getattr(data, "name", type(data).__name__)), len(data), ReferenceImages(data).names],
        "stride": stride, "samples": samples, "steps": steps, "patches": patches, "seed": seed,
        "concepts": [str(getattr(planted, "name", type(planted).__name__)), len(planted)],
    })  # fmt: skip
    cards: dict[FeatureMap, MapCard] = {}
    for source, extractor in networks.items():
        own = [m for m in selection.maps if m.source == source]
        if own:
            bare = MapIndex(FeatureMap(m.layer, m.channel) for m in own)
            compared = selection.sources.get(source, {}).get("measure", SSIM().options())
            measure = get_measure(compared) if compared["name"] == SSIM.name else None
            looks = _Looks(extractor, bare, data, source, measure, kept)
            looks.look(planted, stride=stride, samples=samples, steps=steps, patches=patches, seed=seed, bar=progress)
            cards.update((m, looks.card(i, m, _facts(selection, m))) for i, m in enumerate(own))
    return Cards(cards[m] for m in selection.maps)


def embedded(content: bytes, kind: str, alt: str, width: int, height: int) -> str:
    """An `<img>` that holds an image file of a kind (`"png"`, `"jpeg"`), shown at a size in CSS pixels."""
    data = base64.b64encode(content).decode()
    size = f'width="{width}" height="{height}"'
    return f'<img src="data:image/{kind};base64,{data}" alt="{escape(alt, quote=True)}" {size}>'


def _image(picture: Picture) -> str:
    from PIL import Image

    pixels = picture.image
    if pixels.is_floating_point():
        pixels = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    height, width = pixels.shape[1:]
    kind, buffer = "png" if height * width <= _LOSSLESS else "jpeg", io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy()).save(buffer, kind, optimize=True, quality=85)
    return embedded(buffer.getvalue(), kind, picture.alt, picture.width, round(picture.width * height / width))


def _facts(selection: Selection, map: FeatureMap) -> list[tuple[str, str]]:
    if selection.weights is not None:
        share = selection.weights[selection.maps.index(map)] / selection.weights.sum()
        return [("weight", f"{float(share):.3f} of all")]
    joined = [number for number, s in enumerate(selection.steps, 1) if s.map == map and not s.removed]
    if not joined:
        return [("selected", "given at the start")]
    step = joined[-1]  # it may have left and come back
    s = selection.steps[step - 1]
    return [("selected", f"in step {step} of {len(selection.steps)}; {s.gain:+.4f} to {s.value:.4f} (in sample)")]


class _Looks:
    """All there is to see of some maps of one network."""

    def __init__(
        self,
        extractor: FeatureExtractor,
        maps: MapIndex,
        data: SampleSource,
        source: str,
        measure: Measure | None,
        kept: Checkpoint,
    ) -> None:
        self.extractor, self.maps, self.data, self.source, self.kept = extractor, maps, data, source, kept
        self.measure = measure
        self.references = ReferenceImages(data)
        self.relevance: list[tuple[str, Tensor, Tensor]] = []  # reference, image, (M, H, W)
        self.loss: list[tuple[str, Tensor, Tensor]] = []  # test image's name, image, (M, H, W)

    def look(
        self, concepts: ConceptData, *, stride: int, samples: int, steps: int, patches: int, seed: int, bar: bool
    ) -> None:
        maps, references = self.maps, self.references
        network = native(self.extractor)

        def maximize() -> MaximalImages:
            return maximize_activation(network, maps, steps=steps, seed=seed, progress=bar)

        def detect() -> Dissection:
            return dissect(network, concepts, maps, progress=bar)

        self.maximal = self.kept.take(f"maximal-{self.source}.safetensors", MaximalImages, maximize)
        concepts_file = f"concepts-{self.source}.safetensors"
        self.dissection: list[BestConcept] = self.kept.take(concepts_file, Dissection, detect).best()
        self.exemplars = list(exemplars(self.extractor, references, maps, count=patches, progress=bar).values())
        self.most = mean_activations(self.extractor, references, maps).amax(0)
        places = sorted({0, len(references) // 2})
        sampler = ConditionalSampler([as_seen(self.extractor, image)[1].cpu() for image in references])
        for place in places:
            name = references.names[place]
            _, image = as_seen(self.extractor, references[place])
            step = f"relevance-{self.source}-{place}.safetensors"
            found = prediction_difference(
                network, image.to(network.device), maps, sampler=sampler, stride=stride, samples=samples, seed=seed,
                save=self.kept.path(step), progress=bar,
            )  # fmt: skip
            self.relevance.append((name, image, found.relevance))
        if not isinstance(self.measure, SSIM):
            return
        for name in (references.names[place] for place in places):
            test, label, reference = _damaged(self.data, references, name)
            quality = local_quality(self.extractor, test, reference, maps, measure=self.measure).cpu()
            self.loss.append((label, as_seen(self.extractor, test)[1], quality))

    def card(self, row: int, map: FeatureMap, facts: list[tuple[str, str]]) -> MapCard:
        concept, own, most = self.dissection[row], float(self.maximal.activations[row]), float(self.most[row])
        said = f"{concept.concept} ({concept.category}), IoU {concept.iou:.3f}" if concept.concept else "none"
        facts = [
            *facts,
            ("concept", said if concept.detector else f"no detector; nearest: {said}"),
            ("mean activation", f"{own:.3g} on its own picture, at most {most:.3g} on a reference"),
        ]
        pictures = [Picture(
            "Excites it most (activation maximisation)", f"picture made to excite {map}", self.maximal.images[row], 160
        )]  # fmt: skip
        for number, best in enumerate(self.exemplars[row], 1):
            where = self.references.names[best.image]
            pictures.append(_patch(best, f"Patch {number}: {best.value:.3g} in {where}", f"patch of {where} for {map}"))
        for name, image, relevance in self.relevance:
            caption = f"Where it looks in {name} (prediction difference): red raises the map, blue lowers it"
            shown = overlay_relevance(image, relevance[row])
            pictures.append(Picture(caption, f"relevance of the pixels of {name} for {map}", shown, 250))
        for name, image, quality in self.loss:
            lowest = float(quality[row].flatten().quantile(0.005))
            caption = f"Where its SSIM falls in {name}; full orange: to {lowest:.2f}"
            shown = overlay_loss(image, quality[row], limit=1 - lowest)
            pictures.append(Picture(caption, f"local loss of SSIM of {map} in {name}", shown, 250))
        return MapCard(map, tuple(facts), tuple(pictures))


def _patch(best: Exemplar, caption: str, alt: str) -> Picture:
    side = max(best.patch.shape[1:])
    return Picture(caption, alt, best.patch, round(min(160, max(96, side)) * best.patch.shape[2] / side))


def _damaged(data: SampleSource, references: ReferenceImages, reference: str) -> tuple[Tensor, str, Tensor]:
    """Of the test images of a reference, one that observers put in the lower quarter: image, name, reference."""
    rows = [i for i, name in enumerate(references.ids) if name == reference]
    targets: Any = getattr(data, "targets", None)
    values = [float(data[i].score if targets is None else targets[i]) for i in rows]
    sample = data[rows[sorted(range(len(rows)), key=values.__getitem__)[len(rows) // 4]]]
    return sample.distorted, sample.name, sample.reference
