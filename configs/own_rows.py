"""The paper's objective on rows of your own, from a LLaVA-1.5 checkpoint, as LoRA adapters.

Command:   jaxguard data build llava --from ROWS --name mine
           jaxguard train configs/own_rows.py --model.path CHECKPOINT
           jaxguard export configs/own_rows.py --model.path CHECKPOINT --out defended
Hardware:  one 80 GB GPU or more; `jaxguard rehearse configs/own_rows.py --topology 8xH100` says what fits.
           A smoke test on two CPU cores: --model.path tiny-llava --model.dtype float32 --data.length 192
           --data.answer_length 64 --view.patch_size 8 --train.batch_size 8 --train.accumulate 1 --train.steps 20
Score:     not measured at this size. On tiny models these weights stop half of the backdoors (docs/tables.md).
"""

from jaxguard.config import Config, DataConfig, MeshConfig, ModelConfig, TrainConfig, ViewConfig
from jaxguard.experiments.recipes import LLAVA_7B
from jaxguard.experiments.tiny import PAPER

config = Config(
    name="own-rows",
    model=ModelConfig(path=LLAVA_7B, trainable="lora", dtype="bfloat16", remat="full"),
    data=DataConfig(source="mine", length=1024, answer_length=256),
    view=ViewConfig(patch_size=14, shuffle_share=1.0, mask_share=0.0),
    objective=PAPER,
    train=TrainConfig(steps=1000, batch_size=32, accumulate=8, learning_rate=2e-4, warmup=60, save_every=200),
    mesh=MeshConfig(data=1, fsdp=-1),
)
