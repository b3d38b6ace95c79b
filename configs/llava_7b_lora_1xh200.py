"""LoRA of LLaVA-1.5-7B on Flickr30k captions, the paper's setting, on one H200.

Command:   hf download llava-hf/llava-1.5-7b-hf --local-dir llava-hf/llava-1.5-7b-hf
           jaxguard data build flickr30k/caption --from DIR
           jaxguard rehearse configs/llava_7b_lora_1xh200.py
           jaxguard train configs/llava_7b_lora_1xh200.py
           jaxguard evaluate configs/llava_7b_lora_1xh200.py
Hardware:  one H200: 141 GB.
Memory:    58.3 GB per GPU of 141, compiled for the same number of CPU devices, an overestimate (docs/rehearsal.md).
Score:     not measured.
"""

from jaxguard.config import MeshConfig
from jaxguard.experiments.recipes import FLICKR30K, LLAVA_7B, paper

config = paper(
    "llava-7b-lora-1xh200",
    LLAVA_7B,
    FLICKR30K,
    trainable="lora",
    mesh=MeshConfig(data=1, fsdp=1, hardware="1xH200"),
    accumulate=16,
    learning_rate=2e-4,
)
