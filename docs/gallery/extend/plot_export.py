"""
Take a metric elsewhere
=======================

Three files, for three places: fmiqa's own, which loads wherever fmiqa is installed; a
program of ``torch.export``, for PyTorch without fmiqa; and ONNX, for a runtime without
PyTorch. All give the same numbers.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import onnxruntime
import torch

import fmiqa

# %%
# A metric and some images
# ------------------------
#
# Two maps of AlexNet with random weights are enough to show it; a ready-made metric,
# ``fmiqa.load_metric()``, exports the same way and takes longer. The 36 images are
# those of the embedded data set.

data = fmiqa.datasets.Demo(references=2, size=128, levels=3)
iqm = fmiqa.SelectedFeatureIQM(data.extractor(), ["conv1:44", "conv1:10"])
test = torch.stack([sample.distorted for sample in data]) / 255
reference = torch.stack([sample.reference for sample in data]) / 255
with torch.inference_mode():
    quality = iqm(test, reference)
folder = Path(tempfile.mkdtemp())
found = {}

# %%
# fmiqa's own file
# ----------------
#
# Weights, maps and options. It is the file to keep: it loads in every later version.

iqm.save(folder / "metric.safetensors")
loaded = fmiqa.SelectedFeatureIQM.load(folder / "metric.safetensors")
with torch.inference_mode():
    found["fmiqa"] = loaded(test, reference)

# %%
# torch.export
# ------------
#
# The program is recorded with images of one size, a few of which the file keeps as
# samples; ``dynamic_shapes`` leaves their number open. It needs PyTorch and nothing
# else.

number = torch.export.Dim("images")
shapes = {"test": {0: number}, "reference": {0: number}}
two = (test[:2].clone(), reference[:2].clone())
program = torch.export.export(iqm, two, dynamic_shapes=shapes)
torch.export.save(program, folder / "metric.pt2")

loaded = torch.export.load(folder / "metric.pt2").module()
with torch.inference_mode():
    found["torch.export"] = loaded(test, reference)

# %%
# ONNX
# ----
#
# ``pip install 'fmiqa[onnx]'`` brings what it needs. The model takes images of any
# number and size; its metadata say which metric it is.

fmiqa.export_onnx(iqm, folder / "metric.onnx")
session = onnxruntime.InferenceSession(folder / "metric.onnx")
images = {"test": test.numpy(), "reference": reference.numpy()}
found["ONNX"] = torch.from_numpy(session.run(["quality"], images)[0])

# %%
# The same numbers?
# -----------------
#
# Differences are those of rounding in 32-bit floating point, whose numbers just below 1
# are 6e-8 apart.

for name, values in found.items():
    print(f"{name:13} differs by at most {(values - quality).abs().max():.1g}")
for path in sorted(folder.iterdir()):
    print(f"{path.name:20} {path.stat().st_size / 1e3:6.0f} kB")

plt.style.use("tableau-colorblind10")
figure, (above, below) = plt.subplots(
    2, sharex=True, height_ratios=[2, 1], figsize=(6.4, 5), layout="constrained"
)
for (name, values), marker in zip(found.items(), "osx", strict=False):
    above.plot(quality, values, marker, fillstyle="none", label=name)
    below.plot(quality, values - quality, marker, fillstyle="none")
above.set_ylabel("quality by the file")
above.legend()
below.set_ylabel("difference")
below.set_ylim(-2e-7, 2e-7)
below.set_xlabel("quality by the metric in memory")
plt.show()

# %%
# **In short:** keep ``metric.safetensors``; make the other two from it for where
# they are needed, and compare a few numbers as above.
