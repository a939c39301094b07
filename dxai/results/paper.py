"""The numbers that the paper prints, shown beside measured ones and never mixed with them."""

from __future__ import annotations

TABLE1 = {
    "peppers": {
        "dxai": 0.542, "lrp": 0.971, "ig": 0.881, "gradient_shap": 0.87,
        "internal_influence": 0.865, "guided_gradcam": 1.0, "gradcam": 0.966, "random": 0.914,
    },
    "afhq": {
        "dxai": 0.754, "lrp": 0.999, "ig": 0.908, "gradient_shap": 0.907,
        "internal_influence": 0.995, "guided_gradcam": 1.0, "gradcam": 1.0, "random": 0.993,
    },
    "celeba": {
        "dxai": 0.651, "lrp": 0.999, "ig": 0.946, "gradient_shap": 0.947,
        "internal_influence": 0.996, "guided_gradcam": 1.0, "gradcam": 0.999, "random": 0.891,
    },
    "brats": {
        "dxai": 0.649, "lrp": 0.997, "ig": 0.934, "gradient_shap": 0.935,
        "internal_influence": 0.928, "guided_gradcam": 0.999, "gradcam": 0.996, "random": 0.891,
    },
    "dota": {
        "dxai": 0.608, "lrp": 0.963, "ig": 0.828, "gradient_shap": 0.831,
        "internal_influence": 0.844, "guided_gradcam": 0.981, "gradcam": 0.901, "random": 0.881,
    },
}  # fmt: skip
"""Table 1: dataset to method to AUC; the classifier seems to be the discriminator (C = D)."""

TABLE2 = {
    "brats": {
        "dxai": 0.125, "lrp": 0.156, "ig": 0.171, "gradient_shap": 0.172,
        "internal_influence": 0.177, "guided_gradcam": 0.179, "gradcam": 0.192, "random": 0.195,
    },
}  # fmt: skip
"""Table 2: dataset to method to area while up to 20% of the pixels are deleted."""

TABLE3 = {
    "brats": {"resnet18": {"resnet18": 0.49, "simple": 0.787},
              "simple": {"resnet18": 0.629, "simple": 0.562}},
    "dota": {"resnet18": {"resnet18": 0.793, "simple": 0.903},
             "simple": {"resnet18": 0.914, "simple": 0.729}},
    "afhq": {"resnet18": {"resnet18": 0.61, "simple": 0.871},
             "simple": {"resnet18": 0.917, "simple": 0.546}},
    "celeba": {"resnet18": {"resnet18": 0.606, "simple": 0.807},
               "simple": {"resnet18": 0.809, "simple": 0.591}},
}  # fmt: skip
"""Table 3: dataset to the classifier trained for, to the classifier that scores, to AUC."""

TABLE4_STEPS = (1, 10_000, 100_000, 300_000)
TABLE4 = {
    "celeba": (0.33, 0.094, 0.032, 0.027),
    "afhq": (0.332, 0.101, 0.082, 0.066),
    "peppers": (0.312, 0.099, 0.035, 0.052),
}
"""Table 4: dataset to the standard deviation over seeds after `TABLE4_STEPS`."""

TABLE4_NORMALISED = {
    "celeba": {"dxai": 0.024, "gradcam": 0.098, "internal_influence": 0.072},
    "afhq": {"dxai": 0.05, "gradcam": 0.126, "internal_influence": 0.062},
    "peppers": {"dxai": 0.041, "gradcam": 0.223, "internal_influence": 0.21},
}
"""Table 4: dataset to method to the same relative to each image's range."""

TABLE6 = {
    "afhq": {"resnet18": 0.975, "simple": 0.906, "discriminator": 0.994},
    "celeba": {"resnet18": 0.978, "simple": 0.96, "discriminator": 0.988},
    "dota": {"resnet18": 0.863, "simple": 0.749, "discriminator": 0.858},
    "brats": {"resnet18": 0.912, "simple": 0.877, "discriminator": 0.982},
    "peppers": {"resnet18": 1.0, "simple": 0.944, "discriminator": 1.0},
    "tomatoes": {"resnet18": 1.0, "simple": 0.985, "discriminator": 1.0},
    "apples": {"resnet18": 0.983, "simple": 0.909, "discriminator": 1.0},
}
"""Table 6: dataset to classifier to test accuracy."""
