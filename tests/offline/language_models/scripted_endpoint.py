"""An HTTP endpoint whose every answer is written down beforehand: for what a real server does only when it is ill."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """status, body (JSON unless it is a text) and headers. hangs_up: no answer at all."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs_up: bool = False


@dataclass
class ScriptedEndpoint:
    """Where it listens, and what it was asked: bodies and headers, in order."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        """The user message of every request."""
        return [request["messages"][-1]["content"] for request in self.requests]


def answered(text: str | None, *, prompt_tokens: int = 10, completion_tokens: int = 5, **changes: Any) -> Reply:
    """Make a chat completion. changes: finish_reason, message (fields beside content), usage."""
    message = {"role": "assistant", "content": text, **changes.get("message", {})}
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "message": message, "finish_reason": changes.get("finish_reason", "stop")}],
        "usage": changes.get("usage", usage),
    }
    return Reply(body=body)


@contextmanager
def scripted_endpoint(script: Callable[[str, int], Reply]) -> Iterator[ScriptedEndpoint]:
    """Serve on a free port. script: user message, how often it was asked before → what is answered."""
    lock = threading.Lock()
    endpoint = ScriptedEndpoint("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            prompt = request["messages"][-1]["content"]
            with lock:
                before = endpoint.prompts.count(prompt)
                endpoint.requests.append(request)
                endpoint.headers.append({name.lower(): value for name, value in self.headers.items()})
            reply = script(prompt, before)
            if reply.hangs_up:
                self.close_connection = True
                return
            is_text = isinstance(reply.body, str)
            content = reply.body.encode() if is_text else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            self.send_header("content-type", "text/html" if is_text else "application/json")
            self.send_header("content-length", str(len(content)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
