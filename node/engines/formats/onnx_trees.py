"""Decision trees as `ai.onnx.ml` writes them, checked and laid out as flat tables. Pure numpy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from node.engines.formats.onnx_graph import Attribute, GraphNode
from wire.errors import ModelRefused

COMPARISONS = frozenset(
    {"BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"}
)
DEPTH_MAX = 256
Numbers = np.ndarray[Any, np.dtype[np.int32]]
Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Trees:
    """All nodes of all trees in one row; a leaf leads to itself.

    From node `i` the way goes to `true[i]` where the input's `feature[i]` compares with
    `threshold[i]`, else to `false[i]`. After `depth` steps from its root each tree is at a leaf,
    whose row of `weights` counts. `as_true`: whether what is not a number goes the true way, None
    if none does.
    """

    feature: Numbers
    threshold: Floats
    true: Numbers
    false: Numbers
    as_true: Numbers | None
    weights: Floats
    roots: Numbers
    depth: int
    comparison: str
    # The one target that all weights are for where they are for one alone; else -1.
    only_target: int


def read_trees(node: GraphNode) -> Trees:
    """The trees of a TreeEnsembleClassifier or -Regressor; ModelRefused if they are none."""
    given = node.attributes
    if node.operator == "TreeEnsembleClassifier":
        kind, targets = "class", len(_list(given, "classlabels_int64s"))
    else:
        kind, targets = "target", _count(given.get("n_targets", 1))
    tree, number = _array(given, "nodes_treeids"), _array(given, "nodes_nodeids")
    count = len(tree)
    modes: list[str] = [str(it) for it in _list(given, "nodes_modes")]
    feature = _array(given, "nodes_featureids")
    threshold = _floats(given, "nodes_values")
    ways = [_array(given, f"nodes_{name}nodeids") for name in ("true", "false")]
    if not count or {len(modes), *map(len, (number, feature, threshold, *ways))} != {count}:
        raise _refuse("their lists are not of one length")
    place = {key: i for i, key in enumerate(zip(tree.tolist(), number.tolist(), strict=True))}
    if len(place) != count or not 0 < targets <= 4096 or not (feature >= 0).all():
        raise _refuse("a node is there twice, or a number is out of its range")
    leaf = np.array([mode == "LEAF" for mode in modes])
    comparisons = set(modes) - {"LEAF"}
    if len(comparisons) > 1 or not comparisons <= COMPARISONS:
        raise _refuse(f"they branch by {', '.join(sorted(comparisons))[:80]}")
    missing = _array(given, "nodes_missing_value_tracks_true")
    if len(missing) not in (0, count):
        raise _refuse("their lists are not of one length")
    true, false = (_followed(tree, way, leaf, place) for way in ways)
    weights, only_target = _weights(given, kind, targets, place)
    roots = _roots(tree, true, false, leaf)
    return Trees(
        feature=np.where(leaf, 0, feature).astype(np.int32),
        threshold=threshold,
        true=true,
        false=false,
        as_true=missing if missing.any() else None,
        weights=weights,
        roots=roots,
        depth=_depth(roots, true, false, leaf),
        comparison=comparisons.pop() if comparisons else "BRANCH_LEQ",
        only_target=only_target,
    )


def _followed(
    tree: Numbers, way: Numbers, leaf: Any, place: Mapping[tuple[int, int], int]
) -> Numbers:
    """Where each node leads, as places in the row."""
    found = np.arange(len(tree), dtype=np.int32)
    for i in np.flatnonzero(~leaf).tolist():
        target = place.get((int(tree[i]), int(way[i])))
        if target is None:
            raise _refuse("a branch leads nowhere")
        found[i] = target
    return found


def _weights(
    given: Mapping[str, Attribute], kind: str, targets: int, place: Mapping[tuple[int, int], int]
) -> tuple[Floats, int]:
    rows = [_array(given, f"{kind}_{name}") for name in ("treeids", "nodeids", "ids")]
    values = _floats(given, f"{kind}_weights")
    if {len(it) for it in rows} != {len(values)} or not len(values):
        raise _refuse("their lists of weights are not of one length")
    weights = np.zeros((len(place), targets), np.float32)
    for tree, number, target, value in zip(*(it.tolist() for it in rows), values, strict=True):
        at = place.get((tree, number))
        if at is None or not 0 <= target < targets:
            raise _refuse("a weight is for a leaf or a target that is not there")
        weights[at, target] += value
    used = set(rows[2].tolist())
    return weights, used.pop() if len(used) == 1 else -1


def _roots(tree: Numbers, true: Numbers, false: Numbers, leaf: Any) -> Numbers:
    """The one node of each tree that no other leads to."""
    led_to = np.zeros(len(tree), bool)
    led_to[true[~leaf]] = True
    led_to[false[~leaf]] = True
    roots = np.flatnonzero(~led_to).astype(np.int32)
    if sorted(tree[roots].tolist()) != sorted(set(tree.tolist())):
        raise _refuse("a tree has no root, or several")
    return roots


def _depth(roots: Numbers, true: Numbers, false: Numbers, leaf: Any) -> int:
    now, depth = roots, 0
    reached = np.zeros(len(leaf), bool)
    reached[roots] = True
    while len(now := now[~leaf[now]]):
        now = np.unique(np.concatenate([true[now], false[now]]))
        reached[now] = True
        depth += 1
        if depth > DEPTH_MAX:
            raise _refuse(f"a tree is deeper than {DEPTH_MAX}, or goes in a circle")
    if not reached.all():
        raise _refuse("no root, or several, or nodes that no root leads to")
    return depth


def _list(given: Mapping[str, Attribute], name: str) -> tuple[Any, ...]:
    found = given.get(name, ())
    if not isinstance(found, tuple):
        raise _refuse(f"{name} is no list")
    return found


def _array(given: Mapping[str, Attribute], name: str) -> Numbers:
    try:
        return np.array(_list(given, name), np.int32)
    except (OverflowError, TypeError, ValueError) as error:
        raise _refuse(f"{name} holds something else than small numbers") from error


def _floats(given: Mapping[str, Attribute], name: str) -> Floats:
    try:
        return np.array(_list(given, name), np.float32)
    except (OverflowError, TypeError, ValueError) as error:
        raise _refuse(f"{name} holds something else than numbers") from error


def _count(value: Attribute) -> int:
    return value if type(value) is int else 0


def _refuse(why: str) -> ModelRefused:
    return ModelRefused(f"the trees of the model cannot be read: {why}")
