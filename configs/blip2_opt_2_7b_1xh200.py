"""Q-Former and projection of BLIP-2 OPT-2.7B on Flickr30k captions, the paper's setting, on one H200.

Command:   hf download Salesforce/blip2-opt-2.7b --local-dir Salesforce/blip2-opt-2.7b
           jaxguard data build flickr30k/caption --from DIR
           jaxguard rehearse configs/blip2_opt_2_7b_1xh200.py
           jaxguard train configs/blip2_opt_2_7b_1xh200.py
           jaxguard evaluate configs/blip2_opt_2_7b_1xh200.py
Hardware:  one H200: 141 GB.
Memory:    30.8 GB per GPU of 141, compiled for the same number of CPU devices, an overestimate (docs/rehearsal.md).
Score:     not measured.
"""

from jaxguard.config import MeshConfig
from jaxguard.experiments.recipes import BLIP2_2_7B, FLICKR30K, paper

config = paper(
    "blip2-opt-2-7b-1xh200",
    BLIP2_2_7B,
    FLICKR30K,
    trainable="projector",
    mesh=MeshConfig(data=1, fsdp=1, hardware="1xH200"),
    accumulate=4,
    learning_rate=1e-4,
)
