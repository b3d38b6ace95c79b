"""What every test stands on, set before JAX starts and inherited by the processes that tests start."""

import os

import pytest

DEVICES = 8

os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}".strip(),
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "HF_HUB_OFFLINE": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "MPLBACKEND": "agg",
}


def pytest_sessionstart() -> None:
    """Fewer devices would turn every sharding test into one of nothing."""
    import jax

    if jax.device_count() != DEVICES:
        pytest.exit(f"the tests need {DEVICES} CPU devices, JAX gives {jax.devices()}", returncode=3)
