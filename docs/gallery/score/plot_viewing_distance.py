"""
What the viewing scale does to a score
======================================

A network's filters have fixed sizes in pixels. The same picture with twice as many
pixels is another one to them, while an observer who stands twice as far away sees no
difference. The scale at which the networks see a picture is therefore a part of the
metric: :class:`fmiqa.Viewing`.
"""

import matplotlib.cbook
import matplotlib.pyplot as plt
import torch

import fmiqa
from fmiqa.datasets import distort

photo = fmiqa.read_image(
    matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
)
reference = photo[:, :400, 56:456]
kinds = ["white noise", "Gaussian blur", "JPEG", "contrast loss"]
tests = torch.stack([distort(reference, kind, level=4) for kind in kinds])

# %%
# The same pictures in three sizes
# --------------------------------
#
# The maps of the ready-made metrics were selected on pictures whose shorter side has
# 384 pixels, so the metrics bring every picture to that size first. Large and small
# copies of a pair then get nearly the same score. With ``Viewing(factor=1)`` the
# networks see pictures as they are, and the score depends on the number of pixels: the
# larger the copy, the more each grain of noise and each step of a block fills the
# networks' filters.

as_ready = fmiqa.load_metric()
as_is = fmiqa.load_metric(viewing=fmiqa.Viewing(factor=1))
print(f"{'short side':25}", *(f"{kind:>13}" for kind in kinds))
for side in (192, 384, 576):
    copy = fmiqa.Viewing(short_side=side)  # it can also be called, to resize pictures
    for name, iqm in (("seen with 384 pixels", as_ready), ("seen as it is", as_is)):
        with torch.inference_mode():
            quality = iqm(copy(tests), copy(reference[None]))
        print(f"{side}, {name:20}", *(f"{value:13.3f}" for value in quality.tolist()))

# %%
# Another viewing distance
# ------------------------
#
# Where distance and screen are known, ``pixels_per_degree`` gives the angular
# resolution. Suppose the maps were selected for pictures seen from 50 cm on a screen of
# 38 pixels a centimetre, and people now judge pictures on the same screen from other
# distances. From 100 cm a picture has twice the pixels per degree, so the networks
# should see it at half the size.

at_home = fmiqa.pixels_per_degree(distance=50, pixels_per_unit=38)
distances = [50, 70, 100, 140, 200]
found = []
for distance in distances:
    there = fmiqa.pixels_per_degree(distance=distance, pixels_per_unit=38)
    seen = fmiqa.Viewing(pixels_per_degree=at_home, native_pixels_per_degree=there)
    iqm = fmiqa.load_metric(viewing=seen)
    with torch.inference_mode():
        found.append(iqm(tests, reference[None]))
    scale = at_home / there
    print(f"{distance:3} cm: {there:5.1f} pixels per degree, seen at {scale:.2f}")

plt.style.use("tableau-colorblind10")
figure, ax = plt.subplots(layout="constrained")
for kind, quality, marker in zip(kinds, torch.stack(found, 1), "osD^", strict=True):
    ax.plot(distances, quality.tolist(), marker=marker, label=kind)
ax.set_xscale("log")
ax.set_xticks(distances, distances)
ax.minorticks_off()
ax.set_xlabel("viewing distance in cm")
ax.set_ylabel("quality (1: no difference)")
ax.set_ylim(0, 1)
ax.legend()
plt.show()

# %%
# Noise, blur and JPEG blocks vanish with the distance, as they do to the eye. A loss of
# contrast does not, and stays where it is. The curves come from one photograph and were
# fitted to nobody's judgements; :doc:`/guide/viewing` has figures with people's scores.
#
# **In short:** leave the viewing of a ready-made metric alone unless you know the
# distance. Give your own metric the viewing of the study that its maps were selected
# on. Every saved result records it.
