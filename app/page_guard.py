"""What stands between the network and the page: uploads into memory, bounded requests, nothing from or to elsewhere."""

import json
from urllib.parse import parse_qs, urlsplit

from utils.tools import UserError

UPLOAD = "/ecg-upload"
OTHER_BYTES = 1_000_000  # of a request that carries no ECG
# The page's own scripts and styles are inline, and Gradio builds functions from text; all else comes from this server.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {"content-security-policy": POLICY, "referrer-policy": "no-referrer", "x-content-type-options": "nosniff"}


class TooLarge(Exception):
    """A request's body is longer than it may be."""


class Guard:
    """ASGI middleware around Gradio's application.

    Parameters
    ----------
    app : ASGI application
    waiting : app.uploads.Waiting
        Takes the uploads: Gradio's own, which would lie on disk, are refused.
    hosts : tuple of str
        Names under which the page may be asked for (against DNS rebinding); empty lets all through.
    """

    def __init__(self, app, waiting, hosts=()):
        self.app, self.waiting, self.hosts = app, waiting, hosts

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"]
        refused = self._refusal(headers, path)
        if refused:
            return await _answer(send, 403, {"error": refused})
        ecg = self.waiting.limits.upload
        most = ecg if path == UPLOAD else ecg * 2 if "/mcp" in path else OTHER_BYTES  # MCP: in base64, as JSON
        if int(headers.get("content-length") or 0) > most:
            return await _answer(send, 413, {"error": too_large(ecg)})
        try:
            if path == UPLOAD and scope["method"] == "POST":
                return await self._upload(scope, receive, send, most)
            await self.app(scope, _bounded(receive, most), _with_headers(send))
        except TooLarge:
            await _answer(send, 413, {"error": too_large(ecg)})

    def _refusal(self, headers, path):
        host = urlsplit("//" + headers.get("host", "")).hostname
        if self.hosts and host not in self.hosts:
            return f"this page does not answer to the name {host}"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return "requests of other pages are refused"
        return "files are sent to the page's own address" if path.rstrip("/").endswith("/upload") else ""

    async def _upload(self, scope, receive, send, most):
        name = parse_qs(scope["query_string"].decode("latin-1")).get("name", [""])[0]
        body, receive = bytearray(), _bounded(receive, most)
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        try:
            await _answer(send, 200, {"id": self.waiting.put(name, bytes(body))})
        except UserError as error:
            await _answer(send, 400, {"error": str(error)})


def too_large(most):
    return f"larger than the {most // 1_000_000} MB that this page takes"


def _bounded(receive, most):
    """``receive`` that raises `TooLarge` where a body grows longer than its header said."""
    seen = 0

    async def bounded():
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise TooLarge
        return message

    return bounded


def _with_headers(send):
    async def with_headers(message):
        if message["type"] == "http.response.start":
            added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return with_headers


async def _answer(send, status, value):
    body = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
