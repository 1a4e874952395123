"""What an ONNX file says, once it was read and checked. Nothing is read here."""

from collections.abc import Mapping
from dataclasses import dataclass

from node.engines.formats.onnx_protobuf import Array

Dimension = int | str | None


@dataclass(frozen=True, slots=True)
class Value:
    """An input or an output. A dimension is a size, a name for any size, or not known."""

    name: str
    kind: str
    shape: tuple[Dimension, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.name}: {self.kind}"
        sizes = ", ".join("any" if it is None else str(it) for it in self.shape)
        return f"{self.name}: {self.kind}[{sizes}]"


@dataclass(frozen=True, slots=True)
class GraphNode:
    """One operator at work, with the version of its domain's operators that the file asks for."""

    operator: str
    domain: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, "Attribute"]


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in an order in which each reads only what is there already."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    constants: Mapping[str, Array]
    nodes: tuple[GraphNode, ...]


Attribute = (
    float | int | str | Array | Graph | tuple[float, ...] | tuple[int, ...] | tuple[str, ...]
)


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A checked file: what it reads and gives, and its operators as (domain, name, version)."""

    graph: Graph
    opsets: Mapping[str, int]
    producer: str

    @property
    def inputs(self) -> tuple[Value, ...]:
        return self.graph.inputs

    @property
    def outputs(self) -> tuple[Value, ...]:
        return self.graph.outputs

    @property
    def operators(self) -> tuple[tuple[str, str, int], ...]:
        return tuple(sorted({(it.domain, it.operator, it.version) for it in self.graph.nodes}))

    @property
    def weights(self) -> int:
        """How many numbers the file's constants are."""
        return sum(it.size for it in self.graph.constants.values())
