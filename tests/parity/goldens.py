"""Write what torch computes on tiny checkpoints into tests/golden, where `make test` compares without torch.

    python -m tests.parity.goldens

Per family: config.json and model.safetensors (float16), and expected.safetensors: prompts of different lengths, the
tower's output, the logits, and the tokens of greedy and beam search.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from jaxguard.models.architecture import architecture
from tests.parity import checkpoints
from tests.parity.checkpoints import IMAGE_TOKEN, images, torch_pixels

FOLDER = Path(__file__).parents[1] / "golden"
NEW, BEAMS = 8, 3
PREFIX = {
    "llava": [1, *[IMAGE_TOKEN] * 16, 7, *[IMAGE_TOKEN] * 16],
    "blip2": [*[IMAGE_TOKEN] * 5, 2],
    "idefics": [1, 89, IMAGE_TOKEN, 89, 7, 89, IMAGE_TOKEN, 89],
}
PER_ROW = {"llava": 2, "blip2": 1, "idefics": 2}


def make(family: str, folder: Path) -> dict[str, np.ndarray]:
    """Write the family's checkpoint into `folder`; returns the inputs and what torch makes of them."""
    with tempfile.TemporaryDirectory() as draft:
        model = getattr(checkpoints, family)(draft).half().float()
        model.half().save_pretrained(draft)
        model.float()
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "model.safetensors"):
            shutil.copyfile(Path(draft) / name, folder / name)
    rng = np.random.default_rng(5)
    rows = [PREFIX[family] + rng.integers(3, 80, 2 + 2 * number).tolist() for number in range(3)]
    length = max(map(len, rows))
    tokens = np.array([[0] * (length - len(row)) + row for row in rows], np.int32)
    segments = np.array([[0] * (length - len(row)) + [1] * len(row) for row in rows], np.int32)
    pictures = images(rows=3, per_row=PER_ROW[family])
    config = architecture(folder, dtype="float32", remat="none").config
    inputs = {
        "input_ids": torch.from_numpy(tokens).long(),
        "attention_mask": torch.from_numpy(segments).long(),
        "pixel_values": torch_pixels(config, pictures),
    }
    if family == "idefics":
        inputs["pixel_values"] = inputs["pixel_values"].unflatten(0, pictures.shape[:2])
        order = np.cumsum(tokens == IMAGE_TOKEN, axis=1) - 1
        inputs["image_attention_mask"] = torch.from_numpy(order[..., None] == np.arange(2))
    with torch.no_grad():
        logits = model(**inputs).logits.numpy()
        tower = _tower(family, model, torch_pixels(config, pictures)).numpy()
        end = int(logits[0, -1].argmin())
        options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": end, "pad_token_id": end}
        said = {
            name: model.generate(**inputs, **options, num_beams=beams)[:, length:].numpy()
            for name, beams in (("greedy", 1), ("beam", BEAMS))
        }
    padded = {
        name: np.pad(value, ((0, 0), (0, NEW - value.shape[1])), constant_values=end).astype(np.int32)
        for name, value in said.items()
    }
    values = {
        "tokens": tokens,
        "segments": segments,
        "images": pictures,
        "tower": tower,
        "logits": logits,
        "end": np.array([end], np.int32),
        **padded,
    }
    return {name: np.ascontiguousarray(value) for name, value in values.items()}  # else they are saved wrongly


def _tower(family, model, pixels):
    if family == "llava":
        return model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
    return (model if family == "blip2" else model.model).vision_model(pixels).last_hidden_state


def main() -> None:
    for family in PREFIX:
        save_file(make(family, FOLDER / family), FOLDER / family / "expected.safetensors")


if __name__ == "__main__":
    main()
