"""Peers: classical metrics of whole images, to put beside the metrics of this library."""

from fmiqa.evaluation.peers.delta_e import cielab, delta_e_ab
from fmiqa.evaluation.peers.m_svd import m_svd
from fmiqa.evaluation.peers.scores import PEERS, Peer, check_peers, peer_scores
from fmiqa.evaluation.peers.vsnr import Display, vsnr

__all__ = ["PEERS", "Peer", "check_peers", "peer_scores", "vsnr", "Display", "m_svd", "delta_e_ab", "cielab"]
