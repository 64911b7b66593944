"""What is laid over images, and grids."""

from __future__ import annotations

import pytest
import torch

from fmiqa import InputError
from fmiqa.visualize import outlined, overlay_error, overlay_loss, overlay_relevance, picture_grid


def test_red_raises_blue_lowers_and_nothing_is_grey() -> None:
    relevance = torch.zeros(20, 30)
    relevance[:5] = 1
    relevance[15:] = -1
    drawn = overlay_relevance(torch.rand(3, 20, 30), relevance).int()
    assert (drawn[0, :5] > drawn[2, :5] + 100).all()
    assert (drawn[2, 15:] > drawn[0, 15:] + 100).all()
    assert (drawn[0, 5:15] == drawn[2, 5:15]).all()


def test_full_colour_is_at_the_limit() -> None:
    relevance = torch.full((4, 4), 0.5)
    weak, strong = (overlay_relevance(torch.ones(3, 4, 4), relevance, limit=limit).int() for limit in (5.0, 0.5))
    assert (strong[:, 0, 0] == torch.tensor([214, 39, 40])).all()
    assert (weak[1] > strong[1]).all()
    blank = overlay_relevance(torch.ones(3, 4, 4), torch.zeros(4, 4)).int()
    assert (blank[0] == blank[2]).all()


def test_loss_is_orange_where_quality_falls() -> None:
    quality = torch.ones(10, 10)
    quality[2:4, 2:4] = 0
    drawn = overlay_loss(torch.zeros(3, 10, 10, dtype=torch.uint8), quality).int()
    assert drawn[:, 2, 2].tolist() == [213, 94, 0]
    assert len(set(drawn[:, 8, 8].tolist())) == 1


def test_errors_are_heat_that_means_the_same_in_every_picture() -> None:
    errors = torch.linspace(0, 1, 30).expand(4, 30)
    image = torch.rand(3, 4, 30)
    drawn = overlay_error(image, errors).int()
    assert (drawn[0, :, 0] == drawn[2, :, 0]).all()  # grey, where there is none
    assert (drawn[0, :, 1:] > drawn[2, :, 1:]).all()
    green = drawn[1, :, 3:].float().mean(0)
    assert green[0] > green[13] > green[-1]
    assert torch.equal(overlay_error(image, errors / 2, limit=0.5).int(), drawn)
    assert torch.equal(overlay_error(image, 2 * errors)[..., -1], overlay_error(image, errors)[..., -1])
    assert torch.equal(overlay_error(image, 0 * errors)[..., 0].int(), drawn[..., 0])
    with pytest.raises(InputError, match="limit"):
        overlay_error(image, errors, limit=0)


def test_a_segment_keeps_its_pixels_and_gets_a_border() -> None:
    image = torch.full((3, 12, 12), 200, dtype=torch.uint8)
    mask = torch.zeros(12, 12, dtype=torch.bool)
    mask[3:9, 3:9] = True
    drawn = outlined(image, mask)
    assert (drawn[:, 5, 5] == 200).all()
    assert (drawn[:, 0, 0] == 70).all()
    assert drawn[:, 3, 5].tolist() == [240, 228, 66]


def test_a_grid_has_a_place_and_a_title_for_each() -> None:
    pytest.importorskip("matplotlib")
    pictures = [torch.rand(3, 10 + i, 12) for i in range(5)]
    figure = picture_grid(pictures, [f"map {i}" for i in range(5)], columns=3)
    assert [ax.get_title() for ax in figure.axes] == ["map 0", "map 1", "map 2", "map 3", "map 4", ""]
    assert [len(ax.images) for ax in figure.axes] == [1, 1, 1, 1, 1, 0]
    assert tuple(figure.axes[3].images[0].get_array().shape) == (13, 12, 3)


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match=r"\(3, 4, 5\), \(5, 4\)"):
        overlay_relevance(torch.rand(3, 4, 5), torch.rand(5, 4))
    with pytest.raises(InputError, match="got 0"):
        picture_grid([])
    with pytest.raises(InputError, match="1 and 2 titles"):
        picture_grid([torch.rand(3, 4, 5)], ["a", "b"])
