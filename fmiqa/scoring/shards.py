"""Shards: parts of a score matrix that jobs compute without speaking to each other, and how they become one matrix."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from fmiqa._checks import is_count
from fmiqa._io import check_output, is_special
from fmiqa._result import Saved
from fmiqa._runtime.distributed import processes
from fmiqa.errors import FileFormatError, InputError
from fmiqa.features.checkpoints import fingerprint
from fmiqa.scoring.checkpoint import Checkpoint, refuse_other
from fmiqa.scoring.matrix import ScoreMatrix
from fmiqa.scoring.parts import LookAgain, ScorePart, in_order, refuse_other_items

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ScoreShard", "Shard", "find_shards", "merge_shards", "shard_file"]


def shard_file(save: str | os.PathLike[str], number: int, count: int) -> Path:
    """Where a shard is saved: beside the score matrix, with `.shard-I-of-N` before the ending of its name.

    Example:
        >>> shard_file("study/scores.safetensors", 2, 3).name
        'scores.shard-2-of-3.safetensors'
    """
    path = Path(save)
    return path.with_name(f"{path.stem}.shard-{number}-of-{count}{path.suffix}")


def find_shards(save: str | os.PathLike[str]) -> list[Path]:
    """The shard files beside a score matrix, in order; unfinished ones have none."""
    path = Path(save)
    pattern = re.compile(rf"{re.escape(path.stem)}\.shard-([0-9]+)-of-([0-9]+){re.escape(path.suffix)}")
    files = path.parent.iterdir() if path.parent.is_dir() else ()
    found = [(int(match[2]), int(match[1]), file) for file in files if (match := pattern.fullmatch(file.name))]
    return [file for _, _, file in sorted(found) if file.is_file()]


@dataclass(frozen=True)
class Shard:
    """One of `count` shards, from 1, and its file."""

    number: int
    count: int
    file: Path

    @classmethod
    def of(cls, shard: tuple[int, int], save: str | os.PathLike[str] | None) -> Shard:
        """The shard (i, n) of the score matrix `save`.

        Raises:
            InputError: There is no such shard, no file to save to, or a process group.
        """
        numbers = tuple(shard) if isinstance(shard, tuple | list) else ()
        if len(numbers) != 2 or not all(map(is_count, numbers)) or numbers[0] > numbers[1]:
            raise InputError(f"shard is (i, n), the i-th of n from 1, such as (2, 3); got {shard!r}")
        if save is None or is_special(save):
            raise InputError("a shard is kept in a file for the others to be merged with: give save=, a file's name")
        if processes() > 1:
            raise InputError(
                f"shard {shard!r} was asked for in a torch.distributed group of {processes()} processes; a shard is "
                "the job of one process: start it without torchrun, or ask for no shard, and the group shares the whole"
            )
        number, count = map(int, numbers)
        return cls(number, count, shard_file(save, number, count))

    def share(self, plan: Sequence[Sequence[int]]) -> list[int]:
        """The numbers of its parts of the plan.

        They follow each other, so that a reference is prepared in few shards, and a shard has at most one part's rows
        more or less than its even share.
        """
        total, before, mine = sum(map(len, plan)), 0, []
        for number, rows in enumerate(plan):
            middle = 2 * before + len(rows)  # in half rows
            if middle * self.count // (2 * total) == self.number - 1:
                mine.append(number)
            before += len(rows)
        return mine

    def of_parts(self, scores: ScoreMatrix, parts: Mapping[int, ScorePart], run: Mapping[str, Any]) -> ScoreShard:
        """Its content: its finished parts, also given as one matrix in the order of the data set."""
        digests = {row: digest for part in parts.values() for row, digest in zip(part.rows, part.digests, strict=True)}
        rows = sorted(digests)
        return ScoreShard(ScorePart(scores, rows, [digests[row] for row in rows]), self.number, self.count, dict(run))

    def read(self) -> ScoreShard | None:
        """What its file holds; a damaged file is removed and counts as none."""
        return Checkpoint(self.file.parent).read(self.file.name, ScoreShard)

    def finished(self, run: Mapping[str, Any], look_again: LookAgain) -> ScoreShard | None:
        """What its file holds, if this run would compute the same.

        Raises:
            ResumeError: It is of a run with other options, weights or images.
        """
        found = self.read()
        if found is not None:
            refuse_other(self.file, found.run, run)
            refuse_other_items(self.file, {self.number: found.part} if found.part.rows else {}, look_again)
            parts = Checkpoint.beside(self.file)
            if parts.folder is not None and parts.folder.exists():  # a kill came after the file was written
                parts.remove()
        return found


@dataclass(frozen=True, eq=False)
class ScoreShard(Saved):
    """The rows of a score matrix that one shard has computed.

    Args:
        part: The rows, with the maps and options of the score matrix.
        number: Which shard, from 1.
        count: Of how many.
        run: What all shards of a score matrix have in common: options, weights, images, batches.
    """

    part: ScorePart
    number: int
    count: int
    run: dict[str, Any]

    kind: ClassVar[str] = "fmiqa score matrix shard 1"
    binary: ClassVar[bool] = True

    def to_dict(self) -> dict[str, Any]:
        """Everything but values and targets, as plain values for JSON, with a checksum."""
        content = {
            "shard": [self.number, self.count],
            "rows": self.part.rows,
            "digests": self.part.digests,
            "run": self.run,
            "scores": self.part.scores.to_dict(),
        }
        return {**content, "sha256": _checksum(content, self.tensors())}

    def tensors(self) -> dict[str, Tensor]:
        """Values and targets."""
        return self.part.scores.tensors()

    @classmethod
    def from_dict(cls, content: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """The shard again."""
        if content.pop("sha256") != _checksum(content, tensors):
            raise ValueError("its content does not match its checksum")
        scores = ScoreMatrix.from_dict(content["scores"], tensors)
        number, count = content["shard"]
        return cls(ScorePart(scores, content["rows"], content["digests"]), number, count, content["run"])


def merge_shards(
    save: str | os.PathLike[str], shards: Iterable[str | os.PathLike[str]] | None = None, *, remove: bool = False
) -> ScoreMatrix:
    """Merge the shards of a score matrix, `score_matrix(..., shard=(i, n), save=save)`, into one file.

    The result has the same bits as that of one run. No images, weights or network are needed. A score matrix that was
    merged before is left as it is if the shards agree with it.

    Args:
        save: File for the score matrix, written whole or not at all.
        shards: The shard files in any order; by default all beside `save`.
        remove: Remove the shard files afterwards. By default they stay.

    Returns:
        The score matrix.

    Raises:
        InputError: There are no shards; `save` cannot be written, or is there and the shards do not agree with it.
        FileFormatError: Shards are missing, damaged, given twice, or of different runs; the message names each.

    Example:
        >>> import tempfile, torch, warnings; warnings.simplefilter("ignore")
        >>> from fmiqa import FeatureExtractor, score_matrix
        >>> from fmiqa.datasets import Sample
        >>> images = torch.randint(0, 256, (3, 3, 96, 96), dtype=torch.uint8)
        >>> data = [Sample(images[0], images[i], float(i), f"reference{i}", f"test{i}") for i in (1, 2)]
        >>> network, save = FeatureExtractor("alexnet", weights=None), f"{tempfile.mkdtemp()}/scores.safetensors"
        >>> for i in (2, 1):
        ...     part = score_matrix(network, data, maps=["conv1:0"], shard=(i, 2), save=save)
        >>> merge_shards(save)
        ScoreMatrix(2 images of 2 references x 1 maps, alexnet on list)
    """
    check_output(save)
    if isinstance(shards, str | bytes | os.PathLike):
        raise InputError(f"shards is a list of files, got {shards!r}; write [{shards!r}]")
    files = find_shards(save) if shards is None else [Path(file) for file in shards]
    before = ScoreMatrix.load(save) if os.path.isfile(save) and not is_special(save) else None
    if before is None and not files:
        raise InputError(
            f"there are no shards of {os.fspath(save)}, files such as {shard_file(save, 1, 3)}; compute them by "
            "score_matrix(..., shard=(1, 3)) or fmiqa matrix --shard 1/3"
        )
    merged = _merged(files) if before is None else _confirmed(before, save, files)
    if before is None:
        merged.save(save)
    if remove:
        for file in files:
            file.unlink()
    return merged


def _merged(files: Sequence[Path]) -> ScoreMatrix:
    shards, problems = _load(files)
    problems += _conflicts(shards, files)
    if problems:
        raise FileFormatError(_listed("the shards cannot be merged, and nothing was written:", problems))
    ordered = sorted(shards.values(), key=lambda shard: shard.number)
    rows = sorted(row for shard in ordered for row in shard.part.rows)
    if rows != list(range(ordered[0].run["images"])):
        raise FileFormatError(
            f"the shards {', '.join(map(str, files))} hold some images twice or not at all, because different versions "
            "of fmiqa dealt them; delete the shards and compute them again with one version"
        )
    return in_order(shard.part for shard in ordered)


def _confirmed(whole: ScoreMatrix, save: str | os.PathLike[str], files: Sequence[Path]) -> ScoreMatrix:
    """A score matrix that was merged before, if these shards, maybe not all, agree with it."""
    shards, problems = _load(files)
    problems += [f"{file} does not agree with it" for file, shard in shards.items() if not _holds(whole, shard)]
    if problems:
        advice = "delete it to merge the shards again, delete shards of other runs, or give another name"
        raise InputError(_listed(f"{os.fspath(save)} exists already; {advice}:", problems))
    return whole


def _holds(whole: ScoreMatrix, shard: ScoreShard) -> bool:
    """Whether a score matrix has the rows of a shard."""
    rows, scores = shard.part.rows, shard.part.scores
    if len(whole) != shard.run["images"] or (whole.maps, whole.options) != (scores.maps, scores.options):
        return False
    own = whole.rows(rows)
    return (
        fingerprint(own.tensors()) == fingerprint(scores.tensors())
        and (own.groups, own.names) == (scores.groups, scores.names)
        and own.distortions in (None, scores.distortions)
    )


def _load(files: Sequence[Path]) -> tuple[dict[Path, ScoreShard], list[str]]:
    """The shards that can be read, and what is wrong with the others."""
    shards, problems = {}, []
    for file, times in Counter(files).items():
        if times > 1:
            problems.append(f"{file} is given {times} times; give it once")
        try:
            shards[file] = ScoreShard.load(file)
        except FileFormatError as error:
            problems.append(f"{error}; compute that shard again, or leave the file out")
    return shards, problems


def _conflicts(shards: Mapping[Path, ScoreShard], files: Sequence[Path]) -> list[str]:
    """Shards of another run or number than most, several for one number, and numbers that no file is of."""
    if not shards:
        return []
    identities = {file: json.dumps([shard.count, shard.run]) for file, shard in shards.items()}
    usual = Counter(identities.values()).most_common(1)[0][0]
    first = next(file for file, identity in identities.items() if identity == usual)
    count = shards[first].count
    holders: dict[int, Path] = {}
    problems = []
    for file, shard in shards.items():
        if identities[file] != usual:
            differing = "; ".join(_differences(shard, shards[first]))
            problems.append(
                f"{file} is of another run than {first} (here and there {differing}); compute it again with the "
                "same options, or leave it out"
            )
        elif shard.number in holders:
            other = holders[shard.number]
            problems.append(f"{file} and {other} are both shard {shard.number} of {count}; give one of them")
        else:
            holders[shard.number] = file
    unusable = " ".join(file.name for file in files if file not in holders.values())  # named already
    for number in range(1, count + 1):
        if number not in holders and not re.search(rf"\.shard-{number}-of-{count}(?!\d)", unusable):
            problems.append(
                f"shard {number} of {count} is missing; compute it with shard=({number}, {count}) or "
                f"--shard {number}/{count}"
            )
    return problems


def _differences(shard: ScoreShard, other: ScoreShard) -> list[str]:
    """What two shards say differently of their runs."""
    ours, theirs = ({"number of shards": s.count, **s.run} for s in (shard, other))
    return [
        f"{key}: {ours.get(key)!r}, {theirs.get(key)!r}" for key in ours | theirs if ours.get(key) != theirs.get(key)
    ]


def _listed(summary: str, problems: Iterable[str]) -> str:
    return "\n".join([summary, *(f"  - {problem}" for problem in problems)])


def _checksum(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    described = json.dumps([content, fingerprint(tensors)])
    return hashlib.sha256(described.encode()).hexdigest()
