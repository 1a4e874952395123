"""Exact transformers in tinygrad: equal to the numpy reference to the bit, on every device here."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from node.engines.exact.text_layers import TextPast
from node.engines.formats.smollm2 import SMOLLM2
from node.engines.host.launch import default_device
from node.engines.interface import REPLAY, Job
from node.engines.replay import JudgedAnswer, request, told_otherwise
from node.engines.worker.exact_claims import ExactClaims
from node.models.exact_texts import make_exact_text
from tests.engines.conftest import OpenEngine
from tests.engines.exact.text_models import exact_manifest, layers_of, made_at
from tests.engines.opencl import CL, need_opencl
from wire.content import ContentId
from wire.errors import ModelRefused
from wire.generation import Generation, Token, read_frames

pytestmark = pytest.mark.own_device
PROGRAM = """
import sys
from pathlib import Path
from node.engines.exact.text_file import read_text
from node.engines.worker.exact_products import ROWS, DeviceProducts
from node.engines.worker.exact_text import check_products, groups_of
from node.engines.worker.thread_team import ThreadTeam

text = read_text(Path(sys.argv[1]))
products = DeviceProducts(text, groups_of(text), ThreadTeam(1))
products.ready({it: products.capture(it) for it in ROWS})
check_products(text, products)
print("equal")
"""


def equal_on(device: str, path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": ":".join([str(Path(__file__).parents[3]), *filter(None, sys.path)]),
            "DEV": device,
            "PARALLEL": "0",
            "HOME": os.environ.get("HOME", "/"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("device", ["processor", "CPU:LLVM", CL])
def test_products_are_equal_to_the_bit_on_every_device(device: str, tmp_path: Path) -> None:
    if device == CL:
        need_opencl()
    equal_on(default_device() if device == "processor" else device, made_at(tmp_path))


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_smollm2_costs_little_and_says_what_the_reference_says(
    tmp_path: Path, open_engine: OpenEngine
) -> None:
    path = tmp_path / "smollm2.exact"
    _, cost = make_exact_text(SMOLLM2.files()["model.gguf"], path)
    assert cost.tokens == 640
    assert cost.loss - cost.loss_in_floats < 0.05
    assert cost.same_best > 0.94
    manifest, files = exact_manifest(path)
    claims = ExactClaims.of(path, manifest.id)
    async with open_engine(device=default_device()) as engine:
        await engine.load(manifest, files)
        for temperature in (0.0, 0.9):
            job = asking(manifest.id, range(100, 160), temperature=temperature, seed=4)
            output = (await engine.infer(replace(job, deadline_s=900))).data
            assert claims.difference(job.input, job.parameters, output) == ""


def asking(model: ContentId, prompt: Sequence[int], **parameters: float) -> Job:
    asked = Generation(
        prompt="", messages="", tools="", schema="", stop=(), prompt_tokens=tuple(prompt)
    )
    return Job(
        model=model,
        operation="generate",
        input=asked.to_bytes(),
        parameters={"tokens": 12, "ignore_eos": 1, **parameters},
        deadline_s=100,
    )


def ids(output: bytes) -> list[int]:
    return [it.id for it in read_frames(output) if isinstance(it, Token)]


async def test_a_served_model_says_what_the_reference_says(
    tmp_path: Path, open_engine: OpenEngine
) -> None:
    path = made_at(tmp_path)
    manifest, files = exact_manifest(path)
    prompt = [int(it) for it in np.random.default_rng(5).integers(0, 500, 45)]
    past, layers = TextPast(layers_of(path)), layers_of(path)
    wanted, rows = [], past.read(prompt)
    for _ in range(12):
        # The three special tokens end an answer.
        wanted.append(int(layers.logits(rows[-1:])[0, :509].argmax()))
        rows = past.read(wanted[-1:])
    async with open_engine(device=default_device()) as engine:
        loaded = await engine.load(manifest, files)
        assert loaded.exact
        output = (await engine.infer(asking(manifest.id, prompt))).data
        assert ids(output) == wanted
        job = asking(manifest.id, prompt, temperature=0.8, seed=3, top_p=0.9, sketch=1, logprobs=2)
        output = (await engine.infer(job)).data
        asked = request(job.input, output, 0.0)
        again = replace(job, operation=REPLAY, input=asked.to_bytes())
        told = JudgedAnswer.from_bytes((await engine.infer(again)).data)
        assert told.each == [0.0] * 12
        assert not told_otherwise(output, told)
        assert sorted(map(repr, read_frames(told.output))) == sorted(map(repr, read_frames(output)))
        cut = tmp_path / "cut.exact"
        cut.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ModelRefused, match="cut short"):
            await engine.load(*exact_manifest(cut))
