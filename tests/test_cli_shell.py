"""What the shell sees when something goes wrong: one paragraph, an exit code, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

import reg_engine
from reg_engine.cli import cli, shell

SAMPLE = ["sample", "--steps", "1", "--labels", "0-3", "--no-progress", "--out", "s.npz"]


def started(words: list[str], folder: Path, before: str = "", **streams) -> tuple[int, str]:
    """(exit code, standard error) of the command in a process of its own."""
    code = f"import os, resource, sys\n{before}\nsys.argv[1:] = {words!r}\n"
    code += "from reg_engine.cli import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **streams,
    )
    return done.returncode, done.stderr


def assert_paragraph(found: tuple[int, str], says: str) -> None:
    code, text = found
    assert code == 2, text
    assert text.startswith("error: ") and says in text and text.count("\n") == 1, text


def test_a_closed_output_is_said_before_the_work(tmp_path: Path) -> None:
    assert_paragraph(started(SAMPLE, tmp_path, "os.close(1); sys.stdout = None"), "is closed")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        assert_paragraph(started(SAMPLE, tmp_path, stdout=full), "No space left")
    assert os.listdir(tmp_path) == ["s.npz"]  # the samples are not lost
    reader, writer = os.pipe()
    os.close(reader)
    assert_paragraph(started(["doctor"], tmp_path, stdout=writer), "its reader has closed it")
    os.close(writer)


def test_a_full_disk(tmp_path: Path) -> None:
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))"
    found = started(SAMPLE, tmp_path, limit, stdout=subprocess.PIPE)
    assert_paragraph(found, "File too large")
    assert not (tmp_path / "s.npz").exists()


class Fails(click.Group):
    error: BaseException = RuntimeError()

    def main(self, *arguments, **options):
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (reg_engine.InputError("x", "is 3", "Give 4"), 2, "error: x: is 3. Give 4."),
        (OSError(28, "No space left on device", "out.npz"), 2, "error: out.npz: No space"),
        (MemoryError(), 2, "error: out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), 2, "error: out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9"), 2, "error: out of memory"),
        (KeyboardInterrupt(), 130, ""),
        (click.Abort(), 130, ""),
        (click.UsageError("no such option"), 2, "Error: no such option"),
        (click.ClickException("cannot"), 2, "Error: cannot"),
    ],
)
def test_each_kind_of_failure_has_its_code(capsys, error, code: int, says: str) -> None:
    command = Fails()
    command.error = error
    assert shell.run(command) == code
    assert capsys.readouterr().err.startswith(says)


def test_a_defect_keeps_its_traceback() -> None:
    command = Fails()
    command.error = RuntimeError("index 3 is out of bounds")
    with pytest.raises(RuntimeError, match="out of bounds"):
        shell.run(command)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seeds", "0-99999999999"], "--seeds: '0-99999999999' is 100000000000 numbers"),
        (["--labels", "0-99999999999"], "--labels: .* at most 10000000"),
        (["--per-label", "1000000000"], "--per-label: makes 4000000000 samples"),
        (["--steps", "100000000"], "steps: is 100000000. Give at most 10000"),
        (["--per-label", "100000", "--out", "s.png"], "--out: .* pixels"),
        (["--device", "meta"], "device: 'meta' holds shapes and no values"),
        (["--device", "nonsense"], "device: 'nonsense' cannot be used"),
        (["--labels", "10"], "--labels: .10. are out of range. Write labels from 0 to 9"),
    ],
)
def test_what_would_never_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("sample", "profile"):
        if command == "profile" and {"--seeds", "s.png"} & set(arguments):
            continue
        base = [part for part in SAMPLE[1:] if command == "sample" or part != "s.npz"]
        base = base if command == "sample" else [*base, "profile"]
        result = CliRunner().invoke(cli, [command, *base, *arguments])
        assert isinstance(result.exception, reg_engine.InputError), result.output
        with pytest.raises(reg_engine.InputError, match=says):
            raise result.exception


@pytest.mark.parametrize("device", ["meta", "nonsense", "cuda:99"])
@pytest.mark.parametrize("command", [["train", "mnist"], ["experiment", "theory", "--quick"]])
def test_a_device_that_cannot_compute_is_refused(
    tmp_path: Path, command: list[str], device: str
) -> None:
    more = [*command, "--out", str(tmp_path / "o"), "--device", device]
    # Looked at before the data, which is not there; the experiment reads none.
    more += ["--data", str(tmp_path / "mnist.npz")] if "train" in command else []
    result = CliRunner().invoke(cli, more)
    assert isinstance(result.exception, reg_engine.InputError), result.output
    assert result.exception.argument == "device"
