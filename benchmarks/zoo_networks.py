"""Networks shaped as published ones are: those that onnx brings along, and small PyTorch ones of well-known families.

Weights are random, of a scale that keeps activations alive: what is asked is whether an architecture converts, not how
accurate it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"
CLASSES, SIZE, WORDS, LENGTH = 10, 32, 50, 12


def light(path: Path) -> onnx.ModelProto:
    """A network of onnx's backend tests, whose weights are ConstantOfShape nodes there, with random initializers.

    A Softmax at its end is left out: of random weights it would be 1 for one class, and hide what differs.
    """
    model = onnx.load(path)
    graph = model.graph
    if graph.node[-1].op_type == "Softmax":
        graph.output[0].name = graph.node.pop().input[0]
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "ConstantOfShape"}
    roles = {name: (node.op_type, index) for node in graph.node for index, name in enumerate(node.input)}
    for node in graph.node:
        if node.op_type == "Unsqueeze":  # of the factors and terms behind a BatchNormalization
            roles[node.input[0]] = roles[node.output[0]]
    generator = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(_weights(*roles[name], tuple(shapes[of].tolist()), generator), name)
        for name, of in made.items()
    ]
    gone = set(made.values())
    inputs = [info for info in graph.input if info.name not in gone]
    inputs += [onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in weights]
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    kept = [tensor for tensor in graph.initializer if tensor.name not in gone]
    for field, values in ((graph.input, inputs), (graph.node, nodes), (graph.initializer, [*kept, *weights])):
        del field[:]
        field.extend(values)
    onnx.checker.check_model(model)
    return model


def _weights(op_type: str, index: int, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """What an operator may have as its input of that index."""
    if len(shape) > 1:
        values = generator.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    elif op_type == "Mul" or (op_type == "BatchNormalization" and index in (1, 4)):
        values = generator.uniform(0.5, 1.5, shape)
    else:
        values = generator.normal(0, 0.1, shape)
    return values.astype(np.float32)


def normalised(inputs: int, outputs: int, size: int, act: Callable[[], nn.Module], *, stride=1, groups=1) -> nn.Module:
    """Convolution, batch normalisation, activation."""
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), act())


class SqueezeExcite(nn.Module):
    """Each channel times a number from 0 to 1 that is computed from the means of all."""

    def __init__(self, channels: int, gate: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)
        self.act, self.gate = nn.ReLU(), gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.act(self.reduce(F.adaptive_avg_pool2d(x, 1)))))


class Inverted(nn.Module):
    """A block of MobileNet or EfficientNet: wide, depthwise, narrow again, with a shortcut where sizes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, act, gate=None) -> None:
        super().__init__()
        wide, self.residual = 4 * inputs, inputs == outputs and stride == 1
        self.layers = nn.Sequential(
            normalised(inputs, wide, 1, act),
            normalised(wide, wide, 3, act, stride=stride, groups=wide),
            SqueezeExcite(wide, gate) if gate is not None else nn.Identity(),
            normalised(wide, outputs, 1, nn.Identity),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def inverted_residuals(act: Callable[[], nn.Module], gate: Callable[[], nn.Module] | None = None) -> nn.Module:
    blocks = [Inverted(*sizes, act, gate) for sizes in ((8, 8, 1), (8, 16, 2), (16, 16, 1))]
    tail = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, CLASSES))
    return nn.Sequential(normalised(3, 8, 3, act, stride=2), *blocks, normalised(16, 32, 1, act), *tail)


class Residual(nn.Module):
    """A basic block of ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.one = normalised(inputs, outputs, 3, nn.ReLU, stride=stride)
        self.two = normalised(outputs, outputs, 3, nn.Identity)
        self.short = normalised(inputs, outputs, 1, nn.Identity, stride=stride) if stride > 1 else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.two(self.one(x)) + self.short(x))


def resnet() -> nn.Module:
    blocks = [Residual(*sizes) for sizes in ((8, 8, 1), (8, 16, 2), (16, 32, 2))]
    stem = (normalised(3, 8, 7, nn.ReLU, stride=2), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES))


class ConvNext(nn.Module):
    """A block of ConvNeXt: depthwise 7×7, LayerNorm and linear layers with channels last, a learned scale."""

    def __init__(self, channels: int, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.layers = nn.Sequential(nn.Linear(channels, 4 * channels), act(), nn.Linear(4 * channels, channels))
        self.scale = nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.layers(y)).permute(0, 3, 1, 2)


def convnext(act: Callable[[], nn.Module]) -> nn.Module:
    layers = (nn.Conv2d(3, 16, 4, 4), ConvNext(16, act), nn.Conv2d(16, 32, 2, 2), ConvNext(32, act))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(32), nn.Linear(32, CLASSES))


class UNet(nn.Module):
    """Down and up again, with the way down concatenated; up by a transposed convolution, and by Resize."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(normalised(*sizes, 3, nn.ReLU) for sizes in ((3, 8), (8, 16)))
        self.bottom = normalised(16, 16, 3, nn.ReLU)
        self.transposed = nn.ConvTranspose2d(16, 16, 2, 2)
        self.up = nn.ModuleList(normalised(*sizes, 3, nn.ReLU) for sizes in ((32, 8), (16, 8)))
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down[0](x)
        second = self.down[1](F.max_pool2d(first, 2))
        x = self.transposed(self.bottom(F.max_pool2d(second, 2)))
        x = self.up[0](torch.cat([second, x], 1))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(self.up[1](torch.cat([first, x], 1)))


class Pyramid(nn.Module):
    """Several outputs: features of each size get those of the smaller one added, resized to theirs."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 8), (8, 16), (16, 32))
        self.down = nn.ModuleList(normalised(*size, 3, nn.ReLU, stride=2) for size in sizes)
        self.lateral = nn.ModuleList(nn.Conv2d(size[1], 8, 1) for size in sizes)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)) for _ in sizes
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = []
        for layer in self.down:
            x = layer(x)
            features.append(x)
        outputs, above = [], None
        for feature, lateral, head in reversed(list(zip(features, self.lateral, self.heads, strict=True))):
            own = lateral(feature)
            above = own if above is None else own + F.interpolate(above, size=own.shape[-2:], mode="nearest")
            outputs.append(head(above))
        return tuple(outputs)


class Detector(nn.Module):
    """A one-stage detector as YOLO has them: split and concatenated paths, pooled pyramids, boxes from a grid."""

    def __init__(self, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(normalised(3, 8, 3, act, stride=2), normalised(8, 16, 3, act, stride=2))
        self.path = nn.Sequential(normalised(8, 8, 3, act), normalised(8, 8, 3, act))
        self.join = normalised(24, 16, 1, act)
        self.pooled = normalised(64, 16, 1, act)
        self.head = nn.Conv2d(16, 3 * (5 + CLASSES), 1)
        y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
        self.register_buffer("grid", torch.stack([x, y], -1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        left, right = x.chunk(2, 1)
        x = self.join(torch.cat([left, right, right + self.path(right)], 1))
        pools = [x]
        for _ in range(3):
            pools.append(F.max_pool2d(pools[-1], 5, 1, 2))
        x = self.head(self.pooled(torch.cat(pools, 1)))
        x = x.reshape(x.shape[0], 3, 5 + CLASSES, 8, 8).permute(0, 1, 3, 4, 2).sigmoid()
        centres, sizes, rest = x.split([2, 2, 1 + CLASSES], -1)
        x = torch.cat([(centres * 2 - 0.5 + self.grid) * 4, (sizes * 2) ** 2, rest], -1)
        return x.reshape(x.shape[0], -1, 5 + CLASSES)


class SuperResolution(nn.Module):
    """Convolutions, then channels become pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 12, 3, padding=1), nn.PixelShuffle(2)),
            *(nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Attention(nn.Module):
    """Multi-head self-attention, spelled out or by torch's own function."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            scores = q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5
            x = (scores if mask is None else scores + mask).softmax(-1) @ v
        return self.out(x.transpose(1, 2).reshape(batch, length, width))


class Encoder(nn.Module):
    """A layer of a transformer's encoder, with LayerNorm before or after its two parts."""

    def __init__(self, width: int, act: Callable[[], nn.Module], *, first: bool, fused: bool) -> None:
        super().__init__()
        self.attention, self.first = Attention(width, 4, fused), first
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), act(), nn.Linear(2 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.first:
            x = x + self.attention(self.norms[0](x), mask)
            return x + self.mlp(self.norms[1](x))
        x = self.norms[0](x + self.attention(x, mask))
        return self.norms[1](x + self.mlp(x))


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, encoders."""

    def __init__(self, act: Callable[[], nn.Module], *, fused: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 32))
        self.places = nn.Parameter(torch.randn(1, 17, 32))
        self.layers = nn.ModuleList(Encoder(32, act, first=True, fused=fused) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])


class Bert(nn.Module):
    """Words and a mask of those that count; encoders, a pooler, classes."""

    def __init__(self, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, 32), nn.Embedding(LENGTH, 32)
        self.norm = nn.LayerNorm(32)
        self.layers = nn.ModuleList(Encoder(32, act, first=False, fused=False) for _ in range(2))
        self.pooler, self.head = nn.Linear(32, 32), nn.Linear(32, CLASSES)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(self.words(words) + self.places(torch.arange(LENGTH)))
        hidden = (1.0 - mask[:, None, None, :].to(x.dtype)) * -1e4
        for layer in self.layers:
            x = layer(x, hidden)
        return self.head(torch.tanh(self.pooler(x[:, 0])))


class Recurrent(nn.Module):
    """A recurrent layer over embedded words, and a classifier with a ReLU."""

    def __init__(self, kind: Callable[..., nn.Module], **options) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 16)
        self.before = nn.Sequential(nn.Linear(16, 16), nn.ReLU())
        self.recurrent = kind(16, 16, batch_first=True, **options)
        self.head = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, CLASSES))

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.recurrent(self.before(self.words(words)))[0][:, -1])


class Temporal(nn.Module):
    """A temporal convolutional network: dilated causal convolutions over a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(3 if i == 0 else 8, 8, 3, dilation=2**i) for i in range(3))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)[..., :64]
        for index, layer in enumerate(self.layers):
            x = F.relu(layer(F.pad(x, (2 * 2**index, 0))))
        return self.head(x.mean(-1))


class PointNet(nn.Module):
    """A set of points: the same layers for each, the maximum over all, and that beside each point again."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU())
        self.both = nn.Sequential(nn.Conv1d(32, 16, 1), nn.BatchNorm1d(16), nn.ReLU())
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.each(x.flatten(2)[..., :100])
        together = torch.max(x, 2, keepdim=True)[0]
        x = self.both(torch.cat([x, together.expand(-1, -1, x.shape[2])], 1))
        return self.head(x.amax(2))


class Graph(nn.Module):
    """Layers of a graph convolutional network on a fixed graph of places."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("adjacency", torch.softmax(torch.randn(16, 16), 1))
        self.layers = nn.ModuleList(nn.Linear(*sizes) for sizes in ((3, 16), (16, 16)))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 8).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = F.relu(torch.einsum("ij,bjk->bik", self.adjacency, layer(x)))
        return self.head(x.mean(1))


def video() -> nn.Module:
    first = (nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2))
    last = (nn.Conv3d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, CLASSES))
    return nn.Sequential(nn.Unflatten(2, (8, 4)), *first, *last)


def generator() -> nn.Module:
    """From an image to a code and back, as an autoencoder or the generator of a DCGAN does."""
    code = (nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 4, 2, 1), nn.InstanceNorm2d(16))
    back = (nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1))
    return nn.Sequential(*code, nn.LeakyReLU(0.2), *back, nn.Tanh())


def plain(act: Callable[[], nn.Module]) -> nn.Module:
    """Convolutions, max pooling, and one activation module that is called everywhere."""
    shared = act()
    layers = (nn.Conv2d(3, 8, 3), shared, nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), shared, nn.MaxPool2d(2), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(576, 32), shared, nn.Linear(32, CLASSES))


IMAGE, TEXT, MASKED = ("image",), ("words",), ("words", "mask")
# Name → how it is made, and its inputs.
TORCH: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "plain CNN, ReLU": (lambda: plain(nn.ReLU), IMAGE),
    "ResNet": (resnet, IMAGE),
    "MobileNet-v2, ReLU6": (lambda: inverted_residuals(nn.ReLU6), IMAGE),
    "MobileNet-v3, HardSwish, squeeze-and-excite": (lambda: inverted_residuals(nn.Hardswish, nn.Hardsigmoid), IMAGE),
    "EfficientNet, SiLU, squeeze-and-excite": (lambda: inverted_residuals(nn.SiLU, nn.Sigmoid), IMAGE),
    "ConvNeXt, GELU": (lambda: convnext(nn.GELU), IMAGE),
    "ConvNeXt, ReLU": (lambda: convnext(nn.ReLU), IMAGE),
    "U-Net": (UNet, IMAGE),
    "feature pyramid, three outputs": (Pyramid, IMAGE),
    "one-stage detector, SiLU": (lambda: Detector(nn.SiLU), IMAGE),
    "one-stage detector, ReLU": (lambda: Detector(nn.ReLU), IMAGE),
    "super-resolution": (SuperResolution, IMAGE),
    "autoencoder, LeakyReLU, InstanceNorm": (generator, IMAGE),
    "3-D CNN": (video, IMAGE),
    "temporal CNN": (Temporal, IMAGE),
    "PointNet": (PointNet, IMAGE),
    "graph convolutions": (Graph, IMAGE),
    "ViT, GELU": (lambda: VisionTransformer(nn.GELU, fused=True), IMAGE),
    "ViT, ReLU": (lambda: VisionTransformer(nn.ReLU, fused=False), IMAGE),
    "BERT, GELU": (lambda: Bert(nn.GELU), MASKED),
    "BERT, ReLU": (lambda: Bert(nn.ReLU), MASKED),
    "LSTM": (lambda: Recurrent(nn.LSTM), TEXT),
    "GRU, two layers": (lambda: Recurrent(nn.GRU, num_layers=2), TEXT),
    "RNN, ReLU": (lambda: Recurrent(nn.RNN, nonlinearity="relu"), TEXT),
}


def samples(names: tuple[str, ...], count: int) -> dict[str, np.ndarray]:
    """Inputs of the PyTorch networks, by name."""
    generator = np.random.default_rng(1)
    made = {
        "image": generator.standard_normal((count, 3, SIZE, SIZE)).astype(np.float32),
        "words": generator.integers(0, WORDS, (count, LENGTH)),
        "mask": (np.arange(LENGTH) < generator.integers(3, LENGTH + 1, (count, 1))).astype(np.int64),
    }
    return {name: made[name] for name in names}


def torch_network(name: str) -> tuple[nn.Module, tuple[Tensor, ...], tuple[str, ...]]:
    """One of `TORCH` with batch normalisation that has seen data, two samples, and the names of its inputs."""
    make, names = TORCH[name]
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for _ in range(3):
            model.train()(*(torch.from_numpy(values) for values in samples(names, 32).values()))
    return model.eval(), tuple(torch.from_numpy(values) for values in samples(names, 2).values()), names
