"""Score a data set in shards as tasks of a Ray cluster, and merge them.

    pip install 'fmiqa[ray]'
    python examples/ray_shards.py --shards 3 --out demo.safetensors
    python examples/ray_shards.py --address auto --gpus 1 --shards 100 --csv study.csv --weights alexnet.pth \
        --out /shared/study.safetensors

The folder of --out has to be on a file system that all nodes share. A task whose worker or node dies is started again
and goes on from its finished parts. If this script itself ends, start it again: finished shards are not computed again.
Tasks are used and not Ray Data, whose blocks would cut batches in other places than one run does.
"""

import argparse
from pathlib import Path

import ray
import torch

import fmiqa


@ray.remote(max_retries=100)
def score_shard(number: int, args: argparse.Namespace) -> int:
    """Score shard `number`; gives how many images it has."""
    torch.set_num_threads(args.threads)  # as on every other node, for the same bits as one run
    data = fmiqa.datasets.CSVDataset(args.csv) if args.csv else fmiqa.datasets.Demo()
    extractor = fmiqa.FeatureExtractor("alexnet", weights=args.weights)
    scores = fmiqa.score_matrix(
        extractor, data, device="cuda" if args.gpus else "cpu", shard=(number, args.shards), save=args.out
    )
    return len(scores)


def main() -> None:
    """Start the tasks, wait for them, and merge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="score matrix to write (.safetensors)")
    parser.add_argument("--csv", type=Path, help="a table: reference, distorted, score (default: the demo)")
    parser.add_argument("--weights", help="AlexNet's weights: DEFAULT or a file (default: random ones)")
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="CPU cores of a task")
    parser.add_argument("--gpus", type=int, default=0, choices=(0, 1), help="GPUs of a task")
    parser.add_argument("--address", help="of a running cluster, such as auto (default: one on this machine)")
    args = parser.parse_args()
    args.out = args.out.absolute()
    args.csv = args.csv and args.csv.absolute()

    ray.init(args.address)
    task = score_shard.options(num_cpus=args.threads, num_gpus=args.gpus)
    images = ray.get([task.remote(number, args) for number in range(1, args.shards + 1)])
    print(f"shards of {images} images merged:", fmiqa.merge_shards(args.out))


if __name__ == "__main__":
    main()
