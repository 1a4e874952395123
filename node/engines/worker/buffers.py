"""Numbers on the device, written where they are to lie and by way of no graph. Worker only."""

from typing import Any

import numpy as np
from tinygrad import Tensor, dtypes

Array = np.ndarray[Any, Any]


def placed(array: Array) -> Tensor:
    """A copy of `array` on the device."""
    tensor = Tensor.empty(*array.shape, dtype=getattr(dtypes, array.dtype.name))
    buffer = tensor.uop.base.buffer
    buffer.allocate()
    write(buffer, array)
    return tensor


def zeros(*shape: int, kind: str = "float32") -> Tensor:
    """Nothing yet. Its memory is taken now: what a model needs is measured once it is loaded."""
    # One zero that is everywhere: no second array of that size is ever there.
    return placed(np.broadcast_to(np.zeros((), kind), shape))


def write(buffer: Any, array: Array) -> None:
    """Put the numbers of `array` into a device's buffer of the same kind and size."""
    if hasattr(buffer.allocator, "_as_buffer"):
        target = np.frombuffer(buffer.as_memoryview(force_zero_copy=True), array.dtype)
        target.reshape(array.shape)[...] = array
    else:
        # Drivers take the address of what they copy, which Python gives of writable memory alone;
        # a weight may lie in a file that is mapped to be read.
        whole = np.require(array, requirements=("C", "W"))
        buffer.allocator._copyin(buffer._buf, whole.data.cast("B"))
