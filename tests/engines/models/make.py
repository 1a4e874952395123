"""Makes the models of this folder and what onnxruntime answers to them, once, elsewhere.

They are kept in the repository, so that the tests need none of what made them: scikit-learn 1.9.1,
skl2onnx 1.20.0, torch 2.13.0 (CPU), onnxscript, onnxruntime 1.31.1. To make them again, in an
environment with these: `python tests/engines/models/make.py`. It takes a minute.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

FOLDER = Path(__file__).parent
ROWS = 70


def sklearn_models() -> None:
    digits, cancer, diabetes = load_digits(), load_breast_cancer(), load_diabetes()
    for name, data, model in (
        ("sklearn_mlp", digits, MLPClassifier((32,), max_iter=60, random_state=1)),
        ("sklearn_boosting", cancer, GradientBoostingClassifier(n_estimators=40, random_state=1)),
        (
            "sklearn_boosting_digits",
            digits,
            GradientBoostingClassifier(n_estimators=10, max_depth=2, random_state=1),
        ),
        ("sklearn_boosting_regressor", diabetes, GradientBoostingRegressor(random_state=1)),
        (
            "sklearn_forest",
            digits,
            RandomForestClassifier(n_estimators=20, max_depth=6, random_state=1),
        ),
        ("sklearn_forest_binary", cancer, RandomForestClassifier(n_estimators=20, random_state=1)),
        (
            "sklearn_logistic",
            digits,
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)),
        ),
        (
            "sklearn_logistic_binary",
            cancer,
            make_pipeline(Normalizer(), LogisticRegression(max_iter=200)),
        ),
        ("sklearn_linear", diabetes, make_pipeline(StandardScaler(), LinearRegression())),
    ):
        inputs = data.data.astype(np.float32)
        model.fit(inputs, data.target)
        options = {"zipmap": False} if hasattr(model, "predict_proba") else None
        made = to_onnx(model, inputs[:1], options=options, target_opset={"": 18, "ai.onnx.ml": 3})
        keep(name, made.SerializeToString(), {"X": inputs[:ROWS]})


class Cnn(torch.nn.Module):
    """Digits, 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, padding=1),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(8, 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.AvgPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(64, 10),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.body(image).softmax(-1)


class Encoder(torch.nn.Module):
    """Token numbers in, one vector out: two layers of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(100, 32)
        layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.layers = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.layers(self.words(tokens)).mean(1)


def torch_models() -> None:
    torch.manual_seed(1)
    torch.backends.mha.set_fastpath_enabled(False)
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    cnn, targets = Cnn(), torch.from_numpy(digits.target)
    steps = torch.optim.Adam(cnn.parameters(), lr=0.01)
    for _ in range(60):
        steps.zero_grad()
        right = cnn(torch.from_numpy(images))[range(len(images)), targets]
        (-(right + 1e-9).log().mean()).backward()
        steps.step()
    mlp = torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 10), torch.nn.Softmax(-1)
    )
    tokens = np.random.default_rng(1).integers(0, 100, (ROWS, 12))
    pixels = digits.data[:ROWS].astype(np.float32)
    for name, model, argument, array in (
        ("torch_mlp", mlp, "input", pixels),
        ("torch_cnn", cnn, "image", images[:ROWS]),
        ("torch_encoder", Encoder(), "tokens", tokens),
    ):
        export(name, model.eval(), argument, array, dynamo=True)
    # What torch's older way of exporting makes is other operators.
    export(f"{name}_legacy", model, argument, array, dynamo=False)


def export(name: str, model: torch.nn.Module, argument: str, array: np.ndarray, *, dynamo: bool):
    path = FOLDER / f"{name}.onnx"
    example = torch.from_numpy(array[:2])
    if dynamo:
        batch = torch.export.Dim("batch")
        shapes = {"dynamic_shapes": ({0: batch},)}
    else:
        shapes = {"dynamic_axes": {argument: {0: "batch"}, "answer": {0: "batch"}}}
    torch.onnx.export(
        model,
        (example,),
        path,
        input_names=[argument],
        output_names=["answer"],
        dynamo=dynamo,
        opset_version=18,
        **({"external_data": False} if dynamo else {}),
        **shapes,
    )
    keep(name, path.read_bytes(), {argument: array})


def keep(name: str, data: bytes, inputs: dict[str, np.ndarray]) -> None:
    """The model, what goes in and what onnxruntime gives for it."""
    model = onnx.load_from_string(data)
    # Where each node came from, with the paths of who exported it: two thirds of a file.
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    data = model.SerializeToString()
    assert len(data) < 200_000, f"{name} has {len(data)} bytes"
    (FOLDER / f"{name}.onnx").write_bytes(data)
    session = onnxruntime.InferenceSession(data)
    names = [it.name for it in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, inputs), strict=True))
    np.savez_compressed(
        FOLDER / f"{name}.npz",
        **{f"in:{key}": array for key, array in inputs.items()},
        **{f"out:{key}": array for key, array in outputs.items()},
    )


if __name__ == "__main__":
    makers: tuple[Callable[[], None], ...] = (sklearn_models, torch_models)
    for make in makers:
        make()
