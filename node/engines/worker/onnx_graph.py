"""One ONNX graph in tinygrad: captured once for each shape of its inputs. Runs in the worker only.

tinygrad's runner does the operators; the file itself it never sees, only what was read and checked
before. Constants are inputs of every captured graph, so that all of them share one copy.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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

from node.engines.formats.onnx_graph import GraphNode, OnnxModel
from node.engines.formats.onnx_operators import LEARNED
from node.engines.formats.onnx_protobuf import Array
from node.engines.formats.onnx_values import ELEMENTS_MAX
from node.engines.worker.buffers import placed, write, zeros
from node.engines.worker.onnx_ops import OPERATORS, options
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


class CompiledGraph:
    """The constants of a model on the device, and graphs over them."""

    def __init__(self, model: OnnxModel) -> None:
        self.model = model
        self._constants: list[Tensor] = []
        self._values = {name: self._place(it) for name, it in model.graph.constants.items()}
        self._nodes = tuple(self._node(node) for node in model.graph.nodes)

    def capture(self, shapes: Shapes, sample: Sequence[Array] = ()) -> Any:
        """Compile the graph for inputs of these shapes; ModelRefused names the operator.

        It is run once, on `sample` where that is given.
        """
        runner = _Runner(self.model, self._values, self._nodes, shapes)
        sources = self.sources(shapes)
        for source, array in zip(sources, sample, strict=bool(sample)):
            write(source.uop.base.realized, array)
        names = [value.name for value in self.model.inputs]

        def once(sources: list[Tensor], constants: list[Tensor]) -> list[Tensor]:
            found = runner(dict(zip(names, sources, strict=True))) | fixed
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
            found = runner(dict(zip(names, sources, strict=True)))
            given = {tensor.uop.base for tensor in (*sources, *self._constants)}
            fixed |= {
                it.name: placed(found[it.name].cast(_dtype(it.kind)).numpy())
                for it in self.model.outputs
                if not given & set(found[it.name].uop.toposort())
            }
            captured(sources, self._constants)
        return captured

    def sources(self, shapes: Shapes) -> list[Tensor]:
        """Inputs to write into."""
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
            given = {
                name: self._place(it) if isinstance(it, np.ndarray) else it
                for name, it in node.attributes.items()
            }
        version = OpSetId(Domain(node.domain), node.version)
        return OnnxNode(node.operator, version, node.inputs, node.outputs, given)

    def _place(self, array: Array) -> Tensor:
        if array.shape == ():
            return Tensor(array.item(), dtype=_dtype(array.dtype.name))
        if not array.size:
            return Tensor([], dtype=_dtype(array.dtype.name)).reshape(array.shape)
        tensor = placed(array)
        self._constants.append(tensor)
        return tensor


class _Runner(OnnxRunner):  # type: ignore[misc]
    """tinygrad's runner over a graph of ours, with every size and every number looked at."""

    def __init__(
        self,
        model: OnnxModel,
        values: Mapping[str, Tensor],
        nodes: tuple[OnnxNode, ...],
        shapes: Shapes,
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
        self.onnx_ops = {**onnx_ops, **STANDARD, **OPERATORS}
        self._python_const_cache = _plain_constants(model)

    def _select_op(self, op: str, required_opset: OpSetId) -> Callable[..., Any]:
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

    def _get_python_const(self, name: str, op: str, idx: int) -> Any:
        """What shapes are made of must not depend on the numbers that come in: a captured graph
        would keep the first ones for ever."""
        value = self.graph_values[name]
        if op == "Dropout" and idx:
            # How much it would drop while a model is trained.
            return None
        plain = idx in required_input_python_consts.get(op, ())
        if plain and isinstance(value, Tensor) and name not in self._python_const_cache:
            given = {self.graph_values[it].uop.base for it in self.graph_inputs}
            if given & set(value.uop.toposort()):
                raise ModelRefused(f"{op} wants {name[:80]!r} to be constant, and it is computed")
        return super()._get_python_const(name, op, idx)


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Whatever tinygrad raises of what it cannot do, as the model's fault."""
    try:
        yield
    except _FAULTS as error:
        raise ModelRefused(f"{what} cannot be run: {str(error)[:200]}") from error


def _each(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


def _plain_constants(model: OnnxModel) -> dict[str, Any]:
    """Small constants as plain numbers: shapes are made of them, and a device is slow to tell."""
    arrays = dict(model.graph.constants)
    for node in model.graph.nodes:
        given = node.attributes.get("value")
        if node.operator == "Constant" and isinstance(given, np.ndarray):
            arrays[node.outputs[0]] = given
    # Bytes are read in another form.
    return {
        name: array.tolist()
        for name, array in arrays.items()
        if array.size <= PLAIN_MAX and array.dtype != np.uint8
    }


def _dtype(kind: str) -> Any:
    return getattr(dtypes, kind)


def _read(answer: Tensor, kind: str) -> Array:
    """A copy: the next run writes over the graph's own buffer."""
    data = np.frombuffer(answer.uop.base.realized.as_memoryview(), kind)
    return data.reshape(answer.shape).copy()
