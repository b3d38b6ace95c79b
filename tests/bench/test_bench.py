"""Every benchmark at its smallest size, and the count of operations against the definition of a matmul."""

import dataclasses
import json
import threading
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxguard.bench.compilation import bench_compile
from jaxguard.bench.data import GatedSource, bench_data, stall
from jaxguard.bench.flops import peak, step_flops
from jaxguard.bench.objective import Sizes, bench_objective
from jaxguard.bench.step import bench_step
from jaxguard.bench.timing import Timing, take_turns
from jaxguard.config import LoraConfig, MeshConfig, ObjectiveConfig
from jaxguard.data.sources import open_source
from jaxguard.errors import UserError
from jaxguard.models.architecture import architecture
from jaxguard.models.flops import View


def written(out: Path, name: str) -> dict:
    assert (out / f"{name}.md").read_text().startswith("| ")
    results = json.loads((out / f"{name}.json").read_text())
    assert results["machine"]["versions"]["jax"] == jax.__version__
    return results


def test_steps(small_config, tmp_path):
    config = dataclasses.replace(
        small_config,
        view=dataclasses.replace(small_config.view, patch_size=16),
        model=dataclasses.replace(small_config.model, trainable="projector"),
        mesh=MeshConfig(data=4, tensor=2),
    )
    rows = {row["case"]: row for row in bench_step(config, 1, tmp_path)}
    assert len(written(tmp_path, "step")["rows"]) == len(rows) == 7
    ratios = [rows[name]["flops_ratio"] for name in rows]
    assert ratios[0] == ratios[1] == 1.0
    assert ratios[2] == ratios[3] == 2.0
    assert 2 > ratios[4] > ratios[5] > ratios[6] > 1
    assert all(row["step"].median > 0 and row["temporary_bytes"] > 0 for row in rows.values())
    assert 0 < rows["two views"]["padding"] < 1


def test_steps_of_a_family_that_cannot_drop_patches(small_config, tmp_path):
    values = {"model_type": "blip-2", "vision_config": {"image_size": 64, "patch_size": 8}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = dataclasses.replace(small_config, model=dataclasses.replace(small_config.model, path=str(tmp_path)))
    with pytest.raises(UserError, match="bench step: two views, 50% of patches: view"):
        bench_step(config, 1, tmp_path)


def test_data(small_config, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxguard.bench.data_loader.find_spec", lambda name: None)  # torch is in the parity tests
    monkeypatch.setattr("jaxguard.bench.data_loader.PHOTOGRAPHS", 2)
    rows = bench_data(small_config, 1, tmp_path, 48)
    cases = ["loader alone", "step, ready batch", "step, batches of the loader", "loader alone, 48 px"]
    assert [row["case"] for row in rows] == cases
    assert rows[3]["rows_per_second"] > 0
    found = written(tmp_path, "data")["rows"][2]["stall"]
    assert found["low"] <= found["sums"] <= found["high"] < 100


def test_stall_is_of_pairs():
    """A pace that drifts threefold hides nothing: pairs lose a tenth of their real step, one of them half."""
    paces = np.linspace(1, 3, 9)
    real = paces.copy()
    synthetic = 0.9 * paces
    synthetic[4] = 0.5 * paces[4]
    found = stall(synthetic.tolist(), real.tolist())
    assert found["median"] == pytest.approx(10)
    assert found["sums"] == pytest.approx(100 * (1 - synthetic.sum() / real.sum()))
    assert 10 <= found["low"] + 1e-9 < found["sums"] < found["high"]


def test_a_closed_gate_holds_rows_back(small_data):
    source = GatedSource(open_source(str(small_data), small_data, "train"))
    source.gate.clear()
    read: list[int] = []
    reader = threading.Thread(target=lambda: read.append(source[1].id), daemon=True)
    reader.start()
    assert source.text(2).id == 2  # texts do not wait
    reader.join(0.2)
    assert not read
    source.gate.set()
    reader.join()
    assert read == [1]


def test_a_step_does_not_grow_with_its_layers(small_config, small_checkpoint, tmp_path):
    """Of models of which there is nothing but config.json."""
    values, found = json.loads((small_checkpoint / "config.json").read_text()), []
    for depth in (12, 24):
        folder = tmp_path / str(depth)
        folder.mkdir()
        values["text_config"] |= {"num_hidden_layers": depth}
        values["vision_config"] |= {"num_hidden_layers": depth // 2}
        (folder / "config.json").write_text(json.dumps(values))
        model = dataclasses.replace(small_config.model, path=str(folder), trainable="lora")
        two, all_layers = bench_compile(
            dataclasses.replace(small_config, model=model, objective=ObjectiveConfig()), folder
        )
        assert [two["case"], all_layers["case"]] == ["2 layers", "all layers"]
        assert 1000 < all_layers["instructions"] < two["instructions"], "two layers are unrolled, more are a loop"
        assert written(folder, "compile")["rows"][1]["seconds"] > 0
        found.append(all_layers["instructions"])
    assert 0.95 < found[1] / found[0] < 1.05


def test_objective(tmp_path):
    rows = bench_objective(Sizes(vocabularies=(40, 64), pairs=8, width=4), 1, tmp_path)
    assert [(row["vocabulary"], row["head"], row["case"]) for row in rows[:2]] == [
        (40, "frozen", "reference"),
        (40, "frozen", "fused"),
    ]
    assert len(written(tmp_path, "objective")["rows"]) == 8
    assert all(row["chosen"] == (row["case"] == "reference") for row in rows)


def test_operations_are_those_of_the_matrices(small_checkpoint):
    arch = architecture(small_checkpoint, dtype="float32", remat="none")
    view = View(rows=3, tokens=40, patches=16, answers=10)

    tower = 3 * 17 * 2 * (4 * 32 * 32 + 2 * 32 * 48)
    patches, projector = 3 * 16 * (3 * 16 * 16) * 32, 3 * 16 * 2 * 32 * 32
    decoder = 3 * 40 * 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48) + 3 * 10 * 32 * 1024
    tower_looks, decoder_looks = 4 * 3 * 17 * 17 * 32 * 2, 4 * 3 * 40 * 40 * 32 * 2
    frozen = 2 * tower + 2 * patches + tower_looks + 3 * decoder_looks
    assert step_flops(arch, "projector", [view]) == frozen + 4 * projector + 4 * decoder
    assert step_flops(arch, "language", [view]) == frozen + 4 * projector + 6 * decoder
    everything = frozen + 4 * tower + 2 * patches + 2 * tower_looks + 6 * projector + 6 * decoder
    assert step_flops(arch, "all", [view]) == everything
    assert step_flops(arch, "all", [view, view]) == 2 * everything
    adapted = architecture(small_checkpoint, dtype="float32", remat="none", lora=LoraConfig(rank=2))
    low = 3 * 40 * 2 * 2 * (2 * 64 + 2 * 48 + 3 * 80)
    assert step_flops(adapted, "lora", [view]) == frozen + 2 * projector + 4 * decoder + 6 * low


def test_peak_is_of_the_longest_name():
    assert peak("TPU v5 lite") == 197e12
    assert peak("TPU v5p") == 459e12
    assert peak("NVIDIA H100 80GB HBM3") == 989e12
    assert peak("cpu") is None


def test_cases_take_turns():
    order: list[str] = []
    timings = take_turns({name: partial(order.append, name) for name in "ab"}, 4)
    assert "".join(order) == "ab" * 7
    assert timings["a"].p95 >= timings["a"].median > 0
    assert Timing.of([3.0, 1.0, 2.0]) == Timing(2.0, 3.0)
