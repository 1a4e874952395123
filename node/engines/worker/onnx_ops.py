"""What tinygrad lacks of `ai.onnx.ml`: trees, linear models, scalers. Runs in the worker only.

Each function takes its node's inputs as tensors and its attributes by name, as tinygrad's own do.
They give what onnxruntime gives, where the standard leaves it open.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tinygrad import Tensor

from node.engines.formats.onnx_graph import GraphNode
from node.engines.formats.onnx_protobuf import Array
from node.engines.formats.onnx_trees import Trees, read_trees
from wire.errors import ModelRefused

# Puts a constant on the device, once for all graphs of a model.
Place = Callable[[Array], Tensor]
_COMPARE: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "BRANCH_LEQ": lambda value, threshold: value <= threshold,
    "BRANCH_LT": lambda value, threshold: value < threshold,
    "BRANCH_GTE": lambda value, threshold: value >= threshold,
    "BRANCH_GT": lambda value, threshold: value > threshold,
    "BRANCH_EQ": lambda value, threshold: value == threshold,
    "BRANCH_NEQ": lambda value, threshold: value != threshold,
}


@dataclass(frozen=True, slots=True)
class PlacedTrees:
    """`Trees` on the device; what is an int or a word stays here."""

    plain: Trees
    feature: Tensor
    threshold: Tensor
    true: Tensor
    false: Tensor
    as_true: Tensor | None
    weights: Tensor
    roots: Tensor


def scaler(x: Tensor, offset: Tensor, scale: Tensor) -> Tensor:
    return (x.float() - offset) * scale


def normalizer(x: Tensor, norm: str = "MAX") -> Tensor:
    x = x.float()
    match norm:
        case "MAX":
            size = x.abs().max(-1, keepdim=True)
        case "L1":
            size = x.abs().sum(-1, keepdim=True)
        case "L2":
            size = x.square().sum(-1, keepdim=True).sqrt()
        case _:
            raise ModelRefused(f"Normalizer by {norm[:40]!r} is not run here")
    return (size == 0).where(x, x / size)


def imputer(
    x: Tensor,
    imputed_value_floats: Tensor | None = None,
    imputed_value_int64s: Tensor | None = None,
    replaced_value_float: float = 0.0,
    replaced_value_int64: int = 0,
) -> Tensor:
    new, old = imputed_value_floats, replaced_value_float
    if new is None:
        new, old = imputed_value_int64s, replaced_value_int64
    if new is None:
        raise ModelRefused("Imputer does not say by what it replaces")
    # What is not a number does not equal itself.
    return (x == old if old == old else x.isnan()).where(new, x)


def feature_vectorizer(*parts: Tensor, inputdimensions: Sequence[int] = ()) -> Tensor:
    flat = [part.float().reshape(part.shape[0], -1) for part in parts]
    if inputdimensions and [part.shape[1] for part in flat] != list(inputdimensions):
        raise ModelRefused("FeatureVectorizer does not get what it says it gets")
    return flat[0].cat(*flat[1:], dim=-1)


def array_feature_extractor(x: Tensor, places: Tensor) -> Tensor:
    found = x[..., places.reshape(-1)]
    return found.reshape(1, -1) if x.ndim == 1 else found


def linear_regressor(
    x: Tensor,
    coefficients: Tensor,
    intercepts: Tensor | None = None,
    targets: int = 1,
    post_transform: str = "NONE",
) -> Tensor:
    scores = x.float() @ coefficients.reshape(targets, -1).T
    return _transformed(scores if intercepts is None else scores + intercepts, post_transform)


def linear_classifier(
    x: Tensor,
    coefficients: Tensor,
    labels: Tensor,
    intercepts: Tensor | None = None,
    post_transform: str = "NONE",
) -> tuple[Tensor, Tensor]:
    rows = coefficients.shape[0] // x.shape[1]
    scores = x.float() @ coefficients.reshape(rows, -1).T
    scores = scores if intercepts is None else scores + intercepts
    if rows == 1 and labels.shape[0] == 2:
        # One row of coefficients for two classes: it tells the second from the first.
        alone = post_transform == "NONE"
        chosen = scores[:, 0] > (0.5 if alone else 0.0)
        scores = (1 - scores if alone else -scores).cat(scores, dim=-1)
        return chosen.where(labels[1], labels[0]), _transformed(scores, post_transform)
    return labels[scores.argmax(-1)], _transformed(scores, post_transform)


def tree_ensemble_regressor(
    x: Tensor,
    trees: PlacedTrees,
    base_values: Tensor | None = None,
    aggregate_function: str = "SUM",
    post_transform: str = "NONE",
) -> Tensor:
    leaves = _leaves(x, trees)
    match aggregate_function:
        case "SUM":
            scores = leaves.sum(1)
        case "AVERAGE":
            scores = leaves.sum(1) / len(trees.plain.roots)
        case "MIN":
            scores = leaves.min(1)
        case "MAX":
            scores = leaves.max(1)
        case _:
            raise ModelRefused(f"trees that give a {aggregate_function[:40]!r} are not run here")
    return _transformed(scores if base_values is None else scores + base_values, post_transform)


def tree_ensemble_classifier(
    x: Tensor,
    trees: PlacedTrees,
    labels: Tensor,
    base_values: Tensor | None = None,
    post_transform: str = "NONE",
) -> tuple[Tensor, Tensor]:
    scores = _leaves(x, trees).sum(1)
    only = trees.plain.only_target
    if labels.shape[0] != 2 or only < 0:
        scores = scores if base_values is None else scores + base_values
        return labels[scores.argmax(-1)], _transformed(scores, post_transform)
    # All weights are for one class of two: what they say of it, they say against the other.
    one = scores[:, only : only + 1]
    one = one if base_values is None else one + base_values[-1]
    positive = bool((trees.plain.weights >= 0).all())
    chosen = one[:, 0] > (0.5 if positive else 0.0)
    both = (1 - one if positive else -one).cat(one, dim=-1)
    return chosen.where(labels[1], labels[0]), _transformed(both, post_transform)


def _leaves(x: Tensor, trees: PlacedTrees) -> Tensor:
    """The weights of the leaf that each row comes to in each tree: [rows, trees, targets]."""
    plain = trees.plain
    if int(plain.feature.max()) >= x.shape[1]:
        raise ModelRefused(f"a tree asks for feature {plain.feature.max()} of {x.shape[1]}")
    at = trees.roots.reshape(1, -1).expand(x.shape[0], len(plain.roots))
    for _ in range(plain.depth):
        value = x.gather(1, trees.feature[at])
        goes = _COMPARE[plain.comparison](value, trees.threshold[at])
        if trees.as_true is not None:
            goes = goes | (value.isnan() & (trees.as_true[at] != 0))
        at = goes.where(trees.true[at], trees.false[at]).contiguous()
    return trees.weights[at]


def _transformed(scores: Tensor, kind: str) -> Tensor:
    match kind:
        case "NONE":
            return scores
        case "SOFTMAX":
            return scores.softmax(-1)
        case "LOGISTIC":
            return scores.sigmoid()
    raise ModelRefused(f"scores made {kind[:40]!r} are not run here")


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "ArrayFeatureExtractor": array_feature_extractor,
    "FeatureVectorizer": feature_vectorizer,
    "Imputer": imputer,
    "LinearClassifier": linear_classifier,
    "LinearRegressor": linear_regressor,
    "Normalizer": normalizer,
    "Scaler": scaler,
    "TreeEnsembleClassifier": tree_ensemble_classifier,
    "TreeEnsembleRegressor": tree_ensemble_regressor,
}


# What is known otherwise, or says nothing about what is computed.
_LEFT_OUT = frozenset({"n_targets", "multi_class"})
_LABELS = frozenset({"classlabels_ints", "classlabels_int64s"})


def options(node: GraphNode, place: Place) -> dict[str, Any]:
    """A node's attributes as its function takes them, lists of numbers on the device."""
    given: dict[str, Any] = {}
    if node.operator.startswith("TreeEnsemble"):
        given["trees"] = _placed(read_trees(node), place)
    elif node.operator == "Scaler":
        given |= {"offset": place(np.zeros(1, np.float32)), "scale": place(np.ones(1, np.float32))}
    for name, value in node.attributes.items():
        if name in _LABELS:
            given["labels"] = place(np.array(value, np.int64))
        elif name.startswith(("nodes_", "class_", "target_")) or name in _LEFT_OUT:
            continue
        elif isinstance(value, tuple) and value and name != "inputdimensions":
            whole = isinstance(value[0], int)
            given[name] = place(np.array(value, np.int64 if whole else np.float32))
        else:
            given[name] = value
    return given


def _placed(trees: Trees, place: Place) -> PlacedTrees:
    return PlacedTrees(
        plain=trees,
        feature=place(trees.feature),
        threshold=place(trees.threshold),
        true=place(trees.true),
        false=place(trees.false),
        as_true=None if trees.as_true is None else place(trees.as_true),
        weights=place(trees.weights),
        roots=place(trees.roots),
    )
