"""A study's folder, which holds its arms, seeds and budget. The study's runs are entries of the queue."""

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
    """A study: ``varied`` is the setting that differs, ``created`` a Unix time, and the first arm is the baseline."""

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
        """The log of a study that runs in the background."""
        return self.path / "study.log"

    @property
    def lock(self) -> Path:
        return self.path / "study.lock"

    def run_name(self, arm: Arm, seed: int) -> str:
        """Return the name of a run and of its queue entry, by which the study finds them again."""
        return f"{self.name} {arm.label} {seed}"

    def config(self, arm: Arm, seed: int) -> RunConfig:
        """Return the configuration of an arm's run with this seed."""
        return run_config(self.arms, arm, seed, self.budget)

    @property
    def words(self) -> str:
        """The comparison in one line, without a final full stop."""
        first, *others = (arm.label for arm in self.arms)
        setting = "" if self.varied == "algorithm.name" else f"{self.varied} "
        count = len(self.seeds)
        seeds = f"{count} seeds each" if count > 1 else "one seed"
        return f"{self.preset}: {setting}{first} against {', '.join(others)}; {seeds}; {self.budget.words}"


def folder() -> Path:
    """Return the folder of all studies."""
    return home() / "studies"


def create_study(
    name: str | None, preset: str, varied: str, arms: Sequence[Arm], seeds: Sequence[int], budget: Budget
) -> Study:
    """Create a study's folder and return the study.

    Raises ConfigError for a name that is invalid, or taken by another study or by a run (as one of its runs' names).
    """
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
    """Raise ConfigError if a name is empty, contains a slash, or belongs to another study."""
    if not name.strip() or "/" in name or "\\" in name or name == "last" or not name.isprintable():
        raise ConfigError(Problem("--name", "must be text without slashes, and not 'last'", name))
    if any(name in (study.name, study.id) for study in list_studies()):
        raise ConfigError(Problem("--name", "a study with this name exists; choose another", name))


def save_study(study: Study) -> None:
    """Write a study's file atomically. Raises OSError."""
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
    """Set the amount of a study's budget, save the study and return it."""
    known = replace(study, budget=replace(study.budget, amount=amount))
    save_study(known)
    return known


def read_study(path: Path) -> Study:
    """Read the study in a folder. Raises StoreError if it is missing, damaged or of another version."""
    data = read_json(path / FILE)
    if data is None:
        raise StoreError(f"{path / FILE} cannot be read")
    if data.get("format") != FORMAT:
        known = f"format {data.get('format')}, this version supports {FORMAT}"
        raise StoreError(f"{path / FILE} was written by another version of aapo-desk ({known})")
    try:
        return _study(path, data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StoreError(
            f"{path / FILE} has a configuration that is not valid in this version: {where}: {first['msg']}"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path / FILE} is not a valid study ({error!r})") from error


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
    """Return all readable studies, newest first."""
    studies = []
    for path in folder().glob(f"*/{FILE}"):
        try:
            studies.append(read_study(path.parent))
        except StoreError:  # ``find_study`` raises it when the user asks for this study.
            continue
    return sorted(studies, key=lambda study: study.created, reverse=True)


def find_study(reference: str) -> Study:
    """Return the study with this id, name or unique prefix of an id; ``last`` means the newest study.

    Raises ConfigError if there is no such study or several match, StoreError if its folder cannot be read.
    """
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
        raise ConfigError(Problem("STUDY", f"matches several studies: {several}", reference))
    raise ConfigError(Problem("STUDY", "there is no such study; list them with: aapo-desk study list", reference))
