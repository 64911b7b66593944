"""Images with labelled concepts: what they hold, what they refuse."""

from __future__ import annotations

import pytest
import torch

from fmiqa import InputError
from fmiqa.visualize.dissection.concepts import Concept, ConceptImage

IMAGE = torch.zeros(3, 4, 6, dtype=torch.uint8)


def test_layers_of_all_categories_are_stacked() -> None:
    flat, layers = torch.full((2, 3), 5), torch.tensor([[[1] * 3] * 2, [[2] * 3] * 2], dtype=torch.int16)
    item = ConceptImage(IMAGE, {"a": flat, "b": layers, "c": (7, 0), "d": torch.tensor([9, 7])}, "x")
    assert item.label_size == (2, 3)
    assert item.label_maps().dtype == torch.long
    assert item.label_maps()[:, 0, 0].tolist() == [5, 1, 2]
    assert item.whole_image() == [7, 9]


def test_whole_image_labels_count_by_the_given_size_or_the_images() -> None:
    assert ConceptImage(IMAGE, {"scene": (3,)}, "x").label_size == (4, 6)
    item = ConceptImage(IMAGE, {"scene": (3,)}, "x", (2, 3))
    assert item.label_size == (2, 3)
    assert item.label_maps().shape == (0, 2, 3)
    assert ConceptImage(IMAGE, {}, "x").whole_image() == []


@pytest.mark.parametrize(
    ("image", "labels", "message"),
    [
        (IMAGE.float(), {}, "uint8"),
        (IMAGE[:2], {}, r"\(3, H, W\)"),
        (IMAGE, {"a": torch.zeros(2, 2)}, "expected integers"),
        (IMAGE, {"a": torch.zeros(1, 1, 2, 2, dtype=torch.long)}, "expected integers"),
        (IMAGE, {"a": (0.5,)}, "whole numbers"),
        (IMAGE, {"a": torch.zeros(2, 2).long(), "b": torch.zeros(2, 3).long()}, "one size"),
    ],
)
def test_other_forms_are_refused(image: torch.Tensor, labels: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ConceptImage(image, labels, "x")


def test_concepts_start_at_one_and_have_a_category() -> None:
    with pytest.raises(InputError, match="from 1"):
        Concept(0, "nothing", ("object",))
    with pytest.raises(InputError, match="at least one category"):
        Concept(1, "thing", ())
    assert Concept(1, "thing", ("part", "object")).category == "part"
