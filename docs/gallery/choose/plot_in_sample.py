"""
In sample and held out: is the figure honest?
=============================================

A search among a thousand feature maps finds agreement even where there is none. A
figure is *in sample* where the maps were selected on the images that they are judged
on, and *held out* where they were selected on other pictures. This page shows the
difference on scores that mean something, and on the same scores dealt out at random.
"""

from dataclasses import replace

import matplotlib.pyplot as plt
import torch

import fmiqa

# %%
# Two studies
# -----------
#
# The first has a *simulated* observer with much noise. In the second, the scores of the
# first are shuffled, so that there is nothing to find.

data = fmiqa.datasets.Demo(references=8, size=64, levels=2, noise=1.5)
scores = fmiqa.score_matrix(data.extractor(), data)
order = torch.randperm(len(scores), generator=torch.Generator().manual_seed(1))
shuffled = replace(scores, targets=scores.targets[order])
studies = {"simulated observer": scores, "shuffled scores": shuffled}
print(scores)

# %%
# Cross-validation
# ----------------
#
# ``cross_validate`` repeats the whole search in each fold and judges it on the
# references that the fold has not seen. Images of one reference are nearly copies of
# each other and always stay together. The criterion is SROCC here: unlike a fitted
# PLCC, it has no curve that could adapt to the few images that are held out.

validations = {
    name: fmiqa.cross_validate(study, criterion="srocc", max_maps=9, folds=4)
    for name, study in studies.items()
}
print(validations["shuffled scores"])

# %%

plt.style.use("tableau-colorblind10")
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for ax, (name, validation) in zip(axes, validations.items(), strict=True):
    sizes = range(1, validation.srocc.shape[1] + 1)
    ax.plot(sizes, validation.in_sample.mean(0), "o--", label="selected, in sample")
    ax.plot(sizes, validation.srocc.mean(0), "s-", label="selected, held out")
    all_maps = validation.all_srocc.mean()
    ax.axhline(all_maps, color="C3", linestyle=":", label="all maps, held out")
    ax.set_title(name)
    ax.set_xlabel("number of feature maps")
axes[0].set_ylabel("SROCC, mean of 4 folds")
axes[0].set_ylim(-0.1, 1)
axes[0].legend(loc="lower right")
plt.show()

# %%
# In sample, the curves rise in both studies, because each step takes the best of a
# thousand candidates. Held out, the figure on shuffled scores is near 0, which is what
# these maps are worth; with 96 images, chance alone moves such a figure by about .1. On
# the observer's scores, the gap between the two curves is what the selection has gained
# by chance. The mean of all maps, which selects nothing, has no such gap, and is hard
# to beat for this noisy observer.
#
# Better than chance?
# -------------------
#
# ``permutation_null`` repeats the whole search on scores that are permuted among the
# images of each reference. The p-value is the share of searches that reach as much as
# the first one, which is counted among them: with 39 permutations it cannot be below
# 1/40. Take the default of 199, or more, for a study of your own.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for ax, (name, study) in zip(axes, studies.items(), strict=True):
    null = fmiqa.permutation_null(study, criterion="srocc", max_maps=2, permutations=39)
    print(f"{name}: {null}\n")
    null.plot(ax=ax)
    ax.set_title(f"{name} (p = {null.p_value:.2f})")
    ax.set_xlabel("SROCC of two selected maps, in sample")
    ax.set_xlim(0, 1)
axes[0].get_legend().remove()
plt.show()

# %%
# **In short:** call a figure in sample or held out wherever you write it.
# ``cross_validate`` says what a selection is worth on other pictures,
# ``permutation_null`` whether there is anything to select at all. More in
# :doc:`/guide/held-out`.
