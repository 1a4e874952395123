"""A captured graph run again, with other buffers for some: on a CPU kernels are called one by one.

tinygrad works out each kernel's arguments anew for every run, which costs more than the kernels of
a small model. Here they are worked out once, and the kernels go to a team of threads. Worker only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from tinygrad.engine.realize import get_call_arg_uops, get_runtime, resolve_params
from tinygrad.runtime.ops_cpu import CPUProgram
from tinygrad.uop.ops import Ops

from node.engines.worker.panel_kernels import PART, native
from node.engines.worker.thread_team import ARGUMENTS_MAX, KernelCall, KernelList, ThreadTeam

ONCE = (1, 1, 1)
# Two values of the variable: a kernel's number that differs between them is the variable itself.
_PROBES = (1, 2)


def replay(
    runs: Sequence[tuple[Any, Sequence[Any]]], variable: str, team: ThreadTeam
) -> Callable[[int], Any]:
    """What runs graphs, each with its inputs, for a value of their one variable; the last's result.

    A graph may be there often, with other inputs. Between its runs nothing is kept but what it
    writes into them.
    """

    def plainly(number: int) -> Any:
        return [graph(list(inputs), {variable: number}) for graph, inputs in runs][-1]

    if not native():
        # What runs the kernels is C, which other compilers of the CPU do not take.
        return plainly
    graphs = {id(graph): graph for graph, _ in runs}
    kernels = {
        at: [_Kernel.of(call, variable) for call in graph.linear.src]
        for at, graph in graphs.items()
    }
    if any(None in found for found in kernels.values()):
        return plainly
    calls: list[KernelCall] = []
    for graph, inputs in runs:
        addresses = [_address(it.buffer) for it in inputs]
        calls += [
            kernel.called(tuple(inputs), addresses)
            for kernel in kernels[id(graph)]
            if kernel is not None
        ]
    last, listed = runs[-1][0], KernelList(calls)

    def quickly(number: int) -> Any:
        team.run(listed, number)
        return last.ret

    return quickly


@dataclass(slots=True)
class _Kernel:
    """One kernel of a graph, which is called just once. `numbers` has None for the variable."""

    call: Any
    address: int
    sources: list[Any]
    numbers: list[int | None]
    # The addresses of buffers that are the graph's own, for they are the same in every run.
    own: dict[int, int]
    parts: int

    @classmethod
    def of(cls, call: Any, variable: str) -> Self | None:
        """None if it is no kernel of the CPU, or is not called just once."""
        program = call.src[0]
        if program.op is not Ops.PROGRAM or call.src[1].device != "CPU":
            return None
        runtime, variables = get_runtime("CPU", program), program.arg.vars
        sizes = [program.arg.launch_dims({variable: probe})[0] for probe in _PROBES]
        divided = [at for at, it in enumerate(variables) if it.expr == PART]
        if not isinstance(runtime, CPUProgram) or set(sizes) != {ONCE}:
            return None
        if divided not in ([], [len(variables) - 1]):
            return None
        one, two = (program.arg.vals({variable: probe}) for probe in _PROBES)
        numbers = [
            (first or 0) if first == second else None
            for first, second in zip(one, two, strict=True)
        ]
        sources = [get_call_arg_uops(call)[number] for number in program.arg.globals]
        if len(sources) + len(numbers) > ARGUMENTS_MAX:
            return None
        own = {
            at: _address(source.buffer)
            for at, source in enumerate(sources)
            if not any(it.op is Ops.PARAM for it in source.toposort())
        }
        parts = variables[-1].vmax + 1 if divided else 1
        return cls(call, runtime.addr, sources, numbers, own, parts)

    def called(self, inputs: tuple[Any, ...], addresses: list[int]) -> KernelCall:
        """How it is called in a run with these inputs, which lie at `addresses`."""
        found = []
        for at, source in enumerate(self.sources):
            if at in self.own:
                found.append(self.own[at])
            elif source.op is Ops.PARAM:
                found.append(addresses[source.arg.slot])
            else:
                part = resolve_params(self.call, inputs)[self.call.src[0].arg.globals[at]]
                found.append(_address(part.buffer))
        return KernelCall(self.address, [*found, *self.numbers], self.parts)


def _address(buffer: Any) -> int:
    found: int = buffer.ensure_allocated().get_buf("CPU").va_addr
    return found
