"""Names of feature maps and ordered sets of them."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmiqa import FeatureMap, InputError, MapIndex

layers = st.text(min_size=1, max_size=12).filter(lambda name: "/" not in name)
feature_maps = st.builds(FeatureMap, layers, st.integers(0, 5000), st.text(max_size=4))


@given(feature_maps)
def test_text_form_is_read_back(m: FeatureMap) -> None:
    assert FeatureMap.parse(str(m)) == m


@pytest.mark.parametrize(
    "text", ["", "conv1", "conv1:", ":3", "conv1:-1", "conv1:x", "conv1:1.0", "/conv1:3", "half/:3", 5, None]
)
def test_other_texts_are_refused(text: object) -> None:
    with pytest.raises(InputError, match="a feature map"):
        FeatureMap.parse(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("layer", "channel"), [("", 0), ("a/b", 0), ("conv1", -1), ("conv1", 1.0), ("conv1", True), (None, 0)]
)
def test_malformed_maps_are_refused(layer: object, channel: object) -> None:
    with pytest.raises(InputError):
        FeatureMap(layer, channel)  # type: ignore[arg-type]


@given(st.lists(feature_maps, unique=True, max_size=20), st.data())
def test_index_is_a_sequence(listed: list[FeatureMap], data: st.DataObject) -> None:
    index = MapIndex(listed)
    assert list(index) == listed
    assert index == MapIndex(str(m) for m in listed)
    assert hash(index) == hash(MapIndex(listed))
    assert index.positions(listed) == list(range(len(listed)))
    assert sum(len(channels) for channels in index.channels.values()) == len(listed)
    if listed:
        i = data.draw(st.integers(-len(listed), len(listed) - 1))
        assert index[i] == listed[i]
        assert index.index(str(index[i])) == i % len(listed)
        assert index[i] in index
        assert str(index[i]) in index
        assert list(index[i:]) == listed[i:]
        assert index.at([i % len(listed)])[0] == listed[i]


def test_layers_with_colons_and_calls() -> None:
    assert FeatureMap.parse("block:1.conv#2:07") == FeatureMap("block:1.conv#2", 7)


def test_channels_by_layer_in_order_of_appearance() -> None:
    index = MapIndex(["b:1", "a:0", "b:0", "a:7"])
    assert index.channels == {"b": [1, 0], "a": [0, 7]}
    assert index.layers == ["b", "a"]


def test_all_maps_of_layers() -> None:
    index = MapIndex.of_layers({"conv1": 2, "conv2": 1})
    assert [str(m) for m in index] == ["conv1:0", "conv1:1", "conv2:0"]
    assert repr(index) == "MapIndex(['conv1:0', 'conv1:1', 'conv2:0'])"
    assert "1152 maps: conv1 (1000), conv2 (152)" in repr(MapIndex.of_layers({"conv1": 1000, "conv2": 152}))


def test_unknown_and_repeated_maps_are_named() -> None:
    index = MapIndex(["conv1:0", "conv1:1"])
    with pytest.raises(InputError, match=r"no such feature map: conv1:2, conv9:0; there are 2 maps: conv1 \(2\)"):
        index.positions(["conv1:0", "conv1:2", "conv9:0"])
    with pytest.raises(InputError, match="conv1:0 is listed twice"):
        MapIndex(["conv1:0", "conv1:1", "conv1:0"])
    with pytest.raises(InputError, match="a list of feature maps"):
        MapIndex("conv1:0")
    with pytest.raises(ValueError, match=r"outside \[1:None\]"):
        index.index("conv1:0", 1)


def test_an_index_can_be_pickled() -> None:
    index = MapIndex.of_layers({"conv1": 64})
    assert pickle.loads(pickle.dumps(index)) == index
    assert len({index, pickle.loads(pickle.dumps(index))}) == 1
