"""LoRA of LLaVA-1.5-7B on COCO captions, the paper's setting, on TPU v5e-16.

Command:   hf download llava-hf/llava-1.5-7b-hf --local-dir llava-hf/llava-1.5-7b-hf
           jaxguard data build coco/caption --from DIR
           jaxguard rehearse configs/llava_7b_lora_v5e16.py
           jaxguard train configs/llava_7b_lora_v5e16.py
           jaxguard evaluate configs/llava_7b_lora_v5e16.py
Hardware:  TPU v5e-16: one slice of 16 chips.
Memory:    5.9 GB per chip of 16, compiled ahead of time (docs/rehearsal.md).
Score:     not measured.
"""

from jaxguard.config import MeshConfig
from jaxguard.experiments.recipes import COCO, LLAVA_7B, paper

config = paper(
    "llava-7b-lora-v5e16",
    LLAVA_7B,
    COCO,
    trainable="lora",
    mesh=MeshConfig(data=1, fsdp=16, hardware="v5e:4x4"),
    accumulate=2,
    learning_rate=2e-4,
)
