"""Look-ups of the real client on a hub on this machine, and the line for everything that goes wrong."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from aapo_desk.hub import HubError, Repo, fetch, look_up
from aapo_desk.hub.errors import explain, is_transient
from tests import hub_server
from tests.hub_server import COMMIT, Hub, go_offline_here

REPO = Repo("model", "owner/name")
FILES = {"config.json": b"{}", "data/big.bin": b"x" * 5000}


@pytest.fixture
def hub(served_hub: Hub) -> Hub:
    served_hub.add("models/owner/name", FILES)
    return served_hub


def refusal(revision: str | None = None, repo: Repo = REPO) -> HubError:
    with pytest.raises(HubError) as caught:
        fetch(repo, look_up(repo, revision), ["config.json"])
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_branch_is_known_by_its_commit_and_its_files(hub: Hub) -> None:
    older = "b" * 40
    hub.add("models/owner/name", {"config.json": b"{ }"}, older, branch="v1")
    listing = look_up(REPO, None)
    assert (listing.commit, dict(listing.sizes)) == (COMMIT, {"config.json": 2, "data/big.bin": 5000})
    assert look_up(REPO, "v1").commit == older
    assert look_up(REPO, older).sizes == {"config.json": 3}


def test_a_data_set_is_looked_up_among_the_data_sets(hub: Hub) -> None:
    hub.add("datasets/owner/name", {"train.csv": b"a"})
    assert list(look_up(Repo("dataset", "owner/name"), None).sizes) == ["train.csv"]


def test_a_name_that_leads_out_of_the_cache_is_left_out(hub: Hub) -> None:
    hub.add("models/owner/name", {"../../evil": b"x", "config.json": b"{}"})
    assert list(look_up(REPO, None).sizes) == ["config.json"]


def test_a_commit_that_the_cache_lists_is_not_asked_for_again(hub: Hub) -> None:
    fetch(REPO, look_up(REPO, None), ["config.json"])
    hub.asked.clear()
    assert look_up(REPO, COMMIT).sizes == {name: len(body) for name, body in FILES.items()}
    assert hub.asked == []


REFUSED: dict[str, tuple[str | None, tuple[int, str, str], str, str | None]] = {
    "gated, without a token": (
        None,
        hub_server.GATED_LOG_IN,
        r"is gated: open http://[^ ]+/owner/name, log in and agree to its terms, create a token .*hf auth login",
        None,
    ),
    "gated, the terms not agreed to": (
        "hf_x",
        hub_server.GATED_TERMS,
        r"is gated, and the account of the token in HF_TOKEN has not agreed to its terms: open http://[^ ]+/owner/name",
        None,
    ),
    "gated, waiting": ("hf_x", hub_server.GATED_WAITS, r"its authors have not answered your request yet", None),
    "gated, refused": ("hf_x", hub_server.GATED_REFUSED, r"its authors have refused your request", None),
    "gated, a token that may not": (
        "hf_x",
        hub_server.GATED_TOKEN,
        r"the token in HF_TOKEN has no access to gated repositories: edit it at https://huggingface\.co/settings/tokens",
        None,
    ),
    "gated, a token that is not valid": (
        "hf_x",
        hub_server.GATED_LOG_IN,
        r"is gated, and the hub does not accept the token in HF_TOKEN; create another",
        None,
    ),
    "not there, without a token": (
        None,
        hub_server.NO_REPO_LOG_IN,
        r"there is no such model on the hub \(http://[^ ]+/owner/name\), or it is private: log in with hf auth",
        "id",
    ),
    "not there, with a token": ("hf_x", hub_server.NO_REPO, r"or the token in HF_TOKEN has no access to it", "id"),
    "a token that is not valid": (
        "hf_x",
        hub_server.BAD_TOKEN,
        r"^the hub does not accept the token in HF_TOKEN; create another with read access",
        None,
    ),
    "disabled": (None, hub_server.DISABLED, r"has been disabled on the hub", "id"),
    "forbidden for no known reason": (
        None,
        (403, "", "Because"),
        r"the hub refuses the model owner/name \(403\)",
        None,
    ),
    "too many requests": (None, (429, "", ""), r"no more requests at the moment \(429\): .*logged-in users", None),
    "too many requests, logged in": ("hf_x", (429, "", ""), r"\(429\): try again in a few minutes$", None),
    "the hub fails": (
        None,
        (503, "", ""),
        r"the hub has an error \(503\) for the model owner/name: try again later",
        None,
    ),
}


@pytest.mark.parametrize(("token", "answer", "said", "wrong"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_says_what_to_do(
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
    answer: tuple[int, str, str],
    said: str,
    wrong: str | None,
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("time.sleep", lambda _: None)  # the library waits before it asks again
    hub.refusals[token] = answer
    error = refusal()
    assert re.search(said, str(error)), str(error)
    assert error.wrong == wrong


def test_a_token_of_the_log_in_is_not_called_one_of_the_environment(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("hf_y")
    hub.refusals["hf_y"] = hub_server.GATED_TERMS
    assert "the account of your token (hf auth login) has not agreed" in str(refusal())


def test_an_unknown_revision_is_told_apart_from_an_unknown_repository(hub: Hub) -> None:
    error = refusal("v9")
    assert error.wrong == "revision"
    assert "has no branch, tag or commit v9" in str(error)
    missing = refusal(repo=Repo("dataset", "owner/other"))
    assert missing.wrong == "id"
    assert "there is no such data set on the hub" in str(missing)


def test_an_id_that_cannot_be_one_is_refused(hub: Hub) -> None:
    error = refusal(repo=Repo("model", "owner/-name-"))
    assert error.wrong == "id"
    assert "cannot be the id of a model" in str(error)
    assert hub.asked == []


def test_something_else_that_answers_is_not_taken_for_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def log_in_page(self: hub_server.Handler) -> None:
        self._send(200, b"<html>Welcome to our hotel</html>", {"Content-Type": "text/html"})

    monkeypatch.setattr(hub_server.Handler, "do_GET", log_in_page)
    monkeypatch.setattr(hub_server.Handler, "do_HEAD", log_in_page)
    assert "is not from the hub" in str(refusal())
    assert "is not from the hub" in str(refusal(COMMIT))


def unreachable(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there


def failing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.refusals[None] = (502, "", "")


@pytest.mark.parametrize("broken", [unreachable, failing])
def test_what_is_in_the_cache_is_used_where_the_hub_does_not_answer(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, broken: Callable[[Hub, pytest.MonkeyPatch], None]
) -> None:
    folder = fetch(REPO, look_up(REPO, None), ["config.json"])
    broken(hub, monkeypatch)
    said: list[str] = []
    listing = look_up(REPO, None, lambda text, share=None: said.append(text))
    assert listing.commit == COMMIT
    assert fetch(REPO, listing, ["config.json"]) == folder
    assert said
    assert said[0].startswith(f"using the cached copy of the model owner/name, commit {COMMIT[:7]}: the hub ")


def test_a_hub_that_cannot_be_reached_says_what_to_do(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable(hub, monkeypatch)
    assert str(refusal()).startswith("the hub (http://127.0.0.1:9) cannot be reached for the model owner/name: ")
    assert "or name a local copy: model.id=/PATH/TO/FOLDER" in str(refusal())
    assert "task.source=file:PATH" in str(refusal(repo=Repo("dataset", "owner/name")))


def test_offline_only_the_cache_is_looked_at(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(REPO, look_up(REPO, None), ["config.json"])
    hub.asked.clear()
    go_offline_here(monkeypatch)
    assert look_up(REPO, None).commit == COMMIT
    assert "revision v1, is not in the cache" in str(refusal("v1"))
    said = str(refusal(repo=Repo("dataset", "owner/name")))
    assert said.startswith("the data set owner/name, revision main, is not in the cache (")
    assert "run once without --offline" in said
    with pytest.raises(
        HubError, match=r"is incomplete in the cache .*: data/big\.bin is missing.*hf download owner/name"
    ):
        fetch(REPO, look_up(REPO, None), ["config.json", "data/big.bin"])
    assert hub.asked == []


def test_a_full_disk_is_no_reason_to_ask_again() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert not is_transient(full)
    assert "cannot be used: No space left on device; set HF_HOME to use another folder" in str(
        explain(full, REPO, "main")
    )
    assert is_transient(ConnectionResetError())
