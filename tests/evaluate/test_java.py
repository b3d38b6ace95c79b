"""Communication with Java, through a stub that answers like the jars."""

import stat
import sys

import pytest

from jaxguard.errors import Failure
from jaxguard.evaluate import java
from jaxguard.evaluate.java import Java
from jaxguard.evaluate.predictions import Prediction
from jaxguard.evaluate.scores import score

STAND_IN = """#!{python}
import sys
if "-stdio" in sys.argv:
    for line in sys.stdin:
        kind, *parts = line.rstrip("\\n").split(" ||| ")
        if kind == "SCORE":
            print(len(parts) - 1, len(parts[-1].split()), flush=True)
        else:
            print("0.5\\n" * len(parts) + "0.25", flush=True)
else:
    for line in sys.stdin:
        print(line.rstrip("\\n").lower().replace("(", "-lrb-").replace("!", " !").replace("\\u2026", " ..."))
"""


def stand_in(folder, program):
    path = folder / "java"
    path.write_text(program.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return Java(str(path))


ROWS = [Prediction(n, "", "", "A dog!", ("a ( dog", "dogs"), False, None) for n in range(3)]


def test_with_java_its_tokens_and_meteor_are_taken(tmp_path):
    scores = score(ROWS, "caption", stand_in(tmp_path, STAND_IN))
    assert scores.tokenizer == "java"
    assert scores.clean["meteor"] == 25
    assert scores.clean["bleu_1"] == pytest.approx(100)
    assert scores.absent == {"spice": java.NO_MODELS}
    assert stand_in(tmp_path, STAND_IN).tokenize(["", "One\u2028(two\n three!", ""]) == ["", "one -lrb-two three", ""]


def test_without_java_what_is_missing_is_named():
    scores = score(ROWS, "caption")
    assert scores.tokenizer == "python"
    assert set(scores.absent) == {"meteor", "spice"}
    assert not set(scores.absent) & set(scores.clean)
    assert score(ROWS, "vqa").absent == {}


@pytest.mark.parametrize("program", ["#!/bin/sh\necho no memory >&2; exit 1\n", "not a program"])
def test_a_java_that_does_not_run_is_told(tmp_path, program):
    broken = stand_in(tmp_path, program)
    with pytest.raises(Failure, match="the Java tokenizer failed"):
        broken.tokenize(["a dog"])
    with pytest.raises(Failure, match="METEOR failed in Java"):
        broken.meteor(["a dog"], [["a dog"]])


def test_what_lies_on_the_path_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert java.find() is None
    assert java.find() != stand_in(tmp_path, STAND_IN) == java.find()
