"""Events by HTTP POST to an address, signed after the Standard Webhooks specification."""

import base64
import binascii
import hashlib
import hmac
import os
import time
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from avad_hf.files import as_json

from .outbox import NotDelivered, Outbox, Rejected
from .sinks import parse_address

# Seconds without a byte from the receiver: one that works for longer should answer first.
TIMEOUT_S = 10.0
# Answers of the 4xx that ask for another try: too slow, too many.
TRY_AGAIN = (408, 429)
# What a secret begins with whose rest is base64, after the specification. Any other secret is its own bytes.
SECRET_PREFIX = "whsec_"


class Webhook:
    """Posts events as JSON, in order, until they are answered by 2xx.

    Headers of each request, after https://www.standardwebhooks.com, whose libraries verify them:

    - ``webhook-id`` and ``Idempotency-Key``: the same for every try of one event, and for no other.
    - ``webhook-timestamp``: when it was sent, in seconds since 1970.
    - ``webhook-signature``, with a secret: ``v1,`` and the base64 of the HMAC-SHA256, by the secret, of
      ``{webhook-id}.{webhook-timestamp}.{body}``. A receiver computes the same of the bytes that it got, compares in
      constant time, and refuses times that are minutes old.

    408, 429, 3xx and 5xx are tried again, and so is no answer. Any other 4xx rejects the event for good.

    Args:
        url: ``http://`` or ``https://``; a user and password in it are sent as Basic authorization.
        folder: For events that wait.
        secret: Known to the receiver; ``None`` for no signature.

    Raises:
        ValueError: If address or secret cannot be used.
        OSError: If the folder cannot be written.
    """

    def __init__(self, url: str, folder: str | os.PathLike, *, secret: str | None = None):
        address = parse_address(url, {"https": 443, "http": 80}, "a webhook")
        self._key = None if secret is None else _key(secret)
        self._url = f"{address}{address.path or '/'}"
        self._headers = {"Content-Type": "application/json", "User-Agent": "avad-hf"}
        if address.user is not None:
            login = f"{address.user}:{address.password or ''}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        self._opener = build_opener(_NoRedirects)
        self._outbox = Outbox(folder, self._deliver, f"Webhook {address}")
        self.send, self.health, self.close = self._outbox.send, self._outbox.health, self._outbox.close

    def _deliver(self, event: dict[str, Any]) -> None:
        body = as_json(event).encode()
        number = hashlib.sha256(body).hexdigest()[:32]
        moment = str(int(time.time()))
        headers = {"webhook-id": number, "Idempotency-Key": number, "webhook-timestamp": moment}
        if self._key is not None:
            signed = f"{number}.{moment}.".encode() + body
            signature = base64.b64encode(hmac.digest(self._key, signed, "sha256")).decode()
            headers["webhook-signature"] = f"v1,{signature}"
        request = Request(self._url, data=body, headers=self._headers | headers, method="POST")
        try:
            with self._opener.open(request, timeout=TIMEOUT_S):
                return
        except HTTPError as error:
            status = error.code
            error.close()
        except (OSError, HTTPException) as error:
            raise NotDelivered(f"There is no answer: {_reason(error)}.") from None
        if 300 <= status < 400:
            raise NotDelivered(f"The answer is {status}, a redirect, which is not followed. Give the final address.")
        if 400 <= status < 500 and status not in TRY_AGAIN:
            raise Rejected(f"The answer is {status}.")
        raise NotDelivered(f"The answer is {status}.")


class _NoRedirects(HTTPRedirectHandler):
    """A POST that is redirected becomes a GET without the event, and would count as delivered."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _key(secret: str) -> bytes:
    if not secret:
        raise ValueError("The webhook's secret is empty. Give one of 24 bytes or more, or none.")
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"The webhook's secret begins with {SECRET_PREFIX}, so its rest must be base64.") from None


def _reason(error: Exception) -> str:
    """Why there is no answer, of what is known to hold no secret: the texts of other errors repeat the address."""
    cause = error.reason if isinstance(error, URLError) and isinstance(error.reason, Exception) else error
    if isinstance(cause, TimeoutError):
        return f"none within {TIMEOUT_S:g} s"
    return (cause.strerror if isinstance(cause, OSError) else None) or type(cause).__name__


__all__ = ["Webhook"]
