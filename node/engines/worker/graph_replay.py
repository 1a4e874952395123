"""A captured graph run again, with other buffers for some: on a CPU kernels are called one by one.

tinygrad works out each kernel's arguments anew for every run, which costs more than the kernels of
a small model. Here they are worked out once. Worker only.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from tinygrad.engine.realize import get_call_arg_uops, get_runtime, resolve_params
from tinygrad.runtime.ops_cpu import CPUProgram
from tinygrad.uop.ops import Ops

ONCE = (1, 1, 1)
# Two values of the variable: a kernel's number that differs between them is the variable itself.
_PROBES = (1, 2)


def replay(captured: Any, inputs: Sequence[Sequence[Any]], variable: str) -> Callable[[int], Any]:
    """What runs the graph for a value of its one variable, and returns its result.

    It is run once with each of the `inputs`, one after the other. Between the runs nothing is kept
    but what the graph writes into its inputs.
    """
    value = ctypes.c_uint64(1)

    def plainly(number: int) -> Any:
        for each in inputs:
            captured(list(each), {variable: number})
        return captured.ret

    kernels = [_Kernel.of(call, variable) for call in captured.linear.src]
    if None in kernels:
        return plainly
    addresses = [[_address(it.buffer) for it in each] for each in inputs]
    calls = [
        (kernel.function, kernel.arguments(tuple(each), at, value))
        for each, at in zip(inputs, addresses, strict=True)
        for kernel in kernels
        if kernel is not None
    ]

    def quickly(number: int) -> Any:
        value.value = number
        for function, arguments in calls:
            function(*arguments)
        return captured.ret

    return quickly


@dataclass(slots=True)
class _Kernel:
    """One kernel of a graph, which is called just once. `numbers` has None for the variable."""

    call: Any
    function: Any
    sources: list[Any]
    numbers: list[Any]
    # The addresses of buffers that are the graph's own, for they are the same in every run.
    own: dict[int, Any]

    @classmethod
    def of(cls, call: Any, variable: str) -> Self | None:
        """None if it is no kernel of the CPU, or runs in several parts."""
        program = call.src[0]
        if program.op is not Ops.PROGRAM or call.src[1].device != "CPU":
            return None
        runtime = get_runtime("CPU", program)
        sizes = [program.arg.launch_dims({variable: probe})[0] for probe in _PROBES]
        if not isinstance(runtime, CPUProgram) or runtime.runtimevars or set(sizes) != {ONCE}:
            return None
        one, two = (program.arg.vals({variable: probe}) for probe in _PROBES)
        numbers = [
            ctypes.c_uint64(first) if first == second else None
            for first, second in zip(one, two, strict=True)
        ]
        sources = [get_call_arg_uops(call)[number] for number in program.arg.globals]
        own = {
            at: ctypes.c_uint64(_address(source.buffer))
            for at, source in enumerate(sources)
            if not any(it.op is Ops.PARAM for it in source.toposort())
        }
        return cls(call, runtime.fxn, sources, numbers, own)

    def arguments(self, inputs: tuple[Any, ...], addresses: list[int], value: Any) -> list[Any]:
        """Its arguments in a run with these inputs, which lie at `addresses`."""
        found = []
        for at, source in enumerate(self.sources):
            if at in self.own:
                found.append(self.own[at])
            elif source.op is Ops.PARAM:
                found.append(ctypes.c_uint64(addresses[source.arg.slot]))
            else:
                part = resolve_params(self.call, inputs)[self.call.src[0].arg.globals[at]]
                found.append(ctypes.c_uint64(_address(part.buffer)))
        return [*found, *(value if number is None else number for number in self.numbers)]


def _address(buffer: Any) -> int:
    found: int = buffer.ensure_allocated().get_buf("CPU").va_addr
    return found
