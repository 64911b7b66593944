"""An upper quantile of many streams at once, in bounded memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fmiqa.errors import InputError

__all__ = ["StreamingQuantiles"]

_ROWS = 64  # streams whose kept values are sorted at once


class StreamingQuantiles:
    """The value that a given fraction of each stream does not exceed, for streams seen batch by batch.

    Of N values the quantile is the k-th greatest, k = N - ceil(fraction N) + 1 (numpy's "inverted_cdf"), so only the
    k greatest matter, and N is known beforehand here. As long as k fits into `buffer`, just they are kept: exact.
    Beyond that values are merged as in the sketch of Manku, Rajagopalan and Lindsay (SIGMOD 1998): a full buffer is
    sorted and of each pair of neighbours one is kept, with twice the weight, the greater and the smaller in turn. A
    merge moves the rank of no value by more than the weight it had, and every second one can only raise it, the others
    only lower it; their sums are the proven bound `rank_error`. What lies for sure below the k-th greatest is
    not taken in at all, so that merges happen about k (1 + ln N/k) / buffer times and not N / buffer times.

    With the default buffer and fraction .995, a stream of 200 million values in random order is bounded to some 1e-5
    of N and the worst order (ascending) of 2^33 values to 6e-4; nothing is random. Memory is at most
    2 buffer (2 + log2(N / buffer)) values a stream, usually 2 buffer (2 + log2(6 k / buffer)).

    Args:
        count: How many streams (feature maps), M.
        fraction: 0 < fraction < 1, what part of the values lies at or below the quantile.
        total: N, how many values each stream will have.
        buffer: How many values a buffer holds.

    Attributes:
        rank_error: no answer's rank is off by more than this part of N; 0 if the answers are exact.

    Raises:
        InputError: Numbers outside those ranges.

    Example:
        >>> quantiles = StreamingQuantiles(2, 0.75, total=8)
        >>> quantiles.update(torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0]]))
        >>> quantiles.update(torch.tensor([[5.0, 6, 7, 8], [0, 0, 9, 0]]))
        >>> quantiles.values().tolist()
        [6.0, 0.0]
    """

    def __init__(self, count: int, fraction: float, *, total: int, buffer: int = 8192) -> None:
        if count < 1 or total < 1 or buffer < 2:
            given = f"count {count}, total {total}, buffer {buffer}"
            raise InputError(f"count and total are at least 1, buffer at least 2, got {given}")
        if not 0 < fraction < 1:
            raise InputError(f"fraction lies between 0 and 1, got {fraction}")
        self.count = count
        self.total = total
        self._rank = total - math.ceil(round(fraction * total, 6)) + 1  # 0.995 * 1000 is a little above 995
        self._buffer = buffer
        self._seen = 0
        self._levels: list[Tensor] = []  # (M, n) of weight 2^level
        self._merges: list[int] = []
        self._raised = self._lowered = 0  # how far at most ranks were moved
        self._bound: Tensor | None = None  # (M,) not above the k-th greatest

    @property
    def rank_error(self) -> float:
        """The bound on the rank's error as a part of N."""
        return max(self._raised, self._lowered) / self.total

    def update(self, values: Tensor) -> None:
        """Take in the next values of every stream.

        Args:
            values: (M, n).

        Raises:
            InputError: Another number of streams, or more values than `total`.
        """
        if values.ndim != 2 or values.shape[0] != self.count:
            raise InputError(f"expected values of shape ({self.count}, n), got {tuple(values.shape)}")
        self._seen += values.shape[1]
        if self._seen > self.total:
            raise InputError(f"total was said to be {self.total} values a stream, these are {self._seen}")
        if self._bound is not None:
            most = int((values > self._bound[:, None]).sum(1).max())
            values = values.topk(most).values
        self._append(0, values)
        if self._levels[0].shape[1] > 2 * self._buffer:
            self._shrink()

    def values(self) -> Tensor:
        """(M,) the quantiles.

        Raises:
            InputError: Fewer values were given than `total`.
        """
        if self._seen != self.total:
            raise InputError(f"total was said to be {self.total} values a stream, only {self._seen} were given")
        found = self._of_rank(self._rank)
        return found if self._bound is None else torch.maximum(found, self._bound)

    def _append(self, level: int, values: Tensor) -> None:
        if level == len(self._levels):
            self._levels.append(values.clone())
            self._merges.append(0)
        else:
            self._levels[level] = torch.cat([self._levels[level], values], 1)

    def _shrink(self) -> None:
        if self._rank <= self._buffer:
            self._levels[0] = self._levels[0].topk(self._rank).values
            self._bound = self._levels[0][:, -1]
            return
        level = 0
        while level < len(self._levels):  # a merge may add one
            if self._levels[level].shape[1] > 2 * self._buffer:
                self._merge(level)
            level += 1
        rank = self._rank + self._raised
        if sum(values.shape[1] << level for level, values in enumerate(self._levels)) >= rank:
            self._bound = self._of_rank(rank)

    def _merge(self, level: int) -> None:
        ordered = self._levels[level].sort(dim=1, descending=True).values
        pairs = ordered.shape[1] // 2 * 2
        second = self._merges[level] % 2
        self._merges[level] += 1
        if second:
            self._lowered += 1 << level
        else:
            self._raised += 1 << level
        self._levels[level] = ordered[:, pairs:].clone()
        self._append(level + 1, ordered[:, second:pairs:2])

    def _of_rank(self, rank: int) -> Tensor:
        """(M,) the kept values at which the weights, from the greatest on, first sum to `rank`."""
        kept = torch.cat(self._levels, 1)
        weights = torch.cat(
            [kept.new_full((x.shape[1],), 1 << i, dtype=torch.long) for i, x in enumerate(self._levels)]
        )
        found = []
        for rows in kept.split(_ROWS):
            ordered, order = rows.sort(dim=1, descending=True)
            position = (weights[order].cumsum(1) < rank).sum(1, keepdim=True).clamp(max=kept.shape[1] - 1)
            found.append(ordered.gather(1, position)[:, 0])
        return torch.cat(found)
