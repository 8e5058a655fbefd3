"""The route class of everything that takes a JSON body: read strictly, whatever the body is called."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from app.api import strict_json
from app.api.media_types import JSON, demand_json

_CONTENT_TYPE = b"content-type"


class StrictRoute(APIRoute):
    """An APIRoute whose body is strict JSON, with no member and no query parameter given twice."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, which sees a request that is called JSON and has been read already."""
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            _demand_single_parameters(request)
            if self.body_field is not None:
                demand_json(request.headers.get("content-type"))
                request = await _JsonRequest.read(request)
            return await handle(request)

        return handle_strictly


class _JsonRequest(Request):
    """A request with a body that has been read, and is called JSON whatever it was called."""

    document: Any

    @classmethod
    async def read(cls, request: Request) -> "_JsonRequest":
        body = await request.body()

        async def again() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        headers = [(name, value) for name, value in request.scope["headers"] if name != _CONTENT_TYPE]
        read = cls({**request.scope, "headers": [*headers, (_CONTENT_TYPE, JSON.encode())]}, again)
        try:
            read.document = strict_json.loads(body)
        except ValueError as error:
            fault = {"type": "json_invalid", "loc": ("body",), "msg": str(error)}
            raise RequestValidationError([fault]) from None
        return read

    async def json(self) -> Any:
        """The document."""
        return self.document


def _demand_single_parameters(request: Request) -> None:
    names = [name for name, _ in request.query_params.multi_items()]
    if len(set(names)) != len(names):
        fault = {"type": "parameter_twice", "loc": ("query",), "msg": "a parameter is given twice"}
        raise RequestValidationError([fault])
