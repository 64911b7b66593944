"""Peers by name, scored on a data set for comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fmiqa._progress import progress_bar
from fmiqa.datasets.base import SampleSource
from fmiqa.errors import InputError
from fmiqa.evaluation.peers.delta_e import delta_e_ab
from fmiqa.evaluation.peers.m_svd import m_svd
from fmiqa.evaluation.peers.vsnr import vsnr

__all__ = ["PEERS", "Peer", "check_peers", "peer_scores"]


class Peer(NamedTuple):
    """A metric of whole images: `(N, 3, H, W), (N, 3, H, W) -> (N,)` of test and reference, float in [0, 1]."""

    function: str | Callable[[Tensor, Tensor], Tensor]  # a string names a function of piq
    higher_is_better: bool = True

    def __call__(self, test: Tensor, reference: Tensor) -> Tensor:
        """The metric's value of each pair of images, as its authors define it."""
        if callable(self.function):
            return self.function(test, reference)
        import piq

        options: dict[str, Any] = {"data_range": 1.0, "reduction": "none"}
        with test.device:  # piq makes some of its constants on the default device
            values: Tensor = getattr(piq, self.function)(test, reference, **options)
        return values


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
}
"""Metrics by the names that `fmiqa evaluate --peers` takes: `vsnr`, `m_svd` and `delta_e_ab` are this library's own,
the others are functions of the package `piq` (an extra)."""


def check_peers(names: Iterable[str]) -> None:
    """Raise `InputError` where a name is not one of `PEERS`, or where it needs `piq`, which is not installed."""
    names = list(names)
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise InputError(f"no peer metric {', '.join(unknown)}: there are {', '.join(PEERS)}")
    of_piq = [name for name in names if isinstance(PEERS[name].function, str)]
    if of_piq and not find_spec("piq"):
        raise InputError(f"peers {', '.join(of_piq)} need the package piq: pip install 'fmiqa[peers]'")


@torch.inference_mode()
def peer_scores(
    data: SampleSource,
    names: Iterable[str] = tuple(PEERS),
    *,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> dict[str, Tensor]:
    """Score a data set with classical metrics at their default settings.

    Args:
        data: Any map-style data set of `Sample`s.
        names: Names in `PEERS`.
        device: The device to compute on.
        progress: Show a progress bar.

    Returns:
        name -> (N,) float64, turned so that higher = better.

    Raises:
        InputError: An unknown name, or one that needs `piq`, which is not installed.
    """
    names = list(names)
    check_peers(names)
    found: dict[str, list[float]] = {name: [] for name in names}
    for i in progress_bar(range(len(data)), show=progress, desc="peers", unit="image"):
        sample = data[i]
        test, reference = (image[None].to(device).float() / 255 for image in (sample.distorted, sample.reference))
        for name in names:
            value = float(PEERS[name](test, reference))
            found[name].append(value if PEERS[name].higher_is_better else -value)
    return {name: torch.tensor(values, dtype=torch.float64, device="cpu") for name, values in found.items()}
