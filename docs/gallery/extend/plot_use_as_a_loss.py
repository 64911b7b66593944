"""
A metric as a loss
==================

A metric is differentiable in both images, so ``1 - quality`` can be a loss. Here
gradient descent on the pixels of a damaged picture shows what the loss wants, and what
it does not care about.
"""

import matplotlib.cbook
import matplotlib.pyplot as plt
import torch

import fmiqa
from fmiqa.datasets import distort

# %%
# Two damaged pictures
# --------------------
#
# A piece of a photograph that comes with matplotlib, with noise and after JPEG. A loss
# takes pixels as floats in [0, 1].

photo = fmiqa.read_image(
    matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
)
reference = photo[:, 60:252, 160:352]
damaged = torch.stack(
    [distort(reference, kind, level=4) for kind in ("white noise", "JPEG")]
)
damaged, reference = damaged / 255, reference[None] / 255

# %%
# Gradient descent
# ----------------
#
# ``Viewing(factor=1)`` lets the networks see the piece as it is; by default it would be
# enlarged to a shorter side of 384 pixels. ``prepare`` computes the reference's side
# once. The loss is the metric alone, ``iqm.as_loss()``, or the metric and a mean
# absolute difference of pixels.

iqm = fmiqa.load_metric(viewing=fmiqa.Viewing(factor=1))
prepared = iqm.prepare(reference)
quality_loss = iqm.as_loss(reduction="sum")
restored = {"damaged": damaged}
for name, pixels in (("1 - quality", 0.0), ("1 - quality + L1", 1.0)):
    picture = damaged.clone().requires_grad_()
    optimizer = torch.optim.Adam([picture], lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        loss = quality_loss(picture.clamp(0, 1), prepared)
        loss = loss + pixels * (picture - reference).abs().mean((1, 2, 3)).sum()
        loss.backward()
        optimizer.step()
    restored[name] = picture.detach().clamp(0, 1)

# %%
# PSNR, which neither loss contains, tells whether the pixels come back, too.

figure, axes = plt.subplots(2, 4, figsize=(10, 5.8), layout="constrained")
for column, (name, pictures) in zip(axes.T, restored.items(), strict=False):
    with torch.inference_mode():
        quality = iqm(pictures, prepared)
    psnr = -10 * (pictures - reference).square().mean((1, 2, 3)).log10()
    for ax, picture, q, decibels in zip(column, pictures, quality, psnr, strict=True):
        ax.imshow(picture.permute(1, 2, 0).numpy())
        ax.set_title(f"{name}\nquality {q:.2f}, PSNR {decibels:.1f} dB", fontsize=9)
        print(f"{name:17} quality {q:.3f}, PSNR {decibels:.1f} dB")
for ax in axes[:, 3]:
    ax.imshow(reference[0].permute(1, 2, 0).numpy())
    ax.set_title("reference\nquality 1", fontsize=9)
for ax in axes.flat:
    ax.set_axis_off()
plt.show()

# %%
# By itself, ``1 - quality`` raises the quality and brings back edges and texture, but
# not the pixels: PSNR does not rise, and a fine pattern appears that the metric's few
# feature maps do not see. With a little of a pixel loss beside it, both rise, and the
# pattern is gone.
#
# What this is not: the descent knows the reference, so it restores nothing that you do
# not have already. In training, the picture is what a network makes of its input, and
# the reference is the picture that it should have made:
#
# .. code-block:: python
#
#     output = network(batch.damaged)
#     loss = (1 - iqm(output.clamp(0, 1), batch.original)).mean()
#     loss = loss + (output - batch.original).abs().mean()
#     loss.backward()
#
# **In short:** use a metric of few maps beside a pixel loss, not in its place, and
# judge the result by a metric that was not the loss.
