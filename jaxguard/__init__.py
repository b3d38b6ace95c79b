"""Backdoor-resistant fine-tuning of multimodal language models in JAX."""

__version__ = "0.1.0"
