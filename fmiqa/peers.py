"""Classical metrics from the `piq` package (an extra), scored on a data set for comparison."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fmiqa.errors import InputError
from fmiqa.parts import SampleSource
from fmiqa.progress import progress_bar

__all__ = ["PEERS", "peer_scores"]

# piq's function, and whether a higher value means better quality.
PEERS: dict[str, tuple[str, bool]] = {
    "PSNR": ("psnr", True),
    "SSIM": ("ssim", True),
    "MS-SSIM": ("multi_scale_ssim", True),
    "IW-SSIM": ("information_weighted_ssim", True),
    "VIF": ("vif_p", True),
    "FSIM": ("fsim", True),
    "VSI": ("vsi", True),
    "GMSD": ("gmsd", False),
    "MDSI": ("mdsi", False),
    "HaarPSI": ("haarpsi", True),
    "DSS": ("dss", True),
    "SR-SIM": ("srsim", True),
}


@torch.inference_mode()
def peer_scores(
    data: SampleSource,
    names: Iterable[str] = tuple(PEERS),
    *,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> dict[str, Tensor]:
    """Score a data set with classical metrics, as `piq` implements them, at their default settings.

    Args:
        data: any map-style data set of `Sample`s.
        names: of `PEERS`.
        device: where to compute.
        progress: show a progress bar.

    Returns:
        name -> (N,) float64, turned so that higher = better.

    Raises:
        InputError: an unknown name, or `piq` is not installed.
    """
    names = list(names)
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise InputError(f"no peer metric {', '.join(unknown)}: there are {', '.join(PEERS)}")
    try:
        import piq
    except ImportError as error:
        raise InputError("peer metrics need the package piq: pip install 'fmiqa[peers]'") from error

    found: dict[str, list[float]] = {name: [] for name in names}
    for i in progress_bar(range(len(data)), show=progress, desc="peers", unit="image"):
        sample = data[i]
        test, reference = (image[None].to(device).float() / 255 for image in (sample.distorted, sample.reference))
        for name in names:
            function, rising = PEERS[name]
            options: dict[str, Any] = {"data_range": 1.0, "reduction": "none"}
            value = float(getattr(piq, function)(test, reference, **options))
            found[name].append(value if rising else -value)
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in found.items()}
