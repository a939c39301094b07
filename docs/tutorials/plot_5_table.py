"""
A table of the paper
====================

Table 1 of the paper asks of each method: if what it marks is removed step by step, how much of the
network's accuracy is left? ``dxai evaluate`` makes this table for any explainer; here for that of
``dxai demo``, on patches of photographs that were not used to train it.
"""

from __future__ import annotations

from dxai import evaluate
from dxai.library import demo
from dxai.library.demo import make

# %%
# The images
# ----------
test = make.images_of(make.listing(make.recipe()), "test")
images = [(test.pixels[i], int(test.labels[i])) for i in test.spread(2)]

# %%
# The table
# ---------
# On the command line this is ``dxai evaluate explainer/ photos/ --methods ig gradcam``. All
# methods remove the same share of what they mark at a time; the lower the AUC, the sooner the
# network loses what it went by. The rows below ours are guards.

tables = evaluate(demo.FOLDER, images, methods=["ig", "gradcam"], count=6)
table = tables["table1"].set_index(["method", "sign"])
table[["auc", "auc_low", "auc_high", "auc_blur", "auc_smooth"]]

# %%
# What it says
# ------------
# First the guard: grain without meaning (Random) must leave the network its accuracy, or the table
# measures how it breaks. Then ours against the best row of the others.

aucs = table["auc"]
random = aucs["random"].min()
others = min(aucs["ig"].min(), aucs["gradcam"].min())
ours = aucs["dxai"].min()
print(f"Random {random:.2f}; best other {others:.2f}; ours {ours:.2f}")
assert random >= 0.85
assert ours < others
