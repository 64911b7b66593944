"""The patches that excite maps, and where quality falls."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fmiqa import SSIM, FeatureExtractor, FeatureMap, InputError, MapIndex, Viewing
from fmiqa.datasets import Demo
from fmiqa.visualize import ReferenceImages, as_seen, exemplars, local_quality


def small_network() -> FeatureExtractor:
    torch.manual_seed(0)
    return FeatureExtractor(nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU()
    ))  # fmt: skip


def test_exemplars_are_the_greatest_values_in_order() -> None:
    extractor = small_network()
    images = torch.rand(5, 3, 44, 52, generator=torch.Generator().manual_seed(1))
    maps = MapIndex([extractor.maps[i] for i in (1, 7, 9)])
    found = exemplars(extractor, images, maps, count=3, progress=False)
    features = extractor(images)
    for map in maps:
        best = features[map.layer][:, map.channel].flatten(1).amax(1)
        expected, order = best.sort(descending=True)
        assert [e.image for e in found[map]] == order[:3].tolist()
        # One image at a time rounds otherwise than five at once.
        torch.testing.assert_close(torch.tensor([e.value for e in found[map]]), expected[:3], rtol=1e-4, atol=1e-6)


def test_boxes_are_what_positions_see_and_patches_what_is_in_them() -> None:
    extractor = small_network()
    images = torch.randint(0, 256, (3, 3, 44, 52), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for map, best in exemplars(extractor, images, extractor.maps, progress=False).items():
        for number, value, (top, left, bottom, right), patch in best:
            assert torch.equal(patch, images[number][:, top:bottom, left:right])
            pixels = (images[number : number + 1].float() / 255).requires_grad_()
            values = extractor(pixels, [map])[map.layer][0, 0]
            if value > 0:  # else the ReLU has no slope
                (slope,) = torch.autograd.grad(values.flatten()[values.argmax()], pixels)
                touched = slope[0].abs().sum(0).nonzero()
                assert (touched >= torch.tensor([top, left])).all()
                assert (touched < torch.tensor([bottom, right])).all()


def test_a_spot_is_found_where_it_is() -> None:
    conv = nn.Conv2d(3, 1, 5, bias=False)
    nn.init.constant_(conv.weight, 1.0)
    extractor = FeatureExtractor(nn.Sequential(conv, nn.ReLU()))
    image = torch.zeros(3, 40, 40)
    image[:, 20:25, 7:12] = 1
    ((best,),) = exemplars(extractor, image[None], extractor.maps, progress=False).values()
    assert best.box == (20, 7, 25, 12)
    assert (best.patch == 255).all()


@pytest.mark.parametrize("data_range", [1.0, "reference", "pair", "layer"])
def test_the_local_ssim_has_the_score_as_its_mean(data_range: float | str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (3 * torch.rand(2, 3, 30, 41, generator=generator, dtype=torch.float64) for _ in range(2))
    measure = SSIM(data_range=data_range)  # type: ignore[arg-type]
    local = measure.local(x, y)
    assert local.shape == (2, 3, 20, 31)
    torch.testing.assert_close(local.mean((2, 3)), measure(x, y), rtol=0, atol=1e-12)


def test_quality_falls_where_the_image_was_damaged() -> None:
    extractor = small_network()
    reference = torch.rand(3, 120, 160, generator=torch.Generator().manual_seed(2))
    test = reference.clone()
    test[:, 80:100, 30:50] = 0.5
    quality = local_quality(extractor, test, reference, extractor.maps, measure=SSIM(window=5))
    assert quality.shape == (10, 120, 160)
    damaged, far = quality[:, 85:95, 35:45].mean((1, 2)), quality[:, :50, 90:]
    live = extractor(reference[None])
    alive = torch.cat([v[0].flatten(1).std(1) for v in live.values()]) > 1e-3
    assert (damaged[alive] < 0.9).all()
    torch.testing.assert_close(far, torch.ones_like(far), rtol=0, atol=1e-6)


def test_a_layers_range_is_that_of_the_whole_layer() -> None:
    extractor = small_network()
    generator = torch.Generator().manual_seed(2)
    test, reference = (torch.rand(3, 60, 70, generator=generator) for _ in range(2))
    measure = SSIM(window=5, data_range="layer")
    some = local_quality(extractor, test, reference, ["3:1", "0:2"], measure=measure)
    every = local_quality(extractor, test, reference, extractor.maps, measure=measure)
    assert torch.equal(some, every[extractor.maps.positions(MapIndex(["3:1", "0:2"]))])


def test_local_values_stand_at_the_centres_of_their_windows() -> None:
    conv = nn.Conv2d(
        3, 1, 4, stride=4, bias=False
    )  # a position sees the pixels 4 i to 4 i + 3: its centre is 4 i + 1.5
    nn.init.constant_(conv.weight, 0.1)
    extractor = FeatureExtractor(nn.Sequential(conv, nn.ReLU()))
    generator = torch.Generator().manual_seed(0)
    test, reference = (torch.rand(3, 48, 64, generator=generator) for _ in range(2))
    measure = SSIM(window=3)
    quality = local_quality(extractor, test, reference, extractor.maps, measure=measure)[0]
    x, y = (extractor(image[None])[extractor.layers[0]] for image in (test, reference))
    local = measure.local(x, y)[0, 0]  # (10, 14): the window at i is centred on position i + 1
    for i, j in ((0, 0), (3, 5), (9, 13)):
        around = quality[4 * i + 5 : 4 * i + 7, 4 * j + 5 : 4 * j + 7]  # the centre lies between four pixels
        torch.testing.assert_close(around.mean(), local[i, j], rtol=0, atol=0.1)
    row = 4 * (torch.arange(10) + 1) + 1
    shifted = 0.5 * (quality[row] + quality[row + 1])  # on the centres along one side
    column = 4 * (torch.arange(14) + 1) + 1
    on_centres = 0.5 * (shifted[:, column] + shifted[:, column + 1])
    # Means over the four pixels around a centre lie an eighth of a step off it on each side: linear but for kinks.
    assert (on_centres - local).abs().mean() < 0.1 * local.std()


@pytest.mark.filterwarnings("ignore:.*random weights")
def test_images_are_taken_as_the_network_sees_them() -> None:
    extractor = FeatureExtractor("alexnet", weights=None, layers=["conv1"], viewing=Viewing(factor=0.5))
    image = torch.randint(0, 256, (3, 160, 200), dtype=torch.uint8)
    native, seen = as_seen(extractor, image)
    assert seen.shape == (3, 80, 100)
    assert native.viewing.is_native
    assert not extractor.viewing.is_native
    torch.testing.assert_close(native(seen[None])["conv1"], extractor(image[None])["conv1"], rtol=0, atol=1e-5)
    assert local_quality(extractor, image, image, ["conv1:1"]).shape == (1, 80, 100)
    (best,) = exemplars(extractor, [image], ["conv1:1"], progress=False)[FeatureMap("conv1", 1)]
    top, left, bottom, right = best.box
    assert bottom <= 80
    assert right <= 100
    assert best.patch.shape == (3, bottom - top, right - left)


def test_reference_images_come_once_each() -> None:
    data = Demo(references=3, size=64, levels=1)
    pictures = ReferenceImages(data)
    assert pictures.names == list(dict.fromkeys(data.reference_ids))
    assert len(pictures) == 3
    first: list[Tensor] = [
        next(data[i].reference for i in range(len(data)) if data.reference_ids[i] == name) for name in pictures.names
    ]
    assert all(torch.equal(a, b) for a, b in zip(pictures, first, strict=True))


def test_bad_input_is_named() -> None:
    extractor = small_network()
    with pytest.raises(InputError, match="0 images"):
        exemplars(extractor, [], extractor.maps)
    with pytest.raises(InputError, match="one size"):
        local_quality(extractor, torch.rand(3, 40, 40), torch.rand(3, 40, 41), extractor.maps)
