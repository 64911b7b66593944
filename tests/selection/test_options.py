"""The options that all searches share."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields

import pytest
import torch

import fmiqa
from fmiqa import SearchOptions
from fmiqa.selection.options import SearchKeywords

SEARCHES = (fmiqa.forward_select, fmiqa.floating_select, fmiqa.backward_eliminate, fmiqa.beam_select)
VALIDATIONS = (fmiqa.cross_validate, fmiqa.permutation_null, fmiqa.stability_selection, fmiqa.observer_study)


def test_keywords_are_the_fields() -> None:
    names = [field.name for field in fields(SearchOptions)]
    assert list(SearchKeywords.__annotations__) == names


@pytest.mark.parametrize("function", [*SEARCHES, *VALIDATIONS])
def test_every_function_shows_the_options_with_their_defaults(function: object) -> None:
    parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    for field in fields(SearchOptions):
        assert parameters[field.name].default == field.default
    with pytest.raises(TypeError, match="unexpected keyword"):
        function(torch.rand(30, 2), torch.rand(30, 2) if function is fmiqa.observer_study else torch.rand(30), most=3)  # type: ignore[operator]


def test_keywords_take_precedence_over_options() -> None:
    y = torch.linspace(0, 1, 30)
    values = torch.stack([y + 0.1 * torch.rand(30), torch.rand(30), y], 1)
    options = SearchOptions(fit=None, max_maps=2, exclude=["map:2"])
    found = fmiqa.forward_select(values, y, options=options, criterion="srocc")
    assert found.options["criterion"] == "srocc"
    assert found.options["max_maps"] == 2
    assert found.options["exclude"] == ["map:2"]
    assert "map:2" not in found.maps


def test_options_are_frozen_and_compared_by_value() -> None:
    assert SearchOptions(start=["a:1"]) == SearchOptions(start=("a:1",))
    assert SearchOptions(start=["a:1"]) != SearchOptions()
    with pytest.raises(FrozenInstanceError):
        SearchOptions().tol = 1.0  # type: ignore[misc]
    with pytest.raises(fmiqa.InputError, match=r"fmiqa.SearchOptions, got dict"):
        fmiqa.forward_select(torch.rand(9, 2), torch.rand(9), options={"tol": 0.1})  # type: ignore[arg-type]


@pytest.mark.parametrize("validate", [fmiqa.cross_validate, fmiqa.stability_selection])
def test_start_and_exclude_hold_in_every_part(validate: object) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(60, generator=generator)
    values = torch.rand(60, 6, generator=generator)
    values[:, 3] += y
    values[:, 4] += 2 * y
    groups = [f"r{i // 6}" for i in range(60)]
    found = validate(values, y, groups=groups, start=["map:1"], exclude=["map:4"], max_maps=3)  # type: ignore[operator]
    assert all(str(maps[0]) == "map:1" and "map:4" not in maps for maps in found.selected)
    if isinstance(found, fmiqa.Validation):
        assert found.plcc.shape == (5, max(len(maps) for maps in found.selected))
        alone = fmiqa.plcc(values[:, 1].double(), y.double())
        assert found.in_sample[:, 0].mean() == pytest.approx(float(alone), abs=0.2)
