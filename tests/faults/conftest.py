"""The undisturbed run that the disturbed ones are compared with."""

from __future__ import annotations

from pathlib import Path

import pytest

from aapo_desk.store import RunDirectory, create_run
from tests.faults.injecting import configuration, train


@pytest.fixture(scope="session")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The finished, undisturbed run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AAPO_DESK_HOME", str(tmp_path_factory.mktemp("undisturbed")))
        run = create_run(configuration(tiny_model), "undisturbed")
        assert train(run) == 0
    return run
