"""A captured graph run again with the same buffers: on a CPU its kernels are called one by one.

tinygrad works out each kernel's arguments anew for every run, which costs more than the kernels of
a small model. Here they are worked out once. Worker only.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

from tinygrad.engine.realize import get_runtime, resolve_params, unwrap_multi
from tinygrad.runtime.ops_cpu import CPUProgram
from tinygrad.uop.ops import Ops

ONCE = (1, 1, 1)
# Two values of the variable: a kernel's number that differs between them is the variable itself.
_PROBES = (1, 2)


def replay(captured: Any, inputs: Sequence[Any], variable: str) -> Callable[[int], Any]:
    """What runs the graph for a value of its one variable, and returns its result."""
    linear, uops = captured.linear, tuple(inputs)
    value = ctypes.c_uint64(1)
    calls: list[tuple[Any, list[Any]]] = []

    def plainly(number: int) -> Any:
        return captured(list(inputs), {variable: number})

    for call in linear.src:
        program = call.src[0]
        if program.op is not Ops.PROGRAM or call.src[1].device != "CPU":
            return plainly
        arguments = _arguments(call, program, uops, variable, value)
        if arguments is None:
            return plainly
        calls.append(arguments)

    def quickly(number: int) -> Any:
        value.value = number
        for function, arguments in calls:
            function(*arguments)
        return captured.ret

    return quickly


def _arguments(
    call: Any, program: Any, inputs: tuple[Any, ...], variable: str, value: ctypes.c_uint64
) -> tuple[Any, list[Any]] | None:
    """A kernel's function and its arguments; None if it is not called just once."""
    runtime = get_runtime("CPU", program)
    resolved = resolve_params(call, inputs)
    ((buffers, more),) = unwrap_multi(call, [resolved[number] for number in program.arg.globals])
    sizes = [program.arg.launch_dims({variable: probe})[0] for probe in _PROBES]
    if not isinstance(runtime, CPUProgram) or runtime.runtimevars or more or set(sizes) != {ONCE}:
        return None
    addresses = [ctypes.c_uint64(it.ensure_allocated().get_buf("CPU").va_addr) for it in buffers]
    one, two = (program.arg.vals({variable: probe}) for probe in _PROBES)
    numbers = [
        ctypes.c_uint64(first) if first == second else value
        for first, second in zip(one, two, strict=True)
    ]
    return runtime.fxn, [*addresses, *numbers]
