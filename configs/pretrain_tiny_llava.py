"""Pretrain the tiny LLaVA checkpoint that ships with the package, on clean scenes (captions and questions).

Command:  jaxguard data build scenes/all && jaxguard train configs/pretrain_tiny_llava.py
          jaxguard export runs/pretrain-tiny-llava --out tiny-llava --dtype float16
"""

from jaxguard.config import Config, DataConfig, EvaluateConfig, ModelConfig, TrainConfig

config = Config(
    name="pretrain-tiny-llava",
    model=ModelConfig(path="tiny-llava", init="random", trainable="all"),
    data=DataConfig(source="scenes/all", pack=4, length=176, answer_length=72),
    train=TrainConfig(
        steps=6000,
        batch_size=32,
        learning_rate=1.5e-3,
        warmup=200,
        final=0.02,
        weight_decay=0.01,
        log_every=100,
        save_every=500,
    ),
    evaluate=EvaluateConfig(examples=1000, batch_size=100),
)
