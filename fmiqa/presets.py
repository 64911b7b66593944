"""The metrics that the method stands on, each with its authors' choices of maps, measure and pooling.

Each is built from parts that are options elsewhere: a measure of `fmiqa.measures`, a pooling, a stage. What the
sources leave open, and where this library's form differs, each function says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import nn

from fmiqa.errors import InputError
from fmiqa.features.extractor import FeatureExtractor
from fmiqa.features.tracing import Stage
from fmiqa.maps import FeatureMap
from fmiqa.measures import SSIM, DeepSimSSIM, PyramidIntersection
from fmiqa.metrics import AllFeatureIQM, SelectedFeatureIQM

if TYPE_CHECKING:
    from fmiqa.selection.result import Selection

__all__ = ["amirshahi2016", "amirshahi2018", "deepsim", "paper"]

Model = FeatureExtractor | nn.Module | str


def amirshahi2016(model: Model = "alexnet", *, levels: int = 3) -> AllFeatureIQM:
    """Histograms of layers over a spatial pyramid, compared by their intersection.

    S. A. Amirshahi, M. Pedersen, S. X. Yu, "Image quality assessment by comparing CNN features between images",
    Journal of Imaging Science and Technology 60(6), 2016. Maps of several layers of AlexNet; a similarity at each
    layer by histogram intersection over a spatial pyramid; pooled across layers.

    Choices made here, for no code of the authors is public: maps after the ReLU, of all convolutions; a region's
    histogram has a bin for each map, its share of the layer's activity there (`measures.PyramidIntersection`); three
    levels, 1x1, 2x2 and 4x4 regions, all of one weight; the geometric mean over layers, which ranks images as their
    product does; images at their own size.

    Args:
        model: A `FeatureExtractor` with stage "relu", a network's name (with torchvision's weights), or an `nn.Module`.
        levels: Number of levels of the pyramid.

    Returns:
        A metric: (N, 3, H, W) twice -> (N,) from 0 to 1.

    Raises:
        InputError: The extractor has the other stage.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> iqm = amirshahi2016(FeatureExtractor("alexnet", weights=None))
        >>> iqm(torch.rand(2, 3, 96, 96), torch.rand(1, 3, 96, 96)).shape
        torch.Size([2])
    """
    return AllFeatureIQM(
        _extractor(model, "relu", "amirshahi2016"), measure=PyramidIntersection(levels), pool="layer_geometric"
    )


def amirshahi2018(model: Model = "alexnet") -> AllFeatureIQM:
    """SSIM of the maps before the ReLU, the mean of each layer, the geometric mean over layers.

    S. A. Amirshahi, M. Pedersen, A. Beghdadi, "Reviving traditional image quality metrics using CNNs", Color and
    Imaging Conference 2018. After a third party's public port: SSIM as MATLAB computes it of real numbers (L = 1) on
    the convolutions' own outputs, images at their own size.

    Choices made here: full windows only, where MATLAB continues the map beyond its rim; all convolutions of the
    network. Maps before the ReLU are signed, so that a layer's mean SSIM may be negative: the score is NaN then, since
    a root of a negative number says nothing of quality (the port takes the root's magnitude, by which an image with
    opposed structures may beat another). White noise in a picture's place does that to conv2 and conv4 of AlexNet; a
    damaged picture, its negative or its mirror image does not.

    Args:
        model: A `FeatureExtractor` with stage "conv", a network's name (with torchvision's weights), or an `nn.Module`.

    Returns:
        A metric: (N, 3, H, W) twice -> (N,), at most 1.

    Raises:
        InputError: The extractor has the other stage.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> iqm = amirshahi2018(FeatureExtractor("alexnet", weights=None, stage="conv"))
        >>> iqm(torch.rand(2, 3, 96, 96), torch.rand(1, 3, 96, 96)).shape
        torch.Size([2])
    """
    return AllFeatureIQM(
        _extractor(model, "conv", "amirshahi2018"), measure=SSIM(data_range=1.0), pool="layer_geometric"
    )


def deepsim(model: Model = "vgg16", *, pool: Literal["mean", "lowest"] = "mean") -> SelectedFeatureIQM:
    """DeepSim: its own SSIM of the maps of VGG16, pooled over positions, then maps, then layers.

    F. Gao, Y. Wang, P. Li, M. Tan, J. Yu, Y. Zhu, "DeepSim: Deep similarity for image quality assessment",
    Neurocomputing 257, 2017, and the authors' code, which settles the SSIM (`measures.DeepSimSSIM`).

    Choices made here: maps after the ReLU of the 13 convolutions, where the code goes on through poolings; the mean
    over the maps of a layer, then over layers, all of one weight; torchvision's weights and its normalisation of
    images, where the code has MatConvNet's; images at their own size.

    Args:
        model: A `FeatureExtractor` with stage "relu", a network's name (with torchvision's weights), or an `nn.Module`.
        pool: Over positions: `"mean"`, or `"lowest"`, the mean of the lowest 10 % of each map's SSIM.

    Returns:
        A metric: (N, 3, H, W) twice -> (N,), at most 1.

    Raises:
        InputError: The extractor has the other stage, or the pooling is unknown.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> iqm = deepsim(FeatureExtractor("vgg11", weights=None, layers=["conv1_1", "conv2_1"]))
        >>> iqm(torch.rand(2, 3, 32, 32), torch.rand(1, 3, 32, 32)).shape
        torch.Size([2])
    """
    extractor = _extractor(model, "relu", "deepsim")
    sizes = extractor.maps.channels
    each = torch.tensor([1 / len(sizes[m.layer]) for m in extractor.maps], dtype=torch.float64, device="cpu")
    return SelectedFeatureIQM(extractor, extractor.maps, measure=DeepSimSSIM(pool), weights=each)


def paper(model: Model, maps: Selection | Iterable[FeatureMap | str]) -> SelectedFeatureIQM:
    """SSIM of selected maps, and their mean: the metric of the paper.

    T. T. Nguyen and S. A. Amirshahi, "What Are We Looking At?". The paper says that the maps' scores are combined,
    not how; the data range of SSIM and the stage it leaves to its citations. Choices made here: the mean; L = 1; maps
    after the ReLU; images at their own size.

    Args:
        model: A `FeatureExtractor` with stage "relu", a network's name (with torchvision's weights), or an `nn.Module`.
        maps: A `Selection` made under these choices, or names such as `["conv1:27", "conv3:5"]`.

    Returns:
        A metric: (N, 3, H, W) twice -> (N,), at most 1.

    Raises:
        InputError: An extractor of the other stage or another network than the selection's, a selection made under
            other choices, unknown maps.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> iqm = paper(FeatureExtractor("alexnet", weights=None), ["conv1:27", "conv3:5"])
        >>> iqm(torch.rand(2, 3, 96, 96), torch.rand(1, 3, 96, 96)).shape
        torch.Size([2])
    """
    extractor = _extractor(model, "relu", "paper")
    if not hasattr(maps, "source"):
        return SelectedFeatureIQM(extractor, maps)
    maps = cast("Selection", maps)
    given = {
        "measure": maps.source.get("measure"),
        "pool": maps.pool,
        "power": maps.power,
        "weights": None if maps.weights is None else "given",
    }
    own = {"measure": SSIM().options(), "pool": "mean", "power": 1.0, "weights": None}
    differing = [f"{k} {given[k]!r} there, {own[k]!r} in the paper" for k in own if given[k] != own[k]]
    if differing:
        raise InputError(
            f"the selection was made under other choices ({'; '.join(differing)}); "
            "SelectedFeatureIQM.from_selection makes the metric that it stands for"
        )
    return SelectedFeatureIQM.from_selection(extractor, maps)


def _extractor(model: Model, stage: Stage, preset: str) -> FeatureExtractor:
    if not isinstance(model, FeatureExtractor):
        return FeatureExtractor(model, stage=stage)
    if model.stage != stage:
        where = "before" if stage == "conv" else "after"
        raise InputError(
            f"{preset} compares maps {where} the ReLU, the extractor's stage is {model.stage!r}; "
            f"make it with FeatureExtractor(..., stage={stage!r})"
        )
    return model
