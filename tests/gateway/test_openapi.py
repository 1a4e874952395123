"""The OpenAPI document is true: whatever it allows, and much that it does not, is answered so."""

from collections import Counter
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from tests.gateway.conftest import Served
from tests.repeats import repeats

EXAMPLES = repeats(20, soak=40)
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
OPERATIONS = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    *(("GET", f"/{it}") for it in ("health", "healthz", "livez", "ready", "readyz", "version")),
    *(("POST", f"/v1/{it}") for it in ("messages", "messages/count_tokens", "responses")),
    *(("POST", f"/v1/{it}") for it in ("rerank", "score")),
    *(("POST", f"/api/{it}") for it in ("chat", "generate", "embed", "show")),
    ("POST", "/v1/responses/input_tokens"),
    ("GET", "/v1/responses/{response}"),
    ("DELETE", "/v1/responses/{response}"),
    ("GET", "/v1/responses/{response}/input_items"),
    ("POST", "/api/embeddings"),
    *(("GET", f"/api/{it}") for it in ("tags", "ps", "version")),
    ("GET", "/metrics"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/infer"),
    *(("POST", f"/v1/{it}") for it in ("files", "batches", "batches/{batch}/cancel")),
    *(("GET", f"/v1/{it}") for it in ("files", "files/{file}", "files/{file}/content")),
    *(("GET", f"/v1/{it}") for it in ("batches", "batches/{batch}")),
    ("DELETE", "/v1/files/{file}"),
    ("POST", "/v1/tasks"),
    ("GET", "/v1/tasks/{task}"),
    ("DELETE", "/v1/tasks/{task}"),
    ("GET", "/v1/tasks/{task}/events"),
    ("GET", "/v1/receipts/{receipt}"),
    ("GET", "/v1/usage"),
]
# How each endpoint is told to make little.
LIMITS: dict[str, tuple[str, ...]] = {
    "/v1/chat/completions": ("max_tokens", "max_completion_tokens"),
    "/v1/completions": ("max_tokens",),
    "/v1/messages": ("max_tokens",),
    "/v1/responses": ("max_output_tokens",),
    "/api/chat": (),
}
ANSWERED = [
    "/v1/models",
    "/healthz",
    "/ready",
    "/version",
    "/v1/messages",
    "/v1/responses",
    "/api/chat",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
]


@pytest.fixture(scope="module")
def schema(served: Served) -> Any:
    return schemathesis.openapi.from_url(f"{served.url}/openapi.json")


def test_the_document_has_every_operation_and_nothing_of_the_framework(
    http: httpx.Client,
) -> None:
    document = http.get("/openapi.json").json()
    found = {(method.upper(), path) for path, of in document["paths"].items() for method in of}
    assert found == set(OPERATIONS)
    for path in document["paths"].values():
        for operation in path.values():
            assert "422" not in operation["responses"]
            assert operation["operationId"]
    assert "HTTPValidationError" not in document["components"]["schemas"]


# Where all is text there is nothing to get wrong.
@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        *((method, path, "positive") for method, path in OPERATIONS),
        *(
            (method, path, "negative")
            for method, path in OPERATIONS
            if method == "POST" and "{" not in path
        ),
    ],
)
def test_every_answer_is_documented_and_none_is_a_bug_of_ours(
    schema: Any, served: Served, method: str, path: str, mode: str
) -> None:
    operation = schema[path][method]
    mode_of = schemathesis.GenerationMode(mode)
    statuses: Counter[int] = Counter()

    @seed(4)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=operation.as_strategy(generation_mode=mode_of),
        known=st.booleans(),
        stream=st.booleans(),
    )
    def ask(case: Any, known: bool, stream: bool) -> None:
        if known and isinstance(case.body, dict) and "model" in case.body and mode == "positive":
            # A name that is there, and little work, so that requests go further.
            case.body["model"] = "doubling" if path == "/v1/infer" else "hash"
            for limit in LIMITS.get(path, ()):
                case.body[limit] = 2
            if path in LIMITS:
                case.body["stream"] = stream
            if path == "/api/chat":
                case.body["options"] = {"num_predict": 2}
        answer = case.call(base_url=served.url, timeout=60)
        statuses[answer.status_code] += 1
        assert answer.status_code < 500 or answer.status_code == 503, answer.text
        # What is too large is not looked at further.
        checks = CHECKS[:-1] if answer.status_code == 413 else CHECKS
        case.validate_response(answer, checks=checks)

    ask()
    # It got further than the first check; what else is asked for no schema can say.
    if mode == "positive" and path in ANSWERED:
        assert statuses[200], statuses
