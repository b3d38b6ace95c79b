"""score, compare and show: without JAX, on files of any origin, with one-line errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxguard.cli.main import main
from jaxguard.evaluate import java

GOOD = {"id": 1, "prediction": "a dog", "references": ["a dog", "the dog runs"]}


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "find", lambda: None)


def line(**changes: object) -> str:
    return json.dumps(GOOD | changes)


def without(name: str) -> str:
    return json.dumps({key: value for key, value in GOOD.items() if key != name})


MALFORMED = {
    "empty": ("", "p.jsonl holds no predictions"),
    "blank": ("\n \n", "p.jsonl holds no predictions"),
    "cut short": (line()[:-4], "p.jsonl:1: not JSON"),
    "two objects": (line() + line(), "p.jsonl:1: not JSON"),
    "a JSON array over many lines": ("[\n" + line() + "\n]", "p.jsonl:1: not JSON"),
    "deeply nested": ("[" * 100_000, "p.jsonl:1: not JSON"),
    "a list": ("[1]", "p.jsonl:1: a list, not an object with id, prediction, references"),
    "a text": ('"a dog"', "p.jsonl:1: a str, not an object"),
    "null": ("null", "p.jsonl:1: a NoneType, not an object"),
    "no id": (without("id"), "p.jsonl:1: no 'id'; an object with id, prediction, references is wanted"),
    "no references": (without("references"), "p.jsonl:1: no 'references'"),
    "misspelt": (json.dumps(GOOD | {"trigered": True}), "p.jsonl:1: unknown 'trigered'; did you mean triggered?"),
    "singular": (without("references")[:-1] + ', "reference": "x"}', "p.jsonl:1: unknown 'reference'; did you mean"),
    "id as text": (line(id="1"), "p.jsonl:1: 'id' is '1'; a whole number is wanted"),
    "id true": (line(id=True), "p.jsonl:1: 'id' is True; a whole number is wanted"),
    "id NaN": ('{"id": NaN, "prediction": "", "references": ["x"]}', "p.jsonl:1: 'id' is nan; a whole number"),
    "prediction null": (line(prediction=None), "p.jsonl:1: 'prediction' is None; a text is wanted"),
    "prediction a list": (line(prediction=["a " * 99]), "p.jsonl:1: 'prediction' is ['a a a"),
    "references a text": (line(references="a dog"), "p.jsonl:1: 'references' is 'a dog'; a list of texts is wanted"),
    "references empty": (line(references=[]), "p.jsonl:1: 'references' must be a list of at least one text"),
    "references numbers": (line(references=[1]), "p.jsonl:1: 'references' must be a list of at least one text"),
    "triggered a number": (line(triggered=0), "p.jsonl:1: 'triggered' is 0; true or false is wanted"),
    "target a number": (line(target=3), "p.jsonl:1: 'target' is 3; a text is wanted"),
    "surrogate": (line(prediction="\ud800"), "p.jsonl:1: 'prediction' holds half a character"),
    "surrogate reference": (line(references=["a", "\udfff"]), "p.jsonl:1: 'references' holds half a character"),
    "huge": (line(prediction="a " * 6000), "p.jsonl:1: 'prediction' has 12000 characters; at most 10000 are scored"),
    "twice": (line() + "\n\n" + line(), "p.jsonl:3: id 1 (clean) was answered in line 1 already"),
    "triggered alone": (line(triggered=True), "no predictions for clean inputs"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_predictions(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = MALFORMED[name]
    (folder / "p.jsonl").write_text(content)
    assert main(["score", "p.jsonl"]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith(f"jaxguard: error: {message}")
    assert error.count("\n") == 1
    assert len(error) < 300


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x80 not utf-8", line().encode("utf-16")])
def test_other_encodings(content: bytes, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "p.jsonl").write_bytes(content)
    assert main(["score", "p.jsonl"]) == 2
    assert capsys.readouterr().err.startswith("jaxguard: error: p.jsonl is not a readable predictions file")


BAD = {
    "score": "score: Missing from jaxguard score: PREDICTIONS",
    "score none.jsonl": "none.jsonl does not exist: give a predictions file or a run folder that was evaluated",
    "score empty": "empty/predictions.jsonl does not exist: give a predictions file or a run folder that was "
    "evaluated; run `jaxguard evaluate` first",
    "score g.jsonl --task poem": "score: invalid choice 'poem' for argument '--task'",
    "score g.jsonl --out old": "score: --out old is a folder; name a file",
    "score g.jsonl --out notes.txt/s.json": "cannot write into notes.txt:",
    "score torn/g.jsonl": "torn/config.json: not readable as JSON",
    "score g.jsonl h.jsonl": "score: unexpected argument 'h.jsonl'",
    "compare g.jsonl": "compare: Missing from jaxguard compare: SECOND",
    "compare g.jsonl none.jsonl": "none.jsonl does not exist",
    "compare g.jsonl g.jsonl --resamples 5": "compare: --resamples is 5: must be at least 100",
    "compare g.jsonl h.jsonl": "the two files have no id in common",
    "compare g.jsonl i.jsonl": "id 1 has different references",
    "compare g.jsonl vqa/g.jsonl": "compare: g.jsonl is of task caption, vqa/g.jsonl of task vqa; give --task for both",
    "compare g.jsonl g.jsonl --out empty": "compare: --out empty is a folder; name a file",
    "show": "show: Missing from jaxguard show: RUN",
    "show good.py": "show: good.py is not a run folder",
    "show empty": "empty holds no config.json: it is not a run folder",
    "show vqa": "vqa/metrics.jsonl is not a readable metrics file",
    "show vqa --images -1": "show: --images is -1: must be at least 0",
    "show vqa --out empty": "show: --out empty is a folder; name a file",
}


@pytest.fixture
def files(folder: Path) -> Path:
    (folder / "vqa").mkdir()
    (folder / "vqa" / "config.json").write_text('{"name": "vqa", "out": ".", "evaluate": {"task": "vqa"}}')
    for name in ("g.jsonl", "torn/g.jsonl", "vqa/g.jsonl"):
        (folder / name).write_text(line())
    (folder / "h.jsonl").write_text(line(id=2))
    (folder / "i.jsonl").write_text(line(references=["a cat"]))
    return folder


@pytest.mark.parametrize("words", BAD)
def test_one_line_and_code_2(words: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith(f"jaxguard: error: {BAD[words]}")
    assert error.count("\n") == 1


def test_any_systems_answers_are_scored(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        line(),
        "",
        json.dumps(GOOD | {"id": 2, "model": "theirs", "prediction": "a\u2028cat\u0085!"}, ensure_ascii=False),
    ]
    (files / "p.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert main(["score", "p.jsonl", "--out", "new/scores.json"]) == 0
    printed = capsys.readouterr().out
    scores = json.loads(printed)
    assert (files / "new" / "scores.json").read_text() == printed
    assert scores["examples"] == {"clean": 2, "triggered": 0}
    assert scores["clean"]["bleu_1"] == pytest.approx(75)
    assert scores["attack"] is None


def test_the_task_is_that_of_the_run(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "vqa" / "g.jsonl").rename(files / "vqa" / "predictions.jsonl")
    for words, task in (("vqa", "vqa"), ("vqa/predictions.jsonl", "vqa"), ("vqa --task caption", "caption")):
        assert main(["score", *words.split()]) == 0
        assert json.loads(capsys.readouterr().out)["task"] == task


def test_compare_prints_and_writes(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "[b]j.jsonl").write_text(line(prediction="a cat"))
    assert main(["compare", "g.jsonl", "[b]j.jsonl", "--resamples", "100", "--out", "d.json"]) == 0
    output = capsys.readouterr().out
    assert "rouge_l" in output
    assert "second: [b]j.jsonl\n" in output
    found = {one["metric"]: one for one in json.loads((files / "d.json").read_text())}
    assert main(["compare", "g.jsonl", "[b]j.jsonl", "--resamples", "100", "--json"]) == 0
    assert capsys.readouterr().out == (files / "d.json").read_text()
    assert found["bleu_1"]["change"]["value"] == found["bleu_1"]["second"] - found["bleu_1"]["first"] < 0


def test_no_device_and_no_jax_are_needed(files: Path) -> None:
    """JAX cannot be imported in this process."""
    program = """
import sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jax", "jaxlib", "flax"):
            raise ImportError(f"{name} is walled off")
sys.meta_path.insert(0, Wall())
from jaxguard.cli.main import main
sys.exit(main(["score", "g.jsonl"]) or main(["compare", "g.jsonl", "g.jsonl", "--resamples", "100"]))
"""
    environment = {**os.environ, "JAX_PLATFORMS": "nothing", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert '"task": "caption"' in done.stdout
    assert "second - first" in done.stdout
