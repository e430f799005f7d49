"""The benchmark command runs, says what it measured, and tells a mistake in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from benchmarks import persample, plots
from benchmarks.apart import Apart
from benchmarks.duels import OURS, inference_rivals
from benchmarks.options import Options
from benchmarks.timing import INSTALL, Elsewhere, Spread, ready

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")


def tables(folder: Path, *arguments: str) -> dict[str, Any]:
    """What the command writes as JSON; the same rows stand on the screen.

    With one thread: beside other tests, threads that spin while they wait for one another take minutes.
    """
    ended = run(*arguments, "--repeats", "1", "--threads", "1", "--json", str(folder / "all.json"))
    assert ended.returncode == 0, ended.stderr
    written = json.loads((folder / "all.json").read_text("utf-8"))
    assert {"processor", "cores", "peak GFLOP/s, float32", "kernels"} <= set(written["machine"])
    for table in written["tables"].values():
        assert f"## {table['title']}\n" in ended.stdout
        for row in table["rows"]:
            assert f"\n| {row[table['columns'][0]]}" in ended.stdout
    return dict(written["tables"])


def test_nets_without_rivals(tmp_path: Path) -> None:
    sections = ("steps", "varied", "inference", "persample", "trace")
    found = tables(tmp_path, *sections, "--nets", "lenet5", "--batches", "3", "--alone")
    assert list(found) == ["steps", "inference", "kept apart", "trace"]
    (step,) = found["steps"]["rows"]
    assert step["net"] == "lenet5, batch 3"
    assert step["sharedgrad"]["median"] > 0
    assert step["ratio"] is None
    (apart,) = found["kept apart"]["rows"]
    assert apart["cost"] == apart["kept apart"]["median"] / apart["plain"]["median"]
    assert apart["bar"] == "≤ 1.15, aim 1.05"
    (trace,) = found["trace"]["rows"]
    assert trace["cost"] == trace["trace"]["median"] / trace["backward"]["median"]


def test_processes(tmp_path: Path) -> None:
    found = tables(tmp_path, "memory", "import", "--nets", "lenet5", "--alone")
    assert found["import"]["rows"][0]["seconds"]["median"] > 0
    if sys.platform == "linux":
        assert found["memory"]["rows"][0]["sharedgrad"]["median"] > 1


def test_a_budget_skips_what_comes_too_late(tmp_path: Path) -> None:
    found = tables(tmp_path, "convolutions", "scaling", "--alone", "--budget", "0.3", "--plots", str(tmp_path / "p"))
    first, *_, last = found["convolutions"]["rows"]
    assert first["forward"]["median"] > 0
    assert last["forward"] == "not measured: out of time"
    assert (tmp_path / "p" / "scaling-by-batch.png").stat().st_size > 1000
    assert set(OURS) <= found["scaling by batch"]["rows"][0].keys() & set(found["scaling by batch"]["columns"])


def test_the_best_rival_is_none_of_ours() -> None:
    row = {"curve": "cnn", OURS[0]: Spread((2.0,)), OURS[1]: Spread((1.0,)), "JAX NCHW": Spread((3.0,)), "ratio": 1.5}
    assert plots.best_rival(row) == Spread((3.0,))


@pytest.mark.slow
def test_rivals_do_the_same_work(tmp_path: Path) -> None:
    """A rival that gave other scores would be a failure in its cell."""
    found = tables(tmp_path, "steps", "inference", "--nets", "cnn,resnet20", "--batches", "4")
    for name in ("steps", "inference"):
        for row in found[name]["rows"]:
            assert min(row[f"PyTorch {kind}"]["median"] for kind in ("eager", "channels_last")) > 0
            assert row["ratio"] > 0
    for section, package, rivals in (
        ("steps", "jax", ("JAX NCHW", "JAX NHWC")),
        ("inference", "onnxruntime", ("ONNX Runtime, threads 1",)),
    ):
        for row in found[section]["rows"]:
            for rival in rivals:
                assert row[rival]["median"] > 0 if find_spec(package) else row[rival] == INSTALL


def test_onnx_runtime_is_asked_with_one_thread_and_with_all() -> None:
    makers = {name: make for name, make in inference_rivals(Options(threads=2), "lenet5", 2).items() if "ONNX" in name}
    assert list(makers) == ["ONNX Runtime, threads 1", "ONNX Runtime, threads 2"]
    calls, failures = ready(makers)
    assert set(failures.values()) <= {INSTALL}
    assert bool(calls) == bool(find_spec("onnxruntime"))
    for call in calls.values():
        assert call.turn(1).milliseconds > 0
        call.close()


def test_rivals_keep_the_same_gradients_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rival that gave others would be a failure in its cell."""
    monkeypatch.setattr(persample, "BATCH", 4)
    ((case,),) = [table.cases for table in persample.section(Options(repeats=1)) if table.name == "materialized"]
    row = case.measure()
    assert row["torch.func"].median > 0
    assert row["ratio"] > 0
    for rival in ("BackPACK", "Opacus"):
        assert row[rival] == INSTALL or row[rival].median > 0


def test_a_call_in_a_process_of_its_own() -> None:
    call = Apart("training", "training_step", 1, "lenet5", 2)
    try:
        assert isinstance(call, Elsewhere)
        assert call.calls_a_turn() > 1
        turn = call.turn(3)
        assert 0 < turn.milliseconds < 1e4
        assert turn.processor > 0
    finally:
        call.close()


def test_what_goes_wrong_in_another_process_is_told() -> None:
    _, failures = ready(
        {
            "missing": partial(Apart, "no_such_library", "training_step", 1),
            "wrong": partial(Apart, "training", "training_step", 1, "lenet5", "a batch"),
        }
    )
    assert failures["missing"] == "not installed: pip install 'sharedgrad[bench]'"
    assert failures["wrong"].startswith("failed: TypeError: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "there is no section 'nonsense': choose from steps, "),
        (["--nets", "lenet"], "there is no net 'lenet': choose from lenet5, "),
        (["--repeats", "0"], "expected a number from 1, got '0'"),
        (["--batches", "1,,2"], "expected a number from 1, got ''"),
        (["--budget", "nan"], "expected seconds, got 'nan'"),
        (["--alone", "--compile"], "exclude each other"),
        (["--threads", "9999", "--alone"], "expected at most 256, got 9999"),
        (["--json", "no/such/folder/x.json"], "no/such/folder/x.json cannot be written"),
        (["steps", "--plots", "x"], "the section scaling, which is not asked for"),
        (["--loud"], "unrecognized arguments: --loud"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], said: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("benchmarks: ")
    assert said in line
