"""POST /v1/rerank and /v1/score by a model that reads a query and a text together."""

import math
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from node.client.blocking import connect_blocking
from tests.gateway.conftest import serving
from tests.gateway.engine import reranking_manifest
from wire import limits
from wire.kinds import Role
from wire.operations import RERANK
from wire.task import Stage

STAGE = Stage(role=Role.INFER, operation=RERANK, model=reranking_manifest().id, parameters={})
DOCUMENTS = ["no word of it", "the small red fox", "a red fox"]


def share(words: int) -> float:
    """What the fake engine says of so many words that both have."""
    return 1 / (1 + math.exp(3 - words))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(Path(tmp_path_factory.mktemp("rerank")), also=STAGE) as found:
        yield found.url


def test_texts_are_ranked_by_their_scores(url: str) -> None:
    body = {"model": "reranker", "query": "small red fox", "documents": DOCUMENTS}
    with httpx.Client(base_url=url, timeout=60) as http:
        answer = http.post("/v1/rerank", json=body)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert [it["index"] for it in told["results"]] == [1, 2, 0]
        scores = [it["relevance_score"] for it in told["results"]]
        assert scores == pytest.approx([share(3), share(2), share(0)])
        assert told["results"][0]["document"] == {"text": DOCUMENTS[1]}
        assert told["usage"]["total_tokens"] > 0
        # More than one task takes, with nothing lost where they meet.
        many = http.post("/rerank", json=body | {"documents": DOCUMENTS * 30, "top_n": 31}).json()
        assert [it["index"] for it in many["results"][:30]] == list(range(1, 90, 3))
        assert many["results"][30]["index"] == 2

        pairs = {"model": "reranker", "text_1": "red fox", "text_2": DOCUMENTS}
        found = http.post("/v1/score", json=pairs).json()["data"]
        assert [it["score"] for it in found] == pytest.approx([share(0), share(2), share(2)])

        long = http.post("/v1/rerank", json=body | {"query": "x" * limits.TEXT_BYTES_MAX})
        assert long.status_code == 400
        wrong = http.post("/v1/embeddings", json={"model": "reranker", "input": "x"})
        assert wrong.status_code == 400
        assert "does not do 'embed', only rerank" in wrong.text

    with connect_blocking(url) as net:
        ranked = net.rerank("reranker", "small red fox", DOCUMENTS, top_n=2)
        assert ranked.places == (1, 2)
        assert ranked.scores == pytest.approx((share(3), share(2)))
        assert ranked.task
