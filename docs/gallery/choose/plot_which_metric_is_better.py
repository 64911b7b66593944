"""
Which metric is better, and is the difference real?
===================================================

One metric has a higher correlation than another on your images. Would it have one on
other images, too? Images of one reference share its content, so the references are what
must be resampled: :func:`fmiqa.evaluate` draws references with replacement, a few
hundred times, computes all metrics on each draw, and says which differences outlast it.
"""

# sphinx_gallery_thumbnail_number = 2

import matplotlib.pyplot as plt
import torch
from torch.utils.data import Subset

import fmiqa

# %%
# Select on some references, judge on others
# ------------------------------------------
#
# The observer of the demo is *simulated*; it looks at feature maps, so metrics of
# feature maps have an advantage here that they need not have with people. The first 8
# references are for the selection, and 16 others judge.

data = fmiqa.datasets.Demo(references=24, size=64, levels=2, noise=1.0)
references = sorted(set(data.reference_ids))
first = [i for i, group in enumerate(data.reference_ids) if group in references[:8]]
others = [i for i, group in enumerate(data.reference_ids) if group in references[8:]]
train, held_out = Subset(data, first), Subset(data, others)

extractor = data.extractor()
selection = fmiqa.forward_select(fmiqa.score_matrix(extractor, train), max_maps=4)
print(selection)

# %%
# Evaluate
# --------
#
# Metrics are given by name. ``peers`` adds others: these two classical ones need no
# further package, and with ``piq`` installed there are many more (SSIM, FSIM, GMSD,
# ...). All are compared with the mean of all maps, the ``baseline``; without one, every
# two are compared.

metrics = {
    "selection": fmiqa.SelectedFeatureIQM.from_selection(extractor, selection),
    "mean of all maps": fmiqa.AllFeatureIQM(extractor),
}
comparison = fmiqa.evaluate(
    metrics,
    held_out,
    peers=["VSNR", "dE_ab"],
    baseline="mean of all maps",
    resamples=200,
)
print(comparison)

# %%
# With scores that you have already, in plain tensors, :func:`fmiqa.compare` does the
# same: ``fmiqa.compare({"mine": x, "theirs": y}, targets, groups)``.
#
# How well does each metric agree?
# --------------------------------

plt.style.use("tableau-colorblind10")
names = [a.name for a in comparison.agreements]
value, low, high = torch.tensor([a.plcc for a in comparison.agreements]).T
figure, ax = plt.subplots(figsize=(6.4, 3), layout="constrained")
ax.hlines(names, low, high, linewidth=3, alpha=0.5)
ax.plot(value, names, "o")
ax.invert_yaxis()
ax.set_xlabel("PLCC after a logistic fit, held out, with 95 % interval")
plt.show()

# %%
# Which differences are real?
# ---------------------------
#
# The intervals above may overlap although a difference is real: metrics find the same
# references easy or hard. What counts is the difference on the same draws. It counts as
# real where its p-value, corrected for the number of comparisons, is below .05.

names = [f"{d.first} -\n{d.second}" for d in comparison.differences]
value, low, high = torch.tensor([d.plcc for d in comparison.differences]).T
colours = ["C1" if d.real else "C2" for d in comparison.differences]
figure, ax = plt.subplots(figsize=(6.4, 3), layout="constrained")
ax.hlines(names, low, high, colors=colours, linewidth=3)
ax.scatter(value, names, color=colours)
for row, difference in enumerate(comparison.differences):
    ax.text(value[row], row - 0.15, difference.verdict, ha="center", va="bottom")
ax.axvline(0, color="C3", linestyle=":")
ax.set_ylim(2.5, -0.7)
ax.set_xlim(-0.2, 0.1)
ax.set_xlabel("difference of PLCC, held out, with 95 % interval (each by itself)")
plt.show()

# %%
# **To take away:** compare metrics on images that neither was selected on, resample
# references, and report the interval of the difference. A verdict of "no difference
# shown" is not a proof that there is none.
