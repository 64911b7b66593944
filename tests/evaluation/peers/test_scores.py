"""Peers by name: their direction, the package that some need, and scores of a data set."""

from __future__ import annotations

import pytest
import torch

from fmiqa import InputError, datasets
from fmiqa.evaluation.peers import PEERS, check_peers, delta_e_ab, m_svd, peer_scores, scores, vsnr

OWN = {"VSNR": (vsnr, 1), "M-SVD": (m_svd, -1), "dE_ab": (delta_e_ab, -1)}


@pytest.fixture(scope="module")
def data() -> torch.utils.data.Subset[datasets.Sample]:
    return torch.utils.data.Subset(datasets.Demo(references=2, levels=2), range(0, 24, 5))


def test_own_peers_are_turned_so_that_higher_is_better(data: torch.utils.data.Subset[datasets.Sample]) -> None:
    found = peer_scores(data, OWN)
    assert list(found) == list(OWN)
    for name, (function, sign) in OWN.items():
        expected = [sign * float(function(s.distorted[None], s.reference[None])) for s in data]
        assert found[name].tolist() == expected


def test_own_peers_need_no_package(
    data: torch.utils.data.Subset[datasets.Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "find_spec", lambda _: None)
    assert bool(torch.stack(list(peer_scores(data, OWN).values())).isfinite().all())
    with pytest.raises(InputError, match=r"peers SSIM, GMSD need the package piq: pip install 'fmiqa\[peers\]'"):
        peer_scores(data, ["SSIM", "VSNR", "GMSD"])


def test_unknown_names() -> None:
    with pytest.raises(InputError, match=r"no peer metric VSNR2: there are PSNR, .*VSNR, M-SVD, dE_ab"):
        check_peers(["VSNR", "VSNR2"])


@pytest.mark.parametrize("name", PEERS)
def test_equal_images_are_best(name: str) -> None:
    pytest.importorskip("piq")
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(1, 3, 176, 192, generator=generator)  # MS-SSIM and IW-SSIM need 161 rows
    test = (reference + 0.2 * torch.randn(reference.shape, generator=generator)).clamp(0, 1)
    peer = PEERS[name]
    best, worse = float(peer(reference, reference)), float(peer(test, reference))
    assert (best > worse) == peer.higher_is_better
