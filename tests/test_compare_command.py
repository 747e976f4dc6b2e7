"""aapo-desk compare: lines, JSON, CSV, pictures, and what it says where it cannot."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.cli.app import run
from aapo_desk.evaluation.results import HEAD, ROWS, opened
from aapo_desk.store import RunDirectory, find_run
from tests import compared_runs

Output = pytest.CaptureFixture[str]
write = compared_runs.write_run


@pytest.fixture
def runs(desk_home: Path) -> list[RunDirectory]:
    """Two that differ in their rate, one shorter and pinned, one that has not begun."""
    return [
        write("one", steps=6),
        write("two", steps=6, overrides={"optimizer.learning_rate": 2e-4}, middle=3, right=(27, 80)),
        write("short", steps=4, pinned=True, right=None, state="stopped"),
        write("new", steps=0, right=None, state="stopped"),
    ]


@pytest.mark.usefixtures("runs")
def test_lines_tell_the_runs_their_evaluations_and_what_differs(capsys: Output) -> None:
    assert run(["compare", "one", "two"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    text = captured.out
    assert "\x1b" not in text
    assert text.startswith("reward by step, exponential moving average (0.8)\n")
    assert re.search(r"^A  one  finished +6 +36 +672 +192 +0\.\d{3}  baseline$", text, flags=re.MULTILINE)
    assert re.search(r"^B  two  finished +6 +36 +672 +192 +0\.\d{3}  \+0\.\d{3}$", text, flags=re.MULTILINE)
    base, tuned = r"0\.27 \[0\.19, 0\.36\]", r"0\.75 \[0\.66, 0\.82\] after step 6"
    assert re.search(rf"^A  {base}  {tuned}  \+0\.48 \[\S+ \S+\]  baseline$", text, flags=re.MULTILINE)
    assert re.search(r"^B .* \+0\.05 \[-?\S+ \S+\] paired over 100 problems$", text, flags=re.MULTILINE)
    assert re.search(r"^optimizer.learning_rate  1e-05  0.0002$", text, flags=re.MULTILINE)


@pytest.mark.usefixtures("runs")
def test_runs_without_steps_or_evaluation_and_shorter_ones_are_shown_as_such(capsys: Output) -> None:
    assert run(["compare", "one", "short", "new"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^A  one .* [+-]0\.\d{3} at step 4$", text, flags=re.MULTILINE)
    assert re.search(r"^B  short  stopped .* baseline$", text, flags=re.MULTILINE)  # pinned
    assert re.search(r"^C  new +stopped +none yet +- +- +0 +- +-$", text, flags=re.MULTILINE)
    assert re.search(r"^B  not evaluated$", text, flags=re.MULTILINE)


@pytest.mark.usefixtures("runs")
def test_alike_runs_are_said_to_be(capsys: Output) -> None:
    write("twin", steps=2)
    assert run(["compare", "one", "twin", "--by", "tokens", "--metric", "entropy"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("entropy by tokens")
    assert text.splitlines()[-1] == "the configurations are the same"
    assert "at 224 tokens" not in text  # the run that ended there stands at its own end


def test_json_is_one_document_and_nothing_else(runs: list[RunDirectory], capsys: Output, tmp_path: Path) -> None:
    table = tmp_path / "all.csv"
    assert run(["compare", "one", "two", "short", "new", "--by", "time", "--json", "--csv", str(table)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    document = json.loads(captured.out)
    assert (document["metric"], document["by"], document["smoothing"], document["baseline"]) == (
        "reward",
        "time",
        0.8,
        "C",
    )
    assert document["metrics"] == ["reward", "reference_reward", "entropy", "completion_tokens"]
    first, second, third, fourth = document["runs"]
    assert (first["id"], first["name"], first["letter"], first["state"]) == (runs[0].id, "one", "A", "finished")
    assert (first["steps"], first["seconds"], first["tokens"], first["completions"]) == (6, 36.0, 672, 192)
    assert first["difference"]["at"] == 24.0
    assert first["points"]["step"] == [1, 2, 3, 4, 5, 6]
    assert first["points"]["seconds"] == [6.0, 12.0, 18.0, 24.0, 30.0, 36.0]
    assert first["points"]["value"][0] == pytest.approx(compared_runs.metrics(1, 16.0)["reward"])
    assert second["evaluation"]["greedy"]["tuned"]["mean"] == pytest.approx(0.8)
    assert second["evaluation"]["greedy"]["against_baseline"] is None  # the baseline was not evaluated
    assert (third["pinned"], third["difference"], third["evaluation"]) == (True, None, None)
    assert (fourth["steps"], fourth["value"], fourth["points"]["step"]) == (0, None, [])
    assert document["settings"] == [{"path": "optimizer.learning_rate", "values": [1e-5, 2e-4, 1e-5, 1e-5]}]


@pytest.mark.usefixtures("runs")
def test_json_tells_whether_a_difference_is_paired(capsys: Output) -> None:
    write("other", steps=3, overrides={"task.options": {"high": 99}})
    assert run(["compare", "one", "two", "other", "--json"]) == 0
    _, two, other = (
        item["evaluation"]["greedy"]["against_baseline"] for item in json.loads(capsys.readouterr().out)["runs"]
    )
    assert (two["paired"], two["problems"]) == (True, 100)
    assert (other["paired"], other["problems"]) == (False, None)


@pytest.mark.usefixtures("runs")
def test_the_csv_holds_every_step_of_every_run(tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / "runs.csv"
    assert run(["compare", "one", "short", "--csv", str(path)]) == 0
    assert capsys.readouterr().out.endswith(f"written: {path}\n")
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["run", "step", "seconds", "tokens", "reward", "reference_reward", "entropy", "completion_tokens"]
    assert [row[:2] for row in rows] == [
        *(["one", str(n)] for n in range(1, 7)),
        *(["short", str(n)] for n in range(1, 5)),
    ]
    assert rows[1][2:4] == ["12.000", "224"]
    assert float(rows[1][4]) == compared_runs.metrics(2, 16.0)["reward"]
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("name", ["out.png", "out.SVG"])
def test_a_picture_is_of_the_kind_its_ending_tells(name: str, tmp_path: Path, capsys: Output) -> None:
    path = tmp_path / name
    # A name that another program would read as mathematics, and whose signs the font lacks.
    odd = write("$a^{b$ 数", steps=3, overrides={"lora.r": 4})
    assert run(["compare", "one", "new", odd.id, "--plot", str(path), "--by", "time"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.endswith(f"written: {path}\n")
    data = path.read_bytes()
    if name.endswith("png"):
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
    else:
        assert b"<svg" in data
        assert b"training time (s)" in data.replace(b"&#32;", b" ")


WRONG = {
    "unknown run": (["one", "nobody"], "RUN = 'nobody': there is no such run; list them with: aapo-desk runs"),
    "twice": (["one", "one"], "RUN = 'one': this run is given twice; remove one"),
    "metric": (
        ["one", "two", "--metric", "rewrad"],
        "--metric = 'rewrad': no run has this metric; did you mean reward?",
    ),
    "far metric": (
        ["one", "--metric", "xyz"],
        "--metric = 'xyz': no run has this metric; available are reward, reference_reward, entropy, completion_tokens",
    ),
    "picture": (["one", "two", "--plot", "a.pdf"], "--plot = 'a.pdf': must end in .png or .svg"),
    "no ending": (["one", "two", "--plot", "picture"], "--plot = 'picture': must end in .png or .svg"),
    "table": (["one", "two", "--csv", "a.tsv"], "--csv = 'a.tsv': must end in .csv"),
}


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_clear_line_and_status_2(case: str, capsys: Output) -> None:
    arguments, said = WRONG[case]
    assert run(["compare", *arguments]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"{said}\n")


def test_the_seventh_run_and_an_unknown_axis_are_wrong_use(desk_home: Path, capsys: Output) -> None:
    names = [write(str(number), steps=0, right=None).name for number in range(7)]
    assert run(["compare", *names]) == 2
    assert capsys.readouterr().err == "RUN = 7: 1 to 6 runs can be compared; choose that many\n"
    assert run(["compare", "0", "1", "--by", "age"]) == 2
    assert "'age' is not one of" in capsys.readouterr().err
    assert run(["compare"]) == 2


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("option", [["--plot", "gone/out.png"], ["--csv", "gone/out.csv"]])
def test_a_file_that_cannot_be_written_is_status_1(option: list[str], tmp_path: Path, capsys: Output) -> None:
    target = tmp_path / option[1]
    assert run(["compare", "one", "two", option[0], str(target), "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"aapo-desk: cannot write {target}: No such file or directory\n"


@pytest.mark.usefixtures("runs")
def test_a_run_that_cannot_be_read_is_status_1(capsys: Output) -> None:
    find_run("two").database.write_bytes(b"no database at all, but long enough to be looked at " * 40)
    assert run(["compare", "one", "two", "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"aapo-desk: cannot read run two: .*run\.db is damaged: .*\n", captured.err)


@pytest.mark.usefixtures("runs")
def test_without_matplotlib_it_is_said_what_to_install(
    tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    path = tmp_path / "out.png"
    assert run(["compare", "one", "two", "--plot", str(path)]) == 2
    assert (
        capsys.readouterr().err
        == "aapo-desk: pictures need matplotlib; install it with: pip install 'aapo-desk[plots]'\n"
    )
    assert not path.exists()


def evaluated(run: RunDirectory, right: int, scores: list[float | None] | None = None, **asked: Any) -> Path:
    """Write what aapo-desk eval keeps of four problems, of which the tuned model has ``right`` right and its base none.

    ``scores``: of the tuned model, where some answers are unscorable. Returns its folder.
    """
    head = {"key": "k", "task": "gsm8k", "step": 6, "problems": 4, "total": 9, "dropped": 0, "max_new_tokens": 32}
    lines = [
        {"id": f"p{number}", "base": [answer(0.0)], "tuned": [answer(score)]}
        for number, score in enumerate(scores or [float(number < right) for number in range(4)])
    ]
    head["asked"] = {"problems": "digest", "samples": 1, "sampling": None} | asked
    with opened(run.evaluations / f"gsm8k-{right}", head) as results:
        results.add(lines, 1.0)
        results.finish()
    return results.folder


def answer(score: float | None) -> dict[str, Any]:
    return {"completion": "", "score": score, "readable": 1.0, "tokens": 3, "truncated": False}


def test_what_eval_kept_of_the_runs_is_paired_where_they_were_asked_the_same(
    runs: list[RunDirectory], capsys: Output
) -> None:
    one, two, *_ = runs
    evaluated(one, 1)
    evaluated(two, 2)
    evaluated(two, 4)  # the newest counts
    evaluated(two, 3, problems="others")
    assert run(["compare", "one", "two"]) == 0
    text = capsys.readouterr().out
    first, second = (
        block for block in text.split("\n\n") if block.startswith("gsm8k: 4 of 9 problems, greedy, up to 32")
    )
    assert re.search(r"^A  0\.00 \[.*\]  0\.25 \[.*\] after step 6  \+0\.25 .*  baseline$", first, flags=re.MULTILINE)
    assert re.search(r"^B .* 1\.00 \[.* \+0\.75 \[\S+ \S+\] paired over 4 problems$", first, flags=re.MULTILINE)
    assert re.search(r"^A  not evaluated$", second, flags=re.MULTILINE)
    assert re.search(r"^B .* 0\.75 \[", second, flags=re.MULTILINE)
    assert run(["compare", "one", "two", "--json"]) == 0
    by_run = [found["tasks"] for found in json.loads(capsys.readouterr().out)["runs"]]
    assert [len(tasks) for tasks in by_run] == [1, 2]
    pair = next(task["against_baseline"] for task in by_run[1] if task["asked"]["problems"] == "digest")
    assert (pair["mean"], pair["paired"], pair["problems"]) == (0.75, True, 4)


def test_what_an_older_version_kept_without_the_unscorable_answers_is_counted_again(
    runs: list[RunDirectory], capsys: Output
) -> None:
    one, two, *_ = runs
    evaluated(one, 2)
    folder = evaluated(two, 2, scores=[1.0, None, None, None])
    head = json.loads((folder / HEAD).read_text())
    for side, accuracy, unscorable in (("base", 0.0, 0), ("tuned", 1.0, 3)):
        head["summary"][side] = {"accuracy": accuracy, "low": 0.2, "high": 1.0, "unscorable": unscorable, "answers": 4}
    (folder / HEAD).write_text(json.dumps(head))
    assert run(["compare", "one", "two"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^B .* 0\.25 \[.* -0\.25 \[\S+ \S+\] paired over 4 problems$", text, flags=re.MULTILINE)
    assert "B, tuned: 3 of 4 unscorable, counted as wrong (recounted" in text
    (folder / ROWS).write_text("")
    assert run(["compare", "one", "two"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^B .* 1\.00 \[.* -$", text, flags=re.MULTILINE), "without its lines it is shown, not compared"
    assert "B, tuned: 1 of 4 scored; unscorable answers left out" in text
