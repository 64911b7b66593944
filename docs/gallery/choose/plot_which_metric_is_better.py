"""
Which metric is better, and is the difference real?
===================================================

One metric has a higher correlation than another on your images. Would it have one on
other images, too? Images of one reference share its content, so the references are what
must be resampled: :func:`fmiqa.evaluate` draws references with replacement, a few
hundred times, computes all metrics on each draw, and says which differences outlast it.
"""

import matplotlib.pyplot as plt
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
# ...). All are compared with the mean of all maps, the ``baseline``; without one, all
# pairs are compared.

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
# What is real?
# -------------
#
# Intervals of single metrics may overlap although a difference is real: metrics find
# the same references easy or hard. What counts is the difference on the same draws,
# below. It counts as real where its p-value, corrected for the number of comparisons,
# is below .05.

comparison.plot()
plt.show()

# %%
# **In short:** compare metrics on images that neither was selected on, resample
# references, and report the interval of the difference. A verdict of "no difference
# shown" is not a proof that there is none.
