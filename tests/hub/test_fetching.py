"""Files into the cache by the real client: progress, interruptions, the disk."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.hub import HubError, Listing, Repo, check_room, fetch, fetching, look_up, transfer
from tests.hub_server import COMMIT, Hub
from tests.stand_in import until

REPO = Repo("model", "owner/name")
BIG = bytes(range(256)) * 200
FILES = {"config.json": b"{}", "weights.safetensors": BIG, "pytorch_model.bin": b"pickle" * 1000}


@pytest.fixture(autouse=True)
def small_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as large from 1000 bytes on, come in pieces of 1000, and retries do not wait."""
    monkeypatch.setattr(fetching, "BIG", 1000)
    monkeypatch.setattr(transfer, "CHUNK", 1000)
    monkeypatch.setattr(transfer, "PAUSES", (0.0, 0.0))


@pytest.fixture
def hub(served_hub: Hub) -> Hub:
    served_hub.add("models/owner/name", FILES)
    return served_hub


class Said:
    """Progress, kept."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shares: list[float] = []

    def __call__(self, text: str, share: float | None = None, /) -> None:
        self.lines.append(text)
        if share is not None:
            self.shares.append(share)


def ranges(hub: Hub) -> list[str | None]:
    """Return the requests for the large file."""
    return [asked.range for asked in hub.contents() if asked.path.startswith("/cdn/")]


def unfinished() -> list[Path]:
    return list(REPO.folder.glob("blobs/*.incomplete"))


def test_what_is_asked_for_is_fetched_and_nothing_else(hub: Hub) -> None:
    folder = fetch(REPO, look_up(REPO, None), ["config.json", "weights.safetensors"])
    assert folder == REPO.snapshot(COMMIT)
    assert (folder / "weights.safetensors").read_bytes() == BIG
    assert {path.name for path in folder.iterdir()} == {"config.json", "weights.safetensors"}
    assert unfinished() == []
    hub.asked.clear()
    assert fetch(REPO, look_up(REPO, COMMIT), ["config.json", "weights.safetensors"]) == folder
    assert hub.asked == []


def test_the_librarys_own_tools_find_what_was_fetched(hub: Hub) -> None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    folder = fetch(REPO, look_up(REPO, None), ["config.json", "weights.safetensors"])
    assert try_to_load_from_cache("owner/name", "weights.safetensors") == str(folder / "weights.safetensors")
    assert hf_hub_download("owner/name", "config.json", local_files_only=True) == str(folder / "config.json")


def test_progress_tells_each_tenth_with_its_share(hub: Hub) -> None:
    said = Said()
    fetch(REPO, look_up(REPO, None), ["weights.safetensors"], said, clock=lambda: 0.0)
    assert said.lines[0] == "fetching the model owner/name: 0 kB of 51 kB"
    assert said.lines[-1] == "fetching the model owner/name: 51 kB of 51 kB"
    assert said.shares == sorted(said.shares)
    assert (len(said.shares), said.shares[-1]) == (11, 1.0)


def test_between_the_tenths_progress_is_told_every_ten_seconds(hub: Hub) -> None:
    seconds = iter(range(0, 10_000, 11))
    said = Said()
    fetch(REPO, look_up(REPO, None), ["weights.safetensors"], said, clock=lambda: float(next(seconds)))
    assert len(said.lines) == len(BIG) // 1000 + 2
    assert said.lines[1].endswith(": 1 kB of 51 kB, 0 kB/s")


def test_a_connection_that_breaks_off_is_gone_on_with(hub: Hub) -> None:
    hub.cuts = [20_000, 10_000]
    said = Said()
    folder = fetch(REPO, look_up(REPO, None), ["weights.safetensors"], said)
    assert (folder / "weights.safetensors").read_bytes() == BIG
    assert ranges(hub) == [None, "bytes=20000-", "bytes=30000-"]
    assert any(line.startswith("the connection failed (") for line in said.lines)


def test_a_later_process_goes_on_where_an_earlier_one_was_killed(hub: Hub) -> None:
    def killed(text: str, share: float | None = None, /) -> None:
        if share and share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(REPO, look_up(REPO, None), ["weights.safetensors"], killed)
    (part,) = unfinished()
    there = part.stat().st_size
    assert 25_000 < there < len(BIG)
    hub.asked.clear()
    folder = fetch(REPO, look_up(REPO, None), ["weights.safetensors"])
    assert ranges(hub) == [f"bytes={there}-"]
    assert (folder / "weights.safetensors").read_bytes() == BIG
    assert unfinished() == []


def test_a_hub_that_stays_away_is_given_up_and_what_came_is_kept(hub: Hub) -> None:
    hub.cuts = [20_000, 0, 0, 0]
    with pytest.raises(HubError, match="cannot be reached for the model owner/name"):
        fetch(REPO, look_up(REPO, None), ["weights.safetensors"])
    assert [part.stat().st_size for part in unfinished()] == [20_000]
    assert (fetch(REPO, look_up(REPO, None), ["weights.safetensors"]) / "weights.safetensors").read_bytes() == BIG


def test_a_server_that_sends_all_of_it_again_is_followed(hub: Hub) -> None:
    hub.cuts = [20_000]
    hub.honours_ranges = False
    folder = fetch(REPO, look_up(REPO, None), ["weights.safetensors"])
    assert (folder / "weights.safetensors").read_bytes() == BIG


def test_content_that_arrives_damaged_is_thrown_away(hub: Hub) -> None:
    hub.damage = True
    with pytest.raises(HubError, match=r"weights\.safetensors of the model owner/name arrived damaged"):
        fetch(REPO, look_up(REPO, None), ["weights.safetensors"])
    assert unfinished() == []
    assert not (REPO.snapshot(COMMIT) / "weights.safetensors").exists()
    hub.damage = False
    assert (fetch(REPO, look_up(REPO, None), ["weights.safetensors"]) / "weights.safetensors").read_bytes() == BIG


def test_a_refusal_in_the_middle_is_not_asked_again(hub: Hub) -> None:
    listing = look_up(REPO, None)
    hub.refusals[None] = (403, "GatedRepo", "restricted")
    hub.asked.clear()
    with pytest.raises(HubError, match="is gated"):
        fetch(REPO, listing, ["weights.safetensors"])
    assert len(hub.asked) == 1


def test_the_token_goes_to_the_hub_and_not_to_where_it_points(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    fetch(REPO, look_up(REPO, None), ["weights.safetensors"])
    assert {asked.token for asked in hub.asked if asked.path.startswith("/cdn/")} == {None}
    assert {asked.token for asked in hub.asked if not asked.path.startswith("/cdn/")} == {"hf_x"}


def test_two_at_once_fetch_it_once(hub: Hub) -> None:
    listing = look_up(REPO, None)
    said = Said()
    etag = hashlib.sha256(BIG).hexdigest()
    lock = REPO.cache / ".locks" / REPO.folder.name / f"{etag}.aapo-desk.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = threading.Thread(target=fetch, args=(REPO, listing, ["weights.safetensors"], said))
        thread.start()
        until(lambda: said.lines)
        (REPO.folder / "blobs").mkdir(parents=True, exist_ok=True)
        (REPO.folder / "blobs" / etag).write_bytes(BIG)
    thread.join()
    assert said.lines == ["another process is fetching the model owner/name; waiting for it"]
    assert ranges(hub) == []
    assert (REPO.snapshot(COMMIT) / "weights.safetensors").read_bytes() == BIG


def disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage: Any = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))


def test_a_disk_without_room_is_refused_with_both_numbers_before_anything_is_fetched(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    disk(monkeypatch, 3_100_000_000)
    listing = Listing("main", COMMIT, {"weights.safetensors": 6_200_000_000})
    for refuse in (check_room, fetch):
        with pytest.raises(HubError) as caught:
            refuse(REPO, listing, ["weights.safetensors"])
        assert str(caught.value) == (
            f"the model owner/name needs 6.2 GB more in the cache {tmp_path / 'hf' / 'hub'}, but its disk has only "
            "3.1 GB free: free some space, or move the cache with HF_HOME=/ANOTHER/DISK"
        )
    assert hub.asked == []


def test_what_is_there_already_needs_no_room(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = look_up(REPO, None)
    fetch(REPO, listing, ["weights.safetensors"])
    disk(monkeypatch, 0)
    check_room(REPO, listing, ["weights.safetensors"])
    with pytest.raises(HubError, match=r"needs 0 kB more .* has only 0 kB free"):
        check_room(REPO, listing, ["config.json"])
