"""
What does a feature map look at?
================================

A metric of feature maps can be asked what its maps respond to. Three answers: the
picture that excites a map most, the patches of real pictures that excite it most, and
the pixels of one picture that raise or lower it.
"""

import matplotlib.cbook
import matplotlib.pyplot as plt

import fmiqa
from fmiqa import visualize

# %%
# The maps
# --------
#
# These are four of the maps that the ready-made metric looks at, in the second layer of
# AlexNet with ImageNet's weights. Two things are particular to a ready-made metric: it
# has several networks, which ``extractors`` names, and they see pictures at a size of
# their own, which ``native`` turns off.

iqm = fmiqa.load_metric()
extractor = visualize.native(iqm.extractors["alexnet"])
maps = ["conv2:74", "conv2:165", "conv2:71", "conv2:33"]

# %%
# The picture that excites a map
# ------------------------------
#
# Activation maximisation starts from noise and climbs the gradient of a map's mean in
# the pixels. 64 steps show what the default of 512 draws more clearly.

maximal = visualize.maximize_activation(extractor, maps, size=(96, 96), steps=64)

figure, axes = plt.subplots(2, 2, figsize=(5.6, 6), layout="constrained")
for ax, name in zip(axes.flat, maps, strict=True):
    ax.imshow(maximal.of(name).permute(1, 2, 0).numpy())
    ax.set_title(name)
    ax.set_axis_off()
plt.show()

# %%
# Patches of pictures
# -------------------
#
# ``exemplars`` looks through pictures and crops the patches that excite a map most, one
# a picture, to what a position of the map sees. The pictures are 16 tiles of a
# photograph that comes with matplotlib, and the 12 procedural pictures of the embedded
# data set. Give it many photographs of your own: it can only find what is there.

photo = fmiqa.read_image(
    matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
)
tiles = [row for column in photo.split(150, 1) for row in column.split(128, 2)]
demo = fmiqa.datasets.Demo(references=12, size=128, levels=1)
pictures = [*tiles, *visualize.ReferenceImages(demo)]
found = visualize.exemplars(extractor, pictures, maps, count=4)

figure, axes = plt.subplots(4, 4, figsize=(8, 7.6), layout="constrained")
for column, (feature_map, patches) in zip(axes.T, found.items(), strict=True):
    for ax, exemplar in zip(column, patches, strict=True):
        ax.imshow(exemplar.patch.permute(1, 2, 0).numpy())
        ax.set_title(f"{exemplar.value:.1f}", fontsize=8)
        ax.set_axis_off()
    column[0].set_title(f"{feature_map}\n{patches[0].value:.1f}", fontsize=9)
plt.show()

# %%
# Pixels that raise or lower a map
# --------------------------------
#
# Prediction difference analysis replaces each window of pixels by samples of what else
# it might have been, given its surroundings, and records how much the map's mean falls.
# Red pixels raise the map, blue ones lower it. A stride of 8 pixels and 4 samples are
# for a quick look; ``**visualize.PAPER`` has the paper's settings.

crop = photo[:, 20:212, 150:342]
sampler = visualize.ConditionalSampler([photo], window=10, padding=2, patches=3000)
relevance = visualize.prediction_difference(
    extractor, crop, maps, sampler=sampler, stride=8, samples=4
)

figure, axes = plt.subplots(1, 5, figsize=(10, 2.4), layout="constrained")
axes[0].imshow(crop.permute(1, 2, 0).numpy())
axes[0].set_title("picture")
for ax, name in zip(axes[1:], maps, strict=True):
    over = visualize.overlay_relevance(crop, relevance.of(name))
    ax.imshow(over.permute(1, 2, 0).numpy())
    ax.set_title(name)
for ax in axes:
    ax.set_axis_off()
plt.show()

# %%
# **In short:** a single answer can mislead, so ask all three. conv2:165, for one,
# climbs to fine ripples on a pink ground, is excited most by plain pink and skin, and
# lights up on the forehead: it looks at a colour. How this is done for all maps of a
# selection, and on one HTML page, is in :doc:`/guide/visualize`.
