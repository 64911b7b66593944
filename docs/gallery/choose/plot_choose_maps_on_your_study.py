"""
Choose feature maps on your own study
=====================================

You have pictures, damaged copies of them, and a table of what people thought. From
these, fmiqa selects the few feature maps of a network whose combined score agrees best
with the people, and makes a metric of them: a file that scores other images anywhere.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import fmiqa

# %%
# The table
# ---------
#
# It has a row for each test image: the file of its reference, its own file, and its
# score. The embedded data set writes such a table here, with pictures beside it. Its
# observer is *simulated*: it looks at four feature maps of AlexNet with random weights,
# so that we know which maps matter.

folder = Path(tempfile.mkdtemp())
table = fmiqa.datasets.Demo(references=10, size=96, levels=3).write(folder)
print(*table.read_text().splitlines()[:4], "...", sep="\n")

# %%
# Columns may have any names. For scores that rise with damage, such as DMOS, add
# ``higher_is_better=False``.

data = fmiqa.datasets.CSVDataset(
    table,
    reference="reference",
    distorted="distorted",
    score="score",
    distortion="distortion",
    name="my study",
)
print(len(data), "images of", len(set(data.reference_ids)), "references")

# %%
# The score matrix
# ----------------
#
# Each image is compared with its reference in each of AlexNet's 1152 feature maps, by
# SSIM. With ``save=``, a run that was stopped goes on where it was. On a study of your
# own, the network is ``fmiqa.FeatureExtractor("alexnet", weights="DEFAULT")``, which
# fetches torchvision's ImageNet weights.

extractor = fmiqa.datasets.Demo.extractor()
scores = fmiqa.score_matrix(extractor, data, save=folder / "scores.safetensors")
print(scores)

# %%
# The selection
# -------------
#
# Two of the ten references are put aside first, with all their images: they judge the
# result. On the other eight, maps join one by one as long as the agreement rises by
# more than .001. The observer's maps are conv1:44, conv2:142, conv3:52 and conv3:338.

aside = ("references/scene09", "references/scene10")
kept_aside = torch.tensor([reference in aside for reference in scores.groups])
selection = fmiqa.forward_select(scores.rows(~kept_aside), tol=0.001)
print(selection)
selection.plot()
plt.show()

# %%
# Held out
# --------
#
# The figures above are in sample: the maps were selected and judged on the same images.
# These are of the 36 images that the selection has not seen, and beside them those of
# the mean of all maps, which selects nothing. PLCC is computed after a logistic fit.

others = scores.rows(kept_aside)
qualities = {"selected maps": selection.combine(others), "all maps": others.pool()}
for name, quality in qualities.items():
    plcc = fmiqa.plcc(quality, others.targets)
    srocc = fmiqa.srocc(quality, others.targets)
    print(f"{name:13}  PLCC {plcc:.3f}  SROCC {srocc:.3f}  (held out)")
fmiqa.visualize.plot_agreement(others, selection)
plt.show()

# %%
# The metric
# ----------
#
# A metric holds the network up to its deepest map. The file has all that is needed to
# score images elsewhere.

iqm = fmiqa.SelectedFeatureIQM.from_selection(extractor, selection)
iqm.save(folder / "metric.safetensors")

iqm = fmiqa.SelectedFeatureIQM.load(folder / "metric.safetensors")
sample = data[0]
quality = iqm(sample.distorted[None], sample.reference[None])
print(f"{sample.name}: {quality.item():.3f}, at most 1")

# %%
# **In short:** four calls lead from a table to a metric: ``CSVDataset``,
# ``score_matrix``, ``forward_select``, ``SelectedFeatureIQM.from_selection``. Report
# the held-out figures.
