"""LoRA of IDEFICS-9B on VQAv2, the paper's setting, on TPU v6e-64.

Command:   hf download HuggingFaceM4/idefics-9b --local-dir HuggingFaceM4/idefics-9b
           jaxguard data build vqav2/vqa --from DIR
           jaxguard rehearse configs/idefics_9b_lora_v6e64.py
           jaxguard train configs/idefics_9b_lora_v6e64.py
           jaxguard evaluate configs/idefics_9b_lora_v6e64.py
Hardware:  TPU v6e-64: one slice of 64 chips.
Memory:    1.8 GB per chip of 32, compiled ahead of time (docs/rehearsal.md).
Score:     not measured.
"""

from jaxguard.config import MeshConfig
from jaxguard.experiments.recipes import IDEFICS_9B, VQAV2, paper

config = paper(
    "idefics-9b-lora-v6e64",
    IDEFICS_9B,
    VQAV2,
    trainable="lora",
    mesh=MeshConfig(data=1, fsdp=64, hardware="v6e:8x8"),
    accumulate=1,
    learning_rate=2e-4,
)
