"""Defects of a port: a Keras network with a PyTorch network's weights, one layer of which went wrong on the way.

A kind spoils one Keras layer: its configuration, or the weights that it was given. The planted nodes are those of the
PyTorch graph that give what the layer's module gives, as PyTorch itself tells by a forward hook; a layer that
conversion folds into what follows it stands at the node of the first module behind it that is in the graph.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import torch

from analyzer import Report, compare, differentiate
from analyzer.graph.graph import Graph
from converters import Model, convert
from tests.zoo.random_twins import random_twins
from tests.zoo.twins import CLASSES, Twins, channels_last
from tools.defects.effect import EFFECT, forward_effect
from tools.defects.networks import Network
from tools.defects.trial import STEPS, Defect, Trial, judged

Weights = list[np.ndarray]
Pick = Callable[[Any], Any]


@dataclass(frozen=True)
class Spoilt:
    """A layer that went wrong. config: what is stated otherwise, by Keras layer; weights: those of the layer itself."""

    detail: str
    config: dict[str, dict[str, Any]]
    weights: Weights | None = None


@dataclass(frozen=True)
class PortKind:
    """A way to go wrong. layers: the classes of Keras layers at which it may; spoil: None where it may not."""

    name: str
    layers: tuple[type[keras.Layer], ...]
    spoil: Callable[[Twins, str, Pick], Spoilt | None]


@dataclass(frozen=True)
class Port:
    """Both networks, converted. keras: a Network, to measure effects on."""

    name: str
    twins: Twins
    pytorch: Model
    keras: Network


@functools.lru_cache(maxsize=8)
def port(seed: int) -> Port:
    """The random network of a seed and its port."""
    made = random_twins(seed)
    pixels = channels_last(made.images)
    # Without their sources: what `compare` sees of two models are their functions.
    a, b = (
        Model(convert(net, x, batches=1).proto) for net, x in ((made.net, made.images), (made.keras, pixels))
    )
    network = Network(f"port {seed}", b, {b.proto.graph.input[0].name: pixels}, None, seed % CLASSES)
    return Port(f"port {seed}", made, a, network)


def tried_port(seed: int, rng: np.random.Generator) -> Trial | None:
    """A random defect of a random layer, held against the PyTorch network; None where it has no effect."""
    whole = port(seed)
    kind = KINDS[int(rng.integers(len(KINDS)))]
    names = [name for name, layer in whole.twins.layers.items() if isinstance(layer, kind.layers)]
    for index in rng.permutation(len(names)):
        name = names[index]
        spoilt = kind.spoil(whole.twins, name, lambda options: options[int(rng.integers(len(options)))])
        if spoilt is None:
            continue
        planted = Model(convert(_rebuilt(whole.twins, name, spoilt), _pixels(whole), batches=1).proto)
        effect = forward_effect(whole.keras, planted)
        if effect <= EFFECT:
            continue
        nodes = _nodes_of(whole, name)
        graph = Graph.from_proto(whole.pytorch.proto)
        op_type = next(node.op_type for node in graph.nodes if node.name == nodes[0])
        defect = Defect(kind.name, whole.name, nodes[0], op_type, f"{name}, {spoilt.detail}", effect)
        return judged(compared(whole, planted), defect, "compare", graph, nodes)
    return None


def compared(whole: Port, copy: Model) -> Report:
    """The PyTorch network and a port of it."""
    return compare(whole.pytorch, copy, whole.twins.images, whole.keras.target, steps=STEPS, referee=False)


def _pixels(whole: Port) -> np.ndarray:
    return next(iter(whole.keras.feeds.values()))


def _rebuilt(made: Twins, name: str, spoilt: Spoilt) -> keras.Model:
    """The Keras network with one layer gone wrong; the original, which keeps its own layer, stays as it is."""
    wrong = made.layers[name]
    config = {wrong.name: {}, **spoilt.config}

    def again(layer: keras.Layer) -> keras.Layer:
        if layer.name not in config:
            return layer
        return type(layer).from_config({**layer.get_config(), **config[layer.name]})

    copy = keras.models.clone_model(made.keras, clone_function=again)
    copy.get_layer(wrong.name).set_weights(wrong.get_weights() if spoilt.weights is None else spoilt.weights)
    return copy


@torch.no_grad()
def _nodes_of(whole: Port, name: str) -> list[str]:
    """The nodes that give what a layer's module gives, or the first module behind it that is not folded away."""
    given: list[tuple[torch.nn.Module, np.ndarray]] = []

    def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        given.append((module, (output[0] if isinstance(output, tuple) else output).numpy()))

    modules = whole.twins.net.layers.values()
    handles = [module.register_forward_hook(hook) for module in modules]
    whole.twins.net(torch.from_numpy(whole.twins.images))
    for handle in handles:
        handle.remove()
    fn = differentiate(whole.pytorch)
    floats = [name for name in fn.tensors if fn.graph.tensors[name].is_float and name in fn.graph.producer]
    values = fn.forward(whole.twins.images, floats)
    place = next(i for i, (module, _) in enumerate(given) if module is whole.twins.net.module(name))
    for _, array in given[place:]:
        equal = [name for name in floats if _same_numbers(values[name], array)]
        if equal:
            return [fn.graph.producer[name].name for name in equal]
    raise AssertionError(f"no node of {whole.name} gives what {name!r} or a module behind it gives")


def _same_numbers(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays hold the same numbers in any order."""
    return a.size == b.size and np.allclose(np.sort(a, None), np.sort(b, None), rtol=1e-3, atol=1e-5)


def _wrong_epsilon(made: Twins, name: str, pick: Pick) -> Spoilt:
    """The default of Keras, or another one."""
    wrong = pick([1e-3, 1e-2])
    return Spoilt(f"epsilon {wrong:.0e}", {made.layers[name].name: {"epsilon": wrong}})


def _padded_as_same(made: Twins, name: str, pick: Pick) -> Spoilt | None:
    """ "same", which pads a strided convolution at the end first, for a padding on both sides."""
    padding = made.layers.get(f"{name}.pad")
    if padding is None:
        return None
    config = {padding.name: {"padding": ((0, 0), (0, 0))}, made.layers[name].name: {"padding": "same"}}
    return Spoilt("padded at the end", config)


def _bias_forgotten(made: Twins, name: str, pick: Pick) -> Spoilt:
    kernel, bias = made.layers[name].get_weights()
    return Spoilt("no bias", {}, [kernel, np.zeros_like(bias)])


def _statistics_forgotten(made: Twins, name: str, pick: Pick) -> Spoilt:
    """The moving mean, or the variance, is that of a new layer."""
    scale, shift, mean, variance = made.layers[name].get_weights()
    if pick([True, False]):
        return Spoilt("mean 0", {}, [scale, shift, np.zeros_like(mean), variance])
    return Spoilt("variance 1", {}, [scale, shift, mean, np.ones_like(variance)])


def _kernel_turned(made: Twins, name: str, pick: Pick) -> Spoilt | None:
    """(W, H, I, O) for (H, W, I, O)."""
    kernel, bias = made.layers[name].get_weights()
    return Spoilt("height for width", {}, [kernel.swapaxes(0, 1), bias]) if kernel.shape[0] > 1 else None


def _weight_as_in_pytorch(made: Twins, name: str, pick: Pick) -> Spoilt | None:
    """(O, I), which a square weight lets pass."""
    kernel, bias = made.layers[name].get_weights()
    return Spoilt("not transposed", {}, [kernel.T, bias]) if kernel.shape[0] == kernel.shape[1] else None


def _gates_swapped(made: Twins, name: str, pick: Pick) -> Spoilt:
    """PyTorch's order of a GRU's gates, or two gates of an LSTM exchanged."""
    layer = made.layers[name]
    count = 4 if isinstance(layer, keras.layers.LSTM) else 3
    first, second = pick([(a, b) for a in range(count) for b in range(a)])
    order = list(range(count))
    order[first], order[second] = order[second], order[first]

    def turned(array: np.ndarray) -> np.ndarray:
        gates = np.split(array, count, axis=-1)
        return np.concatenate([gates[index] for index in order], axis=-1)

    return Spoilt(f"gates {second} and {first}", {}, [turned(array) for array in layer.get_weights()])


_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
KINDS = (
    PortKind("port: wrong epsilon", (keras.layers.BatchNormalization, keras.layers.LayerNormalization), _wrong_epsilon),
    PortKind("port: 'same' for a padding on both sides", (keras.layers.Conv2D,), _padded_as_same),
    PortKind("port: bias forgotten", (*_CONVOLUTIONS, keras.layers.Dense), _bias_forgotten),
    PortKind("port: statistics forgotten", (keras.layers.BatchNormalization,), _statistics_forgotten),
    PortKind("port: kernel turned", _CONVOLUTIONS, _kernel_turned),
    PortKind("port: weight not transposed", (keras.layers.Dense,), _weight_as_in_pytorch),
    PortKind("port: gates swapped", (keras.layers.LSTM, keras.layers.GRU), _gates_swapped),
)  # fmt: skip
