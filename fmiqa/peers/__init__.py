"""Peers: classical metrics of whole images, to put beside the metrics of this library."""

from fmiqa.peers.delta_e import cielab, delta_e_ab
from fmiqa.peers.m_svd import m_svd
from fmiqa.peers.scores import PEERS, Peer, check_peers, peer_scores
from fmiqa.peers.vsnr import Display, vsnr

__all__ = ["PEERS", "Peer", "check_peers", "peer_scores", "vsnr", "Display", "m_svd", "delta_e_ab", "cielab"]
