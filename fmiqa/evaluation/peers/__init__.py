"""Peers: metrics of whole images, to put beside the metrics of this library."""

from fmiqa.evaluation.peers.deep import DeepJSD, DeepWSD
from fmiqa.evaluation.peers.delta_e import cielab, delta_e_ab
from fmiqa.evaluation.peers.dists import DISTS
from fmiqa.evaluation.peers.lpips import LPIPS
from fmiqa.evaluation.peers.m_svd import m_svd
from fmiqa.evaluation.peers.scores import PEERS, Peer, PeerWeights, check_peers, peer_scores
from fmiqa.evaluation.peers.vsnr import Display, vsnr

__all__ = [
    "DISTS", "LPIPS", "PEERS", "DeepJSD", "DeepWSD", "Display", "Peer", "PeerWeights", "check_peers", "cielab",
    "delta_e_ab", "m_svd", "peer_scores", "vsnr",
]  # fmt: skip
