"""The typed contract between the data side (host, NumPy) and the device side (JAX).

docs/shapes.md lists the letters of shapes.
"""

from __future__ import annotations

import flax.struct
import numpy as np
from jaxtyping import Array, Bool, Int32, UInt8


@flax.struct.dataclass
class Batch:
    """A batch of B rows, each with W views (1: original only; 2: original, perturbed) of I images and T tokens.

    Rows are token sequences in which every image placeholder is already repeated once per image token.

    Attributes:
        images: RGB pixels of every view.
        tokens: token ids.
        positions: positions in the decoder; packed pairs restart after the prefix. One number per token, or several
            where the family's positions have axes.
        segments: which tokens may attend to each other. 0 is padding, 1 is the prefix that every later token attends
            to, and 2, 3, ... are independent question-answer pairs packed after one prefix, which do not attend to each
            other. A row that is not packed has only 1 and 0.
        answer_mask: True for the tokens that are learnt; the token at t is predicted from t - 1.
        ids: positions of the rows in the source.
        pairs: which question-answer pair of its source row each row shows (-1: several, packed; 0 for a conversation).
        kept: patches that each image of the second view keeps, in rising order; None if all are kept. If patches are
            dropped, every row holds the tokens of all its images.
        right_padded: True if no row is packed and padding is on the right.
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
