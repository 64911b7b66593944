"""VSNR against NumPy with explicit 9/7 filters, in closed form, and what its rules promise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor
from torch.nn import functional as F

from fmiqa import InputError
from fmiqa.evaluation.peers import Display, vsnr
from fmiqa.evaluation.peers.vsnr import _halved

Picture = Callable[..., Tensor]

# The taps of the 9/7 analysis filters from the centre outwards, as tabulated to 14 digits.
LOW = (0.85269867900889, 0.37740285561283, -0.11062440441844, -0.02384946501956, 0.03782845550726)
HIGH = (0.78848561640558, -0.41809227322162, -0.04068941760916, 0.06453888262870)


def convolved(row: np.ndarray, taps: tuple[float, ...]) -> np.ndarray:
    """A row under a symmetric filter, mirrored at its ends without repeating them."""
    half = len(taps) - 1
    return np.convolve(np.pad(row, half, mode="reflect"), [*taps[:0:-1], *taps], mode="valid")


def split(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = np.array([convolved(row, LOW)[0::2] for row in rows])
    high = np.array([convolved(row, HIGH)[1::2] for row in rows])
    return low, high


def contrasts(image: np.ndarray, zeta: float) -> np.ndarray:
    found = []
    for level in range(1, 6):
        low, high = split(image)
        (ll, lh), (hl, hh) = ([half.T for half in split(side.T)] for side in (low, high))
        found.append(np.sqrt(sum((band.std() / (zeta * 2**level)) ** 2 for band in (lh, hl, hh))))
        image = ll
    return np.array(found)


def direct(
    test: Tensor,
    reference: Tensor,
    alpha: float = 0.04,
    b: float = 0.0,
    k: float = 0.02874,
    g: float = 2.2,
    r: float = 96.0,
    v: float = 19.1,
    *,
    as_the_authors: bool = False,
) -> float:
    """VSNR of (3, H, W) twice in float64; infinite below the threshold.

    As the authors' code has it, the distortion is rounded, and the bisection for the least objectionable distortion
    stops within 1 % of its contrast.
    """
    x, y = (255 * np.tensordot((0.299, 0.587, 0.114), side.double().numpy(), 1) for side in (test, reference))
    for axis in (0, 1):
        extra = max(128, -(-x.shape[axis] // 32) * 32) - x.shape[axis]
        pad = [(0, 0), (0, 0)]
        pad[axis] = (extra - extra // 2, extra // 2)
        x, y = np.pad(x, pad, mode="reflect"), np.pad(y, pad, mode="reflect")
    f = r * v * np.tan(np.pi / 180) / 2 ** np.arange(1, 6)

    def best(visibility: float) -> np.ndarray:
        a0, a1, a2 = 59.8, -0.1258, -0.1087
        b0, b1, b2 = a0 - a0 * visibility, (1 - a1) * visibility + a1, (-1 - a2) * visibility + a2
        return b0 * f ** (b2 * np.log(f) + b1)

    mean = y.mean()
    luminance = (b + k * y) ** g
    level = luminance.mean()
    zeta = level * (b + k * mean) ** (1 - g) / (k * g)
    error = np.clip(x - y + mean, 0, 255)
    if as_the_authors:
        error = np.floor(error + 0.5)
    noise = ((b + k * error) ** g).std() / level
    signals, noises = contrasts(y, zeta), contrasts(error, zeta)
    if noise <= np.linalg.norm(signals / best(0)):
        return np.inf
    if as_the_authors:
        low, high = 0.0, 1.0
        while True:
            visibility = (low + high) / 2
            excess = np.linalg.norm(signals / best(visibility)) - noise
            if abs(excess) < 0.01 * noise:
                break
            low, high = (visibility, high) if excess < 0 else (low, visibility)
    else:
        visibility = brentq(lambda v: np.linalg.norm(signals / best(v)) - noise, 0, 1 - 1e-15, xtol=1e-15)
    distance = alpha * noise + (1 - alpha) * np.linalg.norm(signals / best(visibility) - noises) / np.sqrt(2)
    return float(20 * np.log10(luminance.std() / level / distance))


def blurred(image: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(image, (2, 2, 2, 2), mode="reflect"), 5, 1)


def blocky(image: Tensor) -> Tensor:
    return F.interpolate(F.avg_pool2d(image, 4), image.shape[-2:], mode="nearest")


@pytest.mark.parametrize("size", [(128, 160), (96, 128), (101, 163), (44, 45)], ids=str)
def test_against_numpy(size: tuple[int, int], picture: Picture, noisy: Picture, device: torch.device) -> None:
    reference = picture(*size)
    tests = [noisy(reference, s) for s in (0.02, 0.1, 0.5)] + [blurred(reference), blocky(reference), 0.7 * reference]
    expected = torch.tensor([direct(test[0], reference[0]) for test in tests], dtype=torch.float64)
    assert bool(expected.isfinite().all())
    values = vsnr(torch.cat(tests).to(device), reference.to(device)).cpu()
    # The lifting steps give the tabulated taps to 1e-12. Nine of them at five levels make 5e-11 of a contrast, which is
    # 4e-10 dB; a difference of two contrasts may be off by more of its own size. Seen: 1e-11.
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-9)
    # In float32 a grey value of 255 is off by 1.5e-5, and the weakest distortion here has a deviation of about 5: 3e-6
    # of it, which is 3e-5 dB if all errors agree. Seen: 5e-6.
    single = vsnr(torch.cat(tests).float().to(device), reference.float().to(device)).cpu()
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "options", [{"alpha": 0.0}, {"alpha": 1.0}, {"b": 0.5, "g": 1.0}, {"k": 0.05, "g": 2.4}, {"r": 140.0, "v": 30.0}]
)
def test_options_against_numpy(options: dict[str, float], picture: Picture, noisy: Picture) -> None:
    reference = picture()
    test = noisy(blurred(reference), 0.1)
    names = {"b": "black_level", "k": "gain", "g": "gamma", "r": "resolution", "v": "distance"}
    display = Display(**{names[name]: value for name, value in options.items() if name in names})
    value = vsnr(test, reference, alpha=options.get("alpha", 0.04), display=display)
    assert float(value) == pytest.approx(direct(test[0], reference[0], **options), abs=1e-9)  # as above


def test_the_authors_rounding_changes_little(picture: Picture, noisy: Picture) -> None:
    # A contrast that is off by 1 % is 0.09 dB, and may be a larger part of the difference of two contrasts. Seen: 0.13.
    reference = (255 * picture(128, 160)).round() / 255
    for test in (noisy(reference, 0.03), noisy(reference, 0.2), blurred(reference), blocky(reference)):
        test = (255 * test).round() / 255
        expected = direct(test[0], reference[0], as_the_authors=True)
        assert float(vsnr(test, reference)) == pytest.approx(expected, abs=0.3)


def test_wavelet_filters() -> None:
    rows = torch.randn(3, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for ours, expected in zip(_halved(rows), split(rows.numpy()), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=4e-11)  # nine taps equal to 1e-12, values up to 4
    low, high = _halved(torch.ones(1, 8, dtype=torch.float64))
    # Four lifting steps and a scaling, with factors up to 2 and in any order: some tens of float64's epsilons.
    torch.testing.assert_close(low, torch.full_like(low, 2**0.5), rtol=0, atol=1e-13)
    torch.testing.assert_close(high, torch.zeros_like(high), rtol=0, atol=1e-13)


def test_perceived_contrast_in_closed_form() -> None:
    # With alpha = 1 and luminance proportional to grey values, the ratio is that of two standard deviations.
    wave = torch.sin(torch.arange(128.0, dtype=torch.float64) * torch.pi / 4).expand(1, 3, 128, 128)
    reference, test = 0.5 + 0.2 * wave, 0.5 + 0.2 * wave + 0.02 * wave.mT
    value = vsnr(test, reference, alpha=1.0, display=Display(gamma=1.0))
    assert float(value) == pytest.approx(20.0, abs=1e-9)  # a ratio of 10


def test_equal_images_and_invisible_distortions_have_the_value_of_the_ceiling(
    picture: Picture, noisy: Picture, device: torch.device
) -> None:
    reference = picture().float().to(device)
    # The threshold is about 1/30 of the image's own contrast; a hundredth of it is far below.
    tests = torch.cat((reference, noisy(reference, 1e-4), 0.9 * reference + 0.05, 0.5 * reference + 0.25))
    values = vsnr(tests, reference)
    assert torch.equal(values[:2], torch.full_like(values[:2], 60.0))
    assert bool((values[2:] < 60).all())
    assert torch.equal(vsnr(tests, reference, ceiling=20.0)[:2], torch.full_like(values[:2], 20.0))
    assert vsnr(tests, reference, ceiling=20.0).amax() == 20


def test_a_change_of_the_mean_alone_is_invisible(picture: Picture) -> None:
    reference = 0.2 + 0.5 * picture()
    assert vsnr(reference + 0.1, reference).item() == 60


def test_more_noise_is_worse(picture: Picture, noisy: Picture, device: torch.device) -> None:
    reference = picture().to(device)
    values = vsnr(torch.cat([noisy(reference, s) for s in (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)]), reference)
    assert bool((values.diff() < 0).all()), values


def test_distortions_are_less_visible_from_afar(picture: Picture, noisy: Picture) -> None:
    reference = picture()
    test = noisy(reference, 0.02)
    near, far = (vsnr(test, reference, display=Display(distance=d)).item() for d in (19.1, 1000.0))
    assert near < 60
    assert far == 60


def test_images_are_not_exchangeable(picture: Picture) -> None:
    reference = picture()
    assert vsnr(blurred(reference), reference).item() != pytest.approx(vsnr(reference, blurred(reference)).item(), 0.01)


def test_images_of_a_batch_do_not_disturb_each_other(picture: Picture, noisy: Picture, device: torch.device) -> None:
    references = torch.cat([picture(seed=s) for s in range(3)]).to(device)
    tests = torch.cat([noisy(r[None], s) for r, s in zip(references, (0.05, 0.0, 0.3), strict=True)])
    together = vsnr(tests, references)
    alone = torch.cat([vsnr(t[None], r[None]) for t, r in zip(tests, references, strict=True)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)  # sums may run in another order
    shared = vsnr(tests, references[:1])
    torch.testing.assert_close(shared, vsnr(tests, references[:1].expand_as(tests)), rtol=0, atol=1e-9)


def test_uint8_images_are_those_divided_by_255(picture: Picture, noisy: Picture) -> None:
    test, reference = ((255 * side).round().to(torch.uint8) for side in (noisy(picture(), 0.1), picture()))
    assert torch.equal(vsnr(test, reference), vsnr(test.float() / 255, reference.float() / 255))


def test_gradients(picture: Picture, noisy: Picture) -> None:
    # Away from black and white, where values are cut off.
    reference = 0.2 + 0.6 * picture(44, 50)
    test = noisy(reference, 0.05).clamp(0.01, 0.99).requires_grad_()
    assert torch.autograd.gradcheck(vsnr, (test, reference.requires_grad_()), fast_mode=True)


def test_gradients_are_finite(picture: Picture) -> None:
    reference = picture(44, 50)
    flat = torch.full_like(reference, 0.5)
    for test, other in ((reference, reference), (flat, flat), (flat, reference), (0 * flat, reference)):
        test, other = test.clone().requires_grad_(), other.clone().requires_grad_()
        for gradient in torch.autograd.grad(vsnr(test, other).sum(), (test, other)):
            assert bool(gradient.isfinite().all())


def test_constant_references(picture: Picture, device: torch.device) -> None:
    image = picture().float().to(device)
    for grey in (0.0, 0.3, 1.0):
        flat = torch.full_like(image, grey)
        assert vsnr(flat, flat).item() == 60
        assert vsnr(torch.full_like(image, 0.5), flat).item() == 60  # a change of the mean alone
        with pytest.raises(InputError, match="reference is constant and the test image is not"):
            vsnr(torch.cat((flat, image)), flat)
    assert vsnr(torch.full_like(image, 0.5), image).isfinite().all()


def test_errors(picture: Picture) -> None:
    image = picture(44, 60)
    assert vsnr(image, image).shape == (1,)
    with pytest.raises(InputError, match="at least 44, got 60x43"):
        vsnr(image[..., :43, :], image[..., :43, :])
    with pytest.raises(InputError, match=r"VSNR compares images of one shape: test \(1, 3, 44, 60\)"):
        vsnr(image, image[..., :50])
    with pytest.raises(InputError, match="VSNR, test: expected RGB images"):
        vsnr(image[:, :1], image[:, :1])
    with pytest.raises(InputError, match=r"VSNR, reference: float images lie in \[0, 1\]"):
        vsnr(image, 255 * image)
    for options in ({"alpha": -0.1}, {"alpha": 1.1}, {"ceiling": 0.0}, {"ceiling": float("inf")}):
        with pytest.raises(InputError, match=r"alpha is from|ceiling is a positive"):
            vsnr(image, image, **options)
    for wrong in ({"gain": 0.0}, {"black_level": -1.0}, {"gamma": 0.5}, {"distance": float("nan")}):
        with pytest.raises(InputError, match="are positive"):
            Display(**wrong)
