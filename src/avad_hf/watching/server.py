"""The page of a watch: an HTTP server in a thread of its own, for browsers, for Prometheus and for supervisors."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

from avad_hf.files import as_json

from .board import Board, Subscription
from .feedback import Feedback, FeedbackError
from .guard import SHORTEST_TOKEN, Guard, cookie, is_equal, is_loopback, login_page, page_response
from .metrics import Metrics, SinksHealth

# Bytes of a request's body: an answer to an event, or a token, takes a few hundred.
MOST_BODY = 4096
# Pages that are open at the same time. Each has its own messages, so memory and time must end somewhere.
MOST_STREAMS = 64
# Connections at the same time: what the pages take, each with pictures and a video, with room for /health.
MOST_CONNECTIONS = 256
# Seconds between signs of life, by which a page notices that the connection is lost.
BEAT_S = 10.0
# Seconds after which closing cuts off what is still being sent, and that it waits for the server's thread.
CUT_OFF_S, CLOSE_S = 0.3, 5.0
# What the evidence folder's files are, and no others are given out.
KINDS = {".mp4": "video/mp4", ".mkv": "video/x-matroska", ".jpg": "image/jpeg", ".json": "application/json"}
PAGE = Path(__file__).with_name("page.html")


class PageServer:
    """Shows a board to browsers, and takes their answers.

    Args:
        board: What is shown.
        host: Address to listen on.
        port: Port to listen on; 0 is any free one.
        token: What a visitor must know. Anything but a loopback address needs one.
        evidence: Folder of clips and snapshots.
        feedback: What keeps answers. Without it the page has no buttons.
        sinks_health: Returns the health of each sink by its name.

    Raises:
        ValueError: For an address that others reach, without a token, and for a short token.
    """

    def __init__(
        self,
        board: Board,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        evidence: Path | None = None,
        feedback: Feedback | None = None,
        sinks_health: SinksHealth = dict,
    ):
        if token is None and not is_loopback(host):
            raise ValueError(
                f"The page would listen on {host!r}, where other machines reach it, without a token. Give a token of "
                f"at least {SHORTEST_TOKEN} characters, or listen on 127.0.0.1."
            )
        if token is not None and len(token) < SHORTEST_TOKEN:
            raise ValueError(
                f"The token of the page has {len(token)} characters. Give one of at least {SHORTEST_TOKEN}, such as "
                "`openssl rand -hex 16` prints."
            )
        self._board, self._host, self._port, self._token = board, host, port, token
        self._evidence = None if evidence is None else Path(evidence).resolve()
        self._feedback, self._sinks_health = feedback, sinks_health
        self._server: Any = None
        self._thread: Thread | None = None
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._streams: set[Callable[[], None]] = set()
        self._is_closing = False

    def start(self) -> str:
        """Begin to listen, and return the page's address.

        Raises:
            ImportError: If a package is missing.
            OSError: If the address cannot be listened on.
        """
        try:
            import fastapi  # noqa: F401
            import prometheus_client  # noqa: F401
            import uvicorn
        except ImportError as error:
            raise ImportError(
                f"The page needs {error.name}, which is not installed. Install it: pip install 'avad-hf[watch]'"
            ) from error
        listener = _listen(self._host, self._port)
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            Guard(self._application(), self._token, self._port),
            log_config=None,
            access_log=False,
            lifespan="off",
            loop="asyncio",
            http="h11",
            ws="none",
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
        )
        self._server = uvicorn.Server(config)
        self._runner.get_loop()  # made now, so that `close` finds the one that the thread uses
        self._thread = Thread(target=self._run, args=(listener,), name="avad-hf-page", daemon=True)
        self._thread.start()
        name = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{name}:{self._port}/"

    def close(self) -> None:
        """End the server: open pages are told by the end of their connection."""
        if self._thread is None or not self._thread.is_alive():
            return
        self._is_closing = True
        for wake in list(self._streams):
            wake()
        self._server.should_exit = True
        with suppress(RuntimeError):  # the loop has ended
            loop = self._runner.get_loop()
            loop.call_soon_threadsafe(loop.call_later, CUT_OFF_S, self._cut_off)
        self._thread.join(CLOSE_S)

    def _run(self, listener: socket.socket) -> None:
        with self._runner:
            self._runner.run(self._server.serve(sockets=[listener]))

    def _cut_off(self) -> None:
        """End connections whose other end does not read: uvicorn would wait for them."""
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()

    def _application(self) -> Any:
        """Make the application: a route for each thing that can be asked."""
        from fastapi import FastAPI, HTTPException, Request
        from fastapi.concurrency import run_in_threadpool
        from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
        from starlette.exceptions import HTTPException as StarletteError
        from starlette.requests import ClientDisconnect

        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        page = PAGE.read_text(encoding="utf-8")
        if self._feedback is not None:
            page = page.replace('data-answers="no"', 'data-answers="yes"')
        metrics = Metrics(self._board, self._sinks_health)

        @app.exception_handler(StarletteError)
        async def refusal(request: Request, error: StarletteError) -> Response:
            return JSONResponse({"error": error.detail}, error.status_code, error.headers)

        @app.exception_handler(ClientDisconnect)
        async def gone(request: Request, error: ClientDisconnect) -> Response:
            return Response()  # which nobody receives

        @app.get("/")
        async def index() -> Response:
            return page_response(page)

        @app.get("/state")
        async def state() -> Response:
            return Response(as_json(self._board.state()), media_type="application/json")

        @app.get("/events")
        async def events() -> Response:
            if len(self._streams) >= MOST_STREAMS:
                raise HTTPException(503, f"{MOST_STREAMS} pages are open already. Close some.")
            return StreamingResponse(self._messages(), media_type="text/event-stream")

        @app.get("/cameras/{number}/picture")
        async def picture(number: int) -> Response:
            if (data := self._board.picture(number)) is None:
                raise HTTPException(404, "There is no picture of this camera yet.")
            return Response(data, media_type="image/jpeg")

        @app.get("/evidence/{path:path}")
        def evidence(path: str) -> Response:
            file = self._evidence_file(path)
            try:
                facts = None if file is None else os.stat(file)
            except OSError:  # removed since
                facts = None
            if file is None or facts is None:
                raise HTTPException(404, "There is no such file. Old evidence is removed after some days.")
            return FileResponse(
                file, media_type=KINDS[file.suffix], stat_result=facts, headers={"Cache-Control": "private, no-cache"}
            )

        @app.get("/metrics")
        def measured() -> Response:
            text, kind = metrics.text()
            return Response(text, headers={"Content-Type": kind})

        @app.get("/health")
        def health() -> Response:
            summary = self._health()
            return JSONResponse(summary, 200 if summary["status"] == "ok" else 503)

        @app.post("/feedback")
        async def answer(request: Request) -> Response:
            if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                raise HTTPException(415, "Send JSON (Content-Type: application/json).")
            event_id, given = _answer_of(await _body(request))
            if self._feedback is None:
                raise HTTPException(404, "Answers are not kept here. Start avad-hf watch with an evidence folder.")
            if (event := self._board.find_event(event_id)) is None:
                raise HTTPException(404, "This event is not listed any more.")
            try:
                await run_in_threadpool(self._feedback.answer, event, given)
            except FeedbackError as error:
                raise HTTPException(409, str(error)) from None
            except OSError as error:
                raise HTTPException(507, f"The answer was not kept: {error}") from None
            self._board.answer(event_id, given)
            return JSONResponse({"id": event_id, "answer": given})

        @app.post("/login")
        async def login(request: Request) -> Response:
            if self._token is None:
                raise HTTPException(404, "No token is needed here.")
            with suppress(ValueError):  # too many fields, for example
                fields = parse_qs((await _body(request)).decode("utf-8", "replace"), max_num_fields=1)
                if is_equal(fields.get("token", [""])[0], self._token):
                    response = RedirectResponse("/", 303)
                    name, value = cookie(self._token, self._port)
                    response.set_cookie(name, value, httponly=True, samesite="strict")
                    return response
            return login_page("This is not the token.")

        return app

    async def _messages(self) -> AsyncIterator[str]:
        """Messages for one page, in the format of server-sent events."""
        news, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(news.set)

        self._streams.add(wake)
        subscription: Subscription = self._board.subscribe(wake)
        try:
            yield "retry: 2000\n\n"
            while not self._is_closing:
                news.clear()
                messages = subscription.take()
                if messages:
                    yield "".join(f"event: {kind}\ndata: {text}\n\n" for kind, text in messages)
                    continue
                try:
                    await asyncio.wait_for(news.wait(), BEAT_S)
                except TimeoutError:
                    yield "event: beat\ndata: {}\n\n"
        finally:
            subscription.close()
            self._streams.discard(wake)

    def _evidence_file(self, path: str) -> Path | None:
        """Return the evidence of that name, or ``None``: for what is elsewhere, of another kind or not a file."""
        if self._evidence is None:
            return None
        try:
            file = (self._evidence / path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # not there, a NUL character, a circle of links
            return None
        return file if file.is_relative_to(self._evidence) and file.suffix in KINDS and file.is_file() else None

    def _health(self) -> dict[str, Any]:
        """Return numbers alone: who asks needs no token."""
        cameras, troubled = len(self._board.state()["cameras"]), len(self._board.troubled())
        sinks = list(self._sinks_health().values())
        failing = sum(bool(health.get("problem")) for health in sinks)
        return {
            "status": "trouble" if troubled or failing else "ok",
            "cameras": cameras,
            "cameras_in_trouble": troubled,
            "sinks": len(sinks),
            "sinks_in_trouble": failing,
            "alerts_waiting": sum(health.get("waiting", 0) for health in sinks),
        }


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # A port that an ended server held a moment ago is free; one that a running server holds is not.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(MOST_CONNECTIONS)
        except BaseException:
            listener.close()
            raise
        return listener
    except OSError as error:
        raise OSError(
            f"The page cannot listen on {host}, port {port}: {error.strerror}. Give another port (0 is any free one) "
            "or another address of this machine."
        ) from None


async def _body(request: Any) -> bytes:
    """Return a request's body; raises an error with status 413 if it is long."""
    from fastapi import HTTPException

    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            raise HTTPException(413, f"The request is longer than {MOST_BODY} bytes.")
    return body


def _answer_of(body: bytes) -> tuple[str, str]:
    """Return the event's id and the answer of a request; raises an error with status 400 if there are none."""
    from fastapi import HTTPException

    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), str) for key in ("id", "answer")):
        raise HTTPException(400, 'Send an answer such as {"id": "gate-20261130T131500.123Z", "answer": "right"}.')
    return content["id"], content["answer"]


__all__ = ["PageServer"]
