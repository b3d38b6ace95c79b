"""The one typed contract between the data side (host, NumPy) and the device side (JAX).

What the letters of shapes mean, here and everywhere: docs/shapes.md.
"""

from __future__ import annotations

import flax.struct
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt8


@flax.struct.dataclass
class Batch:
    """A batch of B rows, each with W views (1: original only; 2: original, perturbed) of I images and T tokens.

    Rows are token sequences in which every image placeholder already stands once per image token. ``segments`` says
    who sees whom: 0 is padding, 1 is the prefix that every later token sees, and 2, 3, ... are independent
    question-answer pairs packed behind one prefix, which do not see each other. An ordinary row is all 1.
    ``positions`` are those of the decoder (packed pairs restart behind the prefix): one number each, or several where
    the family's positions have axes. ``answer_mask`` marks the tokens
    that are learnt; the token at t is predicted from t - 1. ``kept`` are the patches that each image of the second view
    keeps, in rising order, where it drops some (None: all are kept); every row then holds the tokens of all its images.
    ``ids`` and ``pairs`` say which row of the source this is and which of its question-answer pairs it shows (-1:
    several, packed; a conversation is one pair, 0).
    ``right_padded`` says of all rows that they are, and that their padding stands behind them.
    """

    images: UInt8[Array | np.ndarray, "B W I h w 3"]
    tokens: Int32[Array | np.ndarray, "B T"]
    positions: Int32[Array | np.ndarray, "B T *axes"]
    segments: Int32[Array | np.ndarray, "B T"]
    answer_mask: Bool[Array | np.ndarray, "B T"]
    ids: Int32[Array | np.ndarray, " B"]
    pairs: Int32[Array | np.ndarray, " B"]
    kept: Int32[Array | np.ndarray, "B I p"] | None = None
    right_padded: bool = flax.struct.field(pytree_node=False, default=False)
