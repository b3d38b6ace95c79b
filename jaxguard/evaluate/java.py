"""The Java parts of the COCO evaluation (tokenizer, METEOR, SPICE), as pycocoevalcap ships them."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxguard.errors import Failure

ABSENT = "needs Java: run `jaxguard score` with java on PATH to add it"
NO_MODELS = "needs the Stanford CoreNLP 3.6.0 models, which are not in pycocoevalcap's spice/lib; nothing is downloaded"
_PUNCTUATION = frozenset(["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", *".?!,:-;", "--", "..."])
"""Tokens that pycocoevalcap drops. Brackets of lower-cased captions are not among them and are kept."""


@dataclass(frozen=True)
class Java:
    """A Java runtime. Its methods raise Failure if Java fails."""

    command: str

    def tokenize(self, captions: Sequence[str]) -> list[str]:
        """Tokenise with the original of `jaxguard.evaluate.tokens` (stanford-corenlp 3.4.1)."""
        lines = "".join(" ".join(caption.split()) + "\n" for caption in captions)
        jar = _package() / "tokenizer" / "stanford-corenlp-3.4.1.jar"
        program = ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-encoding", "UTF-8"]
        arguments = [self.command, *program, "-preserveLines", "-lowerCase"]
        try:
            done = subprocess.run(arguments, input=lines.encode(), capture_output=True, check=False)
        except OSError as error:
            raise Failure(f"the Java tokenizer failed ({error})") from error
        found = done.stdout.decode(errors="replace").split("\n")[:-1]
        if done.returncode or len(found) != len(captions):
            raise Failure(f"the Java tokenizer failed: {_last_line(done.stderr)}")
        return [" ".join(word for word in line.split() if word not in _PUNCTUATION) for line in found]

    def meteor(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
        """Compute METEOR 1.5 of tokenised captions, in [0, 1]: a score of the set, not a mean over captions."""
        program = ["-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"]
        try:
            with subprocess.Popen(
                [self.command, *program],
                cwd=_package() / "meteor",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
            ) as process:
                stdin, stdout = process.stdin, process.stdout
                assert stdin
                assert stdout

                def ask(*parts: str) -> str:
                    stdin.write(" ||| ".join(parts) + "\n")
                    stdin.flush()
                    return stdout.readline().strip()

                counts = [ask("SCORE", *texts, text) for text, texts in zip(predictions, references, strict=True)]
                ask("EVAL", *counts)
                *_, total = (stdout.readline() for _ in counts)  # the scores of all captions, then that of the set
            score = float(total)
        except (OSError, ValueError) as error:
            raise Failure(f"METEOR failed in Java ({error})") from error
        return score if math.isfinite(score) else 0.0  # not a number if no caption has a word

    def spice(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
        """Compute SPICE of tokenised captions, in [0, 1]. Needs `spice_models`."""
        from pycocoevalcap.spice.spice import Spice

        predicted = {index: [text] for index, text in enumerate(predictions)}
        expected = {index: list(texts) for index, texts in enumerate(references)}
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return float(Spice().compute_score(expected, predicted)[0])
        except (OSError, subprocess.CalledProcessError) as error:
            raise Failure(f"SPICE failed in Java ({error})") from error


def find() -> Java | None:
    """Find the Java on PATH, if there is one."""
    command = shutil.which("java")
    return None if command is None else Java(command)


def spice_models() -> bool:
    """True if SPICE's models are where pycocoevalcap looks for them; otherwise it would download them."""
    return all(
        (_package() / "spice" / "lib" / f"stanford-corenlp-3.6.0{part}.jar").is_file() for part in ("", "-models")
    )


def _package() -> Path:
    spec = importlib.util.find_spec("pycocoevalcap")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def _last_line(output: bytes) -> str:
    return (output.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
