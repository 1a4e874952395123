"""Which ONNX operators are run here. All others are refused by name, with what to do about it.

The list holds what tinygrad 0.14.0 computes as the ONNX project's own test cases want it, and what
`engines/worker/onnx_*` add. Left out although tinygrad has it: MaxUnpool; what draws at random; and
what has a shape that depends on the numbers that come in.
"""

from collections.abc import Mapping

from node.engines.formats.onnx_graph import Graph, GraphNode, OnnxModel
from node.engines.formats.onnx_trees import read_trees
from wire.errors import ModelRefused

STANDARD = "ai.onnx"
LEARNED = "ai.onnx.ml"
# Before 7 operators broadcast by other rules; 28 and 5 are the newest that were looked at.
VERSIONS: Mapping[str, tuple[int, int]] = {STANDARD: (7, 28), LEARNED: (1, 5)}

_ELEMENTS = """
Abs Acos Acosh Add And Asin Asinh Atan Atanh BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast
CastLike Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid
HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not
Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum
Swish Tan Tanh ThresholdedRelu Where Xor
"""
_SHAPES = """
Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten Gather GatherElements GatherND
If OneHot Pad Range Reshape Resize ScatterElements ScatterND Shape Size Slice SpaceToDepth
Split Squeeze Tile TopK Transpose Trilu Unsqueeze Upsample
"""
_SUMS = """
ArgMax ArgMin CumSum Hardmax LogSoftmax ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Softmax
"""
_LAYERS = """
AffineGrid Attention AveragePool BatchNormalization Conv ConvTranspose Dropout Einsum Gemm
GlobalAveragePool GlobalMaxPool GridSample GroupNormalization InstanceNormalization LRN
LayerNormalization LpNormalization MatMul MaxPool MeanVarianceNormalization RMSNormalization
RotaryEmbedding
"""
_RECURRENT_LAYERS = "GRU LSTM RNN"
_QUANTISED = """
ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul
QuantizeLinear
"""
_LEARNED = """
ArrayFeatureExtractor Binarizer FeatureVectorizer Imputer LinearClassifier LinearRegressor
Normalizer Scaler TreeEnsembleClassifier TreeEnsembleRegressor
"""
# What is computed number by number.
ELEMENTWISE = frozenset(_ELEMENTS.split())
OPERATORS: Mapping[str, frozenset[str]] = {
    STANDARD: frozenset(
        f"{_ELEMENTS}{_SHAPES}{_SUMS}{_LAYERS}{_RECURRENT_LAYERS}{_QUANTISED}".split()
    ),
    LEARNED: frozenset(_LEARNED.split()),
}
_TODO = {"ZipMap": "export it with zipmap=False"}
_OPEN = "what it gives has as many numbers as the numbers that come in decide"
_WHY = {
    "NonMaxSuppression": _OPEN,
    "NonZero": _OPEN,
    "Unique": _OPEN,
    "Compress": _OPEN,
}


def check_operators(model: OnnxModel) -> None:
    """ModelRefused for the first operator that is not run here, or not as this model wants it."""
    _check_graph(model, model.graph)


def _check_graph(model: OnnxModel, graph: Graph) -> None:
    for node in graph.nodes:
        for branch in node.attributes.values():
            if isinstance(branch, Graph):
                _check_graph(model, branch)
        known = OPERATORS.get(node.domain)
        if known is None or node.operator not in known:
            raise ModelRefused(
                f"the operator {node.operator[:80]} of {node.domain[:80]} is not run here"
                f"{_why(node)}",
                todo=_TODO.get(node.operator, ""),
            )
        least, most = VERSIONS[node.domain]
        if not least <= node.version <= most:
            raise ModelRefused(
                f"{node.operator} of {node.domain} version {node.version} is not run here",
                todo=f"export it with one of {least} to {most}",
            )
        _check_training(model, node)
        if "classlabels_strings" in node.attributes:
            raise ModelRefused(
                f"the labels of {node.operator} are texts, and numbers are run here",
                todo="train it with integers as labels",
            )
        if node.operator.startswith("TreeEnsemble"):
            read_trees(node)


def _why(node: GraphNode) -> str:
    why = _WHY.get(node.operator, "") if node.domain == STANDARD else ""
    return f": {why}" if why else ""


def _check_training(model: OnnxModel, node: GraphNode) -> None:
    """What drops or averages in another way while a model is trained, at random even."""
    training: object = node.attributes.get("training_mode", 0)
    if node.operator == "Dropout" and len(node.inputs) > 2 and node.inputs[2]:
        switch = model.graph.constants.get(node.inputs[2])
        training = switch is None or bool(switch.any())
    if training:
        raise ModelRefused(
            f"{node.operator} is in training mode here", todo="export the model for inference"
        )
