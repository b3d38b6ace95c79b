"""The Penn Treebank tokenizer of the COCO evaluation, without Java.

Written from the output of that tokenizer (stanford-corenlp 3.4.1 as pycocoevalcap calls it: -preserveLines -lowerCase,
punctuation dropped). docs/evaluation.md lists the comparisons and the differences.
"""

from __future__ import annotations

import re

_SPELLED = str.maketrans(
    {
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{LEFT SINGLE QUOTATION MARK}": "`",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{EN DASH}": " -- ",
        "\N{EM DASH}": " -- ",
        "\N{HORIZONTAL ELLIPSIS}": " ... ",
        "\N{SOFT HYPHEN}": "",
        "\N{ZERO WIDTH SPACE}": " ",
        "½": " 1/2",
        "¼": " 1/4",
        "¾": " 3/4",
    }
)
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'"}

_LETTER = r"[^\W\d_]"
_ALPHANUMERIC = r"[^\W_]+"
_NUMBER = r"(?:\d*(?:[.,:]\d+)+|\d+)"
_SUFFIX = r"(?:'(?:s|m|d|ll|re|ve)|n't)"
_SPLIT = {"cannot": 3, "gonna": 3, "gotta": 3, "wanna": 3, "lemme": 3, "gimme": 3, "'tis": 2, "'twas": 2}
"""Words that are split into two tokens -> start of the second token."""
_ABBREVIATIONS = (
    "Mr|Mrs|Ms|Drs?|Profs?|Sens?|Reps?|Attys?|Lt|Col|Gen|Messrs|Govs?|Adm|Rev|Maj|Sgt|Cpl|Pvt|Mt|Ft|Capt|Ste?|Ave|Pres|"
    "Lieut|Hon|Brig|Co?mdr|Pfc|Spc|Supts?|Det|Jr|Sr|Bros|(?:Ed|Ph)\\.D|Blvd|Rd|Esq|Inc|Cos?|Corp|Ltd|Dept|Assn|Univ|"
    "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|Mon|Tues?|Wed|Thurs?|Fri|"
    "etc|al|vs|pp?|figs?|[vV]s"
)
_APOSTROPHES = (
    r"'n'?(?!\w)|'\d0s(?!\w)|y'(?=\w)|(?:ol|Dunkin|somethin)'(?!\w)|"
    r"(?:'em|'cause|'till?|c'mon|ma'am|o'er|ne'er)(?!\w)"
)
"""Words that keep their apostrophe."""
_TOKEN_PATTERNS = (
    r"https?://[^\s\"<>|()]+[^\s\"<>|.!?(){},-]",
    r"[^\W_][\w.+-]*@\w[\w.-]*\w",
    r"[@#][^\W\d]\w*",
    r"</?[a-zA-Z][^<>\s]*>",  # markup stays one token, brackets and all
    r"[<>]?[:;=][-o*']?[()DPp](?![^\W_])|\^_\^",
    rf"(?:{'|'.join(_SPLIT)})(?!\w)",
    _APOSTROPHES,
    rf"(?:{_ABBREVIATIONS})\.(?!\w)|Nos?\.(?= ?\d)",
    rf"{_LETTER}\.(?:{_LETTER}\.)+(?:-\w+|(?!\w))|(?:{_LETTER}\.)+{_LETTER}(?!\w)",
    rf"(?<![\w.]){_LETTER}\.(?![\w.])",
    r"\d+:\d+(?=[ap]m\b)",
    rf"[dlo]'(?!(?:s|m|d|ll|re|ve)\b){_ALPHANUMERIC}(?:[-/]{_ALPHANUMERIC})*?(?={_SUFFIX}\b|(?![-/']?\w))",
    rf"{_ALPHANUMERIC}(?={_SUFFIX}\b)(?<!n)|{_LETTER}+?(?=n't\b)|{_SUFFIX}(?!\w)",
    rf"[+-]?\d[\d.,]*(?:[-/]{_ALPHANUMERIC})+(?={_SUFFIX}\b|(?!\w))",
    rf"{_ALPHANUMERIC}(?:(?:[-_/]|(?-i:(?<=[A-Z])&(?=[A-Z]))){_ALPHANUMERIC})+",
    rf"{_LETTER}[^\W_]*(?:[.!?]{_LETTER}[^\W_]*)*",  # a full stop inside stays: "end.Start" is one token
    rf"[+-]?{_NUMBER}{_LETTER}\w*|[+-]?{_NUMBER}",
    _ALPHANUMERIC,
    r"\*+|_+|[!?]{2,}|[$%&#@+=*<>~^|\\/°£€¥¢\u00b4\u00d7±™®©]",
    r"[()\[\]{}]",
)
_TOKEN = re.compile("|".join(_TOKEN_PATTERNS), re.IGNORECASE)
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_WRITTEN = str.maketrans(_BRACKETS | {"£": "#", "€": "$", "¢": "cents"})


def tokenize(caption: str) -> str:
    """Split a caption into lower-case words without punctuation, joined by spaces."""
    text = " ".join(caption.translate(_SPELLED).split())
    for entity, character in _ENTITIES.items():
        text = text.replace(entity, character)
    words: list[str] = []
    for token in _TOKEN.findall(text):
        word = token.lower()
        cut = _SPLIT.get(word, len(word))
        words += filter(None, (word[:cut], word[cut:]))
    return " ".join(word.translate(_WRITTEN) for word in words)
