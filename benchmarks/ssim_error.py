"""How far a score matrix lies from float64: the largest error of any map's SSIM, under this processor's instructions.

    python benchmarks/ssim_error.py --tid2013r TID2013-R/ --weights alexnet_features.pth [--references 4]
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/ssim_error.py ...

All images of some references. What they are held against shares no code with the library: torchvision's own AlexNet in
float64, the outputs of its ReLUs compared by pytorch-msssim in float64, a map at a time. Prints the largest and the
mean error of a single map, and the largest of the mean over all maps, and writes results/ssim_error-<capability>.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torchvision
from common import store
from pytorch_msssim import ssim
from torch import Tensor, nn
from torch.utils.data import Subset

import fmiqa


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tid2013r", type=Path, required=True, help="folder in TID2013's layout")
    parser.add_argument("--weights", type=Path, required=True, help="AlexNet's")
    parser.add_argument("--references", type=int, default=4)
    args = parser.parse_args()

    data = fmiqa.datasets.TID2013(args.tid2013r, partial=True, name="TID2013-R")
    kept = sorted(set(data.reference_ids))[: args.references]
    rows = [i for i, reference in enumerate(data.reference_ids) if reference in kept]
    extractor = fmiqa.FeatureExtractor("alexnet", weights=args.weights)
    ours = fmiqa.score_matrix(extractor, Subset(data, rows), progress=True).values.double()

    features = torchvision.models.alexnet().features.double().eval()
    state = torch.load(args.weights, weights_only=True)
    features.load_state_dict({name.removeprefix("features."): value for name, value in state.items()})
    exact = torch.stack([scores(features, data[i].distorted, data[i].reference) for i in rows])

    error = (ours - exact).abs()
    capability = torch.backends.cpu.get_cpu_capability()
    content = {
        "capability": capability, "threads": torch.get_num_threads(), "images": len(rows), "maps": error.shape[1],
        "largest": float(error.max()), "mean": float(error.mean()),
        "largest_of_all_maps": float((ours.mean(1) - exact.mean(1)).abs().max()),
    }  # fmt: skip
    print(
        f"{capability}, {content['threads']} threads, {len(rows)} images x {error.shape[1]} maps: "
        f"largest error {content['largest']:.2e}, mean {content['mean']:.1e}, "
        f"of the mean over all maps {content['largest_of_all_maps']:.1e}"
    )
    print(f"written to {store(f'ssim_error-{capability.lower()}', content, torch.device('cpu'))}")


@torch.no_grad()
def scores(features: nn.Sequential, test: Tensor, reference: Tensor) -> Tensor:
    """(M,) SSIM of each map after its ReLU, all in float64."""
    mean, std = (
        torch.tensor(v, dtype=torch.float64)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    x = (torch.stack([test, reference]).double() / 255 - mean) / std
    found = []
    for layer in features:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            a, b = x[0][:, None], x[1][:, None]  # each map an image of one channel
            found.append(ssim(a, b, data_range=1.0, size_average=False))
    return torch.cat(found)


if __name__ == "__main__":
    main()
