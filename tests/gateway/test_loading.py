"""A model that the gateway's own peer is loading: listed with how far it is, refused until then."""

from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from node.engines.formats.minilm import MINILM_ID
from node.engines.hash_engine import HashEngine
from node.engines.interface import EngineStatistics
from node.peer import Node
from tests.gateway.conftest import Served, serving


@pytest.fixture(scope="module")
def half_loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    told = HashEngine.statistics

    def before(node: Node) -> None:
        own = node.dependencies.engine

        def statistics(self: HashEngine) -> EngineStatistics:
            found = told(self)
            return replace(found, loading={MINILM_ID: 0.6}) if self is own else found

        patch.setattr(HashEngine, "statistics", statistics)

    with (
        pytest.MonkeyPatch.context() as patch,
        serving(tmp_path_factory.mktemp("loading"), before=before) as found,
    ):
        yield found


def test_a_model_that_is_being_loaded_is_listed_and_refused_with_how_far_it_is(
    half_loaded: Served,
) -> None:
    with httpx.Client(base_url=half_loaded.url, timeout=30) as http:
        rows = {it["id"]: it["x_baton"] for it in http.get("/v1/models").json()["data"]}
        assert rows["minilm"]["state"] == "loading"
        assert rows["minilm"]["loaded_share"] == 0.6
        assert "state" not in rows["doubling"]
        asked = {"model": "minilm", "input": "a text"}
        found = http.post("/v1/embeddings", json=asked, headers={"x-baton-verdicts": "0/0"})
        assert found.status_code == 503
        assert found.headers["retry-after"] == "5"
        assert found.json()["error"]["code"] == "model_loading"
        assert "the model minilm is loading, 60 %" in found.json()["error"]["message"]
