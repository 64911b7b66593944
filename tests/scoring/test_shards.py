"""Shards of a score matrix: merged, they are one run to the bit, whatever happens on the way."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open

from fmiqa import (
    SSIM,
    DatasetError,
    FeatureExtractor,
    FileFormatError,
    InputError,
    ResumeError,
    ScoreMatrix,
    cli,
    merge_shards,
    score_matrix,
)
from fmiqa._result import Saved
from fmiqa.datasets import CSVDataset, Demo, Sample
from fmiqa.scoring.checkpoint import Checkpoint
from fmiqa.scoring.shards import Shard, find_shards, shard_file

MAPS = ["conv3:100", "conv1:5", "conv1:0"]
SIZES = {"r0": 40, "r1": 5, "r2": 33, "r3": 12}  # parts of 32, 8, 5, 32, 1 and 12 rows


class Toy(Sequence[Sample]):
    """A data set with names that counts what is decoded, and may break down."""

    name = "Toy"

    def __init__(self, samples: list[Sample], *, breaks_after: int | None = None) -> None:
        self.samples, self.breaks_after = samples, breaks_after
        self.names = [s.name for s in samples]
        self.reference_ids = [s.reference_id for s in samples]
        self.decoded: list[int] = []

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if len(self.decoded) == self.breaks_after:
            raise KeyboardInterrupt
        self.decoded.append(index)
        return self.samples[index]

    def digest(self, index: int) -> str:
        return str([self.samples[index].score, self.samples[index].distorted.sum().item()])


def make_samples() -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    references = {r: torch.randint(0, 256, (3, 64, 72), generator=generator) for r in SIZES}
    ids = [r for r, size in SIZES.items() for _ in range(size)]
    random.Random(0).shuffle(ids)
    samples = []
    for i, r in enumerate(ids):
        test = references[r] + torch.randn(3, 64, 72, generator=generator) * (5 + i)
        image = test.clamp(0, 255).to(torch.uint8)
        samples.append(Sample(references[r].to(torch.uint8), image, i / 7, r, f"image{i}", distortion=f"d{i % 3}"))
    return samples


@pytest.fixture(scope="module")
def network() -> FeatureExtractor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FeatureExtractor("alexnet", weights=None)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return make_samples()


@pytest.fixture(scope="module")
def whole(network: FeatureExtractor, samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of one run."""
    path = tmp_path_factory.mktemp("whole") / "scores.safetensors"
    score_matrix(network, Toy(samples), maps=MAPS, save=path)
    return path


@pytest.fixture(scope="module")
def three(network: FeatureExtractor, samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three shards."""
    folder = tmp_path_factory.mktemp("three")
    for i in (1, 2, 3):
        score_matrix(network, Toy(samples), maps=MAPS, shard=(i, 3), save=folder / "scores.safetensors")
    return folder


@pytest.fixture
def shards(three: Path, tmp_path: Path) -> Path:
    """The name of a score matrix with its own copies of them."""
    shutil.copytree(three, tmp_path / "study")
    return tmp_path / "study" / "scores.safetensors"


def same(one: ScoreMatrix, other: ScoreMatrix) -> bool:
    """Equal to the bit in all that a score matrix holds."""
    tensors = zip(one.tensors().values(), other.tensors().values(), strict=True)
    return one.to_dict() == other.to_dict() and all(torch.equal(a, b) and a.dtype == b.dtype for a, b in tensors)


# One run


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_merged_shards_are_one_run(
    network: FeatureExtractor, samples: list[Sample], whole: Path, tmp_path: Path, count: int
) -> None:
    save = tmp_path / "scores.safetensors"
    decoded, parts = [], []
    for i in random.Random(count).sample(range(1, count + 1), count):
        data = Toy(samples)
        parts.append(score_matrix(network, data, maps=MAPS, shard=(i, count), save=save))
        decoded += data.decoded
    assert sorted(decoded) == list(range(90))  # each image once
    assert sum(map(len, parts)) == 90
    assert all(part.options == parts[0].options for part in parts)
    assert len(os.listdir(tmp_path)) == count  # no folder of parts is left
    merged = merge_shards(save)
    assert same(merged, ScoreMatrix.load(whole))
    assert same(ScoreMatrix.load(save), ScoreMatrix.load(whole))
    assert len(find_shards(save)) == count  # they stay


def test_on_every_device(
    network: FeatureExtractor, samples: list[Sample], device: torch.device, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"maps": MAPS, "device": device, "memory": 2**30}  # as much as is free on a GPU, else
    for i in (3, 1, 2):
        score_matrix(network, Toy(samples), shard=(i, 3), save=tmp_path / "s", **options)
    assert same(merge_shards(tmp_path / "s"), score_matrix(network, Toy(samples), save=tmp_path / "one", **options))


def test_a_shard_is_its_rows_of_one_run(network: FeatureExtractor, whole: Path, shards: Path) -> None:
    one, rows = ScoreMatrix.load(whole), []
    for i in (1, 2, 3):
        shard = Shard.of((i, 3), shards).read()
        assert shard is not None
        assert shard.part.rows == sorted(shard.part.rows)
        assert same(shard.part.scores, one.rows(shard.part.rows))
        rows += shard.part.rows
    assert sorted(rows) == list(range(90))


def test_what_only_some_shards_know_of_the_distortion_is_dropped_as_in_one_run(
    network: FeatureExtractor, samples: list[Sample], tmp_path: Path
) -> None:
    data = [*samples[:60], *(replace(s, distortion=None) for s in samples[60:62])]
    one = score_matrix(network, Toy(data), maps=MAPS[:1], save=tmp_path / "one")
    for i in (1, 2, 3, 4):
        score_matrix(network, Toy(data), maps=MAPS[:1], shard=(i, 4), save=tmp_path / "s")
    assert one.distortions is None
    assert same(merge_shards(tmp_path / "s"), one)


def test_more_shards_than_parts(network: FeatureExtractor, samples: list[Sample], tmp_path: Path) -> None:
    data = [s for s in samples if s.reference_id in ("r1", "r3")]
    save = tmp_path / "s"
    lengths = [len(score_matrix(network, data, maps=MAPS, shard=(i, 5), save=save)) for i in range(1, 6)]
    assert sorted(lengths) == [0, 0, 0, 5, 12]
    empty = score_matrix(network, data, maps=MAPS, shard=(lengths.index(0) + 1, 5), save=save)
    assert empty.values.shape == (0, 3)
    one = score_matrix(network, data, maps=MAPS, save=tmp_path / "one")
    assert same(merge_shards(save), one)
    assert same(merge_shards(save), one)  # agrees with what is there


@given(sizes=st.lists(st.integers(1, 32), min_size=1, max_size=40), count=st.integers(1, 12))
def test_shards_are_even_to_a_part_and_all_of_the_plan(sizes: list[int], count: int) -> None:
    plan = [list(range(size)) for size in sizes]
    shares = [Shard(i, count, Path("s")).share(plan) for i in range(1, count + 1)]
    assert [number for share in shares for number in share] == list(range(len(plan)))
    for share in shares:
        assert abs(sum(sizes[number] for number in share) - sum(sizes) / count) <= max(sizes)


def test_only_the_images_of_the_shard_are_checked(network: FeatureExtractor, tmp_path: Path) -> None:
    table = Demo(references=2, size=64, levels=1, planted=["conv1:0"]).write(tmp_path)
    data = CSVDataset(table, reference_id="reference_id", image_name="name")
    name = data.names[-1]
    damaged = tmp_path / "distorted" / f"{name}.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    score_matrix(network, data, maps=MAPS[1:], shard=(1, 2), save=tmp_path / "s")
    with pytest.raises(DatasetError, match=f"1 of 7 image files cannot be used(.|\n)*{name}"):
        score_matrix(network, data, maps=MAPS[1:], shard=(2, 2), save=tmp_path / "s")
    Image.new("RGB", (64, 64)).save(damaged)
    assert len(score_matrix(network, data, maps=MAPS[1:], shard=(2, 2), save=tmp_path / "s")) == 6
    with pytest.raises(FileFormatError, match="sampled_items_sha256"):  # the first shard saw the damaged file
        merge_shards(tmp_path / "s")


# Stopped and repeated


def test_shards_that_were_stopped_go_on_from_their_own_parts(
    network: FeatureExtractor, samples: list[Sample], whole: Path, tmp_path: Path
) -> None:
    save = tmp_path / "scores.safetensors"
    for i, after in ((3, 33), (1, 10), (2, 8)):
        with pytest.raises(KeyboardInterrupt):
            score_matrix(network, Toy(samples, breaks_after=after), maps=MAPS, shard=(i, 3), save=save)
    assert find_shards(save) == []
    folders = {i: Path(f"{shard_file(save, i, 3)}.parts") for i in (1, 2, 3)}
    assert {i: len(list(folder.glob("part-*"))) for i, folder in folders.items()} == {1: 0, 2: 1, 3: 2}
    for i, remaining in ((2, 5), (3, 12), (1, 32)):
        data, others = Toy(samples), contents(tmp_path, but=folders[i])
        score_matrix(network, data, maps=MAPS, shard=(i, 3), save=save)
        assert len(data.decoded) == remaining
        assert contents(tmp_path, but=shard_file(save, i, 3)) == others
    assert same(merge_shards(save), ScoreMatrix.load(whole))


def contents(folder: Path, but: Path) -> dict[Path, bytes]:
    """All files below a folder, but for a file or those of one folder."""
    files = (file for file in folder.rglob("*") if file.is_file() and but not in (file, *file.parents))
    return {file: file.read_bytes() for file in files}


def test_a_finished_shard_is_loaded(network: FeatureExtractor, samples: list[Sample], shards: Path) -> None:
    file = shard_file(shards, 2, 3)
    before = file.stat()
    Path(f"{file}.parts").mkdir()  # as a kill leaves it between the two last steps
    data = Toy(samples)
    again = score_matrix(network, data, maps=MAPS, shard=(2, 3), save=shards)
    assert data.decoded == []
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert not Path(f"{file}.parts").exists()
    shard = Shard.of((2, 3), shards).read()
    assert shard is not None
    assert same(again, shard.part.scores)


def test_a_damaged_shard_is_computed_again(
    network: FeatureExtractor, samples: list[Sample], shards: Path, whole: Path
) -> None:
    file = shard_file(shards, 2, 3)
    file.write_bytes(file.read_bytes()[:-5])
    data = Toy(samples)
    score_matrix(network, data, maps=MAPS, shard=(2, 3), save=shards)
    assert len(data.decoded) == 13
    assert same(merge_shards(shards), ScoreMatrix.load(whole))


def test_a_finished_shard_of_another_run_is_refused(
    network: FeatureExtractor, samples: list[Sample], shards: Path
) -> None:
    with pytest.raises(ResumeError, match=r"shard-2-of-3.* other options .*measure: then"):
        score_matrix(network, Toy(samples), maps=MAPS, measure="psnr", shard=(2, 3), save=shards)
    one = Shard.of((2, 3), shards).read()
    assert one is not None
    row = next(row for row in one.part.rows if row not in [90 * i // 64 for i in range(64)])  # not in the sample
    changed = [replace(s, score=-1.0) if i == row else s for i, s in enumerate(samples)]
    with pytest.raises(ResumeError, match=f"shard-2-of-3.*item {row}, 'image{row}', has changed"):
        score_matrix(network, Toy(changed), maps=MAPS, shard=(2, 3), save=shards)


def test_an_interrupted_write_leaves_no_shard(
    network: FeatureExtractor, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(source: object, target: object) -> None:
        if str(target).endswith("of-3"):
            raise KeyboardInterrupt
        real(source, target)  # type: ignore[arg-type]

    real = os.replace
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        score_matrix(network, Toy(samples), maps=MAPS, shard=(1, 3), save=tmp_path / "s")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["s.shard-1-of-3.parts"]
    data = Toy(samples)
    score_matrix(network, data, maps=MAPS, shard=(1, 3), save=tmp_path / "s")
    assert data.decoded == []


KILLED = """
import os, signal, sys
from fmiqa import cli
from fmiqa.scoring.checkpoint import Checkpoint

write, left = Checkpoint.write, int(sys.argv.pop(1))

def write_and_die(checkpoint, name, piece):
    global left
    write(checkpoint, name, piece)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoint.write = write_and_die
sys.exit(cli.main(sys.argv[1:]))
"""


def test_three_shards_of_the_command_killed_and_started_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Demo(references=6, size=64, levels=1, planted=["conv1:0"]).write(tmp_path)
    out = tmp_path / "scores.safetensors"
    columns = ["--reference-id", "reference_id", "--image-name", "name", "--distortion", "distortion"]
    asked = [*columns, "--weights", "random", "--device", "cpu", "--maps", *MAPS, "--csv", str(table)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # others may add up otherwise
    command = ["matrix", *asked, "--out", str(out), "--shard"]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED, "1", *command, f"{i}/3"],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for i in (3, 1, 2)  # at the same time
    ]
    for process in started:
        _, error = process.communicate(timeout=300)
        assert process.returncode == -signal.SIGKILL, error
    assert find_shards(out) == []
    assert cli.main(["merge", "--out", str(out)]) == 1
    assert "there are no shards of" in capsys.readouterr().err

    written: list[str] = []
    write = Checkpoint.write

    def write_and_note(checkpoint: Checkpoint, name: str, piece: Saved) -> None:
        written.append(name)
        write(checkpoint, name, piece)

    with mock.patch.object(Checkpoint, "write", write_and_note):
        for i in (2, 1, 3):
            assert cli.main([*command, f"{i}/3"]) == 0
            assert f"written to {shard_file(out, i, 3)}, shard {i} of 3" in capsys.readouterr().out
    assert written == [f"part-00000{number}.safetensors" for number in (3, 1, 5)]  # one was kept of each shard's two
    assert cli.main([*command, "2/3"]) == 0
    assert "is complete already and was not computed again" in capsys.readouterr().out
    assert cli.main(["merge", "--out", str(out)]) == 0
    assert "from 3 shards" in capsys.readouterr().out

    one = tmp_path / "one" / "scores.safetensors"
    assert cli.main(["matrix", *asked, "--out", str(one)]) == 0
    assert same(ScoreMatrix.load(out), ScoreMatrix.load(one))


# What is refused


@pytest.mark.parametrize("shard", [(0, 3), (4, 3), (1, 0), (1,), (1, 2, 3), 2, "2/3", (1.0, 3), (True, 3), (-1, 3)])
def test_what_is_no_shard_is_refused(network: FeatureExtractor, samples: list[Sample], shard: Any) -> None:
    with pytest.raises(InputError, match=rf"the i-th of n from 1, such as \(2, 3\); got {re.escape(repr(shard))}"):
        score_matrix(network, samples, shard=shard, save="s")


@pytest.mark.parametrize("save", [None, "/dev/null"])
def test_a_shard_needs_a_file(network: FeatureExtractor, samples: list[Sample], save: str | None) -> None:
    with pytest.raises(InputError, match="give save="):
        score_matrix(network, samples, shard=(1, 2), save=save)


def test_a_shard_in_a_process_group_is_refused(
    network: FeatureExtractor, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmiqa.scoring.shards.processes", lambda: 4)
    with pytest.raises(InputError, match=r"group of 4 processes; .*without torchrun"):
        score_matrix(network, samples, shard=(1, 2), save=tmp_path / "s")
    assert os.listdir(tmp_path) == []


def refused(save: Path, *patterns: str, files: list[Path] | None = None) -> str:
    """The message with which merging is refused, and that nothing is changed by it."""
    before = {file: file.read_bytes() for file in save.parent.iterdir() if file.is_file()}
    with pytest.raises(FileFormatError, match="cannot be merged, and nothing was written") as caught:
        merge_shards(save, files, remove=True)
    assert {file: file.read_bytes() for file in save.parent.iterdir() if file.is_file()} == before
    message = str(caught.value)
    for pattern in patterns:
        assert re.search(pattern, message), message
    assert message.count("\n  - ") == len(patterns), message
    return message


def test_missing_shards_are_named(shards: Path) -> None:
    shard_file(shards, 1, 3).unlink()
    shard_file(shards, 3, 3).unlink()
    refused(shards, r"shard 1 of 3 is missing; .*shard=\(1, 3\) or --shard 1/3", "shard 3 of 3 is missing")
    refused(
        shards, "no file .*shard-1-of-3", "shard 3 of 3 is missing", files=[shard_file(shards, i, 3) for i in (1, 2)]
    )


@pytest.mark.parametrize("damage", ["empty", "cut", "header", "value"])
def test_a_damaged_shard_is_named(shards: Path, damage: str) -> None:
    file = shard_file(shards, 2, 3)
    content = bytearray(file.read_bytes())
    if damage == "value":
        content[-100] ^= 1
    elif damage == "header":
        place = content.index(b"image")
        content[place : place + 5] = b"imaqe"
    file.write_bytes(content[: {"empty": 0, "cut": len(content) - 9}.get(damage)])
    refused(shards, r"shard-2-of-3\.safetensors is damaged.*compute that shard again")


def test_what_is_no_shard_file_is_named(shards: Path, whole: Path) -> None:
    shutil.copy(whole, shard_file(shards, 2, 3))
    refused(shards, "shard-2-of-3.* holds fmiqa score matrix 1, expected fmiqa score matrix shard 1")


def test_duplicates_are_named(shards: Path) -> None:
    copy = shutil.copy(shard_file(shards, 2, 3), shards.with_name("copy"))
    files = find_shards(shards)
    refused(shards, "copy and .*shard-2-of-3.* are both shard 2 of 3; give one", files=[*files, copy])
    refused(shards, "shard-1-of-3.* is given 2 times; give it once", files=[*files, files[0]])


def test_shards_of_another_number_are_named(network: FeatureExtractor, samples: list[Sample], shards: Path) -> None:
    score_matrix(network, Toy(samples), maps=MAPS, shard=(1, 2), save=shards)
    refused(shards, r"shard-1-of-2\.safetensors is of another run .*number of shards: 2, 3.*leave it out")
    files = [file for file in find_shards(shards) if "of-3" in file.name]
    assert len(merge_shards(shards, files)) == 90


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "weights_sha256: '"),
        ({"measure": SSIM(data_range="pair")}, "measure: {"),
        ({"maps": MAPS[::-1]}, "images_and_maps_sha256"),
        ({"maps": MAPS[:2]}, "maps: 2, 3"),
        ({"batch_size": 3}, "batch_size: 3, 8"),
        ({"names": "other"}, "images_and_maps_sha256"),
        ({"images": 89}, "images: 89, 90"),
        ({"pixels": 7}, "sampled_items_sha256"),
        ({"scores": 1.0}, "sampled_items_sha256"),
    ],
)
def test_foreign_shards_are_named(
    network: FeatureExtractor, samples: list[Sample], shards: Path, change: dict[str, Any], named: str
) -> None:
    options: dict[str, Any] = {"maps": MAPS, "shard": (3, 3), "save": shards}
    options.update({key: value for key, value in change.items() if key in ("measure", "maps", "batch_size")})
    if "seed" in change:
        with pytest.warns(UserWarning, match="seed 1"):
            network = FeatureExtractor("alexnet", weights=None, seed=1)
    if "names" in change:
        samples = [replace(s, name=f"other {s.name}") for s in samples]
    if "pixels" in change:
        samples = [replace(s, distorted=s.distorted // 2) for s in samples]
    if "scores" in change:
        samples = [replace(s, score=s.score + 1) for s in samples]
    shard_file(shards, 3, 3).unlink()
    score_matrix(network, Toy(samples[: change.get("images")]), **options)
    refused(shards, rf"shard-3-of-3.* is of another run than .*shard-1-of-3.*{re.escape(named)}")


def test_all_that_is_wrong_is_said_at_once(network: FeatureExtractor, samples: list[Sample], tmp_path: Path) -> None:
    save = tmp_path / "s"
    for i in (1, 2, 3, 4):
        score_matrix(
            network, Toy(samples), maps=MAPS[1:], measure="psnr" if i == 2 else "ssim", shard=(i, 5), save=save
        )
    shard_file(save, 3, 5).write_bytes(b"")
    refused(save, "shard-3-of-5 is damaged", "shard-2-of-5 is of another run", "shard 5 of 5 is missing")


def test_no_shards_at_all(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(InputError, match=r"no shards of .*other, files such as .*other\.shard-1-of-3"):
        merge_shards(shards.with_name("other"))
    with pytest.raises(InputError, match="no shards"):
        merge_shards(tmp_path / "missing" / "scores")
    with pytest.raises(InputError, match="list of files"):
        merge_shards(shards, str(shard_file(shards, 1, 3)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is a folder"):
        merge_shards(tmp_path)


# Merging again, and removing


def test_merging_again_changes_nothing(shards: Path, whole: Path) -> None:
    merge_shards(shards)
    before = shards.stat()
    assert same(merge_shards(shards), ScoreMatrix.load(whole))
    shard_file(shards, 2, 3).unlink()  # as a kill leaves it that comes while the shards are removed
    assert same(merge_shards(shards, remove=True), ScoreMatrix.load(whole))
    assert os.listdir(shards.parent) == [shards.name]
    assert same(merge_shards(shards), ScoreMatrix.load(whole))
    assert (shards.stat().st_mtime_ns, shards.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_another_matrix_is_not_merged_over(network: FeatureExtractor, samples: list[Sample], shards: Path) -> None:
    score_matrix(network, Toy(samples), maps=MAPS, measure="psnr", save=shards)
    before = shards.read_bytes()
    with pytest.raises(InputError, match=r"exists already; delete it(.|\n)*1-of-3(.|\n)*2-of-3(.|\n)*3-of-3") as caught:
        merge_shards(shards, remove=True)
    assert str(caught.value).count("does not agree with it") == 3
    assert shards.read_bytes() == before
    assert len(find_shards(shards)) == 3


def test_an_interrupted_merge_leaves_no_half_file(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge_shards(shards, remove=True)
    monkeypatch.undo()
    assert not shards.exists()
    assert len(os.listdir(shards.parent)) == 3
    assert len(merge_shards(shards)) == 90


def test_names_of_files(tmp_path: Path) -> None:
    names = {"a b[1].v2.safetensors": "a b[1].v2.shard-2-of-3.safetensors", "scores": "scores.shard-2-of-3"}
    for name, expected in names.items():
        file = shard_file(tmp_path / name, 2, 3)
        assert file == tmp_path / expected
        for other in (file, shard_file(tmp_path / name, 10, 12), shard_file(tmp_path / name, 9, 12)):
            other.touch()
        Path(f"{file}.parts").mkdir()
        Path(f"{file}~").touch()
        assert find_shards(tmp_path / name) == [file, *(shard_file(tmp_path / name, i, 12) for i in (9, 10))]


def test_a_shard_file_is_not_taken_for_a_matrix(shards: Path) -> None:
    with pytest.raises(FileFormatError, match="holds fmiqa score matrix shard 1, expected fmiqa score matrix 1"):
        ScoreMatrix.load(shard_file(shards, 1, 3))
    with safe_open(shard_file(shards, 1, 3), framework="pt") as file:
        assert sorted(file.keys()) == ["targets", "values"]
