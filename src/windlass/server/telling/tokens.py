"""`/tokenize` and `/detokenize`: what a text is to the model, as vLLM has them."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from windlass.server.chats.message import ChatMessage
from windlass.server.errors.api_error import bad_request
from windlass.server.errors.error_body import errors
from windlass.server.questions.fields import check_fields
from windlass.server.questions.sampling_body import Several, Strict, Whole
from windlass.server.served import Served


class TokenizeBody(Strict):
    """A text or a conversation. `add_special_tokens` holds for a text alone."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[Several[ChatMessage], Field(min_length=1)] | None = None
    add_special_tokens: bool = True


class Tokens(BaseModel):
    """`max_model_len`: as many fit, the answer's included."""

    tokens: list[int]
    count: int
    max_model_len: int


class DetokenizeBody(Strict):
    """Ids that the model knows."""

    model: str | None = None
    tokens: Several[Whole]


class Text(BaseModel):
    """Special tokens included."""

    prompt: str


def token_routes(served: Served) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["tell"])

    @router.post("/tokenize", responses=errors(400, 401, 403, 404, 413))
    async def tokenize(body: TokenizeBody) -> Tokens:
        """The token ids of a text, or of a conversation up to where the answer begins."""
        served.check_model(body.model)
        ids = await served.read(partial(_encode, served, body))
        return Tokens(tokens=ids, count=len(ids), max_model_len=served.max_model_len)

    @router.post("/detokenize", responses=errors(400, 401, 403, 404, 413))
    async def detokenize(body: DetokenizeBody) -> Text:
        """The text of token ids."""
        served.check_model(body.model)
        check_fields(_extra(body), type(body).model_fields)
        worst = max(body.tokens, default=0)
        if worst >= served.vocab_size:
            raise bad_request(f"tokens hold {worst}; ids go from 0 to {served.vocab_size - 1}", "tokens")
        text = await served.read(partial(served.tokenizer.decode, body.tokens, skip_special_tokens=False))
        return Text(prompt=text)

    return router


def _encode(served: Served, body: TokenizeBody) -> list[int]:
    extra = {
        name: value for name, value in _extra(body).items() if name != "add_generation_prompt" or value is not True
    }
    check_fields(extra, type(body).model_fields)
    if (body.prompt is None) == (body.messages is None):
        raise bad_request("give either prompt or messages", "prompt")
    if body.messages is not None:
        talk = [message.for_template(place) for place, message in enumerate(body.messages)]
        return list(served.talk(talk))
    assert body.prompt is not None
    served.check_text("prompt", body.prompt)
    if body.add_special_tokens:
        return served.tokenizer.encode(body.prompt)
    return served.tokenizer.encode_plain(body.prompt)


def _extra(body: Strict) -> dict[str, Any]:
    return body.model_extra or {}
