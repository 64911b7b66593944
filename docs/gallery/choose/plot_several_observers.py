"""
Do people look at the same maps?
================================

A mean opinion hides who had it. With the ratings of single observers,
:func:`fmiqa.observer_study` selects maps for each of them and asks whether they predict
this person better than another's maps do.
"""

import matplotlib.pyplot as plt
import torch

import fmiqa

# %%
# Six simulated observers
# -----------------------
#
# Nobody rated these pictures. Three observers are made to look at two maps of AlexNet's
# first layer, three at two maps of its second, and each adds noise of its own to each
# rating. So there is a difference to find. To let the page build quickly, only the 256
# maps of these two layers are candidates.

options = {"references": 8, "size": 64, "levels": 3, "noise": 0}
first = fmiqa.datasets.Demo(planted=["conv1:10", "conv1:44"], **options)
second = fmiqa.datasets.Demo(planted=["conv2:7", "conv2:142"], **options)
noise = 0.7 * torch.randn(len(first), 6, generator=torch.Generator().manual_seed(0))
opinions = [first.targets] * 3 + [second.targets] * 3
ratings = torch.stack(opinions, 1) + noise  # (images, observers)

extractor = first.extractor()
candidates = [m for m in extractor.maps if m.layer in ("conv1", "conv2")]
scores = fmiqa.score_matrix(extractor, first, maps=candidates)

# %%
# In a table of your own, give each observer a column, and let the data set read them:
# ``data = fmiqa.datasets.CSVDataset("study.csv", ratings="observer_")``, then
# ``data.ratings``. Empty cells are NaN, for missing ratings.
#
# The study
# ---------
#
# All figures but those in the column "in sample" are held out: the maps of a fold are
# judged on the ratings of references that the fold has not seen.

names = ["first A", "first B", "first C", "second A", "second B", "second C"]
study = fmiqa.observer_study(scores, ratings, names=names, max_maps=2, folds=3)
print(study)

# %%
# Who predicts whom?
# ------------------
#
# A row is an observer whose maps predict, a column an observer who is predicted. The
# two blocks are the two groups: maps selected for one of a group do as well for the
# others of it, and worse for the other group.

study.plot()
plt.show()

# %%
# By how much do an observer's own maps predict better than another's? One number for
# each fold:

print([f"{gain:+.3f} PLCC" for gain in study.own_advantage()])

# %%
# **In short:** blocks in this picture mean groups of people who look at different
# things. On the one real experiment that we could ask, ten people who judged JPEG
# images, there were none (:doc:`/guide/observers`): there, columns differ, because some
# people are easier to predict, and rows hardly do.
