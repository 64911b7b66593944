"""
Score a test image against its reference
========================================

How good is a picture after it was compressed, blurred or sent through noise? A
full-reference metric compares it with the picture that it was made from. The metric
used here ships with fmiqa, weights included, so nothing is downloaded.
"""

import matplotlib.cbook
import matplotlib.pyplot as plt
import torch

import fmiqa
from fmiqa.datasets import distort

# %%
# The pictures
# ------------
#
# The reference is a photograph that comes with matplotlib, and the test images are made
# from it. For your own files, write ``fmiqa.read_image("test.png")``: images
# are tensors ``(3, H, W)`` of 8-bit RGB.

reference = fmiqa.read_image(
    matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
)
blurred = distort(reference, "Gaussian blur", level=4)
tests = {
    "JPEG, light": distort(reference, "JPEG", level=1),
    "JPEG, heavy": distort(reference, "JPEG", level=4),
    "white noise": distort(reference, "white noise", level=4),
    "blur, right half": torch.cat([reference[:, :, :256], blurred[:, :, 256:]], 2),
}

# %%
# The quality
# -----------
#
# A metric takes test images ``(N, 3, H, W)``, and their references or one reference for
# all. Higher is better, and an image without any difference has quality 1.

iqm = fmiqa.load_metric()
batch = torch.stack(list(tests.values()))
with torch.inference_mode():
    quality = iqm(batch, reference[None])
for name, value in zip(tests, quality.tolist(), strict=True):
    print(f"{name:16} {value:.3f}")

# %%
# The rating
# ----------
#
# A quality of 0.9 says little by itself. The rating takes it to a scale from 0 to 100
# and into words. The interval held nine of ten mean opinions of people on photographs
# that the metric's maps were not selected on (held-out references of TID2013-R). On
# other kinds of damage it can be too narrow.

rating = iqm.rating(quality)  # or iqm.rate(batch, reference[None])
print(rating)

# %%
# Where is the damage?
# --------------------
#
# The error map says where the metric's feature maps see a difference: 0 is none, and a
# complete loss of structure is 1. ``overlay_error`` lays it over the greyed picture. A
# position of a feature map sees a large part of the image, so the map tells the region
# that is damaged and not the pixel.

with torch.inference_mode():
    error = iqm.error_map(batch, reference[None])  # (N, 1, H, W)

figure, axes = plt.subplots(2, 4, figsize=(10, 6.2), layout="constrained")
for column, (name, image) in enumerate(tests.items()):
    over = fmiqa.visualize.overlay_error(image, error[column, 0])
    axes[0, column].imshow(image.permute(1, 2, 0).numpy())
    score, low, high = rating.score[column], rating.low[column], rating.high[column]
    title = f"{name}\nrated {score:.0f} ({low:.0f} to {high:.0f})"
    axes[0, column].set_title(title, fontsize=9)
    axes[1, column].imshow(over.permute(1, 2, 0).numpy())
    axes[1, column].set_title(f"mean error {error[column].mean():.2f}", fontsize=9)
for ax in axes.flat:
    ax.set_axis_off()
figure.suptitle("test images, and where they are judged worse (dark red: most)")
plt.show()

# %%
# To say which metric gave a figure, print its signature beside it. On the command line,
# the same figures come from ``fmiqa score --reference reference.png test1.png
# test2.png``.

print(iqm.signature)
