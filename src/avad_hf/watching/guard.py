"""Who may see the page of a watch: tokens, names and origins, and what a browser may do with the page."""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import re
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

# With fewer characters a token could be guessed.
SHORTEST_TOKEN = 16
# Where no token is needed: /health tells numbers alone, and supervisors hold no secrets.
OPEN_PATHS = ("/health", "/login")
LOGIN = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>avad-hf watch: log in</title>
<link rel="icon" href="data:,">
<style>:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; } form { max-width: 22rem;
margin: 15vh auto 0; padding: 0 1rem; } input, button { box-sizing: border-box; width: 100%; min-height: 2.75rem;
margin: .4rem 0; font: inherit; } p { min-height: 1.5em; }</style>
<form method="post" action="/login"><h1>avad-hf watch</h1><label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button><p role="status">WORDS</p></form>
</html>
"""


class Guard:
    """Lets in who may come in, and gives every answer the headers that a browser must obey.

    Args:
        app: What is guarded, an ASGI application.
        token: What a visitor must know.
        port: Port of the page.
    """

    def __init__(self, app: Any, token: str | None, port: int):
        self._app, self._token, self._port = app, token, port

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or have the application answer it."""
        from fastapi.responses import JSONResponse
        from starlette.datastructures import MutableHeaders

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Cache-Control", "no-store")
                headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
                headers["X-Content-Type-Options"] = "nosniff"
                headers["X-Frame-Options"] = "DENY"
                # Browsers send no usable Origin with a form where the policy is "no-referrer".
                headers["Referrer-Policy"] = "same-origin"
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
            await send(message)

        # uvicorn may just have refused the rest of the request, and learns in its next step that it is over.
        await asyncio.sleep(0)
        status, words = self._refusal(scope)
        if status is None:
            await self._app(scope, receive, send_guarded)
        elif status is HTTPStatus.UNAUTHORIZED and scope["path"] == "/":
            await login_page("")(scope, receive, send_guarded)
        else:
            headers = {"WWW-Authenticate": "Bearer"} if status is HTTPStatus.UNAUTHORIZED else None
            await JSONResponse({"error": words}, status, headers)(scope, receive, send_guarded)

    def _refusal(self, scope: Any) -> tuple[HTTPStatus | None, str]:
        """Return why a request is refused, if it is."""
        from starlette.requests import HTTPConnection

        connection = HTTPConnection(scope)
        host, origin = connection.headers.get("host", ""), connection.headers.get("origin")
        # A foreign page can make its own name point here (DNS rebinding), and would then be read as ours. With a
        # token that gains nothing, because the cookie is not sent to that name.
        if self._token is None and not is_loopback(_name_of(host)):
            return HTTPStatus.FORBIDDEN, "This page answers under the name 127.0.0.1 or localhost alone."
        # What is no browser sends no origin, and has no cookie of anybody's to misuse.
        if scope["method"] not in ("GET", "HEAD") and origin is not None and origin.partition("://")[2] != host:
            return HTTPStatus.FORBIDDEN, "Answers are taken from this page alone, not from pages of other sites."
        if self._token is None or scope["path"] in OPEN_PATHS:
            return None, ""
        name, value = cookie(self._token, self._port)
        kind, _, given = connection.headers.get("authorization", "").partition(" ")
        # Headers come as Latin-1, whatever their bytes mean.
        given = given.strip().encode("latin-1").decode("utf-8", "replace")
        if is_equal(connection.cookies.get(name, ""), value) or (
            kind.lower() == "bearer" and is_equal(given, self._token)
        ):
            return None, ""
        return HTTPStatus.UNAUTHORIZED, "A token is needed: log in, or send it as Authorization: Bearer TOKEN."


def is_loopback(host: str) -> bool:
    """Whether an address reaches this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name_of(host: str) -> str:
    """Return the name in a Host header, without its port; empty if it makes no sense."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_equal(one: str, other: str) -> bool:
    """Whether two secrets are equal; the time that it takes does not tell how much of them is."""
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))


def cookie(token: str, port: int) -> tuple[str, str]:
    """Return name and value of the cookie: it shows that its owner knew the token, and does not hold it.

    Browsers send a host's cookies to all of its ports, so that each port needs a name of its own.
    """
    return f"avad_hf_{port}", hmac.new(token.encode(), b"avad-hf watch page", hashlib.sha256).hexdigest()


def login_page(words: str) -> Any:
    """Return the form that asks for the token, with words below it."""
    return page_response(LOGIN.replace("WORDS", words), HTTPStatus.UNAUTHORIZED)


def page_response(text: str, status: int = 200) -> Any:
    """Return a page that may run and load nothing but its own script, style, pictures and sound."""
    from fastapi.responses import HTMLResponse

    def hashes(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts]
        return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"

    policy = (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; img-src 'self' data:; "
        "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(text, status, {"Content-Security-Policy": policy})


__all__ = ["SHORTEST_TOKEN", "Guard", "cookie", "is_equal", "is_loopback", "login_page", "page_response"]
