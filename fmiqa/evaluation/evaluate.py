"""Metrics judged on a data set, beside each other and beside others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fmiqa._progress import progress_bar
from fmiqa.datasets.base import Sample, SampleSource, check_data, checked_sample, same_image, share_reference
from fmiqa.errors import InputError
from fmiqa.evaluation.compare import compare
from fmiqa.evaluation.comparison import Comparison
from fmiqa.evaluation.peers import PeerWeights, check_peers, peer_scores
from fmiqa.metrics import SelectedFeatureIQM
from fmiqa.scoring.scorer import PreparedImages

__all__ = ["evaluate", "metric_scores"]

_UNKNOWN = (
    "Whether maps were selected on these images is not known here: where they were, the figures are in sample, and the "
    "verdicts do not hold for other images."
)
_PIXELS = 2**21  # of test images that are scored together: eight of 512 x 512


def evaluate(
    metrics: SelectedFeatureIQM | Mapping[str, SelectedFeatureIQM],
    data: SampleSource,
    *,
    peers: Iterable[str] = (),
    peer_weights: PeerWeights | None = None,
    baseline: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> Comparison:
    """Judge metrics on a data set: agreement with its scores, with intervals, and which differences are real.

    Whether the figures are in sample is not known here: they are if a metric's maps were selected on these images
    (`fmiqa.evaluation.claims.claim` tells for a saved selection). Images of one reference are resampled together.

    Args:
        metrics: One metric, or name -> metric.
        data: Any map-style data set of `Sample` objects.
        peers: Other metrics to put beside them, names of `fmiqa.peers.PEERS` (most need the package piq).
        peer_weights: Weights of those that have any, see `fmiqa.peers.peer_scores`.
        baseline: Compare all others with this one only; all pairs by default.
        resamples: Number of resamples of the bootstrap over references.
        seed: Seed of the bootstrap.
        progress: Show progress bars.

    Returns:
        A table that prints as text, shows in notebooks, and has `Comparison.to_dict` and `Comparison.to_markdown`.

    Raises:
        InputError: No metrics, an unknown peer, a name used twice.
        WeightsError: Weights of a peer are missing, misshapen, or cannot be fetched.

    Example:
        >>> import warnings; warnings.simplefilter("ignore")
        >>> import fmiqa
        >>> data = torch.utils.data.Subset(fmiqa.datasets.Demo(references=5, levels=2), range(30))
        >>> iqm = fmiqa.SelectedFeatureIQM(fmiqa.FeatureExtractor("alexnet", weights=None), ["conv1:44", "conv1:3"])
        >>> print(evaluate({"two maps": iqm}, data, resamples=20).agreements[0].name)
        two maps
    """
    check_data(data)
    named = {"metric": metrics} if isinstance(metrics, SelectedFeatureIQM) else metrics
    if not isinstance(named, Mapping) or not all(isinstance(m, SelectedFeatureIQM) for m in named.values()):
        raise InputError(
            f"metrics is a SelectedFeatureIQM, or name -> SelectedFeatureIQM, got {type(metrics).__name__}"
        )
    peers = list(peers)
    if not named and not peers:
        raise InputError("nothing to evaluate: give a metric, or name -> metric")
    if set(named) & set(peers):
        raise InputError(f"a metric has the name of a peer: {', '.join(sorted(set(named) & set(peers)))}")
    check_peers(peers, peer_weights)
    scores, targets, groups = _walk(named, data, progress)
    if peers:
        scores |= peer_scores(data, peers, weights=peer_weights, progress=progress)
    found = compare(scores, targets, groups, baseline=baseline, resamples=resamples, seed=seed)
    return replace(found, notes=(*found.notes, *[_UNKNOWN] * bool(named)))


def metric_scores(metric: SelectedFeatureIQM, data: SampleSource, *, progress: bool = False) -> Tensor:
    """(N,) float64, a metric's value for each image of a data set."""
    return _walk({"": metric}, data, progress)[0][""]


@torch.inference_mode()
def _walk(
    metrics: Mapping[str, SelectedFeatureIQM], data: SampleSource, progress: bool
) -> tuple[dict[str, Tensor], Tensor, list[str]]:
    """Every metric's scores, the targets and the groups.

    Images are decoded once. Those of one reference that follow each other are scored together, and the reference's
    side is computed once for all of them.
    """
    found: dict[str, list[float]] = {name: [] for name in metrics}
    targets, groups = [], []
    last: Tensor | None = None
    prepared: dict[str, list[PreparedImages]] = {}
    with progress_bar(show=progress, total=len(data), desc="scoring", unit="image") as bar:
        for batch in _batches(data):
            reference = batch[0].reference
            if last is None or not same_image(last, reference):
                last = reference
                prepared = {name: metric.prepare(last[None].to(metric.device)) for name, metric in metrics.items()}
            test = torch.stack([sample.distorted for sample in batch])
            for name, metric in metrics.items():
                found[name] += metric(test.to(metric.device), prepared[name]).tolist()
            targets += [float(sample.score) for sample in batch]
            groups += [sample.reference_id for sample in batch]
            bar.update(len(batch))
    scores = {name: torch.tensor(values, dtype=torch.float64, device="cpu") for name, values in found.items()}
    return scores, torch.tensor(targets, dtype=torch.float64, device="cpu"), groups


def _batches(data: SampleSource) -> Iterator[list[Sample]]:
    """Consecutive samples of one reference image, of at most `_PIXELS` pixels."""
    batch: list[Sample] = []
    for i in range(len(data)):
        sample = checked_sample(data[i], i)
        room = max(1, _PIXELS // sample.distorted[0].numel())
        if batch and (len(batch) >= room or not share_reference(batch[0], sample)):
            yield batch
            batch = []
        batch.append(sample)
    if batch:
        yield batch
