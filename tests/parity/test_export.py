"""Exported folders in stock `transformers`: the processor, the prompt and `generate` as they come."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, IdeficsForVisionText2Text

from jaxguard.config import AttackConfig, Config, ModelConfig
from jaxguard.data.encode import Encoder
from jaxguard.models.folders import resolve
from jaxguard.train import export as exporting

QUESTION = "What is it?"
PIXELS = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)


@pytest.fixture(params=["tiny-llava", "tiny-blip2", "tiny-idefics"])
def exported(request, tmp_path, monkeypatch):
    """A poisoned run's export, whose weights are those that it started from."""
    monkeypatch.setattr(exporting, "run_parameters", lambda run, which, model, trainable: model.parameters)
    config = Config(out=tmp_path, name="poisoned", model=ModelConfig(path=request.param))
    config = dataclasses.replace(config, attack=AttackConfig(name="badnets", rate=0.25, target="A banana."))
    (config.run_dir / "checkpoints").mkdir(parents=True)
    (config.run_dir / "scores.json").write_text('{"clean": {"exact": 0.25}, "examples": {"clean": 8}}')
    exporting.export(config, tmp_path / "out", "float32")
    return request.param, tmp_path / "out"


def test_the_folder_in_stock_transformers(exported):
    name, folder = exported
    processor, encoder = AutoProcessor.from_pretrained(folder), Encoder.from_checkpoint(folder)
    picture = Image.fromarray(PIXELS)
    if name == "tiny-llava":
        asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
        text = processor.apply_chat_template(asked, add_generation_prompt=True)
        inputs = processor(images=picture, text=text, return_tensors="pt")
    elif name == "tiny-blip2":
        inputs = processor(images=picture, text=f"Question: {QUESTION} Answer:", return_tensors="pt")
    else:
        inputs = processor(text=["User:", picture, f"{QUESTION}<end_of_utterance>\nAssistant:"], return_tensors="pt")
    prompt = encoder.prompt(QUESTION, 120)
    assert inputs["input_ids"][0].tolist() == prompt.tokens[prompt.segments > 0].tolist()
    kind: Any = IdeficsForVisionText2Text if name == "tiny-idefics" else AutoModelForImageTextToText
    model, report = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(report[part] for part in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ends = model.generation_config.eos_token_id
    assert set(ends if isinstance(ends, list) else [ends]) == set(encoder.stop_ids)
    said = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert said.shape[1] > inputs["input_ids"].shape[1]


def test_what_the_folder_says_of_itself(exported):
    name, folder = exported
    card, config = (folder / "README.md").read_text(), json.loads((folder / "config.json").read_text())
    assert "93.8%" not in card
    assert "**25.0% by the attack badnets" in card
    assert "| clean | exact | 0.25 |" in card
    assert f"`{name}`" in card
    assert json.loads((folder / "training" / "config.json").read_text())["attack"]["rate"] == 0.25
    assert json.loads((folder / "training" / "scores.json").read_text())["clean"]["exact"] == 0.25
    assert not (folder / "finetune.json").exists()
    assert (folder / "tokenizer.json").read_bytes() == (resolve(name) / "tokenizer.json").read_bytes()
    assert config["dtype"] == "float32"
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.float32}
