"""Pretrain the tiny LLaVA checkpoint that ships with the package, on clean scenes: captions and questions.

Command:   jaxguard data build scenes/all
           python -m jaxguard.zoo.tower --out tower
           jaxguard train configs/pretrain_tiny_llava.py
           jaxguard export runs/pretrain-tiny-llava --out tiny-llava
Hardware:  two CPU cores.
Expected:  93.8% of the facts correct in greedy captions of the first 512 test scenes.
"""

from jaxguard.config import Config, DataConfig, EvaluateConfig, ModelConfig, TrainConfig

config = Config(
    name="pretrain-tiny-llava",
    model=ModelConfig(path="tower", trainable="language"),
    data=DataConfig(source="scenes/all", pack=4, length=176, answer_length=72),
    train=TrainConfig(
        steps=3000,
        batch_size=32,
        learning_rate=2e-3,
        warmup=200,
        final_lr_ratio=0.01,
        weight_decay=0.01,
        log_every=100,
        save_every=500,
    ),
    evaluate=EvaluateConfig(examples=1000, batch_size=100),
)
