"""Epochs as steps."""

import dataclasses

import pytest

from jaxguard.data.epochs import in_steps
from jaxguard.errors import UserError


@pytest.mark.parametrize(
    ("epochs", "limit", "steps"), [(1.0, None, 6), (2.5, None, 15), (0.01, None, 1), (1.1, None, 7), (3.0, 9, 4)]
)
def test_steps_that_read_the_rows_so_often(small_config, epochs, limit, steps):
    """Forty-eight rows, eight of them a step."""
    config = dataclasses.replace(
        small_config,
        train=dataclasses.replace(small_config.train, epochs=epochs),
        data=dataclasses.replace(small_config.data, limit=limit),
    )
    found = in_steps(config)
    assert (found.train.steps, found.train.epochs) == (steps, None)
    assert in_steps(small_config) is small_config


def test_mixtures_have_no_epochs(small_config):
    source = f"{small_config.data.source}=1,{small_config.data.source}=2"
    config = dataclasses.replace(
        small_config,
        train=dataclasses.replace(small_config.train, epochs=1.0),
        data=dataclasses.replace(small_config.data, source=source),
    )
    with pytest.raises(UserError, match="a mixture has no epochs of its own"):
        in_steps(config)
