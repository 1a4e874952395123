"""Makes an integer model from a float ONNX graph, layer by layer, on inputs to measure scales with.

Pure. Each node is computed in floats for those inputs, and turned into a layer of integers (see
`node.engines.exact.tracing`). What cannot be converted is refused by its name.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from node.engines.exact import emitting, float_values
from node.engines.exact.emitting import narrow_target
from node.engines.exact.float_values import number, refuse, window_of
from node.engines.exact.model import (
    BLOCK,
    SOFTMAX_BITS,
    VERSION,
    ExactInput,
    ExactLayer,
    ExactModel,
    ExactOutput,
    Window,
)
from node.engines.exact.tracing import LayerBuilder, Traced, Waiting, needed
from node.engines.formats.onnx_graph import Graph, GraphNode, OnnxModel
from node.engines.formats.onnx_protobuf import Array
from wire.errors import ModelRefused


@dataclass(slots=True)
class Quantiser(LayerBuilder):
    """Goes through a graph once."""

    graph: Graph = field(kw_only=True)
    values: dict[str, Traced] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)

    def run(self, inputs: Sequence[Array]) -> None:
        """Trace the whole graph; ModelRefused names the operator that cannot be exact."""
        self.constants = {
            name: np.asarray(it, np.float64 if it.dtype.kind == "f" else np.int64)
            for name, it in self.graph.constants.items()
        }
        for at, (value, data) in enumerate(zip(self.graph.inputs, inputs, strict=True)):
            floats = data.astype(np.float64)
            layer, scale = emitting.input_layer(at, floats)
            self.values[value.name] = Traced(floats, layer=self.add(layer), scale=scale)
        for node in self.graph.nodes:
            if node.operator == "Constant" and isinstance(node.attributes.get("value"), np.ndarray):
                self.constants[node.outputs[0]] = np.asarray(node.attributes["value"])
                continue
            classifies = node.operator == "LinearClassifier"
            found = self._classified(node) if classifies else [self._traced(node)]
            for name, traced in zip(node.outputs, found, strict=False):
                self.values[name] = traced

    def _value(self, node: GraphNode, at: int = 0) -> Traced:
        name = node.inputs[at] if at < len(node.inputs) else ""
        if name not in self.values:
            raise refuse(node, f"its input {at} is a constant, or is not there")
        return self.values[name]

    def _constant(self, node: GraphNode, at: int) -> Array | None:
        name = node.inputs[at] if at < len(node.inputs) else ""
        return self.constants.get(name)

    def _traced(self, node: GraphNode) -> Traced:
        match node.operator:
            case "Identity" | "Dropout" | "Cast" | "Normalizer":
                return self._value(node)
            case "MatMul" | "Gemm" | "LinearRegressor":
                return self._linear(node)
            case "Conv":
                return self._conv(node)
            case "Add" | "Sub" | "Mul" | "Div" | "BatchNormalization" | "Scaler":
                return self._elementwise(node)
            case "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool":
                return self._pooled(node)
            case "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze":
                return self._reshaped(node)
            case "Softmax":
                return self._softmax(node, self._value(node))
            case "ArgMax":
                return self._arg_max(node)
            case "ArrayFeatureExtractor":
                return self._labelled(node)
        return self._unary(node)

    def _linear(self, node: GraphNode) -> Traced:
        source = self._value(node)
        if node.operator == "LinearRegressor":
            outputs = int(number(node, "targets", 1))
            weights = float_values.numbers(node, "coefficients").reshape(outputs, -1).T
            bias = float_values.numbers(node, "intercepts", (0.0,) * outputs)
        else:
            constant = self._constant(node, 1)
            if constant is None or constant.ndim != 2 or number(node, "transA", 0):
                raise refuse(node, "its second input is no constant matrix")
            weights = constant.T if number(node, "transB", 0) else constant
            weights = weights * number(node, "alpha", 1.0)
            added = self._constant(node, 2) if len(node.inputs) > 2 else np.zeros(1)
            if added is None:
                raise refuse(node, "what it adds is no constant")
            bias = np.broadcast_to(added * number(node, "beta", 1.0), (1, weights.shape[1]))[0]
        return self._fully_connected(node, source, weights, bias)

    def _fully_connected(
        self, node: GraphNode, source: Traced, weights: Array, bias: Array
    ) -> Traced:
        if len(source.shape) != 1 or source.shape[0] != len(weights):
            raise refuse(node, f"rows of the shape {list(source.shape)} go into it")
        floats = source.floats @ weights + bias
        before = source.waiting
        if before is not None and before.operator == "affine" and not source.positive:
            # A scaling right before is a part of the weights: it costs nothing, and no accuracy.
            terms = len(weights)
            factors, added = (np.broadcast_to(it, (terms,)) for it in (before.weights, before.bias))
            bias = bias + added @ weights
            weights = weights * factors[:, None]
            source = before.sources[0]
        return Traced(floats, Waiting("linear", (source,), weights, bias))

    def _conv(self, node: GraphNode) -> Traced:
        source, weights = self._value(node), self._constant(node, 1)
        if weights is None or weights.ndim != 4:
            raise refuse(node, "its weights are no constant of four dimensions")
        bias = self._constant(node, 2) if len(node.inputs) > 2 else np.zeros(len(weights))
        window = window_of(node, source.shape, weights.shape[2:])
        if bias is None or source.shape[0] != weights.shape[1]:
            raise refuse(node, "its bias is no constant, or its channels are not its input's")
        floats = float_values.convolved(source.floats, weights, bias, window)
        terms = weights.reshape(len(weights), -1).T
        return Traced(floats, Waiting("conv", (source,), terms, bias, window))

    def _elementwise(self, node: GraphNode) -> Traced:
        if node.operator == "Scaler":
            source = self._value(node)
            scale = float_values.numbers(node, "scale", (1.0,))
            offset = float_values.numbers(node, "offset", (0.0,))
            return self._affine(node, source, scale, -offset * scale)
        if node.operator == "BatchNormalization":
            source = self._value(node)
            parts = [self._constant(node, at) for at in range(1, 5)]
            if any(it is None for it in parts):
                raise refuse(node, "its numbers are no constants")
            gain, bias, mean, variance = (np.asarray(it) for it in parts)
            factor = gain / np.sqrt(variance + number(node, "epsilon", 1e-5))
            channels = (-1, *(1,) * (len(source.shape) - 1))
            added = (bias - mean * factor).reshape(channels)
            return self._affine(node, source, factor.reshape(channels), added)
        one, other = self._constant(node, 0), self._constant(node, 1)
        if one is None and other is None:
            if node.operator != "Add":
                raise refuse(node, "both of its inputs depend on the model's input")
            return self._sum(node, self._value(node), self._value(node, 1))
        constant = np.asarray(other if one is None else one, np.float64)
        source = self._value(node, 0 if one is None else 1)
        row = constant[0] if constant.ndim == len(source.shape) + 1 else constant
        if constant.ndim == len(source.shape) + 1 and len(constant) != 1:
            raise refuse(node, "its constant has rows")
        nothing, same = np.zeros(1), np.ones(1)
        match node.operator:
            case "Add":
                return self._affine(node, source, same, row)
            case "Sub":
                return self._affine(node, source, *((same, -row) if one is None else (-same, row)))
            case "Mul":
                return self._affine(node, source, row, nothing)
        if one is not None:
            raise refuse(node, "it divides by what depends on the model's input")
        return self._affine(node, source, 1.0 / row, nothing)

    def _affine(self, node: GraphNode, source: Traced, factors: Array, added: Array) -> Traced:
        """Folded into what came before if that still waits, else a layer of its own."""
        try:
            factors = np.broadcast_to(factors, source.shape)
            added = np.broadcast_to(added, source.shape)
        except ValueError as error:
            raise refuse(node, f"rows of the shape {list(source.shape)} go into it") from error
        floats = source.floats * factors + added
        before = source.waiting
        if before is not None and before.operator in ("linear", "conv") and not source.positive:
            outputs = source.shape[0]
            each, more = (it.reshape(outputs, -1) for it in (factors, added))
            if (each == each[:, :1]).all() and (more == more[:, :1]).all():
                weights = before.weights * each[:, 0]
                bias = before.bias * each[:, 0] + more[:, 0]
                return Traced(floats, replace(before, weights=weights, bias=bias))
        return Traced(floats, Waiting("affine", (source,), factors.reshape(-1), added.reshape(-1)))

    def _sum(self, node: GraphNode, one: Traced, other: Traced) -> Traced:
        if one.shape != other.shape:
            raise refuse(node, f"it adds {list(one.shape)} and {list(other.shape)}")
        nothing = np.zeros(1)
        return Traced(one.floats + other.floats, Waiting("add", (one, other), nothing, nothing))

    def _pooled(self, node: GraphNode) -> Traced:
        source = self._value(node)
        if "Global" in node.operator:
            window = Window(kernel=source.shape[1:], strides=(1, 1), pads=(0, 0, 0, 0))
        else:
            kernel = tuple(int(it) for it in float_values.numbers(node, "kernel_shape"))
            window = window_of(node, source.shape, kernel)
        mean = "Average" in node.operator
        if mean and max(window.pads) and not number(node, "count_include_pad", 0):
            raise refuse(node, "its mean leaves the padding out")
        floats = float_values.pooled(source.floats, window, mean=mean)
        before, shape = self.narrow(source), floats.shape[1:]
        if not mean:
            layer = self.layers[before]
            made = ExactLayer(
                operator="max_pool",
                sources=(before,),
                shape=shape,
                kind="int8",
                window=(window,),
                low=layer.low,
                high=layer.high,
            )
            return Traced(floats, layer=self.add(made), scale=source.scale)
        target = narrow_target(floats, self.block, positive=False)
        ratio = float(source.scale[0] / target.scale[0])
        made = emitting.mean_layer(before, shape, window, ratio)
        return Traced(floats, layer=self.add(made), scale=target.scale)

    def _reshaped(self, node: GraphNode) -> Traced:
        source = self._value(node)
        floats = source.floats
        rows = len(floats)
        match node.operator:
            case "Flatten" if number(node, "axis", 1) == 1:
                shape: tuple[int, ...] = (math.prod(source.shape),)
            case "Reshape" if (wanted := self._constant(node, 1)) is not None:
                sizes = [int(it) for it in wanted]
                # A row stays a row, whatever number of them the file was exported with.
                free = math.prod(it for it in sizes[1:] if it > 0) != math.prod(source.shape)
                shape = tuple(
                    floats.shape[at] if it == 0 else it for at, it in enumerate(sizes) if at
                )
                if free and -1 not in shape:
                    raise refuse(node, f"it makes {sizes} of rows of {list(source.shape)}")
                shape = floats.reshape(rows, *shape).shape[1:]
            case "Squeeze" | "Unsqueeze" if (axes := self._constant(node, 1)) is not None:
                places = tuple(int(it) for it in axes)
                if 0 in places:
                    raise refuse(node, "it changes the first dimension")
                change = np.squeeze if node.operator == "Squeeze" else np.expand_dims
                shape = change(floats, places).shape[1:]
            case _:
                raise refuse(node, "its shape is no constant")
        if shape == source.shape:
            return source
        floats = floats.reshape(rows, *shape)
        before = self.narrow(source)
        layer = self.layers[before]
        made = ExactLayer(
            operator="reshape",
            sources=(before,),
            shape=shape,
            kind="int8",
            low=layer.low,
            high=layer.high,
        )
        size = math.prod(shape)
        scale = source.scale if source.scale.size == 1 else source.scale.reshape(size)
        return Traced(floats, layer=self.add(made), scale=scale)

    def _unary(self, node: GraphNode) -> Traced:
        source = self._value(node)
        function = self._clip(node) or float_values.function_of(node)
        if function is None:
            raise refuse(node, "it is not among the operators that are run in whole numbers")
        floats = function(source.floats)
        if node.operator == "Relu" and source.waiting is not None:
            return Traced(floats, source.waiting, positive=True)
        before = self.narrow(source, self.share(source, function))
        size = math.prod(source.shape)
        target = narrow_target(floats, self.block, positive=False)
        scales = [np.broadcast_to(it, (size,)) for it in (source.scale, target.scale)]
        block = emitting.block_of((scales[0], scales[1]), source.shape)
        steps = np.arange(-128, 128)
        real = function(steps * scales[0][::block, None])
        table = np.clip(np.rint(real / scales[1][::block, None]), -127, 127).astype(np.int8)
        made = ExactLayer(
            operator="table",
            sources=(before,),
            shape=source.shape,
            kind="int8",
            block=block,
            table=table.tobytes(),
            low=-127,
            high=127,
        )
        return Traced(floats, layer=self.add(made), scale=target.scale)

    def _clip(self, node: GraphNode) -> float_values.Function | None:
        if node.operator != "Clip":
            return None
        edges = []
        for at, (name, default) in enumerate((("min", -np.inf), ("max", np.inf)), start=1):
            constant = self._constant(node, at)
            edges.append(float(constant) if constant is not None else number(node, name, default))
        low, high = edges
        return lambda values: np.clip(values, low, high)

    def _softmax(self, node: GraphNode, source: Traced) -> Traced:
        axis = number(node, "axis", -1)
        if len(source.shape) != 1 or axis not in (-1, 1):
            raise refuse(node, f"rows of the shape {list(source.shape)} go into it")
        before, shift = self.widened(source)
        layer = self.add(emitting.soft_max_layer(before, source.shape[0], shift))
        floats = float_values.shares(source.floats)
        return Traced(floats, wide=(layer, SOFTMAX_BITS))

    def _arg_max(self, node: GraphNode) -> Traced:
        source = self._value(node)
        if len(source.shape) != 1 or number(node, "axis", 0) not in (1, -1):
            raise refuse(node, f"rows of the shape {list(source.shape)} go into it")
        if number(node, "select_last_index", 0):
            raise refuse(node, "of equal ones it takes the last")
        return self._labels(source, np.arange(source.shape[0]))

    def _labels(self, source: Traced, labels: Array) -> Traced:
        before, _ = self.widened(source)
        layer = ExactLayer(
            operator="arg_max",
            sources=(before,),
            shape=(),
            kind="int32",
            table=np.ascontiguousarray(labels, "<i4").tobytes(),
            low=min(0, int(labels.min())),
            high=max(1, int(labels.max())),
        )
        floats = labels[source.floats.argmax(axis=1)]
        return Traced(floats, wide=(self.add(layer), 0), labels=labels)

    def _labelled(self, node: GraphNode) -> Traced:
        labels, source = self._constant(node, 0), self._value(node, 1)
        if labels is None or source.labels is None or source.wide is None:
            raise refuse(node, "it does not look up the label of an ArgMax")
        at, _ = source.wide
        return self._labels_of(at, labels.reshape(-1), source)

    def _labels_of(self, at: int, labels: Array, source: Traced) -> Traced:
        """The same choice under other names."""
        layer = replace(
            self.layers[at],
            table=np.ascontiguousarray(labels, "<i4").tobytes(),
            low=min(0, int(labels.min())),
            high=max(1, int(labels.max())),
        )
        return Traced(labels[source.floats], wide=(self.add(layer), 0), labels=labels)

    def _classified(self, node: GraphNode) -> Sequence[Traced]:
        labels = float_values.numbers(node, "classlabels_ints").astype(np.int64)
        weights = float_values.numbers(node, "coefficients").reshape(max(1, len(labels)), -1).T
        if len(labels) < 2 or node.attributes.get("post_transform") != "SOFTMAX":
            raise refuse(node, "only one of several whole-number labels by softmax is exact")
        bias = float_values.numbers(node, "intercepts", (0.0,) * len(labels))
        scores = self._fully_connected(node, self._value(node), weights, bias)
        return self._labels(scores, labels), self._softmax(node, scores)

    def outputs(self) -> tuple[ExactOutput, ...]:
        """The model's outputs, each by its layer; ModelRefused for one that is a constant."""
        found = []
        for value in self.graph.outputs:
            traced = self.values.get(value.name)
            if traced is None:
                raise ModelRefused(f"the output {value.name} is a constant")
            layer, shift = self.widened(traced)
            kind = "float32" if traced.labels is None else "int64"
            found.append(ExactOutput(name=value.name, layer=layer, kind=kind, shift=shift))
        return tuple(found)


def quantise(model: OnnxModel, inputs: Sequence[Array], block: int = BLOCK) -> ExactModel:
    """The integer model of a float one; ModelRefused names what cannot be converted.

    `inputs` are rows to measure scales with, in the order of the model's inputs.
    """
    made = Quantiser(block, graph=model.graph)
    made.run(inputs)
    outputs = made.outputs()
    given = tuple(
        ExactInput(name=value.name, shape=data.shape[1:])
        for value, data in zip(model.graph.inputs, inputs, strict=True)
    )
    layers, outputs = needed(made.layers, outputs)
    return ExactModel(version=VERSION, inputs=given, outputs=outputs, layers=layers, accuracy={})


def float_outputs(model: OnnxModel, inputs: Sequence[Array]) -> list[Array]:
    """What the float model gives, by the same definitions that its scales were measured with."""
    made = Quantiser(graph=model.graph)
    made.run(inputs)
    return [made.values[it.name].floats for it in model.graph.outputs]
