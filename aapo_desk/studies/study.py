"""A study's folder: what is compared, with which seeds and budget. Its runs are entries of the queue."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aapo_desk.config import ConfigError, Problem, RunConfig
from aapo_desk.store import StoreError, check_name, home, read_json, write_atomically
from aapo_desk.studies.arms import Arm, Budget, run_config

FORMAT = 1
FILE = "study.json"


@dataclass(frozen=True)
class Study:
    """``varied``: the setting that the arms differ in. ``created``: unix time. The first arm is the baseline."""

    path: Path
    name: str
    preset: str
    varied: str
    arms: Sequence[Arm]
    seeds: Sequence[int]
    budget: Budget
    created: float

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def log(self) -> Path:
        """What it says where it runs in the background."""
        return self.path / "study.log"

    @property
    def lock(self) -> Path:
        return self.path / "study.lock"

    def run_name(self, arm: Arm, seed: int) -> str:
        """Of the run, and of its entry in the queue: by it the study finds them again."""
        return f"{self.name} {arm.label} {seed}"

    def config(self, arm: Arm, seed: int) -> RunConfig:
        """Of an arm's run with this seed."""
        return run_config(self.arms, arm, seed, self.budget)

    @property
    def words(self) -> str:
        """What is compared, in half a sentence."""
        first, *others = (arm.label for arm in self.arms)
        setting = "" if self.varied == "algorithm.name" else f"{self.varied} "
        count = len(self.seeds)
        seeds = f"{count} seeds each" if count > 1 else "one seed"
        return f"{self.preset}: {setting}{first} against {', '.join(others)}; {seeds}; {self.budget.words}"


def folder() -> Path:
    """Where studies lie."""
    return home() / "studies"


def create_study(
    name: str | None, preset: str, varied: str, arms: Sequence[Arm], seeds: Sequence[int], budget: Budget
) -> Study:
    """A new study's folder. Raises ConfigError for a name that is bad or taken, by a study or by one of its runs."""
    study_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    study = Study(folder() / study_id, name or study_id, preset, varied, arms, seeds, budget, time.time())
    check_study_name(study.name)
    for arm in arms:
        for seed in seeds:
            check_name(study.run_name(arm, seed))
    study.path.mkdir(parents=True, mode=0o700)
    save_study(study)
    return study


def check_study_name(name: str) -> None:
    """Raises ConfigError for a name that is empty, holds a slash or is taken by another study."""
    if not name.strip() or "/" in name or "\\" in name or name == "last" or not name.isprintable():
        raise ConfigError(Problem("--name", "must be text without slashes, and not 'last'", name))
    if any(name in (study.name, study.id) for study in list_studies()):
        raise ConfigError(Problem("--name", "a study of this name exists; choose another", name))


def save_study(study: Study) -> None:
    """Write it, whole or not at all. Raises OSError."""
    budget = asdict(study.budget)
    if not math.isfinite(study.budget.problems):
        budget["problems"] = None
    data = {
        "format": FORMAT,
        "name": study.name,
        "preset": study.preset,
        "created": study.created,
        "varied": study.varied,
        "budget": budget,
        "seeds": list(study.seeds),
        "arms": [{"label": arm.label, "config": arm.config.model_dump(mode="json")} for arm in study.arms],
    }
    write_atomically(study.path / FILE, json.dumps(data, indent=2))


def with_amount(study: Study, amount: float) -> Study:
    """The study with its budget known, and written so."""
    known = replace(study, budget=replace(study.budget, amount=amount))
    save_study(known)
    return known


def read_study(path: Path) -> Study:
    """Raises StoreError for a folder that holds none for this version."""
    data = read_json(path / FILE)
    if data is None:
        raise StoreError(f"{path / FILE} cannot be read")
    if data.get("format") != FORMAT:
        known = f"format {data.get('format')}, this one knows {FORMAT}"
        raise StoreError(f"{path / FILE} is of another version of aapo-desk ({known})")
    try:
        return _study(path, data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreError(f"{path / FILE} holds a configuration of another version: {where}: {first['msg']}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path / FILE} holds no study ({error!r})") from error


def _study(path: Path, data: dict[str, Any]) -> Study:
    budget = data["budget"]
    problems = math.inf if budget["problems"] is None else budget["problems"]
    return Study(
        path,
        str(data["name"]),
        str(data["preset"]),
        str(data["varied"]),
        [Arm(str(arm["label"]), RunConfig.model_validate(arm["config"])) for arm in data["arms"]],
        [int(seed) for seed in data["seeds"]],
        Budget(budget["kind"], budget["amount"], problems),
        float(data["created"]),
    )


def list_studies() -> list[Study]:
    """All that can be read, the newest first."""
    found = []
    for path in folder().glob(f"*/{FILE}"):
        try:
            found.append(read_study(path.parent))
        except StoreError:  # named when it is asked for
            continue
    return sorted(found, key=lambda study: study.created, reverse=True)


def find_study(reference: str) -> Study:
    """The study with this id, name or unique beginning of an id; ``last`` is the newest. Raises ConfigError, and
    StoreError where its folder cannot be read."""
    if reference and "/" not in reference and (folder() / reference / FILE).is_file():
        return read_study(folder() / reference)
    studies = list_studies()
    if not studies:
        message = "there are no studies yet; start one with: aapo-desk study PRESET --algorithms aapo,grpo"
        raise ConfigError(Problem("STUDY", message, reference))
    if reference == "last":
        return studies[0]
    matches = [study for study in studies if study.name == reference] or [
        study for study in studies if reference and study.id.startswith(reference)
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        several = ", ".join(study.id for study in matches[:5])
        raise ConfigError(Problem("STUDY", f"several studies begin like this: {several}", reference))
    raise ConfigError(Problem("STUDY", "there is no such study; see: aapo-desk study list", reference))
