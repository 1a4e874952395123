"""Which ONNX operators are run here. All others are refused by name, with what to do about it.

The list holds what tinygrad 0.14.0 computes as the ONNX project's own test cases want it, and what
`tinygrad_onnx_ops` adds. Left out although tinygrad has them: Attention (wrong in a third of its
cases), Resize and MaxUnpool; what rounds to eight bits, whose steps are larger than any tolerance;
what draws at random; and what has a shape that depends on the numbers that come in.
"""

from collections.abc import Mapping

from node.engines.formats.onnx_graph import GraphNode, OnnxModel
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
OneHot Pad Range Reshape ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze
Tile TopK Transpose Trilu Unsqueeze
"""
_SUMS = """
ArgMax ArgMin CumSum Hardmax LogSoftmax ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Softmax
"""
_LAYERS = """
AveragePool BatchNormalization Conv ConvTranspose Dropout Einsum Gemm GlobalAveragePool
GlobalMaxPool GroupNormalization InstanceNormalization LRN LayerNormalization MatMul MaxPool
MeanVarianceNormalization RMSNormalization RotaryEmbedding
"""
_LEARNED = """
ArrayFeatureExtractor Binarizer FeatureVectorizer Imputer LinearClassifier LinearRegressor
Normalizer Scaler TreeEnsembleClassifier TreeEnsembleRegressor
"""
# What is computed number by number.
ELEMENTWISE = frozenset(_ELEMENTS.split())
OPERATORS: Mapping[str, frozenset[str]] = {
    STANDARD: frozenset(f"{_ELEMENTS}{_SHAPES}{_SUMS}{_LAYERS}".split()),
    LEARNED: frozenset(_LEARNED.split()),
}
# Before this version they flattened what they read, and are computed in another way.
_SINCE = {"Softmax": 13, "LogSoftmax": 13, "Hardmax": 13}
_TODO = {
    "ZipMap": "export it with zipmap=False",
    "QuantizeLinear": "export it without quantisation",
    "DynamicQuantizeLinear": "export it without quantisation",
    "If": "export it without control flow",
    "Loop": "export it without control flow",
    "Scan": "export it without control flow",
    "Attention": "export it with an older opset, where attention is made of products",
}


def check_operators(model: OnnxModel) -> None:
    """ModelRefused for the first operator that is not run here, or not as this model wants it."""
    for node in model.graph.nodes:
        known = OPERATORS.get(node.domain)
        if known is None or node.operator not in known:
            raise ModelRefused(
                f"the operator {node.operator[:80]} of {node.domain[:80]} is not run here",
                todo=_TODO.get(node.operator, ""),
            )
        least, most = VERSIONS[node.domain]
        least = max(least, _SINCE.get(node.operator, 0))
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
