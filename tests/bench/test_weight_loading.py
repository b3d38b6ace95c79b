"""Peak host memory of loading a small checkpoint; `python -m jaxguard.bench.weight_loading` measures a large one."""

from jaxguard.bench import weight_loading as loading

TEXT = {"hidden_size": 256, "intermediate_size": 704, "num_attention_heads": 4, "vocab_size": 196608}


def test_loading_takes_little_beside_the_parameters(monkeypatch):
    monkeypatch.setattr(loading, "SHARD", 16 * 2**20)
    measured = loading.run(TEXT, layers=24)
    assert measured["parameters"] > 100 * 2**20
    assert measured["peak_above_parameters_in_largest_tensors"] < 1.3
