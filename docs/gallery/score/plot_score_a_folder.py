"""
Score two folders of images into a table
========================================

Reference images are in one folder, test images in another. They are paired by the names
of their files: ``lake_jpeg_3.png`` and ``lake-2.png`` both belong to ``lake.png``. One
command scores all of them:

.. code-block:: sh

    fmiqa score references/ distorted/ --csv scores.csv --maps maps/

Here the same command is called from Python, so that this page can show its output.
"""

import csv
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import fmiqa
from fmiqa.cli import main

# %%
# Two folders
# -----------
#
# The embedded data set writes its pictures as files: two procedural pictures, each with
# six kinds of distortion at two levels. Use your own folders instead.

folder = Path(tempfile.mkdtemp())
fmiqa.datasets.Demo(references=2, levels=2, size=192).write(folder)
print(*sorted(path.name for path in (folder / "references").iterdir()))
print(*sorted(path.name for path in (folder / "distorted").iterdir())[:4], "...")

# %%
# From Python, :func:`fmiqa.datasets.pair_folders` gives the pairs of files.

pairs = fmiqa.datasets.pair_folders(folder / "references", folder / "distorted")
print(len(pairs), "pairs, the first:", *(path.name for path in pairs[0]))

# %%
# The command
# -----------
#
# It prints a line for each test image: file, quality, rating from 0 to 100, the
# interval that holds nine of ten mean opinions on the photographs that the metric was
# validated on, and words. ``--quiet`` leaves out the progress bar. An image without a
# partner stops the command before anything is computed, and the message names it.

os.chdir(folder)
command = "score references distorted --csv scores.csv --maps maps --quiet"
main(command.split())

# %%
# The table
# ---------
#
# ``scores.csv`` has a row for each test image. The worst come first here.

with open(folder / "scores.csv", newline="") as file:
    rows = sorted(csv.DictReader(file), key=lambda row: float(row["quality"]))
print(*rows[0], sep=",")
for row in rows[:3]:
    print(*row.values(), sep=",")

# %%
# A dot for each image, with its interval. The ready-made metric rates the pictures; the
# demo's simulated observer plays no part here. These pictures were made by code, so do
# not read more into the numbers than how the table is used.

names = [Path(row["test"]).stem for row in rows]
ratings, low, high = (
    [float(row[column]) for row in rows] for column in ("rating", "low", "high")
)
plt.style.use("tableau-colorblind10")
figure, ax = plt.subplots(figsize=(8, 5.6), layout="constrained")
ax.hlines(names, low, high, "C2", linewidth=3, label="nine of ten mean opinions")
ax.plot(ratings, names, "o", label="rating")
ax.tick_params("y", labelsize=8)
ax.invert_yaxis()
ax.set_xlim(-2, 102)
ax.set_xlabel("rating (from 0: very annoying, to 100: imperceptible)")
ax.legend(loc="lower left")
plt.show()

# %%
# The pictures
# ------------
#
# ``maps/`` has a picture for each test image of where it is judged worse: from yellow,
# a small loss, to dark red. These are the worst image, two from the middle of the
# table, and the best one.

shown = [rows[0], rows[len(rows) // 3], rows[len(rows) // 2], rows[-1]]
figure, axes = plt.subplots(2, 4, figsize=(9, 5), layout="constrained")
for (above, below), row in zip(axes.T, shown, strict=True):
    above.imshow(plt.imread(folder / row["test"]))
    above.set_title(f"{Path(row['test']).stem}\nrating {row['rating']}", fontsize=9)
    below.imshow(plt.imread(folder / row["map"]))
for ax in axes.flat:
    ax.set_axis_off()
plt.show()
