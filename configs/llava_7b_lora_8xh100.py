"""LoRA of LLaVA-1.5-7B on VQAv2, the paper's setting, on 8 H100.

Command:   hf download llava-hf/llava-1.5-7b-hf --local-dir llava-hf/llava-1.5-7b-hf
           jaxguard data build vqav2/vqa --from DIR
           jaxguard rehearse configs/llava_7b_lora_8xh100.py
           jaxguard train configs/llava_7b_lora_8xh100.py
           jaxguard evaluate configs/llava_7b_lora_8xh100.py
Hardware:  8 H100: one machine, 80 GB per GPU.
Memory:    12.8 GB per GPU of 80, compiled for the same number of CPU devices, an overestimate (docs/rehearsal.md).
Score:     not measured.
"""

from jaxguard.config import MeshConfig
from jaxguard.experiments.recipes import LLAVA_7B, VQAV2, paper

config = paper(
    "llava-7b-lora-8xh100",
    LLAVA_7B,
    VQAV2,
    trainable="lora",
    mesh=MeshConfig(data=1, fsdp=8, hardware="8xH100"),
    accumulate=4,
    learning_rate=2e-4,
)
