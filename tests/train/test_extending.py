"""A finished run may go on where more steps would not have changed the steps it made."""

import dataclasses

import pytest

from jaxguard.errors import UserError
from jaxguard.train.loop import check_run, write_config
from jaxguard.train.state import learning_rate


def longer(config, steps, **train):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps, **train))


def test_a_constant_course_goes_on(small_config):
    config = longer(small_config, 8, final_lr_ratio=1.0)
    write_config(config.run_dir, config)
    check_run(config.run_dir, longer(config, 16))
    for rates in zip(*(map(learning_rate(longer(config, steps).train), range(8)) for steps in (8, 16)), strict=True):
        assert rates[0] == rates[1]


def test_what_would_have_been_another_run_says_why(small_config):
    run = small_config.run_dir
    write_config(run, small_config)
    with pytest.raises(UserError, match=rf"8 steps, and 16 would have changed its learning rate .*export {run}"):
        check_run(run, longer(small_config, 16))
    with pytest.raises(UserError, match=r"of 8 steps, and train.steps is 4: choose another"):
        check_run(run, longer(small_config, 4))
    with pytest.raises(UserError, match=r"other values of train.batch_size, train.steps"):
        check_run(run, longer(small_config, 16, batch_size=16))

    falling = dataclasses.replace(small_config.objective, cross_view_schedule="linear")
    config = longer(dataclasses.replace(small_config, objective=falling), 8, final_lr_ratio=1.0)
    write_config(run, config)
    with pytest.raises(UserError, match=r"its lambda \(objective.cross_view_schedule linear\): choose"):
        check_run(run, longer(config, 16))


def test_a_warmup_that_was_cut_short_is_another_course(small_config):
    config = longer(small_config, 8, final_lr_ratio=1.0, warmup=20)
    write_config(config.run_dir, config)
    with pytest.raises(UserError, match="its learning rate"):
        check_run(config.run_dir, longer(config, 40))
