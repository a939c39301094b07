"""
Tumours against masks
=====================

A network tells slices of a brain with a tumour from those without. It has never seen where the
tumour is. The images are drawn, in the format of BraTS, so that the tumour's mask is known, and the
class-distinct part can be compared with it.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import torch
from torch import Tensor, nn

import dxai
from dxai.datasets.samples import brats
from dxai.explain.registry import build_explainer
from dxai.metrics.localisation import energy_inside, pointing
from dxai.metrics.removal import distinct_from_heatmap

SIDE = 24

# %%
# The images
# ----------
# 80 drawn patients. Two thirds are for training, all slices of a patient on the same side.

brats.render_sample(Path("brats"))


def slices(case: Path) -> tuple[Tensor, Tensor]:
    """Read a patient's slices (B, 1, S, S), in [0, 1], and the share of tumour of each pixel."""
    found = []
    for kind in ("flair", "seg"):
        (file,) = case.glob(f"*_{kind}.nii.gz")
        volume = nib.as_closest_canonical(nib.load(file)).get_fdata()
        found.append(torch.tensor(volume, dtype=torch.float32).permute(2, 0, 1)[:, None])
    scans, masks = found[0] / 800, (found[1] > 0).float()
    scans, masks = (nn.functional.interpolate(v, SIDE, mode="area") for v in (scans, masks))
    full = (scans > 0.05).float().mean((1, 2, 3)) > 0.3  # most of a cross-section
    return scans[full].clamp(0, 1), masks[full]


read = [slices(case) for case in sorted(Path("brats").iterdir())]
scans, masks = (torch.cat(kind) for kind in zip(*read[:54], strict=True))
test_scans, test_masks = (torch.cat(kind) for kind in zip(*read[54:], strict=True))
labels, test_labels = ((m.sum((1, 2, 3)) > 0).long() for m in (masks, test_masks))
print(f"{len(scans)} slices for training, {len(test_scans)} for test")

# %%
# The network
# -----------
torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(1, 16, 3, 1, 1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(16, 16, 3, 1, 1),
    nn.ReLU(),
    nn.AdaptiveMaxPool2d(1),
    nn.Flatten(),
    nn.Linear(16, 2),
)
optimiser = torch.optim.Adam(network.parameters(), 3e-3)
for _ in range(400):
    rows = torch.randint(len(scans), (32,))
    batch = scans[rows] + 0.02 * torch.randn(32, 1, SIDE, SIDE)
    loss = nn.functional.cross_entropy(network(batch), labels[rows])
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
network.eval()
with torch.no_grad():
    right = network(test_scans).argmax(1) == test_labels
print(f"accuracy on other patients: {right.float().mean():.2f}")
assert right.float().mean() > 0.9

# %%
# The explainer
# -------------
explainer = dxai.fit(
    network,
    list(zip(scans, labels.tolist(), strict=True)),
    classes=("healthy", "tumour"),
    value_range=(0, 1),
    channels=1,
    minutes=1,
    out="tumours",
)

# %%
# The class-distinct part is bright where the tumour is: the network goes by brightness.

area = test_masks.mean((1, 2, 3))
shown = (right & (area > 0.02)).nonzero()[:24, 0]
x, inside = test_scans[shown] * 2 - 1, test_masks[shown]
parts = explainer.explain(test_scans[shown[0]], target="tumour", value_range=(0, 1))
parts.plot()

# %%
# Against the masks
# -----------------
# For slices with a clear tumour that the network recognises: the share of each map's energy that is
# in the tumour, beside the tumour's share of the area, which is what a map that knows nothing has.

keys = torch.arange(len(x))
found = explainer.explain(x, test_labels[shown], keys).distinct
ig = build_explainer("ig", explainer.classifier)
heat = ig.attribute(x, test_labels[shown], keys)
shares = {}
for name, of_name in (("class-distinct", found), ("Integrated Gradients", heat)):
    shares[name] = float(energy_inside(of_name, inside).mean())
    hits = float(pointing(of_name, inside >= 0.5).mean())
    print(f"{name}: {shares[name]:.2f} of the energy in tumours, largest value in {hits:.0%}")
chance = float(area[shown].mean())
print(f"share of the area: {chance:.2f}")
assert shares["class-distinct"] > 3 * chance
assert float((found * inside).sum()) > 0  # brighter, not darker

# %%
# A small bright object is where a heatmap is at its best: *where* is the whole answer, and it is
# found in a fraction of the time.

assert shares["Integrated Gradients"] > shares["class-distinct"]

# %%
# But marking is not removing. What the heatmap marks, taken out of the images, leaves the network
# as sure of a tumour as before; without the class-distinct part it is undecided.

without = {
    "the image": x,
    "without the heat": x - distinct_from_heatmap(heat, x, "relu"),
    "without the class-distinct part": x - found,
}
sure = {}
for name, left in without.items():
    sure[name] = float(explainer.logits(left).softmax(1)[:, 1].mean())
    print(f"{name}: P(tumour) {sure[name]:.2f}")
assert sure["without the heat"] > 0.8
assert abs(sure["without the class-distinct part"] - 0.5) < 0.15
