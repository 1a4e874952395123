"""Reads an ONNX file whole and refuses what is wrong with it, before any library sees it.

The file may come from anybody. Sizes, counts and nesting are bounded, every constant has exactly
the bytes that its shape wants, every value is given once and before it is read, and nothing outside
the file is looked at. What the operators are, `onnx_operators` judges.
"""

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from node.engines.formats.onnx_graph import Attribute, Graph, GraphNode, OnnxModel, Value
from node.engines.formats.onnx_operators import check_operators
from node.engines.formats.onnx_protobuf import Array, ByteSource, FieldKind, Fields, Span
from node.engines.formats.onnx_shapes import footprint, input_shapes
from node.engines.formats.onnx_values import NAME_CHARS_MAX, read_constant, read_name, read_value
from wire.errors import ModelRefused

# Protobuf itself ends here.
FILE_BYTES_MAX = (1 << 31) - 1
NODES_MAX = 20_000
VALUES_MAX = 64
CONSTANTS_MAX = 16_384
GRAPHS_DEEP_MAX = 8

_MODEL = {
    1: ("ir_version", FieldKind.INTS),
    2: ("producer", FieldKind.TEXTS),
    7: ("graph", FieldKind.PARTS),
    8: ("opset", FieldKind.PARTS),
    20: ("training", FieldKind.PARTS),
    25: ("functions", FieldKind.PARTS),
}
_OPSET = {1: ("domain", FieldKind.TEXTS), 2: ("version", FieldKind.INTS)}
_GRAPH = {
    1: ("nodes", FieldKind.PARTS),
    5: ("constants", FieldKind.PARTS),
    11: ("inputs", FieldKind.PARTS),
    12: ("outputs", FieldKind.PARTS),
    15: ("sparse", FieldKind.PARTS),
}
_VALUE_NAME = {1: ("name", FieldKind.TEXTS)}
_NODE = {
    1: ("inputs", FieldKind.TEXTS),
    2: ("outputs", FieldKind.TEXTS),
    4: ("operator", FieldKind.TEXTS),
    5: ("attributes", FieldKind.PARTS),
    7: ("domain", FieldKind.TEXTS),
}
_ATTRIBUTE = {
    1: ("name", FieldKind.TEXTS),
    2: ("float", FieldKind.FLOATS),
    3: ("int", FieldKind.INTS),
    4: ("string", FieldKind.TEXTS),
    5: ("tensor", FieldKind.PARTS),
    6: ("graph", FieldKind.PARTS),
    7: ("floats", FieldKind.FLOATS),
    8: ("ints", FieldKind.INTS),
    9: ("strings", FieldKind.TEXTS),
    20: ("type", FieldKind.INTS),
}


def describe(path: Path) -> OnnxModel:
    """The model in a file that can be run here; ModelRefused says what is wrong with it."""
    model = read_model(path)
    check_operators(model)
    # What is too large is refused before anybody is asked for it.
    footprint(model, input_shapes(model))
    return model


def read_model(path: Path) -> OnnxModel:
    """The model in a file; ModelRefused says what is wrong with it. Constants stay in the file."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if not 0 < size <= FILE_BYTES_MAX:
                raise ModelRefused(f"{path.name} has {size} bytes: no ONNX file has")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelRefused(f"{path.name} cannot be read: {error.strerror}") from error
    source = ByteSource(path.name, memoryview(mapped))
    fields = Span(source, 0, size).read(_MODEL)
    if not 3 <= fields.number("ir_version") <= 32 or not fields.has("opset"):
        raise source.refuse("it does not say of which version it is")
    graphs = fields.parts.get("graph", [])
    if len(graphs) != 1:
        raise source.refuse(f"it has {len(graphs)} graphs")
    for name, what in (("training", "training steps"), ("functions", "functions of its own")):
        if fields.has(name):
            raise ModelRefused(f"{path.name} has {what}: they are not run here")
    opsets = {}
    for span in fields.parts["opset"]:
        opset = span.read(_OPSET)
        opsets[_domain(opset.text("domain"))] = opset.number("version", 1)
    return OnnxModel(_graph(graphs[0], opsets, 1), opsets, fields.text("producer"))


def _domain(name: str) -> str:
    return name or "ai.onnx"


def _graph(span: Span, opsets: Mapping[str, int], depth: int) -> Graph:
    source = span.source
    if depth > GRAPHS_DEEP_MAX:
        raise ModelRefused(f"{source.name}: graphs lie more than {GRAPHS_DEEP_MAX} deep")
    fields = span.read(_GRAPH)
    if fields.has("sparse"):
        raise ModelRefused(f"{source.name} has sparse constants: they are not run here")
    for name, most in (
        ("nodes", NODES_MAX),
        ("constants", CONSTANTS_MAX),
        ("inputs", VALUES_MAX + CONSTANTS_MAX),
        ("outputs", VALUES_MAX),
    ):
        if len(fields.parts.get(name, [])) > most:
            raise ModelRefused(f"{source.name} has more than {most} {name}")
    constants: dict[str, Array] = {}
    for part in fields.parts.get("constants", []):
        name, array = read_constant(part)
        if name in constants:
            raise ModelRefused(f"{source.name}: the constant {name!r} is there twice")
        constants[name] = array
    # Old files name their constants among the inputs too: nobody has to bring those.
    inputs = tuple(value for value in _values(fields, "inputs") if value.name not in constants)
    outputs = tuple(_values(fields, "outputs") if depth == 1 else _named(fields))
    if not outputs or len(inputs) > VALUES_MAX:
        raise ModelRefused(f"{source.name} has {len(inputs)} inputs and {len(outputs)} outputs")
    nodes = tuple(_node(part, opsets, depth) for part in fields.parts.get("nodes", []))
    graph = Graph(inputs, outputs, constants, nodes)
    # What a graph within a graph reads of the outer one is known where that is read.
    if depth == 1:
        _check_order(source.name, graph)
    return graph


def _values(fields: Fields, name: str) -> Iterator[Value]:
    return map(read_value, fields.parts.get(name, []))


def _named(fields: Fields) -> Iterator[Value]:
    """Outputs of a graph within a graph: files often do not say of which type they are."""
    for span in fields.parts.get("outputs", []):
        yield Value(read_name(span.source, span.read(_VALUE_NAME)), "float32", None)


def _node(span: Span, opsets: Mapping[str, int], depth: int) -> GraphNode:
    source, fields = span.source, span.read(_NODE)
    operator, domain = fields.text("operator"), _domain(fields.text("domain"))
    if not operator or len(operator) > NAME_CHARS_MAX:
        raise ModelRefused(f"{source.name}: a node has no operator")
    if domain not in opsets:
        raise ModelRefused(f"{source.name}: {operator} is of {domain[:80]}, which is not imported")
    attributes = dict(
        _attribute(part, opsets, depth) for part in fields.parts.get("attributes", ())
    )
    inputs = tuple(fields.texts.get("inputs", ()))
    outputs = tuple(fields.texts.get("outputs", ()))
    return GraphNode(operator, domain, opsets[domain], inputs, outputs, attributes)


def _attribute(span: Span, opsets: Mapping[str, int], depth: int) -> tuple[str, Attribute]:
    source, fields = span.source, span.read(_ATTRIBUTE)
    name, kind = read_name(source, fields), fields.number("type")
    match kind:
        case 1 if len(found := fields.floats("float", "<f4")):
            return name, float(found[-1])
        case 2:
            return name, fields.number("int")
        case 3:
            return name, fields.text("string")
        case 4 if fields.has("tensor"):
            return name, read_constant(fields.parts["tensor"][-1], name)[1]
        case 5 if fields.has("graph"):
            return name, _graph(fields.parts["graph"][-1], opsets, depth + 1)
        case 6:
            return name, tuple(fields.floats("floats", "<f4").tolist())
        case 7:
            return name, tuple(fields.integers("ints").tolist())
        case 8:
            return name, tuple(fields.texts.get("strings", ()))
    raise ModelRefused(f"{source.name}: the attribute {name} is of a kind that is not read here")


def _check_order(where: str, graph: Graph, outer: frozenset[str] = frozenset()) -> None:
    """Each value given once, and before it is read. What a branch gives hides what lies outside."""
    given = {"", *graph.constants, *(it.name for it in graph.inputs)}
    makers = {name: node for node in graph.nodes for name in node.outputs}
    for node in graph.nodes:
        for name in node.inputs:
            if name not in given and name not in outer:
                why = "nothing gives it"
                if name in makers:
                    why = "it is given only later: the graph is out of order or has a cycle"
                raise ModelRefused(f"{where}: {node.operator} reads {name[:80]!r}, and {why}")
        for branch in node.attributes.values():
            if isinstance(branch, Graph):
                _check_order(where, branch, outer | given)
        for name in filter(None, node.outputs):
            if name in given:
                raise ModelRefused(f"{where}: {name[:80]!r} is given twice")
            given.add(name)
    for value in graph.outputs:
        if value.name not in given and value.name not in outer:
            raise ModelRefused(f"{where}: nothing gives its output {value.name[:80]!r}")
