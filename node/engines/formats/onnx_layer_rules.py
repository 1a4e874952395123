"""As `onnx_shape_rules`, for layers: convolutions, pools, and what moves depth into space. Pure."""

from collections.abc import Sequence

from node.engines.formats.onnx_graph import GraphNode
from node.engines.formats.onnx_shape_rules import Given, Sized, number_of, numbers_of


def conv(node: GraphNode, given: Given) -> Sequence[Sized]:
    shape, weights = given[0].sizes, given[1].sizes
    return [Sized((shape[0], weights[0], *_windows(node, shape, weights[2:])), given[0].kind)]


def pool(node: GraphNode, given: Given) -> Sequence[Sized]:
    shape = given[0].sizes
    sizes = (*shape[:2], *_windows(node, shape, numbers_of(node, "kernel_shape", ())))
    return [Sized(sizes, given[0].kind), Sized(sizes, "int64")]


def _windows(node: GraphNode, shape: tuple[int, ...], kernel: Sequence[int]) -> list[int]:
    """How many places of a window there are along each axis but the first two."""
    rank, auto = len(kernel), node.attributes.get("auto_pad", "NOTSET")
    strides = numbers_of(node, "strides", [1] * rank)
    dilations = numbers_of(node, "dilations", [1] * rank)
    pads = numbers_of(node, "pads", [0] * 2 * rank)
    up = bool(number_of(node, "ceil_mode", 0))
    found = []
    for at, size in enumerate(shape[2:]):
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            found.append(-(-size // strides[at]))
            continue
        room = size + (0 if auto == "VALID" else pads[at] + pads[at + rank])
        room -= dilations[at] * (kernel[at] - 1) + 1
        places = (-(-room // strides[at]) if up else room // strides[at]) + 1
        if up and auto != "VALID" and (places - 1) * strides[at] >= size + pads[at]:
            # A window that would begin beyond what there is.
            places -= 1
        found.append(places)
    return found


def conv_transpose(node: GraphNode, given: Given) -> Sequence[Sized]:
    shape, weights = given[0].sizes, given[1].sizes
    channels = weights[1] * number_of(node, "group", 1)
    rank = len(weights) - 2
    wanted = node.attributes.get("output_shape")
    if isinstance(wanted, tuple):
        return [Sized((shape[0], channels, *map(int, wanted[-rank:])), given[0].kind)]
    strides = numbers_of(node, "strides", [1] * rank)
    dilations = numbers_of(node, "dilations", [1] * rank)
    pads = numbers_of(node, "pads", [0] * 2 * rank)
    more = numbers_of(node, "output_padding", [0] * rank)
    auto = node.attributes.get("auto_pad", "NOTSET")
    sizes = [
        size * strides[at]
        if auto in ("SAME_UPPER", "SAME_LOWER")
        else (size - 1) * strides[at]
        + dilations[at] * (weights[at + 2] - 1)
        + 1
        + more[at]
        - (pads[at] + pads[at + rank])
        for at, size in enumerate(shape[2:])
    ]
    return [Sized((shape[0], channels, *sizes), given[0].kind)]


def global_pool(_: GraphNode, given: Given) -> Sequence[Sized]:
    shape = given[0].sizes
    return [Sized((*shape[:2], *[1] * (len(shape) - 2)), given[0].kind)]


def depth_to_space(node: GraphNode, given: Given) -> Sequence[Sized]:
    (rows, depth, *sizes), block = given[0].sizes, number_of(node, "blocksize", 1)
    return [Sized((rows, depth // block**2, *[it * block for it in sizes]), given[0].kind)]


def space_to_depth(node: GraphNode, given: Given) -> Sequence[Sized]:
    (rows, depth, *sizes), block = given[0].sizes, number_of(node, "blocksize", 1)
    return [Sized((rows, depth * block**2, *[it // block for it in sizes]), given[0].kind)]


def einsum(node: GraphNode, given: Given) -> Sequence[Sized]:
    text = str(node.attributes["equation"]).replace(" ", "")
    if "." in text or "->" not in text:
        raise ValueError("an equation of open rank")
    left, _, right = text.partition("->")
    sizes: dict[str, int] = {}
    for letters, value in zip(left.split(","), given, strict=True):
        sizes |= dict(zip(letters, value.sizes, strict=True))
    return [Sized(tuple(sizes[it] for it in right), given[0].kind)]


def attention(node: GraphNode, given: Given) -> Sequence[Sized]:
    """The answer, keys and values with those of the past, and the scores."""
    query, key, value = (it.sizes for it in given[:3])
    past = given[4].sizes[2] if len(given) > 4 and node.inputs[4] else 0
    if len(query) == 3:
        q_heads, heads = number_of(node, "q_num_heads", 0), number_of(node, "kv_num_heads", 0)
        query = (query[0], q_heads, query[1], query[2] // q_heads)
        key, value = ((it[0], heads, it[1], it[2] // heads) for it in (key, value))
        answer: tuple[int, ...] = (query[0], query[2], q_heads * value[3])
    else:
        answer = (*query[:3], value[3])
    keys = past + key[2]
    shapes = (
        answer,
        (*key[:2], keys, key[3]),
        (*value[:2], keys, value[3]),
        (*query[:3], keys),
    )
    return [Sized(it, given[0].kind) for it in shapes]


def grid_sample(_: GraphNode, given: Given) -> Sequence[Sized]:
    return [Sized((*given[0].sizes[:2], *given[1].sizes[1:-1]), given[0].kind)]
