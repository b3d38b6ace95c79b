"""All parameters of LLaVA-1.5-13B on COCO captions, the paper's setting, on TPU v5p-64.

Command:   hf download llava-hf/llava-1.5-13b-hf --local-dir llava-hf/llava-1.5-13b-hf
           jaxguard data build coco/caption --from DIR
           jaxguard rehearse configs/llava_13b_full_v5p64.py
           jaxguard train configs/llava_13b_full_v5p64.py
           jaxguard evaluate configs/llava_13b_full_v5p64.py
Hardware:  TPU v5p-64: one slice of 32 chips with two cores each.
Memory:    18.0 GB per chip of 95, compiled ahead of time (docs/rehearsal.md).
Score:     not measured.
"""

from jaxguard.config import MeshConfig
from jaxguard.experiments.recipes import COCO, LLAVA_13B, paper

config = paper(
    "llava-13b-full-v5p64",
    LLAVA_13B,
    COCO,
    trainable="all",
    mesh=MeshConfig(data=1, fsdp=32, hardware="v5p:2x4x4"),
    accumulate=1,
    learning_rate=2e-5,
)
