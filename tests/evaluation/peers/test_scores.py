"""Peers by name: their direction, the package that some need, and scores of a data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fmiqa import InputError, Viewing, WeightsError, datasets
from fmiqa.evaluation.peers import PEERS, DeepWSD, check_peers, delta_e_ab, m_svd, peer_scores, scores, vsnr
from fmiqa.features import networks
from fmiqa.features.networks import NETWORKS

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
def test_equal_images_are_best(name: str, own_weights: dict[str, dict[str, Tensor]]) -> None:
    pytest.importorskip("piq")
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(1, 3, 176, 192, generator=generator)  # MS-SSIM and IW-SSIM need 161 rows
    test = (reference + 0.2 * torch.randn(reference.shape, generator=generator)).clamp(0, 1)
    peer = PEERS[name].ready(own_weights)
    assert peer.weights == ()
    best, worse = float(peer(reference, reference)), float(peer(test, reference))
    assert (best > worse) == peer.higher_is_better


def test_without_names_the_peers_that_need_no_weights(data: torch.utils.data.Subset[datasets.Sample]) -> None:
    pytest.importorskip("piq")
    few = torch.utils.data.Subset(data, [0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "PEERS", {name: PEERS[name] for name in (*OWN, "DeepWSD")})
        assert list(peer_scores(few)) == list(OWN)


def test_weights_are_a_file_or_a_state_dict(
    data: torch.utils.data.Subset[datasets.Sample], own_weights: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    state, file = own_weights["squeezenet1_1"], tmp_path / "features.pth"
    torch.save(state, file)
    found = peer_scores(data, ["DeepWSD", "dE_ab"], weights={"squeezenet1_1": file})
    metric = DeepWSD(state)
    pairs = [[image[None].float() / 255 for image in (s.distorted, s.reference)] for s in data]
    assert found["DeepWSD"].tolist() == [-float(metric(*pair)) for pair in pairs]
    assert torch.equal(peer_scores(data, ["DeepWSD"], weights={"squeezenet1_1": state})["DeepWSD"], found["DeepWSD"])


def test_weights_that_cannot_be_had_name_the_option(
    data: torch.utils.data.Subset[datasets.Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch() -> dict[str, Tensor]:
        raise OSError("no route to host")

    monkeypatch.setitem(networks.NETWORKS, "squeezenet1_1", replace(NETWORKS["squeezenet1_1"], weights=fetch))
    with pytest.raises(WeightsError, match=r"no route to host.*'squeezenet1_1': FILE.*--weights squeezenet1_1=FILE"):
        peer_scores(data, ["DeepJSD"])
    with pytest.raises(WeightsError, match=r"no weights file .*nowhere.pth.*--weights squeezenet1_1=FILE"):
        peer_scores(data, ["DeepJSD"], weights={"squeezenet1_1": "nowhere.pth"})


def test_weights_of_no_peer_are_refused() -> None:
    with pytest.raises(InputError, match="weights of alexnet: DeepWSD, SSIM takes weights of squeezenet1_1"):
        check_peers(["DeepWSD", "SSIM"], {"alexnet": "alexnet.pth"})
    with pytest.raises(InputError, match="weights of alexnet: VSNR takes weights of nothing"):
        check_peers(["VSNR"], {"alexnet": "alexnet.pth"})


def test_viewing_is_that_of_both_images(data: torch.utils.data.Subset[datasets.Sample]) -> None:
    half = Viewing(factor=0.5)
    found = peer_scores(data, ["dE_ab"], viewing=half)["dE_ab"]
    expected = [-float(delta_e_ab(half(s.distorted[None]), half(s.reference[None]))) for s in data]
    assert found.tolist() == expected
    assert not torch.equal(found, peer_scores(data, ["dE_ab"])["dE_ab"])
    assert torch.equal(peer_scores(data, ["dE_ab"], viewing=Viewing())["dE_ab"], peer_scores(data, ["dE_ab"])["dE_ab"])
