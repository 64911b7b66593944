"""
Feature maps of your own network
================================

Any PyTorch module with convolutions that ``torch.fx`` can trace will do: a torchvision
model, a network that you have trained, or, as here, a small one whose filters are made
by hand.
"""

import math
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn

import fmiqa

# %%
# A network
# ---------
#
# It has 24 Gabor filters: six directions, two wavelengths, in grey and in blue against
# yellow. They look at the picture, and at the picture at half its size.


class Gabors(nn.Module):
    """Gabor filters at two scales."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 24, 11, stride=2, padding=5, bias=False)
        self.coarse = nn.Conv2d(3, 24, 11, stride=2, padding=5, bias=False)
        y, x = torch.meshgrid(*2 * [torch.arange(-5.0, 6)], indexing="ij")
        envelope = torch.exp(-(x**2 + y**2) / 12)
        filters = []
        for colour in ([1.0, 1.0, 1.0], [1.0, 1.0, -2.0]):
            for wavelength in (4, 8):
                for angle in (turn * math.pi / 6 for turn in range(6)):
                    along = x * math.cos(angle) + y * math.sin(angle)
                    wave = envelope * torch.cos(2 * math.pi * along / wavelength)
                    wave = (wave - wave.mean()) / 10
                    filters.append(torch.tensor(colour)[:, None, None] * wave)
        self.fine.weight = nn.Parameter(torch.stack(filters))
        self.coarse.weight = nn.Parameter(torch.stack(filters))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images with ImageNet's mean and deviation removed."""
        half = nn.functional.avg_pool2d(x, 2)
        return self.fine(x).relu(), self.coarse(half).relu()


network = Gabors()

# %%
# Its feature maps
# ----------------
#
# The extractor finds the convolutions, names them as the module does, and takes the
# maps after their ReLU. Images are normalised with ImageNet's mean and deviation first.
# ``fmiqa.FeatureExtractor(torchvision.models.resnet18(...))`` works the same way, with
# 4800 maps.

extractor = fmiqa.FeatureExtractor(network)
print(extractor.layers, len(extractor.maps), "maps")

# %%
# Select
# ------
#
# The demo's *simulated* observer looks at maps of another network, AlexNet, so no map
# here is right by construction. Three of twelve references are held out.

data = fmiqa.datasets.Demo(references=12, size=96, levels=3)
scores = fmiqa.score_matrix(extractor, data)
aside = ("scene10", "scene11", "scene12")
held_out = torch.tensor([reference in aside for reference in scores.groups])
selection = fmiqa.forward_select(scores.rows(~held_out), tol=0.001)
print(selection)

others = scores.rows(held_out)
qualities = {"selected maps": selection.combine(others), "all maps": others.pool()}
for name, quality in qualities.items():
    print(f"{name:13}  PLCC {fmiqa.plcc(quality, others.targets):.3f} (held out)")

# %%
# Which filters?
# --------------
#
# The filters as pictures, with a frame around those whose maps were selected, and the
# layer.

selected = [(m.layer, m.channel) for m in selection.maps]
figure, axes = plt.subplots(4, 6, figsize=(8, 5.8), layout="constrained")
for channel, ax in enumerate(axes.flat):
    weight = network.fine.weight[channel].detach()
    ax.imshow((0.5 + weight / (2 * weight.abs().max())).permute(1, 2, 0).numpy())
    layers = [layer for layer, own in selected if own == channel]
    ax.set_title(f"{channel} {' and '.join(layers)}", fontsize=8)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set(color="#D55E00" if layers else "white", linewidth=4)
plt.show()

# %%
# Save and load
# -------------
#
# The file of a metric has the weights and not the code of a network, so loading asks
# for a network of the same form.

iqm = fmiqa.SelectedFeatureIQM.from_selection(extractor, selection)
path = Path(tempfile.mkdtemp()) / "gabors.safetensors"
iqm.save(path)
iqm = fmiqa.SelectedFeatureIQM.load(path, model=Gabors())
print(f"{iqm(data[2].distorted[None], data[2].reference[None]).item():.3f}")

# %%
# **In short:** ``FeatureExtractor(network)`` is the only line that changes. Whether
# a network suits the task is a question of held-out figures: here, a few filters do
# about as well as all 48, and no better.
