"""`fmiqa evaluate`: its figures are those of scipy and the library, and it says what they may claim."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy.stats import kendalltau, spearmanr

from fmiqa import FeatureExtractor, MapIndex, ScoreMatrix, Selection, cli, compare
from fmiqa.datasets import CSVDataset
from fmiqa.evaluation.claims import claim
from fmiqa.evaluation.peers import PEERS, peer_scores
from fmiqa.evaluation.peers import scores as peers_by_name
from fmiqa.selection.forward import source_of

DataOptions = Callable[..., list[str]]

FEW = ("--resamples", "20")  # enough where intervals are not what is tested


def test_evaluate_prints_the_figures_of_selected_and_all_maps(
    scores_file: Path, selection_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", "--selection", str(selection_file), "--matrix", str(scores_file), *FEW, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    scores, selection = ScoreMatrix.load(scores_file), Selection.load(selection_file)
    for row, maps in zip(printed["results"], (selection.maps, scores.maps), strict=True):
        quality, targets = scores.pool(maps).numpy(), scores.targets.numpy()
        assert row["maps"] == len(maps)
        # scipy's own rounding
        assert row["srocc"] == pytest.approx(spearmanr(quality, targets).statistic, abs=1e-12)
        assert row["krocc"] == pytest.approx(kendalltau(quality, targets).statistic, abs=1e-12)
        # At the least-squares optimum the error is what the correlation leaves.
        assert row["rmse"] == pytest.approx(targets.std() * math.sqrt(1 - row["plcc"] ** 2), rel=1e-6)
    assert printed["results"][0]["plcc"] == pytest.approx(selection.value, abs=1e-9)  # the same fit again
    assert printed["claim"]["kind"] == "in sample"


def test_evaluate_says_in_sample_in_words(
    scores_file: Path, selection_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", "--selection", str(selection_file), "--matrix", str(scores_file), *FEW]) == 0
    printed = capsys.readouterr().out
    assert "IN SAMPLE" in printed
    assert all(word in printed for word in ("PLCC", "SROCC", "KROCC", "RMSE", "selected maps", "all maps"))


def test_evaluate_computes_the_matrix_of_a_data_set(
    data_options: DataOptions, selection_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "other.safetensors"
    given = [o for o in data_options("Other") if o not in ("--layers", "conv1", "conv2")]
    chosen = ["--selection", str(selection_file)]
    assert cli.main(["evaluate", *chosen, "--save-matrix", str(saved), *given, *FEW, "--json"]) == 0
    from_data = json.loads(capsys.readouterr().out)
    assert cli.main(["evaluate", *chosen, "--matrix", str(saved), *FEW, "--json"]) == 0
    from_matrix = json.loads(capsys.readouterr().out)
    assert from_data == from_matrix
    assert from_data["dataset"] == "Other"
    assert from_data["claim"]["kind"] == "transfer"


def test_evaluate_judges_a_metric_file_as_the_selection_it_came_from(
    scores_file: Path, selection_file: Path, metric_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for chosen in (["--selection", str(selection_file)], ["--metric", str(metric_file)]):
        assert cli.main(["evaluate", *chosen, "--matrix", str(scores_file), *FEW, "--json"]) == 0
        printed.append(json.loads(capsys.readouterr().out))
    by_selection, by_metric = printed
    assert by_metric["results"] == by_selection["results"]
    assert by_metric["claim"]["kind"] == "unknown"  # a metric file does not name the images behind it


def test_evaluate_refuses_scores_of_another_measure(
    data_options: DataOptions, selection_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "s.safetensors"
    assert cli.main(["matrix", *data_options(), "--data-range", "pair", "--out", str(out)]) == 0
    assert cli.main(["evaluate", "--selection", str(selection_file), "--matrix", str(out)]) == 1
    assert "'data_range': 'pair'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ({"dataset": "A", "references": ["r1", "r2"]}, "in sample"),
        ({"dataset": "A"}, "in sample"),  # no record of references: the worst is taken
        ({"dataset": "A", "references": ["r1", "r3"]}, "partly in sample"),
        ({"dataset": "A", "references": ["r3", "r4"]}, "held out"),
        ({"dataset": "B", "references": ["s1"]}, "transfer"),
        ({"dataset": "B"}, "transfer"),
        ({}, "unknown"),
    ],
)
def test_what_is_claimed_of_figures(source: dict[str, object], kind: str) -> None:
    scores = ScoreMatrix(
        torch.rand(4, 1),
        MapIndex(["conv1:0"]),
        torch.arange(4.0),
        ["r1", "r1", "r2", "r2"],
        ["a", "b", "c", "d"],
        options={"dataset": "A"},
    )
    assert claim(source, 4, scores).kind == kind


def test_other_images_of_the_same_references_are_partly_in_sample() -> None:
    scores = ScoreMatrix(
        torch.rand(2, 1), MapIndex(["conv1:0"]), torch.arange(2.0), ["r1", "r2"], ["a", "b"], options={"dataset": "A"}
    )
    assert claim({"dataset": "A", "references": ["r1", "r2"]}, 80, scores).kind == "partly in sample"


def part(name: str, *references: str) -> ScoreMatrix:
    """Images of these references, two of each."""
    groups = [reference for reference in references for _ in range(2)]
    names = [f"{name}{i}" for i in range(len(groups))]
    targets = torch.arange(float(len(groups)))
    return ScoreMatrix(
        torch.rand(len(groups), 1), MapIndex(["conv1:0"]), targets, groups, names, None, {"dataset": name}
    )


@pytest.mark.parametrize(
    ("seen", "judged", "kind"),
    [
        ("AB", "A", "in sample"),
        ("AB", "AB", "in sample"),
        ("ABC", "AC", "in sample"),
        ("AB", "AC", "partly in sample"),
        ("A", "AB", "partly in sample"),
        ("AB", "C", "transfer"),
        ("AB", "CD", "transfer"),
    ],
)
def test_what_is_claimed_where_there_are_several_data_sets(seen: str, judged: str, kind: str) -> None:
    def joined(names: str) -> ScoreMatrix:
        parts = {name: part(name, f"{name}1", f"{name}2", f"{name}3") for name in names}
        return ScoreMatrix.stack(parts) if len(parts) > 1 else parts[names]

    selected_on = joined(seen)
    assert claim(source_of(selected_on), len(selected_on), joined(judged)).kind == kind


def test_what_is_claimed_of_a_data_set_that_was_left_out() -> None:
    both = ScoreMatrix.stack({"A": part("A", "r1", "r2"), "B": part("B", "r3", "r4")})
    only = both.rows(range(4))
    assert source_of(only) == {"dataset": "A", "datasets": {"A": 4}, "references": ["r1", "r2"]}
    assert claim(source_of(only), 4, both.rows(range(4, 8))).kind == "transfer"
    assert claim(source_of(only), 4, only).kind == "in sample"
    some = both.rows([0, 1, 4, 5])
    assert claim(source_of(some), 4, part("A", "r1", "r2")).kind == "partly in sample"
    assert claim(source_of(some), 4, part("A", "r2")).kind == "held out"


def test_a_transfer_between_sets_that_share_reference_names_says_so() -> None:
    scores = ScoreMatrix(
        torch.rand(2, 1), MapIndex(["conv1:0"]), torch.arange(2.0), ["I01", "I02"], ["a", "b"], options={"dataset": "A"}
    )
    verdict = claim({"dataset": "B", "references": ["I01", "I09"]}, 80, scores)
    assert verdict.kind == "transfer"
    assert "1 of its 2 references" in verdict.text


def test_evaluate_prints_the_comparison_of_the_library(
    scores_file: Path, selection_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--selection", str(selection_file), "--matrix", str(scores_file), "--fit", "logistic4"]
    assert cli.main([*command, "--resamples", "30", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    scores, selection = ScoreMatrix.load(scores_file), Selection.load(selection_file)
    qualities = {"selected maps": scores.pool(selection.maps), "all maps": scores.pool()}
    expected = compare(
        qualities, scores.targets, scores.groups, baseline="selected maps", fit="logistic4", resamples=30
    )
    assert printed["comparison"] == json.loads(json.dumps(expected.to_dict()))
    for row, agreement in zip(printed["results"], printed["comparison"]["agreements"], strict=True):
        assert row["plcc"] == pytest.approx(agreement["plcc"][0], abs=1e-12)  # the same fit in another batch
    assert cli.main([*command, "--resamples", "30"]) == 0
    assert str(expected) in capsys.readouterr().out
    assert cli.main([*command, "--resamples", "0", "--json"]) == 0
    assert "comparison" not in json.loads(capsys.readouterr().out)


def test_one_reference_is_too_few_for_intervals(
    scores_file: Path, selection_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = ScoreMatrix.load(scores_file)
    scores.rows(range(12)).save(tmp_path / "one.safetensors")
    command = ["evaluate", "--selection", str(selection_file), "--matrix", str(tmp_path / "one.safetensors")]
    assert cli.main([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["references"], len(printed["results"])) == (1, 2)
    assert "comparison" not in printed


def test_evaluate_puts_peers_beside(
    study: Path, data_options: DataOptions, selection_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("piq")
    given = [word for word in data_options() if word not in ("--layers", "conv1", "conv2")]
    command = ["evaluate", "--selection", str(selection_file), *given, "--peers", "PSNR", "GMSD", *FEW]
    assert cli.main([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    data = CSVDataset(study / "scores.csv", reference_id="reference_id", image_name="name")
    expected = peer_scores(data, ["PSNR", "GMSD"])
    assert [row["name"] for row in printed["results"]] == ["selected maps", "all maps", "PSNR", "GMSD"]
    for row, name in zip(printed["results"][2:], expected, strict=True):
        assert row["maps"] is None
        assert row["srocc"] == pytest.approx(spearmanr(expected[name], data.targets).statistic, abs=1e-12)
    pairs = [(d["first"], d["second"]) for d in printed["comparison"]["differences"]]
    assert pairs == [(name, "selected maps") for name in ("all maps", "PSNR", "GMSD")]
    assert cli.main(command) == 0
    assert "\nPSNR  " in capsys.readouterr().out


def test_evaluate_puts_the_librarys_own_peers_beside(
    study: Path,
    data_options: DataOptions,
    selection_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(peers_by_name, "find_spec", lambda _: None)  # they need no package
    given = [word for word in data_options() if word not in ("--layers", "conv1", "conv2")]
    names = ["VSNR", "M-SVD", "dE_ab"]
    command = ["evaluate", "--selection", str(selection_file), *given, "--peers", *names, "--resamples", "0"]
    assert cli.main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    data = CSVDataset(study / "scores.csv", reference_id="reference_id", image_name="name")
    expected = peer_scores(data, names)
    assert [row["name"] for row in rows] == ["selected maps", "all maps", *names]
    for row, name in zip(rows[2:], names, strict=True):
        assert row["srocc"] == pytest.approx(spearmanr(expected[name], data.targets).statistic, abs=1e-12)
    assert cli.main(command) == 0
    table = capsys.readouterr().out
    assert all(f"\n{name}  " in table for name in names)


def test_evaluate_puts_deep_peers_beside(
    study: Path,
    data_options: DataOptions,
    selection_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.warns(UserWarning, match="random weights"):
        state = FeatureExtractor("squeezenet1_1", weights=None).network.state_dict()
    file = tmp_path / "squeezenet.pth"
    torch.save(state, file)
    given = [word for word in data_options() if word not in ("--layers", "conv1", "conv2")]
    command = ["evaluate", "--selection", str(selection_file), *given, "--peers", "DeepWSD", "--resamples", "0"]
    data = CSVDataset(study / "scores.csv", reference_id="reference_id", image_name="name")
    expected = spearmanr(peer_scores(data, ["DeepWSD"], weights={"squeezenet1_1": file})["DeepWSD"], data.targets)
    for weights in (str(file), "random"):
        assert cli.main([*command, "--weights", f"squeezenet1_1={weights}", "--json"]) == 0
        row = json.loads(capsys.readouterr().out)["results"][-1]
        assert row["name"] == "DeepWSD"
        assert row["srocc"] == pytest.approx(expected.statistic, abs=1e-12)  # scipy's own rounding


def test_weights_of_a_peer_are_refused_before_any_work(
    selection_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--selection", str(selection_file), "--demo", "--weights", "random"]
    named = ["--weights", "squeezenet1_1=nowhere.pth"]
    assert cli.main([*command, "--peers", "DeepWSD", *named]) == 1
    assert "no weights file nowhere.pth" in capsys.readouterr().err
    assert cli.main([*command, *named]) == 1
    assert "is of alexnet, not of squeezenet1_1" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_help_names_all_peers(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert ",".join(PEERS) in "".join(capsys.readouterr().out.split())  # lines may end at a hyphen


def test_peers_without_their_package_are_refused_before_any_work(
    selection_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers_by_name, "find_spec", lambda _: None)
    assert cli.main(["evaluate", "--selection", str(selection_file), "--demo", "--peers", "SSIM"]) == 1
    assert "fmiqa[peers]" in capsys.readouterr().err


def test_joined_matrices_are_judged_as_one(
    sources: dict[str, Path], joined: ScoreMatrix, joined_selection: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--matrix", *(f"{name}={path}" for name, path in sources.items()), *FEW, "--json"]
    printed = []
    for chosen in (joined_selection, joined_selection.with_name("metric.safetensors")):
        kind = "--selection" if chosen.suffix == ".json" else "--metric"
        assert cli.main(["evaluate", kind, str(chosen), *given]) == 0
        printed.append(json.loads(capsys.readouterr().out))
    by_selection, by_metric = printed
    quality = joined.pool(Selection.load(joined_selection).maps)
    expected = spearmanr(quality, joined.targets).statistic
    assert by_selection["results"][0]["srocc"] == pytest.approx(expected, abs=1e-12)
    assert by_selection["results"][1]["maps"] == len(joined.maps)
    assert by_selection["claim"]["kind"] == "in sample"
    assert by_metric["results"] == by_selection["results"]


def test_a_joined_selection_is_judged_on_a_data_set(
    data_options: DataOptions,
    sources: dict[str, Path],
    weights_files: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    selection = str(tmp_path / "s.json")
    asked = ["--start", "full/conv1:1", "half/conv1:2", "--max-maps", "3", "--out", selection]
    assert cli.main(["select", str(sources["full"]), str(sources["half"]), *asked]) == 0
    capsys.readouterr()
    given = [word for word in data_options() if word not in ("--layers", "conv1", "conv2", "--weights", "random")]
    given += ["--weights", f"alexnet={weights_files['alexnet']}", *FEW]
    assert cli.main(["evaluate", "--selection", selection, *given, "--json"]) == 0
    selected, every = json.loads(capsys.readouterr().out)["results"]
    # Another batch takes the convolutions' sums in another order: 2e-6 in a score.
    assert selected["plcc"] == pytest.approx(Selection.load(selection).value, abs=1e-4)
    assert every["maps"] == 2 * (64 + 192)
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", "--selection", selection, *given, "--save-matrix", str(tmp_path / "m")])
    assert ended.value.code == 2
    assert "several score matrices (full, half)" in capsys.readouterr().err


def test_a_source_that_is_missing_is_named(
    sources: dict[str, Path], joined_selection: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--matrix", f"full={sources['full']}", f"halb={sources['half']}"]
    assert cli.main(["evaluate", "--selection", str(joined_selection), *given]) == 1
    message = capsys.readouterr().err
    assert all(name in message for name in ("squeezenet", "half", "halb", "NAME=FILE"))
    swapped = ["--matrix", f"full={sources['half']}", *(f"{n}={sources[n]}" for n in ("half", "squeezenet"))]
    assert cli.main(["evaluate", "--selection", str(joined_selection), *swapped]) == 1
    assert "viewing" in capsys.readouterr().err


def test_a_weighted_selection_is_judged_with_its_weights(
    numbers_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    selection = str(tmp_path / "s.json")
    assert cli.main(["select", str(numbers_file), "--search", "weighted", "--powers", "2", "--out", selection]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", "--selection", selection, "--matrix", str(numbers_file), *FEW, "--json"]) == 0
    chosen = Selection.load(selection)
    printed = json.loads(capsys.readouterr().out)
    assert chosen.weights is not None
    assert len(chosen.weights.unique()) > 1
    assert printed["results"][0]["plcc"] == pytest.approx(chosen.value, abs=1e-9)  # the same fit again
