"""The committed goldens equal what torch computes now."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.parity.goldens import FOLDER, PREFIX, make


@pytest.mark.parametrize("family", PREFIX)
def test_goldens_are_up_to_date(family, tmp_path):
    fresh, committed = make(family, tmp_path), load_file(FOLDER / family / "expected.safetensors")
    assert fresh.keys() == committed.keys()
    for name, value in committed.items():
        np.testing.assert_allclose(fresh[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    weights, stored = load_file(tmp_path / "model.safetensors"), load_file(FOLDER / family / "model.safetensors")
    assert weights.keys() == stored.keys()
    for name, value in stored.items():
        np.testing.assert_array_equal(weights[name], value, err_msg=name)
