"""Weights of a classifier that is taken over, and of its twin: what becomes of them."""

from __future__ import annotations

import torch
from torch import nn

from dxai.config.schema import FROM_FILE, JOINT, ClassifierSpec


def twin_of(spec: ClassifierSpec) -> ClassifierSpec | None:
    """Return the twin's specification: with its own weights, or untrained; None if it has none.

    A program from a file cannot be trained from new weights. The twin of `joint` is a discriminator
    trained as a classifier, with the same options.
    """
    if isinstance(spec.twin, str):
        return spec.replace(weights=spec.twin, train=None)
    if not spec.twin or spec.arch in FROM_FILE:
        return None
    arch = "discriminator" if spec.arch == JOINT else spec.arch
    return spec.replace(arch=arch, weights=None, train=True)


def describe_weights(network: nn.Module, spec: ClassifierSpec, brings: bool) -> str:
    """Say what becomes of a network's weights; raise ValueError if that cannot be.

    `network` is as made from `spec`, `brings` whether it has weights that were not drawn at random.
    """
    if not (spec.trained_here or spec.weights or brings):
        raise ValueError(
            "train is false, but the network draws new weights whenever it is made; set `weights`"
        )
    if spec.trained_here and not any(p.requires_grad for p in network.parameters()):
        raise ValueError(
            "all its weights are frozen: set `train: false` to take it as it is, or `train: true` "
            "to train it here"
        )
    if spec.trained_here and any(p.dtype == torch.float16 for p in network.parameters()):
        raise ValueError(
            "float16 is too coarse to train weights in: set `weights`, or `twin: false` for the "
            "twin, or return a float32 network"
        )
    if spec.weights is not None:
        return f"taken as it is, with {spec.weights}"
    if not spec.trained_here:
        return "taken as it is, with the weights that it brings"
    if brings:
        return "trained here from the weights that it brings; `train: false` takes it as it is"
    return "trained here from new weights"


def require_other_weights(twin: nn.Module, own: nn.Module, file: str) -> None:
    """Raise ValueError if a twin's weights, from a file, are those of the classifier itself."""
    ours, theirs = own.state_dict(), twin.state_dict()
    same = ours.keys() == theirs.keys() and all(map(torch.equal, ours.values(), theirs.values()))
    if same:
        raise ValueError(
            f"twin: {file} holds the weights of the classifier itself; name others, or "
            "set `twin: true` or `twin: false`"
        )
