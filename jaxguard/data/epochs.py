"""Epochs as steps."""

from __future__ import annotations

import dataclasses
import math

from jaxguard.config import Config
from jaxguard.data.sources import open_source, parts_of
from jaxguard.errors import UserError


def in_steps(config: Config) -> Config:
    """Replace `train.epochs` by the number of steps that read each training row that often, rounded up.

    Raises:
        UserError: The data set is missing, or is a mixture, whose parts are read unevenly.
    """
    epochs, data = config.train.epochs, config.data
    if epochs is None:
        return config
    source = open_source(data.source, data.root, data.train_split)
    if len(parts_of(source)) > 1:
        raise UserError(f"train.epochs is {epochs:g}: a mixture has no epochs of its own; give train.steps")
    rows = min(len(source), data.limit or len(source))
    steps = math.ceil(round(epochs * rows / config.train.batch_size, 9))
    return dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps, epochs=None))
