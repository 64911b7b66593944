"""Score a data set in shards by a SLURM array job, submitted with submitit, and merge them.

    pip install 'fmiqa[submitit]'
    python examples/submitit_array.py --cluster local --shards 3 --out demo.safetensors
    python examples/submitit_array.py --partition gpu --gpus 1 --shards 100 --csv study.csv --weights alexnet.pth \
        --out /shared/study.safetensors

The folder of --out has to be on a file system that all nodes share. A shard that is preempted or runs out of time is
queued again and goes on from its finished parts. If this script itself ends, or a node fails, start it again: finished
shards are not computed again.
"""

import argparse
from pathlib import Path

import submitit
import torch

import fmiqa


class ScoreShard(submitit.helpers.Checkpointable):
    """The job of an array task; submitit calls it again with the same arguments after a preemption or a timeout."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    def __call__(self, number: int) -> int:
        """Score shard `number`; gives how many images it has."""
        args = self.args
        torch.set_num_threads(args.threads)  # as on every other node, for the same bits as one run
        data = fmiqa.datasets.CSVDataset(args.csv) if args.csv else fmiqa.datasets.Demo()
        extractor = fmiqa.FeatureExtractor("alexnet", weights=args.weights)
        scores = fmiqa.score_matrix(
            extractor,
            data,
            device="cuda" if args.gpus else "cpu",
            shard=(number, args.shards),
            save=args.out,
            progress=True,
        )
        return len(scores)


def main() -> None:
    """Submit the array, wait for its tasks, and merge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="score matrix to write (.safetensors)")
    parser.add_argument("--csv", type=Path, help="a table: reference, distorted, score (default: the demo)")
    parser.add_argument("--weights", help="AlexNet's weights: DEFAULT or a file (default: random ones)")
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="CPU cores of a task")
    parser.add_argument("--gpus", type=int, default=0, choices=(0, 1), help="GPUs of a task")
    parser.add_argument("--minutes", type=int, default=60, help="time limit of a task; it is queued again after it")
    parser.add_argument("--cluster", default="slurm", choices=("slurm", "local"))
    parser.add_argument("--partition", help="SLURM partition")
    args = parser.parse_args()
    args.out = args.out.absolute()
    args.csv = args.csv and args.csv.absolute()

    executor = submitit.AutoExecutor(args.out.with_name("logs"), cluster=args.cluster, slurm_max_num_timeout=100)
    executor.update_parameters(
        name="fmiqa", timeout_min=args.minutes, cpus_per_task=args.threads, gpus_per_node=args.gpus
    )
    if args.partition:
        executor.update_parameters(slurm_partition=args.partition)
    jobs = executor.map_array(ScoreShard(args), range(1, args.shards + 1))
    images = [job.result() for job in jobs]
    print(f"shards of {images} images merged:", fmiqa.merge_shards(args.out))


if __name__ == "__main__":
    main()
