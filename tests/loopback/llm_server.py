"""An OpenAI-compatible chat server on 127.0.0.1 that answers with the playbook: the same run, through a real client.

    python -m tests.loopback.llm_server --port 0

prints its URL, for `CREW_LLM_BASE_URL`; use it with `--llm openai/playbook` and any key. Faults are served first, one a
request, from `server.faults`: 429, 500, bad_json, empty; `refuses_tools` stays on.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from posttrain_crew.agents.llm.text_tools import restore
from posttrain_crew.agents.playbooks.answer import answer
from posttrain_crew.errors import CrewError

FAULTS = ("429", "500", "bad_json", "empty")


class LLMServer(ThreadingHTTPServer):
    """Serves in a thread of its own between `with`."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.faults: deque[str] = deque()
        self.refuses_tools = False
        self.requests: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> LLMServer:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LLMServer

    def log_message(self, *_arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._send(200, {"object": "list", "data": [{"id": "playbook", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        if not self.path.endswith("/chat/completions"):
            return self._error(404, "there is only /v1/chat/completions")
        fault = self.server.faults.popleft() if self.server.faults else None
        if fault == "429":
            return self._error(429, "rate limit reached", {"Retry-After": "0"})
        if fault == "500":
            return self._error(500, "the server is out of order")
        if fault == "bad_json":
            return self._raw(200, b'{"choices": [')
        if fault == "empty":
            return self._answer(body, {"role": "assistant", "content": ""})
        if self.server.refuses_tools and body.get("tools"):
            return self._error(400, "playbook does not support tools")
        messages, listed = restore(body["messages"])
        try:
            move = answer(messages, body.get("tools") or listed)
        except CrewError as error:
            return self._error(400, str(error))
        if isinstance(move, str):
            return self._answer(body, {"role": "assistant", "content": move})
        if listed:
            calls = [
                {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}
                for call in move
            ]
            text = "\n".join(f"```tool_call\n{json.dumps(call)}\n```" for call in calls)
            return self._answer(body, {"role": "assistant", "content": text})
        return self._answer(body, {"role": "assistant", "content": None, "tool_calls": move})

    def _answer(self, body: dict[str, Any], message: dict[str, Any]) -> None:
        sent = len(json.dumps(body["messages"])) // 4
        said = len(json.dumps(message)) // 4
        self._send(
            200,
            {
                "id": "chat-1",
                "object": "chat.completion",
                "created": 0,
                "model": body.get("model", "playbook"),
                "choices": [
                    {
                        "index": 0,
                        "message": message,
                        "finish_reason": "tool_calls" if message.get("tool_calls") else "stop",
                    }
                ],
                "usage": {"prompt_tokens": sent, "completion_tokens": said, "total_tokens": sent + said},
            },
        )

    def _error(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, {"error": {"message": message, "type": "error", "code": str(status)}}, headers)

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._raw(status, json.dumps(value).encode(), headers)

    def _raw(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    server = LLMServer(parser.parse_args().port)
    print(server.url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
