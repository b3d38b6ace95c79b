"""Pretrain a tiny BLIP-2 on clean scenes: captions and questions.

Command:   jaxguard data build scenes/all
           python -m jaxguard.data.drafts --family blip-2 --out draft-blip2
           python -m jaxguard.train.tower --base draft-blip2 --out tower-blip2
           jaxguard train configs/pretrain_tiny_blip2.py
           jaxguard export runs/pretrain-tiny-blip2 --out tiny-blip2
Hardware:  two CPU cores.
Score:     none measured yet; tests/train/test_families.py trains the family for a few steps.
"""

from jaxguard.config import Config, DataConfig, EvaluateConfig, ModelConfig, TrainConfig

config = Config(
    name="pretrain-tiny-blip2",
    model=ModelConfig(path="tower-blip2", trainable="language"),
    data=DataConfig(source="scenes/all", pack=4, length=144, answer_length=72),
    train=TrainConfig(
        steps=3000,
        batch_size=32,
        learning_rate=2e-3,
        warmup=200,
        final=0.01,
        weight_decay=0.01,
        log_every=100,
        save_every=500,
    ),
    evaluate=EvaluateConfig(examples=1000, batch_size=100),
)
