"""`fmiqa select`: what it writes is what the library chooses, from one score matrix or several joined."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import fmiqa
from fmiqa import ScoreMatrix, SelectedFeatureIQM, Selection, cli, forward_select
from fmiqa.datasets import read_image


def test_select_writes_what_the_library_chooses(
    scores_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "s.json", tmp_path / "s.png"
    asked = ["--criterion", "srocc", "--pool", "layer_geometric", "--start", "conv1:5", "--exclude", "conv2:7"]
    files = ["--out", str(out), "--plot", str(plot)]
    assert cli.main(["select", str(scores_file), *files, *asked, "--max-maps", "3", "--json"]) == 0
    chosen = forward_select(
        ScoreMatrix.load(scores_file),
        criterion="srocc",
        pool="layer_geometric",
        start=["conv1:5"],
        exclude=["conv2:7"],
        max_maps=3,
    )
    printed, saved = json.loads(capsys.readouterr().out), Selection.load(out)
    assert saved.maps == chosen.maps
    assert saved.options == chosen.options
    assert printed["maps"] == [str(m) for m in chosen.maps]
    assert printed["curve"] == chosen.curve
    assert printed["in_sample"] is True
    with Image.open(plot) as picture:
        assert picture.width > 600


def test_select_prints_the_path_and_says_in_sample(
    scores_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["select", str(scores_file), "--out", str(tmp_path / "s.json"), "--max-maps", "2"]) == 0
    printed = capsys.readouterr().out
    assert all(str(m) in printed for m in Selection.load(tmp_path / "s.json").maps)
    assert "in sample" in printed


def test_a_folder_is_searched_as_its_scores_are(
    scores_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores, out = ScoreMatrix.load(scores_file), tmp_path / "s.json"
    store = str(scores.to_store(tmp_path / "scores").path)
    for fit in ("none", "logistic5"):
        asked = ["--max-maps", "2", "--fit", fit]
        assert cli.main(["select", store, "--out", str(out), *asked]) == 0
        expected = forward_select(scores, max_maps=2, fit=None if fit == "none" else "logistic5")
        assert Selection.load(out).maps == expected.maps
    assert cli.main(["select", store, "--out", str(out), "--search", "beam", "--max-maps", "2"]) == 0  # loaded
    assert cli.main(["select", store, "--out", str(out), "--criterion", "srocc"]) == 1
    assert "criterion='srocc'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["select", store, "--out", str(out), "--plot", str(tmp_path / "s.png")])
    assert "--plot" in capsys.readouterr().err
    assert cli.main(["select", str(tmp_path), "--out", str(out)]) == 1
    assert "store.json" in capsys.readouterr().err


def test_the_metric_file_scores_as_the_matrix_does(
    study: Path, scores_file: Path, selection_file: Path, metric_file: Path
) -> None:
    metric, scores = SelectedFeatureIQM.load(metric_file), ScoreMatrix.load(scores_file)
    test = read_image(study / "distorted" / f"{scores.names[7]}.png")[None]
    reference = read_image(study / "references" / f"{scores.groups[7]}.png")[None]
    expected = scores.pool(Selection.load(selection_file).maps)[7]
    # Maps in float32 differ between batches by some 1e-6 of their range, and SSIM by up to 100 times as much.
    torch.testing.assert_close(metric(test, reference)[0].double(), expected, rtol=0, atol=1e-4)


def test_a_fitted_metric_answers_on_the_scale_of_the_scores(study: Path, scores_file: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "s.json", tmp_path / "m.safetensors"
    files = ["--out", str(out), "--metric", str(path), "--fitted", "--weights", "random"]
    assert cli.main(["select", str(scores_file), *files, "--max-maps", "2"]) == 0
    metric, selection, scores = SelectedFeatureIQM.load(path), Selection.load(out), ScoreMatrix.load(scores_file)
    test = read_image(study / "distorted" / f"{scores.names[7]}.png")[None]
    reference = read_image(study / "references" / f"{scores.groups[7]}.png")[None]
    expected = selection.fit.predict(scores.pool(selection.maps)[7:8])
    # 1e-4 in the score, as above, times the slope of the fit (below 200).
    torch.testing.assert_close(metric(test, reference).double(), expected, rtol=0, atol=2e-2)


def test_a_metric_of_other_weights_is_refused_before_the_search(
    scores_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--out", str(tmp_path / "s.json"), "--metric", str(tmp_path / "m.safetensors")]
    assert cli.main(["select", str(scores_file), *files, "--weights", "random", "--seed", "1"]) == 1
    assert "other weights of alexnet" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_an_unknown_picture_format_is_refused_before_the_search(
    scores_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--out", str(tmp_path / "s.json"), "--plot", str(tmp_path / "s.docx")]
    assert cli.main(["select", str(scores_file), *files]) == 1
    assert "docx" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("search", "asked", "options"),
    [
        (fmiqa.forward_select, ["--max-maps", "3", "--fit", "none"], {"max_maps": 3, "fit": None}),
        (fmiqa.floating_select, ["--search", "floating", "--max-maps", "4"], {"max_maps": 4}),
        (fmiqa.beam_select, ["--search", "beam", "--width", "2", "--max-maps", "2"], {"width": 2, "max_maps": 2}),
        (
            fmiqa.backward_eliminate,
            ["--search", "backward", "--start", "a/conv1:3", "b/conv1:8", "b/conv1:1", "--min-maps", "2"],
            {"start": ["a/conv1:3", "b/conv1:8", "b/conv1:1"], "min_maps": 2},
        ),
        (
            fmiqa.weighted_select,
            ["--search", "weighted", "--rule", "best", "--powers", "1", "2"],
            {"rule": "best", "powers": (1.0, 2.0)},
        ),
    ],
)
def test_every_search_over_joined_matrices_is_the_library_s(
    search: Callable[..., Selection],
    asked: list[str],
    options: dict[str, object],
    numbers_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scores = ScoreMatrix.load(numbers_file)
    other = replace(scores, values=scores.values.flip(0) + scores.targets[:, None].float())
    other.save(tmp_path / "b.safetensors")
    out, plot = tmp_path / "s.json", tmp_path / "s.png"
    given = [f"a={numbers_file}", str(tmp_path / "b.safetensors")]
    assert cli.main(["select", *given, *asked, "--out", str(out), "--plot", str(plot), "--json"]) == 0
    expected = search(ScoreMatrix.concat({"a": scores, "b": other}), **options)
    saved, printed = Selection.load(out), json.loads(capsys.readouterr().out)
    assert (saved.maps, saved.options, saved.source) == (expected.maps, expected.options, expected.source)
    assert printed["value"] == expected.value
    assert printed["weights"] == (None if expected.weights is None else expected.weights.tolist())
    with Image.open(plot) as picture:
        assert picture.width > 600


def test_a_budget_keeps_to_the_layers_that_it_pays_for(
    scores_file: Path, numbers_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.json"
    asked = ["--budget", "0.25", "--max-maps", "2", "--out", str(out)]
    assert cli.main(["select", str(scores_file), *asked]) == 0
    saved = Selection.load(out)
    expected = forward_select(ScoreMatrix.load(scores_file), budget=0.25, max_maps=2)
    assert (saved.maps, saved.options) == (expected.maps, expected.options)
    assert {m.layer for m in saved.maps} == {"conv1"}
    assert saved.options["cost_share"] < 0.25
    assert cli.main(["select", str(numbers_file), *asked]) == 1
    assert "record no network" in capsys.readouterr().err


def test_the_weighted_search_keeps_to_a_budget_and_takes_a_prior(scores_file: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "s.json", tmp_path / "m.safetensors"
    scores = ScoreMatrix.load(scores_file)
    scores = replace(scores, groups=[f"r{i // 2}" for i in range(len(scores))])  # enough groups for inner folds
    scores = ScoreMatrix.stack([scores] * 3)  # each of which has six images
    scores.save(path)
    asked = ["--search", "weighted", "--budget", "0.25", "--alpha", "0.5", "--across", "worst"]
    assert cli.main(["select", str(path), *asked, "--out", str(out)]) == 0
    saved = Selection.load(out)
    expected = fmiqa.weighted_select(scores, budget=0.25, alpha=0.5, across="worst")
    assert (saved.maps, saved.options) == (expected.maps, expected.options)
    assert {m.layer for m in saved.maps} == {"conv1"}
    assert saved.options["cost_share"] <= 0.25
    assert (saved.options["prior"], saved.options["alpha"]) == ("consensus", 0.5)
    assert cli.main(["select", str(path), "--search", "weighted", "--prior", "none", "--out", str(out)]) == 0
    assert Selection.load(out).options["prior"] is None


def test_a_path_that_exists_is_no_name(numbers_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "a=b.safetensors"
    path.write_bytes(numbers_file.read_bytes())
    assert cli.main(["select", str(path), "--out", str(tmp_path / "s.json"), "--max-maps", "1"]) == 0
    assert [m.source for m in Selection.load(tmp_path / "s.json").maps] == [""]


def test_two_matrices_of_one_name_are_a_usage_error(
    numbers_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["select", str(numbers_file), str(numbers_file), "--out", str(tmp_path / "s.json")])
    assert ended.value.code == 2
    assert "'numbers'; give names" in capsys.readouterr().err


def test_the_joined_metric_file_scores_as_the_joined_matrix_does(
    study: Path, joined: ScoreMatrix, joined_selection: Path
) -> None:
    metric = SelectedFeatureIQM.load(joined_selection.with_name("metric.safetensors"))
    selection = Selection.load(joined_selection)
    assert {m.source for m in metric.maps} == {"full", "half", "squeezenet"}
    test = read_image(study / "distorted" / f"{joined.names[7]}.png")[None]
    reference = read_image(study / "references" / f"{joined.groups[7]}.png")[None]
    # As above.
    torch.testing.assert_close(metric(test, reference)[0].double(), selection.combine(joined)[7], rtol=0, atol=1e-4)


def test_weights_by_network_make_the_same_metric(
    sources: dict[str, Path], weights_files: dict[str, str], joined_selection: Path, tmp_path: Path
) -> None:
    given = [f"{name}={path}" for name, path in sources.items()]
    asked = ["--start", "full/conv1:1", "half/conv1:2", "squeezenet/features.0:3", "--max-maps", "4"]
    weights = [word for name, path in weights_files.items() for word in ("--weights", f"{name}={path}")]
    files = ["--out", str(tmp_path / "s.json"), "--metric", str(tmp_path / "metric.safetensors")]
    assert cli.main(["select", *given, *asked, *files, *weights]) == 0
    by_network = SelectedFeatureIQM.load(tmp_path / "metric.safetensors")
    expected = SelectedFeatureIQM.load(joined_selection.with_name("metric.safetensors"))
    assert by_network.source == expected.source
    state = expected.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in by_network.state_dict().items())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["random", "squeezenet1_1=ALEXNET"], "the weights"),
        (["alexnet=ALEXNET", "squeezenet1_1=random", "vgg16=random"], "is of alexnet, squeezenet1_1, not of vgg16"),
        (["random", "squeezenet1_1=missing.pth"], "no weights file missing.pth"),
    ],
)
def test_wrong_weights_of_one_network_are_refused_before_the_search(
    weights: list[str],
    message: str,
    sources: dict[str, Path],
    weights_files: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [word for text in weights for word in ("--weights", text.replace("ALEXNET", weights_files["alexnet"]))]
    files = ["--out", str(tmp_path / "s.json"), "--metric", str(tmp_path / "m.safetensors")]
    assert cli.main(["select", *map(str, sources.values()), *files, *given]) == 1
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
