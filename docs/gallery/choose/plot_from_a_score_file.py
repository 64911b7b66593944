"""
Select from a file of 10,000 scored pairs
=========================================

You need not have the images. Whatever gives each pair of images some numbers, whether
feature maps scored on a cluster or a few hundred other metrics, can be searched: a
matrix of pairs x scores, the subjective scores, and which reference each pair belongs
to.
"""

# sphinx_gallery_thumbnail_number = 2

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import fmiqa

# %%
# The file
# --------
#
# These scores are *synthetic*: 10,000 pairs of 250 references at 300 maps. Each map
# sees a hidden quality, most of them hardly at all; it also sees the content of the
# reference, and noise. Arrays of yours become tensors by ``torch.from_numpy``.

generator = torch.Generator().manual_seed(0)
pairs, maps, references = 10_000, 300, 250
quality = torch.rand(pairs, generator=generator)
content = torch.randn(references, maps, generator=generator)
content = content.repeat_interleave(pairs // references, 0)
sees = torch.rand(maps, generator=generator) ** 6
noise = torch.randn(pairs, maps, generator=generator)
opinion = 1 + 8 * quality**1.5 + 0.5 * torch.randn(pairs, generator=generator)
scores = fmiqa.ScoreMatrix(
    values=0.3 * sees * quality[:, None] + 0.03 * content + 0.06 * noise,
    maps=fmiqa.MapIndex.of_layers({"map": maps}),  # map:0 to map:299
    targets=opinion.double(),
    groups=[f"reference {i * references // pairs}" for i in range(pairs)],
    names=[f"pair {i}" for i in range(pairs)],
)
folder = Path(tempfile.mkdtemp())
scores.save(folder / "scores.safetensors")
print(f"{(folder / 'scores.safetensors').stat().st_size / 1e6:.0f} MB")

# %%
# Maps with weights
# -----------------
#
# ``weighted_select`` chooses maps and non-negative weights at once, which is quick on
# many images. A fifth of the references are put aside to judge it.

scores = fmiqa.ScoreMatrix.load(folder / "scores.safetensors")
split = fmiqa.grouped_folds(scores.groups, folds=5, seed=0)[0]
weighted = fmiqa.weighted_select(scores.rows(split.train))
others = scores.rows(split.held_out)
combined = weighted.combine(others)
print(len(weighted), "maps")
print(f"PLCC {weighted.value:.3f} in sample")
print(f"PLCC {fmiqa.plcc(combined, others.targets):.3f} held out")
print(f"PLCC {fmiqa.plcc(others.pool(), others.targets):.3f} held out, all maps")

fmiqa.visualize.plot_weights(weighted, top=30)
plt.show()

# %%
# The 2,000 pairs that were put aside:

figure, ax = plt.subplots(layout="constrained")
drawn = ax.hexbin(combined, others.targets, gridsize=40, cmap="cividis", mincnt=1)
line = combined.sort().values
fit = weighted.fit.predict(line)
ax.plot(line, fit, "C1", linewidth=3, label="logistic, fitted to the 8,000 others")
ax.set_xlabel("combined score of the selected maps")
ax.set_ylabel("subjective score (synthetic)")
ax.legend(loc="upper left")
figure.colorbar(drawn, label="pairs")
plt.show()

# %%
# More scores than memory holds
# -----------------------------
#
# A *store* is a folder of which only what is needed is read. By the plain correlation
# (``fit=None``) one pass over it suffices for a whole forward selection, and for its
# validation; 1,000,000 pairs at 4,224 maps, 17 GB, take minutes.

store = scores.to_store(folder / "scores")
selection = fmiqa.forward_select(store, fit=None, max_maps=12)
print(selection)
print(fmiqa.cross_validate(store, fit=None, max_maps=12))

# %%
# By a fitted correlation, the default, a search of a store of more than 20,000 pairs
# ranks all maps on a sample of the pairs and fits the best of them again on all pairs.
# The values that it reports are those on all pairs. :doc:`/guide/large` has times and
# memory, and how to write a store piece by piece.
#
# **In short:** ``ScoreMatrix(values, maps, targets, groups, names)`` is all that
# searches and validations need.
