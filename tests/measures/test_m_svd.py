"""M-SVD against numpy, block by block, and in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fmiqa import InputError
from fmiqa.measures import MSVD


def direct(test: np.ndarray, reference: np.ndarray, block: int = 8) -> float:
    """Of two maps (H, W) in float64."""
    distances = []
    for top in range(0, test.shape[0] - block + 1, block):
        for left in range(0, test.shape[1] - block + 1, block):
            place = np.s_[top : top + block, left : left + block]
            s, t = (np.linalg.svd(side[place], compute_uv=False) for side in (test, reference))
            distances.append(np.sqrt(((s - t) ** 2).sum()))
    return float(np.abs(distances - np.median(distances)).mean())


def maps(height: int, width: int) -> tuple[Tensor, Tensor]:
    noise = torch.randn(2, 2, 3, height, width, generator=torch.Generator().manual_seed(0))
    return (noise[0] + 0.3 * noise[1]).relu(), noise[0].relu()


@pytest.mark.parametrize("scale", [1.0, 255.0])
@pytest.mark.parametrize(("height", "width", "block"), [(32, 40, 8), (16, 24, 8), (23, 39, 8), (13, 17, 4), (9, 8, 2)])
def test_against_numpy(height: int, width: int, block: int, scale: float, device: torch.device) -> None:
    test, reference = (scale * side for side in maps(height, width))
    values = MSVD(block)(test.to(device), reference.to(device)).cpu()
    exact = MSVD(block)(test.double().to(device), reference.double().to(device)).cpu()
    # A singular value is off by about one epsilon of the largest one, which is at most the block's Frobenius norm; a
    # distance of 2 x `block` such values by the root of `block` times 2 of them, and so is the median. Seen: 5 % of it.
    norms = [side.unfold(-2, block, block).unfold(-2, block, block).norm(dim=(-2, -1)) for side in (test, reference)]
    largest = float(torch.stack(norms).max())
    for found, epsilon in ((values, torch.finfo(torch.float32).eps), (exact, torch.finfo(torch.float64).eps)):
        for n in range(2):
            for c in range(3):
                expected = direct(test[n, c].double().numpy(), reference[n, c].double().numpy(), block)
                assert found[n, c].item() == pytest.approx(expected, abs=4 * block**0.5 * epsilon * largest)


def test_diagonal_blocks_in_closed_form() -> None:
    # The singular values of diag(d) are |d| in descending order, so that order and signs do not matter.
    diagonal = torch.tensor([3.0, -2.0, 1.0, 0.0, 4.0, 0.5, -6.0, 2.5])
    reference = torch.zeros(1, 1, 16, 16)
    test = reference.clone()
    for k, (top, left) in enumerate(((0, 0), (0, 8), (8, 0), (8, 8))):
        reference[..., top : top + 8, left : left + 8] = torch.diag(diagonal)
        test[..., top : top + 8, left : left + 8] = torch.diag((1 + k) * diagonal.flip(0))
    # Distances of 0, 1, 2, 3 norms: the median is 1.5, the mean absolute deviation from it 1.
    assert MSVD()(test, reference).item() == pytest.approx(float(diagonal.norm()), rel=1e-5)  # float32


def test_a_change_alike_in_all_blocks_counts_for_nothing() -> None:
    block = torch.rand(8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reference = block.repeat(3, 4)[None, None]
    assert MSVD()(2 * reference, reference).item() == pytest.approx(0, abs=1e-13)  # singular values of at most 8


def test_symmetric_and_of_the_maps_unit() -> None:
    test, reference = (side.double() for side in maps(24, 32))
    value = MSVD()(test, reference)
    torch.testing.assert_close(MSVD()(reference, test), value, rtol=1e-12, atol=0)
    torch.testing.assert_close(MSVD()(7 * test, 7 * reference), 7 * value, rtol=1e-12, atol=0)
    torch.testing.assert_close(MSVD()(test.mT, reference.mT), value, rtol=1e-12, atol=0)


def test_gradient_of_equal_singular_values() -> None:
    # The identity has eight equal singular values: the gradient of their distance exists and is finite.
    reference = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    test = torch.eye(8, dtype=torch.float64).repeat(2, 2)[None, None]
    test[..., :8, :8] *= 2
    test.requires_grad_()
    (gradient,) = torch.autograd.grad(MSVD()(test, reference).sum(), test)
    assert bool(gradient.isfinite().all())
    # The first block is 2 I with D = 2 sqrt(8), all others have the median: along I its slope is sqrt(8) / 4.
    along = (gradient[0, 0, :8, :8] * torch.eye(8, dtype=torch.float64)).sum()
    assert along.item() == pytest.approx(8**0.5 / 4, rel=1e-12)


def test_blocks_out_of_range_are_refused() -> None:
    for block in (1, 0, 2.5):
        with pytest.raises(InputError, match="block is a whole number from 2"):
            MSVD(block)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"maps of 30x15 are too small.*at least 16"):
        MSVD()(torch.rand(1, 1, 15, 30), torch.rand(1, 1, 15, 30))
