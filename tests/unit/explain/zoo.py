"""Small classifiers as users write them: 3 channels, 32 px, 3 classes."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dxai.models.programs import Exported, Scripted

CHANNELS, SIZE, CLASSES = 3, 32, 3


def conv(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class Block(nn.Module):
    """One in-place ReLU used twice, `out += identity`, and a shortcut registered last."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(inputs, outputs, stride), conv(outputs, outputs)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = conv(inputs, outputs, stride, kernel=1) if stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


class Residual(nn.Module):
    """Residual network whose last registered convolution is a shortcut."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(CHANNELS, 6), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.layer1 = nn.Sequential(Block(6, 6), Block(6, 8, 2))
        self.layer2 = Block(8, 8, 2)
        self.fc = nn.Linear(8, classes, bias=False)

    def features(self, x: Tensor) -> Tensor:
        return self.layer2(self.layer1(self.stem(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


class LateShortcut(Block):
    """Block that executes its shortcut last, as torchvision does."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ShortcutLast(Residual):
    def __init__(self) -> None:
        super().__init__()
        self.layer2 = LateShortcut(8, 8, 2)


class Functional(nn.Module):
    """Activations and pooling as functions, one in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = conv(CHANNELS, 6), conv(6, 8), nn.Linear(8, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = torch.relu_(self.conv2(x))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class NoGradient(Residual):
    """A frozen feature extractor, which no gradient passes."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            if x.sum() > 1e9:  # torch.fx, which would ignore the `no_grad`, cannot follow this
                x = -x
            features = self.features(x)
        return self.fc(features)


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor | None = None


class WithFields(Residual):
    def forward(self, x: Tensor) -> Output:
        return Output(super().forward(x))


class InDictionary(Residual):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"features": self.features(x), "scores": super().forward(x)}


class AuxiliaryHead(Residual):
    """A head for training that registers, and even runs, a convolution that the logits ignore."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Sequential(conv(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.never = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layer2(self.layer1(self.stem(x)))
        self.auxiliary(maps)
        return self.fc(maps.mean((2, 3)))


class Dropped(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            *(conv(CHANNELS, 6), nn.ReLU(), nn.Dropout2d(0.5), conv(6, 8), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 3, bias=False)),
        )


class HalfInside(nn.Module):
    """float16 features between float32 images and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(CHANNELS, 6), nn.ReLU(), conv(6, 8), nn.ReLU()).half()
        self.fc = nn.Linear(8, 3, bias=False)
        self.inner = torch.float16

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x.to(self.inner)).float().mean((2, 3)))

    def float(self) -> HalfInside:
        self.inner = torch.float32
        return super().float()


class Autocast(Residual):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = self.features(x)
        return self.fc(features.float())


def parametrised(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Residual whose convolutions and linear layer are parametrised."""
    network = Residual()
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            wrap(module)
    return network


class InstanceNormed(nn.Module):
    """Every convolution is followed by an instance norm, which removes its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(CHANNELS, 6, 3), nn.InstanceNorm2d(6, affine=True)
        self.conv2, self.norm2 = nn.Conv2d(6, 8, 3), nn.InstanceNorm2d(8, affine=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        return self.fc(F.relu(self.norm2(self.conv2(x))).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, width = x.shape
        shape = (count, tokens, 3, self.heads, width // self.heads)
        q, k, v = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4)
        weights = self.dropout((q @ k.transpose(-2, -1)).softmax(-1))
        return self.proj((weights @ v).transpose(1, 2).reshape(count, tokens, width))


class Layer(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 24), nn.GELU(), nn.Linear(24, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Vision transformer that pools by a class token or by the mean of all tokens."""

    def __init__(self, class_token: bool = True, width: int = 12) -> None:
        super().__init__()
        self.patches = nn.Conv2d(CHANNELS, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width)) if class_token else None
        self.positions = nn.Parameter(torch.randn(1, 16 + class_token, width))
        self.blocks = nn.Sequential(Layer(width), Layer(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = self.norm(self.blocks(x + self.positions))
        return self.head(x[:, 0] if self.token is not None else x.mean(1))


class TorchTransformer(nn.Module):
    """`nn.TransformerEncoder`, with positions before images in its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(CHANNELS, 12, 8, 8)
        layer = nn.TransformerEncoderLayer(12, 2, 24)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.patches(x).flatten(2).permute(2, 0, 1)).mean(0))


class SharedBlock(nn.Module):
    """One block for tokens of both scales, the mean of the finer ones being the coarser ones."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.block = nn.Conv2d(CHANNELS, 12, 4, 4), Layer(12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.block(self.patches(x).flatten(2).transpose(1, 2))
        coarse = F.avg_pool2d(fine.transpose(1, 2).unflatten(2, (8, 8)), 8).flatten(2)
        coarse = torch.cat([coarse.transpose(1, 2), fine.mean(1, keepdim=True)], 1)
        return self.head(fine.mean(1) + self.block(coarse).mean(1))


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand, self.contract = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + self.contract(F.gelu(self.expand(y))).permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(CHANNELS, 8, 4, 4)
        self.stage1 = nn.Sequential(ConvNeXtBlock(8), ConvNeXtBlock(8))
        self.downsample = nn.Conv2d(8, 12, 2, 2)
        self.stage2 = nn.Sequential(ConvNeXtBlock(12), ConvNeXtBlock(12))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage2(self.downsample(self.stage1(self.stem(x))))
        return self.head(self.norm(x.mean((2, 3))))


class ChannelsLast(nn.Module):
    """Blocks whose maps are (B, h, w, K), as in Swin transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(CHANNELS, 12, 8, 8)
        block = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
        self.blocks, self.head = nn.Sequential(block, nn.LayerNorm(12)), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patches(x).permute(0, 2, 3, 1)).mean((1, 2)))


class AttentionPool(nn.Module):
    """Convolutions whose map a learned query pools."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(CHANNELS, 6), nn.ReLU(), conv(6, 8, 2), nn.ReLU())
        self.query = nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.features(x).flatten(2).transpose(1, 2)
        pooled, _ = self.attention(self.query.expand(len(x), -1, -1), tokens, tokens)
        return self.head(pooled[:, 0])


class Branching(nn.Module):
    """Control flow that torch.fx cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = conv(CHANNELS, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if x.mean() > 100:
            x = -x
        return self.fc(F.relu(x).mean((2, 3)))


def exported() -> nn.Module:
    batch = torch.export.Dim("batch", min=1, max=1024)
    image = torch.zeros(2, CHANNELS, SIZE, SIZE)
    program = torch.export.export(stirred(Residual()), (image,), dynamic_shapes=({0: batch},))
    content = io.BytesIO()
    torch.export.save(program, content)
    return Exported(torch.frombuffer(bytearray(content.getvalue()), dtype=torch.uint8))


def scripted() -> nn.Module:
    content = io.BytesIO()
    torch.jit.save(torch.jit.script(stirred(Functional())), content)
    return Scripted(torch.frombuffer(bytearray(content.getvalue()), dtype=torch.uint8))


def stirred(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch statistics values of their own, so that no layer is the identity; eval mode."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in network.named_buffers():
        with torch.no_grad():
            if name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape, generator=draw))
    return network.eval()


PIECEWISE_LINEAR: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "shortcut last": ShortcutLast,
    "functional": Functional,
    "auxiliary head": AuxiliaryHead,
    "dropout": Dropped,
    "frozen": lambda: Residual().requires_grad_(False),
    "weight norm": lambda: parametrised(torch.nn.utils.parametrizations.weight_norm),
    "spectral norm": lambda: parametrised(torch.nn.utils.parametrizations.spectral_norm),
    "weight norm by hooks": lambda: parametrised(torch.nn.utils.weight_norm),
    "spectral norm by hooks": lambda: parametrised(torch.nn.utils.spectral_norm),
    "float16 inside": HalfInside,
}
"""Networks without biases whose LRP is the gradient times the image."""

OTHERS: dict[str, Callable[[], nn.Module]] = {
    "autocast": Autocast,
    "no gradient": NoGradient,
    "instance norm": InstanceNormed,
    "ViT, class token": ViT,
    "ViT, mean": lambda: ViT(class_token=False),
    "torch transformer": TorchTransformer,
    "shared block": SharedBlock,
    "ConvNeXt": ConvNeXt,
    "channels last": ChannelsLast,
    "attention pool": AttentionPool,
    "branching": Branching,
    "export": exported,
    "TorchScript": scripted,
    "TorchScript inside": lambda: nn.Sequential(
        torch.jit.trace(stirred(Residual()), torch.zeros(2, CHANNELS, SIZE, SIZE))
    ),
}

ZOO = PIECEWISE_LINEAR | OTHERS
