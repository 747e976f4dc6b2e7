"""The question to the hub, put to a server of our own that behaves like it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from huggingface_hub import constants

from aapo_desk.doctor import hub


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        token = self.headers.get("Authorization")
        status = 404 if self.path != "/api/whoami-v2" else 200 if token == "Bearer hf_right" else 401
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), Answers) as running:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{running.server_port}")
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(("token", "status"), [("hf_right", 200), ("hf_wrong", 401), ("", 401)])
@pytest.mark.usefixtures("server")
def test_the_hub_says_whether_it_knows_the_token(token: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/no/such/file")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN", token)
    assert hub.who_am_i() == {"status": status}


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "huggingface.co", "ftp//nonsense"])
def test_a_hub_that_is_not_there_is_told_in_one_line(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    found = hub.who_am_i()
    assert found.keys() == {"error"}
    assert found["error"]
    assert "\n" not in found["error"]
