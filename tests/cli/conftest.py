"""What the tests of the command share: a small study, and what the command makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fmiqa import FeatureExtractor, MapIndex, ScoreMatrix, cli
from fmiqa.datasets import Demo


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three references, 36 test images and scores.csv."""
    folder = tmp_path_factory.mktemp("study")
    Demo(references=3, size=96, levels=2).write(folder)
    return folder


@pytest.fixture(scope="session")
def data_options(study: Path) -> Callable[..., list[str]]:
    """The options that name it (by another name, if asked), and the maps of AlexNet's conv1 and conv2."""

    def name_it(name: str = "Study") -> list[str]:
        table = ["--csv", str(study / "scores.csv"), "--reference-id", "reference_id", "--image-name", "name"]
        table += ["--distortion", "distortion"]
        return [*table, "--name", name, "--weights", "random", "--layers", "conv1", "conv2", "--device", "cpu"]

    return name_it


@pytest.fixture(scope="session")
def scores_file(study: Path, data_options: Callable[..., list[str]]) -> Path:
    """Their score matrix, made by the command."""
    path = study / "scores.safetensors"
    assert cli.main(["matrix", *data_options(), "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def selection_file(scores_file: Path) -> Path:
    """Three maps chosen on it, made by the command, with a metric beside."""
    path = scores_file.with_name("selected.json")
    metric = ["--metric", str(path.with_name("metric.safetensors")), "--weights", "random"]
    assert cli.main(["select", str(scores_file), "--out", str(path), "--max-maps", "3", *metric]) == 0
    return path


@pytest.fixture(scope="session")
def metric_file(selection_file: Path) -> Path:
    """That metric."""
    return selection_file.with_name("metric.safetensors")


@pytest.fixture(scope="session")
def sources(study: Path, data_options: Callable[..., list[str]]) -> dict[str, Path]:
    """Score matrices of a few maps of two networks, one of them at two scales, made by the command."""
    every = [word for word in data_options() if word not in ("--layers", "conv1", "conv2")]
    alexnet = ["--maps", *(f"conv1:{c}" for c in range(12))]
    squeezenet = ["--network", "squeezenet1_1", "--maps", *(f"features.0:{c}" for c in range(12))]
    commands = {
        "full": [*data_options(), *alexnet],
        "half": [*data_options(), *alexnet, "--scale", "0.5"],
        "squeezenet": [*every, *squeezenet],
    }
    paths = {name: study / f"{name}.safetensors" for name in commands}
    for name, command in commands.items():
        assert cli.main(["matrix", *command, "--out", str(paths[name])]) == 0
    return paths


@pytest.fixture(scope="session")
def joined(sources: dict[str, Path]) -> ScoreMatrix:
    """Those, joined by the library."""
    return ScoreMatrix.concat({name: ScoreMatrix.load(path) for name, path in sources.items()})


@pytest.fixture(scope="session")
def joined_selection(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps chosen on them, at least one of each, made by the command, with a metric beside."""
    folder = tmp_path_factory.mktemp("joined")
    given = [f"{name}={path}" for name, path in sources.items()]
    asked = ["--start", "full/conv1:1", "half/conv1:2", "squeezenet/features.0:3", "--max-maps", "4"]
    files = ["--out", str(folder / "selected.json"), "--metric", str(folder / "metric.safetensors")]
    assert cli.main(["select", *given, *asked, *files, "--weights", "random"]) == 0
    return folder / "selected.json"


@pytest.fixture(scope="session")
def weights_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The random weights of both networks as files: network -> path."""
    folder = tmp_path_factory.mktemp("weights")
    files = {}
    for network in ("alexnet", "squeezenet1_1"):
        with pytest.warns(UserWarning, match="random weights"):
            state = FeatureExtractor(network, weights=None).network.state_dict()
        files[network] = str(folder / f"{network}.pth")
        torch.save(state, files[network])
    return files


@pytest.fixture(scope="session")
def numbers_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A score matrix of random numbers, some of them like the targets: 80 images of ten references, 15 maps."""
    generator = torch.Generator().manual_seed(5)
    targets = torch.rand(80, generator=generator, dtype=torch.float64)
    values = torch.rand(80, 15, generator=generator)
    values[:, 3] += 2 * targets
    values[:, 8] += targets
    scores = ScoreMatrix(
        values,
        MapIndex.of_layers({"conv1": 15}),
        targets,
        [f"r{i // 8}" for i in range(80)],
        [f"image{i}" for i in range(80)],
        [f"d{i % 4}" for i in range(80)],
        {"dataset": "numbers"},
    )
    path = tmp_path_factory.mktemp("numbers") / "numbers.safetensors"
    scores.save(path)
    return path
