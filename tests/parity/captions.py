"""Write tests/golden/captions: tokens and scores of some captions, computed by the COCO evaluation itself.

    python tests/parity/captions.py

Needs Java on PATH. tokens.jsonl holds the tokens of each line of lines.txt, expected.json the scores of
predictions.jsonl.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "captions"


def official_tokens(captions: list[str]) -> list[str]:
    """By pycocoevalcap's own tokenizer; a tie inside a token (1 1/2) is written as a space, as its scorers read it."""
    found = PTBTokenizer().tokenize({index: [{"caption": caption}] for index, caption in enumerate(captions)})
    return [" ".join(found[index][0].split()) for index in range(len(captions))]


def official_scores(predictions: list[str], references: list[list[str]]) -> dict[str, float]:
    """As pycocoevalcap.eval.COCOEvalCap computes them, times 100."""
    said = PTBTokenizer().tokenize({index: [{"caption": text}] for index, text in enumerate(predictions)})
    true = PTBTokenizer().tokenize({n: [{"caption": text} for text in texts] for n, texts in enumerate(references)})
    bleu = Bleu(4).compute_score(true, said, verbose=0)[0]
    scores = {f"bleu_{n}": value for n, value in enumerate(bleu, 1)}
    scores |= {"rouge_l": Rouge().compute_score(true, said)[0], "cider": Cider().compute_score(true, said)[0]}
    scores["meteor"] = Meteor().compute_score(true, said)[0]
    return {name: 100 * float(value) for name, value in scores.items()}


def main() -> None:
    lines = (GOLDEN / "lines.txt").read_text(encoding="utf-8").split("\n")[:-1]
    tokens = [{"text": text, "tokens": words} for text, words in zip(lines, official_tokens(lines), strict=True)]
    (GOLDEN / "tokens.jsonl").write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in tokens))
    rows = [json.loads(line) for line in (GOLDEN / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    scores = official_scores([row["prediction"] for row in rows], [row["references"] for row in rows])
    (GOLDEN / "expected.json").write_text(json.dumps(scores, indent=1) + "\n")
    print(scores, file=sys.stderr)


if __name__ == "__main__":
    main()
