"""LoRA of IDEFICS-9B on Flickr30k captions, the paper's setting, on 8 H100.

Command:   hf download HuggingFaceM4/idefics-9b --local-dir HuggingFaceM4/idefics-9b
           jaxguard data build flickr30k/caption --from DIR
           jaxguard rehearse configs/idefics_9b_lora_8xh100.py
           jaxguard train configs/idefics_9b_lora_8xh100.py
           jaxguard evaluate configs/idefics_9b_lora_8xh100.py
Hardware:  8 H100: one machine, 80 GB per GPU.
Memory:    16.5 GB per GPU of 80, compiled for the same number of CPU devices, an overestimate (docs/rehearsal.md).
Score:     not measured.
"""

from jaxguard.config import MeshConfig
from jaxguard.experiments.recipes import FLICKR30K, IDEFICS_9B, paper

config = paper(
    "idefics-9b-lora-8xh100",
    IDEFICS_9B,
    FLICKR30K,
    trainable="lora",
    mesh=MeshConfig(data=1, fsdp=8, hardware="8xH100"),
    accumulate=2,
    learning_rate=2e-4,
)
