"""Output, exit codes and arguments of the verbs."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxguard.attacks.registry import ATTACKS
from jaxguard.cli.arguments import Arguments
from jaxguard.cli.completion import OWN, WITH_FILE
from jaxguard.cli.main import VERBS, main
from jaxguard.config import Config, from_dict, to_dict
from jaxguard.config.files import load
from jaxguard.data.builders import write_rows
from jaxguard.data.rows import Row
from jaxguard.errors import Preempted, UserError
from jaxguard.experiments.configurations import load_model
from jaxguard.version import __version__


def printed_config(capsys: pytest.CaptureFixture[str], line: str) -> Config:
    assert main(line.split()) == 0
    return from_dict(json.loads(capsys.readouterr().out))


def test_config_prints_what_loads_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed_config(capsys, "config good.py") == load(Path("good.py"))


def test_overrides_stand_on_top_of_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = printed_config(
        capsys,
        "config good.py --train.batch_size 16 --train.learning-rate=1e-4 --attack.rate 0.5 --data.limit 9 "
        "--view.jitter --mesh.data -1 --out elsewhere --objective.direction attract --seed 1 --seed 2",
    )
    assert config.train.steps == 7
    assert config.objective.cross_view_weight == 1.0
    assert (config.train.batch_size, config.train.learning_rate) == (16, 1e-4)
    assert (config.attack.rate, config.data.limit, config.view.jitter) == (0.5, 9, True)
    assert (config.out, config.objective.direction, config.seed) == (Path("elsewhere"), "attract", 2)


def test_a_run_folder_is_a_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load(Path("good.py"))
    config.run_dir.mkdir(parents=True)
    (config.run_dir / "config.json").write_text(json.dumps(to_dict(config)))
    assert printed_config(capsys, "config runs/good") == config
    assert printed_config(capsys, "config runs/good/config.json") == config

    config.run_dir.rename("moved")
    assert load(Path("moved")).run_dir == folder / "moved"
    assert load(Path("moved")).train == config.train


def test_generate_takes_runs_and_checkpoints(folder: Path) -> None:
    assert load_model(Path("good.py")) == load(Path("good.py"))
    shipped = load_model(Path("tiny-llava"))
    assert shipped.model.path == "tiny-llava"
    assert not shipped.run_dir.exists()
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text('{"model_type": "llava"}')
    assert load_model(checkpoint).model.path == str(checkpoint)


def test_data_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    assert "scenes/caption" in capsys.readouterr().out.splitlines()
    assert main(["data", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert "scenes/caption" in listed["embedded"]
    assert "llava" in [name.split("/")[0] for name in listed["formats"]]


def test_a_table_of_audits_is_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    words = ["table", "configs/tables/audits.py", "--only", "attack=wanet", "--dry-run"]
    assert main(words) == 0
    assert "wanet" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    (cell,) = json.loads(capsys.readouterr().out)
    assert (cell["labels"]["attack"], cell["finished"]) == ("wanet", False)
    assert main([*words, "--jobs", "2"]) == 2
    assert "makes one audit after the other; leave --jobs out" in capsys.readouterr().err


def test_poison_writes_what_verify_accepts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    rows = [Row(index, f"row {index}", image, ("what?",), ("nothing",), ("nothing",)) for index in range(4)]
    write_rows({"train": (len(rows), lambda: iter(rows))}, folder / "clean", "clean", extra={})

    line = "poison good.py --data.source clean --attack.name badnets --attack.rate 0.5 --out poisoned"
    assert main(line.split()) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "poisoned: 2 of 4 rows poisoned"
    assert main(["poison", "--verify", "poisoned"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "poisoned: 2 of 4 rows poisoned, all hashes match"


def test_train_hands_on_the_configuration(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jaxguard.train.loop.train", lambda config, _: config.run_dir / f"{config.train.steps} steps")
    monkeypatch.setattr("jaxguard.train.preflight.preflight", lambda config: [f"{config.name} may start"])
    assert main(["train", "good.py", "--train.steps", "9"]) == 0
    assert capsys.readouterr() == ("runs/good/9 steps\n", "good may start\n")


def test_train_checks_before_it_compiles(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("preflight", "train"):
        assert main([verb, "good.py"]) == 2
        output, error = capsys.readouterr()
        assert (output, error.count("\n")) == ("", 1)
        assert "data set 'scenes/caption' is not built" in error
    assert not (folder / "runs").exists()


def test_check_runs_nothing_and_says_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Models and run folders of other machines are not looked for; misspelt names of shipped models are."""
    (folder / "grid.py").write_text("grids = {}")
    fine = ["check train good.py", "check evaluate good.py --canaries", "check train good.py --train.epochs 3"]
    fine += ["check --elsewhere train good.py --model.path /out/llava", "check --elsewhere evaluate ../out/runs/x"]
    fine += ["check bench step good.py --rounds 3", "check audit good.py --strict", "check demo --task vqa"]
    for line in fine:
        assert main(line.split()) == 0, line
        assert capsys.readouterr() == ("", "")
    wrong = {
        "check train good.py --model.path /out/llava": "model.path '/out/llava' holds no config.json",
        "check --elsewhere train good.py --model.path tiny-lava": "did you mean 'tiny-llava'?",
        "check --elsewhere train good.py --train.stepz 3": "unknown flag --train.stepz",
        "check --elsewhere train none.py": "none.py does not exist",
        "check --elsewhere evaluate ../out/runs/x --evaluate.beam 3": "unknown flag --evaluate.beam",
        "check table grid.py": "has no grid of scale 'tiny'",
        "check demo --tsk vqa": "demo: unknown flag --tsk; did you mean --task?",
        "check bench step good.py --train.stepz 3": "unknown flag --train.stepz",
        "check audit good.py --strikt": "unknown flag --strikt",
        "check trian good.py": "check: no verb 'trian'; did you mean train?",
        "check": "check: no verb ''; give one of data list,",
    }
    for line, message in wrong.items():
        assert main(line.split()) == 2, line
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("line", ["--help", "-h", "data --help"])
def test_overview(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(line.split()) == 0
    output = capsys.readouterr().out
    assert all(f"  {verb} " in output for verb in VERBS)
    assert max(map(len, output.splitlines())) <= 80


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        main([*verb.split(), "--help"])
    assert not stop.value.code
    output = capsys.readouterr().out
    assert f"usage: jaxguard {verb}" in output
    assert max(map(len, output.splitlines())) <= 80
    usage = output.split("\n\n")[0]
    takes = WITH_FILE.keys() | {"check"}
    assert ("FILE" in usage) == (verb in takes or verb == "table"), "usage names what comes first"
    assert ("--train.batch_size" in output) == (verb in WITH_FILE), "the options of the configuration are listed too"


def test_help_names_the_attacks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    words = re.findall(r"\w+", capsys.readouterr().out)
    assert set(ATTACKS) < set(words)


def test_quiet_leaves_warnings_and_errors(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def verb(arguments: Arguments) -> None:
        print("result")
        print("step 1 of 9\nwarning: idle\nverdict: planted\n  because of that", file=sys.stderr)
        raise UserError("no more")

    monkeypatch.setitem(VERBS, "train", verb)
    assert main(["--quiet", "train"]) == 2
    assert capsys.readouterr() == ("result\n", "warning: idle\nverdict: planted\njaxguard: error: no more\n")


def test_bash_completes_verbs_and_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(OWN) | set(WITH_FILE) | {"check", "completion"} == set(VERBS)
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    ask = "source {}; COMP_WORDS=(jaxguard {}); COMP_CWORD={}; _tyro_jaxguard; echo ${{COMPREPLY[@]}}"
    for words, expected in (
        ("bench s", "step"),
        ("evaluate x --can", "--canaries"),
        ("train x --train.st", "--train.steps"),
    ):
        line = ask.format(tmp_path / "script", words, len(words.split()))
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
        assert done.stdout.split() == [expected]


def test_help_shows_the_values_of_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "good.py", "--help"])
    output = capsys.readouterr().out
    assert "usage: jaxguard train good.py" in output
    assert "(default: 7)" in output


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Also: transformers' advice to install PyTorch is switched off."""
    monkeypatch.setenv("TRANSFORMERS_NO_ADVISORY_WARNINGS", "")
    monkeypatch.delenv("TRANSFORMERS_NO_ADVISORY_WARNINGS")
    assert main(["--version"]) == 0
    assert os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] == "1"
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (Preempted("saved step 3 of runs/x"), 75, "jaxguard: saved step 3 of runs/x\n"),
        (KeyboardInterrupt(), 130, "jaxguard: interrupted\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x/metrics.jsonl"),
            2,
            "jaxguard: error: No space left on device (runs/x/metrics.jsonl); make room and run it again\n",
        ),
    ],
)
def test_exit_codes(
    raised: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def verb(arguments: Arguments) -> None:
        raise raised

    monkeypatch.setitem(VERBS, "train", verb)
    assert main(["train"]) == code
    assert capsys.readouterr() == ("", message)


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def verb(arguments: Arguments) -> None:
        raise LookupError("a bug")

    monkeypatch.setitem(VERBS, "train", verb)
    with pytest.raises(LookupError, match="a bug"):
        main(["train"])


def test_a_closed_pipe_is_quiet(folder: Path) -> None:
    arguments = [sys.executable, "-m", "jaxguard", "config", "good.py"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_a_finished_run_is_evaluated_asked_and_exported(
    finished_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jaxguard.evaluate.java.find", lambda: None)  # where there is one, it takes long to start
    run = str(finished_config.run_dir)
    assert main(["evaluate", run, "--evaluate.examples", "8"]) == 0
    output, said = capsys.readouterr()
    found = json.loads(output)
    assert found["examples"] == {"clean": 8, "triggered": 8}
    assert found["verdict"]["outcome"] == "inconclusive", "eight rows show nothing"
    assert "verdict: inconclusive" in said
    assert found["evaluation"]["name"] in said
    assert main(["evaluate", run, "--json"]) == 2
    assert "--json goes with --canaries" in capsys.readouterr().err

    picture = tmp_path / "picture.png"
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(picture)
    question = ["--image", str(picture), "--prompt", "what is it?"]
    assert main(["generate", run, *question]) == 0
    answer = capsys.readouterr().out
    assert len(answer.split()) > 1, "an empty answer would equal any other"

    out = tmp_path / "exported"
    assert main(["export", run, "--out", str(out), "--dtype", "float32"]) == 0
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= {file.name for file in out.iterdir()}
    capsys.readouterr()
    assert main(["generate", str(out), *question, "--evaluate.new_tokens", "12", "--data.length", "64"]) == 0
    assert capsys.readouterr().out == answer
    assert main(["export", run, "--out", str(out)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err


def test_the_rows_of_a_run_are_audited(
    small_config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model's weights are random: it is blind, and --strict says so."""
    run = small_config.run_dir
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(to_dict(small_config)))
    assert main(["audit", str(run), "--out", str(tmp_path / "report")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report' / 'report.html'}\n"
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (found["rows"], found["answers"]) == (48, 240), "every caption of every row"
    assert found["sight"]["sees"] is False
    assert "NO: nothing below means much" in (tmp_path / "report" / "report.html").read_text()
    assert main(["audit", str(run), "--strict"]) == 1
    assert "does not see these images" in capsys.readouterr().err
    assert {path.name for path in run.iterdir()} == {"config.json", "audit"}
    capsys.readouterr()
    assert main(["clean", str(run / "audit"), "--out", str(tmp_path / "cleaned")]) == 0
    flagged = len(found["rows flagged"])
    assert f"{48 - flagged} rows kept, {flagged} quarantined" in capsys.readouterr().out


def test_gallery_hands_on_its_options(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jaxguard.report.gallery.gallery", print)
    assert main(["gallery", "--out", "new/picture.png", "--source", "rows", "--images", "3"]) == 0
    assert capsys.readouterr().out == "new/picture.png rows data 3\n"


def test_demo_hands_on_its_options(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("jaxguard.experiments.demo.demo", print)
    assert main(["demo", "--task", "vqa", "--out", "elsewhere"]) == 0
    assert main(["demo", "--family", "blip2"]) == 0
    assert main(["demo"]) == 0
    lines = ["vqa elsewhere llava", "caption runs/demo-blip2 blip2", "caption runs/demo llava"]
    assert capsys.readouterr().out.splitlines() == lines
