"""The OpenAPI document is complete and true: whatever it lets through or keeps out, the server answers as it says.

Schemathesis makes the questions, good ones and bad ones, from the document alone.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from server_world import KEY, PATIENCE, Server, model_with_template, running
from windlass.jobs.service.limits import Limits

HEADERS = {"Authorization": f"Bearer {KEY}"}
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    unsupported_method,
]  # fmt: skip
OPERATIONS = [
    "GET /v1/models", "GET /v1/models/{model}", "POST /v1/completions", "POST /v1/chat/completions", "POST /v1/files",
    "GET /v1/files", "GET /v1/files/{file_id}", "GET /v1/files/{file_id}/content", "DELETE /v1/files/{file_id}",
    "POST /v1/batches", "GET /v1/batches", "GET /v1/batches/{batch_id}", "POST /v1/batches/{batch_id}/cancel",
    "POST /tokenize", "POST /detokenize", "GET /health", "GET /version", "GET /windlass/state", "GET /metrics",
]  # fmt: skip

# What takes no body and no query has nothing that could be wrong.
SPOILABLE = {
    "POST /v1/completions", "POST /v1/chat/completions", "POST /v1/files", "GET /v1/files", "POST /v1/batches",
    "GET /v1/batches", "POST /tokenize", "POST /detokenize",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Of short answers, so that none takes long."""
    model = model_with_template(tmp_path_factory.mktemp("model") / "box")
    limits = Limits(max_num_seqs=4, max_model_len=48)
    with running(Server(model, jobs=tmp_path_factory.mktemp("jobs"), service_limits=limits)) as started:
        yield started


@pytest.fixture(scope="module")
def document(server: Server) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def operation(document: Any, label: str) -> Any:
    method, path = label.split()
    return document[path][method]


def keeps_its_word(document: Any, label: str, examples: int) -> None:
    """Asks as many good and, where there can be any, as many bad questions."""
    modes = [GenerationMode.POSITIVE] + ([GenerationMode.NEGATIVE] if label in SPOILABLE else [])
    for mode in modes:
        strategy = operation(document, label).as_strategy(generation_mode=mode)

        @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
        @given(strategy)
        def asked(case: Any) -> None:
            answer = case.call(headers=HEADERS, timeout=PATIENCE)
            case.validate_response(answer, checks=CHECKS)
            if answer.status_code >= 400:
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

        asked()


def test_the_document_names_every_operation(document: Any) -> None:
    found = {each.ok().label for each in document.get_all_operations()}
    assert found == set(OPERATIONS)


@pytest.mark.parametrize(
    "label", ["POST /v1/completions", "POST /v1/chat/completions", "POST /v1/batches", "GET /v1/files"]
)
def test_a_few_questions_are_answered_as_the_document_says(document: Any, label: str) -> None:
    keeps_its_word(document, label, 6)


@pytest.mark.slow
@pytest.mark.parametrize("label", OPERATIONS)
def test_many_questions_are_answered_as_the_document_says(document: Any, label: str) -> None:
    keeps_its_word(document, label, 60)


def test_no_answer_is_a_422(document: Any) -> None:
    assert "422" not in str(document.raw_schema)
