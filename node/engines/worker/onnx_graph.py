"""One ONNX graph in tinygrad: captured once for each shape of its inputs. Runs in the worker only.

tinygrad's runner does the operators; the file itself it never sees, only what was read and checked
before. Constants are inputs of every captured graph, so that all of them share one copy.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from tinygrad import Tensor, TinyJit, dtypes
from tinygrad.device import CompileError
from tinygrad.engine.jit import JitError
from tinygrad.nn.onnx import (
    Domain,
    OnnxNode,
    OnnxRunner,
    OnnxValue,
    OpSetId,
    onnx_ops,
    required_input_python_consts,
)

from node.engines.formats.onnx_graph import Graph, GraphNode, OnnxModel
from node.engines.formats.onnx_operators import LEARNED
from node.engines.formats.onnx_protobuf import Array
from node.engines.formats.onnx_values import ELEMENTS_MAX
from node.engines.worker.buffers import placed, write, zeros
from node.engines.worker.driver_words import is_driver_fault
from node.engines.worker.onnx_ops import OPERATORS, options
from node.engines.worker.onnx_products import PRODUCTS, laid_out
from node.engines.worker.onnx_standard import STANDARD
from wire.errors import ModelRefused

# More numbers than that make no shape.
PLAIN_MAX = 1024
Shapes = tuple[tuple[int, ...], ...]
# What an operator raises when it is given what it cannot do.
_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    CompileError,
    JitError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


# Of so many numbers an input may be whose numbers decide what is computed: a shape, a rate.
DECIDING_MAX = 16


class _DecidesError(Exception):
    """What a graph is depends on the numbers of these inputs."""

    def __init__(self, names: frozenset[str], words: str) -> None:
        super().__init__(words)
        self.names = names
        self.words = words


class CompiledGraph:
    """The constants of a model on the device, and graphs over them.

    `deciding` names the inputs whose numbers, a few integers, decide what is computed: a captured
    graph is right for those numbers alone.
    """

    def __init__(self, model: OnnxModel) -> None:
        self.model = model
        self.deciding: tuple[str, ...] = ()
        self._constants: list[Tensor] = []
        self._values = self._placed_constants(model.graph)
        self._nodes = tuple(self._node(node) for node in model.graph.nodes)

    def capture(
        self, shapes: Shapes, sample: Sequence[Array] = (), *, by_value: bool = False
    ) -> Any:
        """Compile the graph for inputs of these shapes; ModelRefused names the operator.

        It is run once, on `sample` where that is given. With `by_value` it may be a graph for the
        numbers of `sample`, as far as they decide: `deciding` then names those inputs.
        """
        while True:
            try:
                return self._capture(shapes, sample)
            except _DecidesError as decides:
                if not (by_value and sample) or decides.names <= set(self.deciding):
                    raise ModelRefused(decides.words) from decides
                self.deciding = tuple(sorted({*self.deciding, *decides.names}))

    def numbers(self, arrays: Sequence[Array]) -> Mapping[str, Array]:
        """Of these inputs those that decide what is computed."""
        pairs = zip(self.model.inputs, arrays, strict=bool(arrays))
        return {value.name: it for value, it in pairs if value.name in self.deciding}

    def _capture(self, shapes: Shapes, sample: Sequence[Array]) -> Any:
        numbers = self.numbers(sample)
        runner = _Runner(self.model, self._values, self._nodes, shapes, numbers)
        known = {name: _spelled(it) for name, it in numbers.items()}
        sources = self.sources(shapes)
        for source, array in zip(sources, sample, strict=bool(sample)):
            write(source.uop.base.realized, array)
        names = [value.name for value in self.model.inputs]

        def once(sources: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
            found = runner(dict(zip(names, sources, strict=True)) | known) | fixed
            answers = self._answers(found, [*sources, *constants, *fixed.values()])
            Tensor.realize(*answers)
            return answers

        fixed: dict[str, Tensor] = {}
        captured = TinyJit(once)
        # Begin with the capture: what is worked out before it would be thrown away.
        captured.cnt = 1
        with _refused("the model"):
            # What tinygrad wants as plain numbers is worked out before anything is captured, and
            # what depends on nothing that comes in: a captured graph does not compute that.
            found = runner(dict(zip(names, sources, strict=True)) | known)
            given = {tensor.uop.base for tensor in (*sources, *self._constants)}
            fixed |= {
                it.name: placed(found[it.name].cast(_dtype(it.kind)).numpy())
                for it in self.model.outputs
                if not given & set(found[it.name].uop.toposort()) and 0 not in found[it.name].shape
            }
            captured(sources, self._constants)
        return captured

    def sources(self, shapes: Shapes) -> list[Tensor]:
        """Inputs to write into; ModelRefused where there would be nothing to write."""
        for value, shape in zip(self.model.inputs, shapes, strict=True):
            if 0 in shape:
                raise ModelRefused(f"the input {value.name} is empty: it has to be constant")
        return [
            zeros(*shape, kind=value.kind)
            for value, shape in zip(self.model.inputs, shapes, strict=True)
        ]

    def run(self, captured: Any, sources: Sequence[Tensor], arrays: Sequence[Array]) -> list[Array]:
        """What the graph gives for `arrays`, one for each of `sources`."""
        for source, array in zip(sources, arrays, strict=True):
            write(source.uop.base.realized, array)
        inputs = [tensor.uop.base for tensor in (*sources, *self._constants)]
        kinds = (value.kind for value in self.model.outputs)
        answers = captured.captured(inputs, {})
        return [_read(it, kind) for it, kind in zip(answers, kinds, strict=True)]

    def _answers(self, found: Mapping[str, Any], inputs: list[Tensor]) -> list[Tensor]:
        known = {tensor.uop.base for tensor in inputs}
        answers = []
        for value in self.model.outputs:
            answer = found[value.name].cast(_dtype(value.kind))
            # An input that is handed through must not be the buffer that is written next.
            answers.append(answer.clone() if answer.uop.base in known else answer.contiguous())
        return answers

    def _node(self, node: GraphNode) -> OnnxNode:
        if node.domain == LEARNED and node.operator in OPERATORS:
            given = options(node, self._place)
        else:
            given = {name: self._given(it) for name, it in node.attributes.items()}
        version = OpSetId(Domain(node.domain), node.version)
        return OnnxNode(node.operator, version, node.inputs, node.outputs, given)

    def _given(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return self._place(value)
        if not isinstance(value, Graph):
            return value
        values = self._placed_constants(value)
        nodes = tuple(self._node(it) for it in value.nodes)
        return _Branch(values, nodes, tuple(it.name for it in value.outputs), value)

    def _placed_constants(self, graph: Graph) -> dict[str, Tensor]:
        values = {}
        for name, array in graph.constants.items():
            axes = laid_out(name, graph)
            if axes and array.size:
                placed = self._place(np.ascontiguousarray(array.transpose(axes)))
                values[name] = placed.permute(*(axes.index(at) for at in range(array.ndim)))
            else:
                values[name] = self._place(array)
        return values

    def _place(self, array: Array) -> Tensor:
        if array.shape == ():
            return Tensor(array.item(), dtype=_dtype(array.dtype.name))
        if not array.size:
            return Tensor([], dtype=_dtype(array.dtype.name)).reshape(array.shape)
        tensor = placed(array)
        self._constants.append(tensor)
        return tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Branch:
    """A graph within a graph, its constants on the device."""

    values: Mapping[str, Tensor]
    nodes: tuple[OnnxNode, ...]
    outputs: tuple[str, ...]
    graph: Graph


class _Runner(OnnxRunner):  # type: ignore[misc]
    """tinygrad's runner over a graph of ours, with every size and every number looked at."""

    def __init__(
        self,
        model: OnnxModel,
        values: Mapping[str, Tensor],
        nodes: tuple[OnnxNode, ...],
        shapes: Shapes,
        known: Mapping[str, Array],
    ) -> None:
        inputs = zip(model.inputs, shapes, strict=True)
        self.is_training = False
        self.graph_name = ""
        self.graph_values = {"": None, **values}
        self.graph_inputs = {
            it.name: OnnxValue(shape, _dtype(it.kind), False, False) for it, shape in inputs
        }
        self.graph_outputs = tuple(it.name for it in model.outputs)
        # It writes into the options of some.
        self.graph_nodes = tuple(
            OnnxNode(it.op, it.opset_id, it.inputs, it.outputs, dict(it.opts)) for it in nodes
        )
        self.const_names = {*values, *(it.outputs[0] for it in nodes if it.op == "Constant")}
        self.variable_dims: dict[str, int] = {}
        self.onnx_ops = {**onnx_ops, **STANDARD, **OPERATORS, **PRODUCTS}
        # Of the inputs that decide, their numbers.
        self._known = frozenset(known)
        self._python_const_cache = _plain_constants(model.graph) | _plain(known)
        # By branch; what was decided before a capture holds in it.
        self._branches: dict[_Branch, _Runner] = {}
        self._decided: dict[_Branch, bool | None] = {}

    def _select_op(self, op: str, required_opset: OpSetId) -> Callable[..., Any]:
        if op == "If":
            return self._if
        try:
            function = super()._select_op(op, required_opset)
        except NotImplementedError as error:
            raise ModelRefused(f"the operator {op} is not run here") from error

        def checked(*inputs: Any, **given: Any) -> Any:
            with _refused(op):
                found = function(*inputs, **given)
                # Shapes are worked out when they are asked for, and may not fit.
                sizes = [it.numel() for it in _each(found) if isinstance(it, Tensor)]
            if sizes and max(sizes) > ELEMENTS_MAX:
                raise ModelRefused(f"{op} gives {max(sizes)} numbers at once")
            return found

        return checked

    def _if(
        self, condition: Tensor, then_branch: _Branch, else_branch: _Branch, **_: Any
    ) -> tuple[Tensor, ...]:
        """One branch where the condition is known by the shapes, else what both give, chosen."""
        if then_branch not in self._decided:
            origins = self._origins(condition)
            self._check_deciding(origins, "If is decided by what comes in")
            self._decided[then_branch] = None if origins else bool(condition.numpy().any())
        decided = self._decided[then_branch]
        if decided is not None:
            return self._branch(then_branch if decided else else_branch)
        both = self._branch(then_branch), self._branch(else_branch)
        for one, other in zip(*both, strict=True):
            if one.shape != other.shape or one.dtype != other.dtype:
                raise ModelRefused("If gives other shapes by the numbers that come in")
        chosen = condition.reshape(())
        return tuple(chosen.where(one, other) for one, other in zip(*both, strict=True))

    def _branch(self, branch: _Branch) -> tuple[Tensor, ...]:
        if branch not in self._branches:
            inner = copy.copy(self)
            inner._branches, inner._decided = {}, {}
            inner.graph_nodes = branch.nodes
            inner.graph_outputs = branch.outputs
            inner.const_names = {*self.const_names, *branch.values}
            self._branches[branch] = inner
            inner._python_const_cache = {
                **self._python_const_cache,
                **_plain_constants(branch.graph),
            }
        inner = self._branches[branch]
        inner.graph_values = {**self.graph_values, **branch.values}
        found = inner({name: self.graph_values[name] for name in self.graph_inputs})
        return tuple(found[name] for name in branch.outputs)

    def _origins(self, value: Tensor) -> frozenset[str]:
        """The inputs on whose numbers it depends."""
        made_of = set(value.uop.toposort())
        names = self.graph_inputs.keys() - self._known
        return frozenset(it for it in names if self.graph_values[it].uop.base in made_of)

    def _check_deciding(self, origins: frozenset[str], words: str) -> None:
        """_DecidesError if what is decided by a few integers that come in can be a graph each."""
        inputs = [self.graph_inputs[it] for it in origins]
        if inputs and all(
            not dtypes.is_float(it.dtype) and math.prod(it.shape) <= DECIDING_MAX for it in inputs
        ):
            raise _DecidesError(origins, words)

    def _get_python_const(self, name: str, op: str, idx: int) -> Any:
        """What shapes are made of must not depend on the numbers that come in: a captured graph
        would keep the first ones for ever."""
        value = self.graph_values[name]
        if op == "Dropout" and idx:
            # How much it would drop while a model is trained.
            return None
        plain = idx in required_input_python_consts.get(op, ())
        unknown = plain and isinstance(value, Tensor) and name not in self._python_const_cache
        if unknown and (origins := self._origins(value)):
            words = f"{op} wants {name[:80]!r} to be constant, and it is computed"
            self._check_deciding(origins, words)
            raise ModelRefused(words)
        return super()._get_python_const(name, op, idx)


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Whatever tinygrad raises of what it cannot do, as the model's fault."""
    try:
        yield
    except _FAULTS as error:
        if is_driver_fault(error):
            # The GPU is at fault, and what it had of this process is of no more use.
            raise
        raise ModelRefused(f"{what} cannot be run: {str(error)[:200]}") from error


def _each(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


def _plain_constants(graph: Graph) -> dict[str, Any]:
    """Small constants as plain numbers: shapes are made of them, and a device is slow to tell."""
    arrays = dict(graph.constants)
    for node in graph.nodes:
        given = node.attributes.get("value")
        if node.operator == "Constant" and isinstance(given, np.ndarray):
            arrays[node.outputs[0]] = given
    return _plain(arrays)


def _plain(arrays: Mapping[str, Array]) -> dict[str, Any]:
    # Bytes are read in another form.
    return {
        name: array.tolist()
        for name, array in arrays.items()
        if array.size <= PLAIN_MAX and array.dtype != np.uint8
    }


def _spelled(array: Array) -> Tensor:
    """A few numbers as a part of the graph, not as something in memory."""
    kind = _dtype(array.dtype.name)
    parts = [Tensor(it.item(), dtype=kind).reshape(1) for it in array.reshape(-1)]
    return parts[0].cat(*parts[1:]).reshape(array.shape)


def _dtype(kind: str) -> Any:
    return getattr(dtypes, kind)


def _read(answer: Tensor, kind: str) -> Array:
    """A copy: the next run writes over the graph's own buffer."""
    if 0 in answer.shape:
        # Nothing lies in memory for it.
        return np.empty(answer.shape, kind)
    data = np.frombuffer(answer.uop.base.realized.as_memoryview(), kind)
    return data.reshape(answer.shape).copy()
