"""Kernels of a pass, run one after the other by one thread or by several together. Worker only.

A list of kernels is run in C, so that between two kernels nobody waits for Python. A kernel that
has parts (`panel_kernels.PART`) is divided among the threads that are there: each takes the next
part that nobody took, so a thread that the system does not let run holds up nothing but the part
that it is at. Whoever ends the last part of a kernel goes on to the next. A part's numbers do not
depend on who works them out.
"""

import ctypes
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tinygrad import Device
from tinygrad.engine.realize import get_runtime
from tinygrad.uop.ops import KernelInfo, Ops, ProgramInfo, UOp

from node.engines.worker.thread_choice import ThreadChoice

# What a kernel may take; one that takes more is run in another way.
ARGUMENTS_MAX = 32
# More threads than this only wait for memory, and for each other.
THREADS_MAX = 4

_CALLS = "\n".join(
    f"    case {count}: ((void (*)({', '.join(['number'] * count)}))call->code)"
    f"({', '.join(f'taken[{at}]' for at in range(count))}); break;"
    for count in range(1, ARGUMENTS_MAX + 1)
)
# The state's `turn` is the kernel's number since ever, how many parts it has and which is next; no
# parts: nothing is left to do. Who takes a part makes the turn another one, so nobody takes it too,
# and what a turn says holds until all its parts are done.
SOURCE = f"""
typedef unsigned long long number;
typedef struct {{ void* code; number parts, count; number* arguments; }} kernel;
typedef struct {{
  kernel* kernels;
  number end, at;
  void (*give_way)(void);
  number kernels_since_ever, unused[3];
  number turn, apart[7];
  number done, apart_too[7];
}} state;

static void run_one(const kernel* call, number part);
static void go_on(state* all, number at);

void baton_run_kernels(state* all, number begins) {{
  if (begins) go_on(all, 0);
  for (number spins = 0;;) {{
    number turn = __atomic_load_n(&all->turn, __ATOMIC_ACQUIRE);
    const number parts = turn >> 8 & 255, next = turn & 255;
    if (!parts) return;
    if (next < parts) {{
      if (!__atomic_compare_exchange_n(&all->turn, &turn, turn + 1, 0, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE)) continue;
      const number at = all->at;
      run_one(all->kernels + at, next + 1);
      if (__atomic_add_fetch(&all->done, 1, __ATOMIC_ACQ_REL) == parts) go_on(all, at + 1);
      spins = 0;
    }} else if (++spins < 4096) {{
#if defined(__x86_64__)
      __builtin_ia32_pause();
#elif defined(__aarch64__)
      __asm__ volatile("yield");
#endif
    }} else all->give_way();
  }}
}}

static void run_one(const kernel* call, number part) {{
  number taken[{ARGUMENTS_MAX}];
  for (number at = 0; at < call->count; at++) taken[at] = call->arguments[at];
  if (part) taken[call->count - 1] = part;
  switch (call->count) {{
{_CALLS}
  }}
}}

static void go_on(state* all, number at) {{
  for (; at < all->end && all->kernels[at].parts == 1; at++) run_one(all->kernels + at, 0);
  all->at = at;
  __atomic_store_n(&all->done, 0, __ATOMIC_RELAXED);
  const number parts = at < all->end ? all->kernels[at].parts : 0;
  __atomic_store_n(&all->turn, ++all->kernels_since_ever << 16 | parts << 8, __ATOMIC_RELEASE);
}}
"""


class _Kernel(ctypes.Structure):
    """As in `SOURCE`."""

    _fields_ = (
        ("code", ctypes.c_uint64),
        ("parts", ctypes.c_uint64),
        ("count", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64),
    )


# The places of the state's numbers.
KERNELS, END, GIVE_WAY, STATE_NUMBERS = 0, 1, 3, 24


@dataclass(frozen=True, slots=True)
class KernelCall:
    """A kernel and its arguments; None stands for the number that each pass has its own of.

    Of one that has `parts` the last argument says which is meant.
    """

    address: int
    arguments: Sequence[int | None]
    parts: int


class KernelList:
    """Kernels in their order, as C takes them."""

    def __init__(self, calls: Sequence[KernelCall]) -> None:
        found = [it for call in calls for it in call.arguments]
        self._numbers = np.array([it or 0 for it in found], np.uint64)
        self._own = np.flatnonzero([it is None for it in found])
        address, at = self._numbers.ctypes.data, 0
        kernels, whole = [], []
        for call in calls:
            place = address + at * self._numbers.itemsize
            kernel = (call.address, call.parts, len(call.arguments), place)
            kernels.append(_Kernel(*kernel))
            whole.append(_Kernel(call.address, 1, *kernel[2:]))
            at += len(call.arguments)
        self._divided = (_Kernel * len(kernels))(*kernels)
        self._whole = (_Kernel * len(whole))(*whole)
        self.divides = any(call.parts > 1 for call in calls)
        self.count = len(calls)
        self.choice = ThreadChoice()

    def set(self, number: int) -> None:
        """Have the kernels take this number where one is missing."""
        self._numbers[self._own] = number

    def kernels(self, threads: int) -> int:
        """Where they begin."""
        return ctypes.addressof(self._divided if threads > 1 else self._whole)


class ThreadTeam:
    """The threads of one process: the one that calls `run`, and those that help it."""

    def __init__(self, threads: int = 1) -> None:
        self.allow(threads)
        self._program: Any = None
        self._code: Any = None
        # On lines of the cache of their own: what threads write does not disturb who reads.
        self._memory = np.zeros(STATE_NUMBERS + 8, np.uint64)
        first = -self._memory.ctypes.data % 64 // 8
        self._state = self._memory[first : first + STATE_NUMBERS]
        self._helpers: list[_Helper] = []

    def allow(self, threads: int) -> None:
        """Use so many threads from now on, or fewer."""
        self._allowed = max(1, min(threads, THREADS_MAX))

    def run(self, kernels: KernelList, number: int) -> None:
        """Run all, with as many threads as took the least time lately."""
        threads = kernels.choice.next(self._allowed if kernels.divides else 1)
        began_at_s = time.perf_counter()
        self._run(kernels, number, threads)
        kernels.choice.took(threads, time.perf_counter() - began_at_s)

    def _run(self, kernels: KernelList, number: int, threads: int) -> None:
        if self._code is None:
            self._program = compiled_as("baton_run_kernels", SOURCE)
            self._code = self._program.fxn
            give_way = ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value
            assert give_way is not None, "every system with threads has it"
            self._state[GIVE_WAY] = give_way
        kernels.set(number)
        self._state[KERNELS] = kernels.kernels(threads)
        self._state[END] = kernels.count
        state = ctypes.c_uint64(self._state.ctypes.data)
        while len(self._helpers) < threads - 1:
            self._helpers.append(_Helper(self._code, state))
        for helper in self._helpers[: threads - 1]:
            helper.wake()
        self._code(state, ctypes.c_uint64(1))


class _Helper:
    """A thread that takes parts of kernels while there are some, and sleeps until it is woken."""

    def __init__(self, code: Any, state: Any) -> None:
        self._code = code
        self._state = state
        self._sleeps = True
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()
        threading.Thread(target=self._help, daemon=True).start()

    def wake(self) -> None:
        # One call is enough for a thread that has not come to it.
        if self._sleeps:
            self._sleeps = False
            self._calls.put(None)

    def _help(self) -> None:
        while True:
            self._calls.get()
            # Woken meanwhile it would be late for nothing: it looks at what is there now.
            self._sleeps = True
            self._code(self._state, ctypes.c_uint64(0))


def compiled_as(name: str, source: str) -> Any:
    """A C function of this name as tinygrad loads it, compiled or found compiled."""
    device = Device["CPU"]
    parts = (
        UOp.sink(arg=KernelInfo(name=name)),
        UOp(Ops.LINEAR, src=()),
        UOp(Ops.SOURCE, arg=source),
        UOp(Ops.BINARY, arg=device.compiler.compile_cached(source)),
    )
    info = ProgramInfo(name=name, target=device.renderer.target)
    return get_runtime("CPU", UOp(Ops.PROGRAM, src=parts, arg=info))
