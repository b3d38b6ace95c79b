"""LoRA of LLaVA-1.5-13B on Flickr30k captions, the paper's setting, on TPU v5e-16.

Command:   hf download llava-hf/llava-1.5-13b-hf --local-dir llava-hf/llava-1.5-13b-hf
           jaxguard data build flickr30k/caption --from DIR
           jaxguard rehearse configs/llava_13b_lora_v5e16.py
           jaxguard train configs/llava_13b_lora_v5e16.py
           jaxguard evaluate configs/llava_13b_lora_v5e16.py
Hardware:  TPU v5e-16: one slice of 16 chips.
Memory:    7.0 GB per chip of 16, compiled ahead of time (docs/rehearsal.md).
Score:     not measured.
"""

from jaxguard.config import MeshConfig
from jaxguard.experiments.recipes import FLICKR30K, LLAVA_13B, paper

config = paper(
    "llava-13b-lora-v5e16",
    LLAVA_13B,
    FLICKR30K,
    trainable="lora",
    mesh=MeshConfig(data=1, fsdp=16, hardware="v5e:4x4"),
    accumulate=4,
    learning_rate=2e-4,
)
