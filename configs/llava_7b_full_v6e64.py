"""All parameters of LLaVA-1.5-7B on VQAv2, the paper's setting, on TPU v6e-64.

Command:   hf download llava-hf/llava-1.5-7b-hf --local-dir llava-hf/llava-1.5-7b-hf
           jaxguard data build vqav2/vqa --from DIR
           jaxguard rehearse configs/llava_7b_full_v6e64.py
           jaxguard train configs/llava_7b_full_v6e64.py
           jaxguard evaluate configs/llava_7b_full_v6e64.py
Hardware:  TPU v6e-64: one slice of 64 chips.
Memory:    5.0 GB per chip of 32, compiled ahead of time (docs/rehearsal.md).
Score:     not measured.
"""

from jaxguard.config import MeshConfig
from jaxguard.experiments.recipes import LLAVA_7B, VQAV2, paper

config = paper(
    "llava-7b-full-v6e64",
    LLAVA_7B,
    VQAV2,
    trainable="all",
    mesh=MeshConfig(data=1, fsdp=64, hardware="v6e:8x8"),
    accumulate=1,
    learning_rate=2e-5,
)
