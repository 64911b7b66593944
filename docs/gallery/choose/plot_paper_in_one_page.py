"""
The paper on one page
=====================

Nguyen and Amirshahi, *What Are We Looking At?*, in four steps: compare a test image
with its reference in every feature map of a network, correlate each map's scores with
the observers', let the best map be joined by the one that helps it most, and stop where
none helps. Here on the embedded data set, whose observer is *simulated*.
"""

# sphinx_gallery_thumbnail_number = 3

import matplotlib.pyplot as plt
import torch

import fmiqa

# %%
# Steps 1 to 3: score every map
# -----------------------------
#
# ``q[i, m]`` is the SSIM of map ``m`` of test image ``i`` with map ``m`` of its
# reference. The network is AlexNet, with random weights here; the paper's has
# ImageNet's, ``fmiqa.FeatureExtractor("alexnet", weights="DEFAULT")``.

data = fmiqa.datasets.Demo(references=8, size=96, levels=4)
scores = fmiqa.score_matrix(data.extractor(), data)
print(scores)

# %%
# Step 4: single maps
# -------------------
#
# The non-linear PLCC of each map with the subjective scores, and that of the mean of
# all maps, the paper's baseline.

plcc = fmiqa.plcc(scores.values.T.double(), scores.targets)
all_maps = float(fmiqa.plcc(scores.pool(), scores.targets))

plt.style.use("tableau-colorblind10")
figure, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
for layer in data.extractor().layers:
    columns = [i for i, m in enumerate(scores.maps) if m.layer == layer]
    ax.plot(columns, plcc[columns], ".", markersize=4)
    ax.text(columns[len(columns) // 2], 0, layer, ha="center")
ax.axhline(all_maps, color="C3", linestyle="--", label=f"mean of all: {all_maps:.3f}")
ax.set_xlabel("feature map")
ax.set_ylabel("PLCC after a logistic fit, in sample")
ax.set_ylim(-0.05, 1)
ax.legend(loc="lower right", bbox_to_anchor=(1, 0.1))
plt.show()

# %%
# Steps 5 to 8: forward selection
# -------------------------------
#
# All remaining maps are tried beside the set at once. The search stops by itself where
# no map raises the correlation: that is the peak of the curve.

selection = fmiqa.forward_select(scores)
print(selection)
ax = selection.plot()
ax.axhline(all_maps, color="C3", linestyle="--", label="mean of all maps")
ax.legend(loc="lower right")
plt.show()

# %%
# Beyond the peak, every map that joins lowers the correlation. To see how far it falls,
# the remaining maps join here in the order of their own correlation, up to all 1152.

by_plcc = [scores.maps[i] for i in plcc.argsort(descending=True)]
order = [*selection.maps, *(m for m in by_plcc if m not in selection.maps)]
sizes = [*range(1, 20), *range(20, 100, 10), *range(100, 1100, 100), len(order)]
pooled = torch.stack([scores.pool(order[:size]) for size in sizes])
curve = fmiqa.plcc(pooled, scores.targets)

figure, ax = plt.subplots(layout="constrained")
ax.plot(sizes, curve, ".-", label="in sample")
ax.axhline(all_maps, color="C3", linestyle="--", label="all maps")
peak = f"peak: {len(selection)} maps, {selection.value:.3f}"
ax.plot(len(selection), selection.value, "o", color="C1", label=peak)
ax.set_xscale("log")
ax.set_xlabel("number of feature maps (logarithmic)")
ax.set_ylabel("PLCC after a logistic fit")
ax.legend()
plt.show()

# %%
# The fit
# -------
#
# Objective against subjective scores, with the five-parameter logistic between them,
# and the residuals beneath.

fmiqa.visualize.plot_agreement(scores, selection)
plt.show()

# %%
# The simulated observer looks at four maps, and the search has found them:

print("planted:", *data.planted)
print("found:  ", *(m for m in selection.maps if m in data.planted))

# %%
# **In short:** like the paper's own, these figures are in sample: they say how far
# a selection can go on these images. :doc:`plot_in_sample` shows what to report beside
# them, and :doc:`/guide/from-the-paper` names the call of each step, table and figure.
