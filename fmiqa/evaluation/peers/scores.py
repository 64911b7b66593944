"""Peers by name, scored on a data set for comparison."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fmiqa._progress import progress_bar
from fmiqa.datasets.base import SampleSource
from fmiqa.errors import InputError, WeightsError
from fmiqa.evaluation.peers.deep import DeepJSD, DeepWSD
from fmiqa.evaluation.peers.delta_e import delta_e_ab
from fmiqa.evaluation.peers.dists import DISTS
from fmiqa.evaluation.peers.lpips import LPIPS
from fmiqa.evaluation.peers.m_svd import m_svd
from fmiqa.evaluation.peers.vsnr import vsnr
from fmiqa.features.checkpoints import StateDict
from fmiqa.features.viewing import Viewing

__all__ = ["PEERS", "Peer", "PeerWeights", "check_peers", "peer_scores"]

PeerWeights = Mapping[str, str | os.PathLike[str] | StateDict | None]
"""Weights by what they are of, such as `{"squeezenet1_1": "squeezenet1_1.pth"}`: the path of a state dict, a state
dict, `"DEFAULT"` (fetched, as for what is not named), or None for seeded random ones of a network."""


class Peer(NamedTuple):
    """A metric of whole images: `(N, 3, H, W), (N, 3, H, W) -> (N,)` of test and reference, float in [0, 1].

    Args:
        function: The metric; the name of a function of piq; or what makes the metric of its weights, where it has any.
        higher_is_better: Whether it is.
        weights: What it needs the weights of, in the order that `function` takes them.
    """

    function: str | Callable[..., Any]
    higher_is_better: bool = True
    weights: tuple[str, ...] = ()

    def __call__(self, test: Tensor, reference: Tensor) -> Tensor:
        """The metric's value of each pair of images, as its authors define it (with default weights, if any)."""
        if self.weights:
            return self.ready()(test, reference)
        values: Tensor
        if callable(self.function):
            values = self.function(test, reference)
            return values
        import piq

        options: dict[str, Any] = {"data_range": 1.0, "reduction": "none"}
        with test.device:  # piq makes some of its constants on the default device
            values = getattr(piq, self.function)(test, reference, **options)
        return values

    def ready(self, weights: PeerWeights | None = None, device: torch.device | str = "cpu") -> Peer:
        """The metric with its weights read, on a device; what has none stays as it is.

        Raises:
            WeightsError: Weights are missing, misshapen, of another network, or cannot be fetched; the message names
                the option that gives them.
        """
        if not self.weights or isinstance(self.function, str):
            return self
        try:
            metric = self.function(*((weights or {}).get(name, "DEFAULT") for name in self.weights))
        except WeightsError as error:
            given = ", ".join(f"{name!r}: FILE" for name in self.weights)
            options = " ".join(f"--weights {name}=FILE" for name in self.weights)
            raise WeightsError(f"{error}. Weights of peers are given as weights={{{given}}}, or {options}") from error
        return self._replace(function=metric.to(device) if isinstance(metric, nn.Module) else metric, weights=())


PEERS: dict[str, Peer] = {
    "PSNR": Peer("psnr"),
    "SSIM": Peer("ssim"),
    "MS-SSIM": Peer("multi_scale_ssim"),
    "IW-SSIM": Peer("information_weighted_ssim"),
    "VIF": Peer("vif_p"),
    "FSIM": Peer("fsim"),
    "VSI": Peer("vsi"),
    "GMSD": Peer("gmsd", higher_is_better=False),
    "MDSI": Peer("mdsi", higher_is_better=False),
    "HaarPSI": Peer("haarpsi"),
    "DSS": Peer("dss"),
    "SR-SIM": Peer("srsim"),
    "VSNR": Peer(vsnr),
    "M-SVD": Peer(m_svd, higher_is_better=False),
    "dE_ab": Peer(delta_e_ab, higher_is_better=False),
    "DeepWSD": Peer(DeepWSD, higher_is_better=False, weights=("squeezenet1_1",)),
    "DeepJSD": Peer(DeepJSD, higher_is_better=False, weights=("squeezenet1_1",)),
    "DISTS": Peer(DISTS, higher_is_better=False, weights=("vgg16", "dists")),
    "LPIPS": Peer(LPIPS, higher_is_better=False, weights=("alexnet", "lpips")),
}
"""Metrics by the names that `fmiqa evaluate --peers` takes: functions of the package `piq` (an extra) where a string
stands, else this library's own."""


def check_peers(names: Iterable[str], weights: PeerWeights | None = None) -> None:
    """Say before the work starts what peers lack: their weights are read, and fetched where they are not given.

    Args:
        names: Names of peers.
        weights: Their weights.

    Raises:
        InputError: A name is not one of `PEERS`, or needs `piq`, which is not installed; weights are of what none of
            the peers has.
        WeightsError: Weights are missing, misshapen, of another network, or cannot be fetched.
    """
    names = list(names)
    _check_names(names, weights or {})
    for name in names:
        PEERS[name].ready(weights)


def _check_names(names: list[str], weights: PeerWeights) -> None:
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise InputError(f"no peer metric {', '.join(unknown)}: there are {', '.join(PEERS)}")
    of_piq = [name for name in names if isinstance(PEERS[name].function, str)]
    if of_piq and not find_spec("piq"):
        raise InputError(f"peers {', '.join(of_piq)} need the package piq: pip install 'fmiqa[peers]'")
    needed = list(dict.fromkeys(weight for name in names for weight in PEERS[name].weights))
    other = [weight for weight in weights if weight not in needed]
    if other:
        raise InputError(
            f"weights of {', '.join(other)}: {', '.join(names) or 'no peer'} takes weights of "
            f"{', '.join(needed) or 'nothing'}"
        )


@torch.inference_mode()
def peer_scores(
    data: SampleSource,
    names: Iterable[str] | None = None,
    *,
    weights: PeerWeights | None = None,
    viewing: Viewing | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> dict[str, Tensor]:
    """Score a data set with metrics of whole images at their default settings.

    Args:
        data: Any map-style data set of `Sample` objects.
        names: Names in `PEERS`; by default those that need no weights.
        weights: Weights of metrics that have any; what is not named is fetched.
        viewing: The scale at which all metrics see images; as they are by default. What a metric does of itself comes
            on top: SSIM of piq averages blocks of round(shorter side / 256) pixels, for instance.
        device: The device to compute on.
        progress: Show a progress bar.

    Returns:
        name -> (N,) float64, turned so that higher = better.

    Raises:
        InputError: An unknown name, one that needs `piq`, which is not installed, or weights that no metric takes.
        WeightsError: Weights are missing, misshapen, of another network, or cannot be fetched.
    """
    names = [name for name, peer in PEERS.items() if not peer.weights] if names is None else list(names)
    _check_names(names, weights or {})
    peers = {name: PEERS[name].ready(weights, device) for name in names}
    seen = viewing or Viewing()
    found: dict[str, list[float]] = {name: [] for name in names}
    for i in progress_bar(range(len(data)), show=progress, desc="peers", unit="image"):
        sample = data[i]
        test, reference = (seen(image[None].to(device).float() / 255) for image in (sample.distorted, sample.reference))
        for name, peer in peers.items():
            value = float(peer(test, reference))
            found[name].append(value if peer.higher_is_better else -value)
    return {name: torch.tensor(values, dtype=torch.float64, device="cpu") for name, values in found.items()}
