"""
Score
=====

Hello `fmiqa.load_metric`.
"""

import matplotlib.pyplot as plt
import torch

import fmiqa

iqm = fmiqa.load_metric()
reference = torch.rand(1, 3, 96, 96)
print(iqm.rate(reference * 0.8, reference))
plt.plot([1, 2])
