"""Q-Former and projection of BLIP-2 OPT-2.7B on COCO captions, the paper's setting, on TPU v5e-16.

Command:   hf download Salesforce/blip2-opt-2.7b --local-dir Salesforce/blip2-opt-2.7b
           jaxguard data build coco/caption --from DIR
           jaxguard rehearse configs/blip2_opt_2_7b_v5e16.py
           jaxguard train configs/blip2_opt_2_7b_v5e16.py
           jaxguard evaluate configs/blip2_opt_2_7b_v5e16.py
Hardware:  TPU v5e-16: one slice of 16 chips.
Memory:    2.5 GB per chip of 16, compiled ahead of time (docs/rehearsal.md).
Score:     not measured.
"""

from jaxguard.config import MeshConfig
from jaxguard.experiments.recipes import BLIP2_2_7B, COCO, paper

config = paper(
    "blip2-opt-2-7b-v5e16",
    BLIP2_2_7B,
    COCO,
    trainable="projector",
    mesh=MeshConfig(data=1, fsdp=16, hardware="v5e:4x4"),
    accumulate=1,
    learning_rate=1e-4,
)
