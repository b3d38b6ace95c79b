"""Pretrain the tiny IDEFICS checkpoint that ships with the package, on clean scenes: captions and questions.

Command:   jaxguard data build scenes/all
           python -m jaxguard.zoo.drafts --family idefics --out draft-idefics
           python -m jaxguard.zoo.tower --base draft-idefics --out tower-idefics
           python -m jaxguard.zoo.reader --base tower-idefics --out reader-idefics
           jaxguard train configs/pretrain_tiny_idefics.py
           jaxguard export runs/pretrain-tiny-idefics --out tiny-idefics
Hardware:  two CPU cores.
Expected:  85.3% of the facts correct in greedy captions of the first 512 test scenes.
"""

from jaxguard.config import Config, DataConfig, EvaluateConfig, ModelConfig, TrainConfig

config = Config(
    name="pretrain-tiny-idefics",
    model=ModelConfig(path="reader-idefics", trainable="language"),
    data=DataConfig(source="scenes/all", pack=4, length=128, answer_length=72),
    train=TrainConfig(
        steps=2000,
        batch_size=16,
        learning_rate=2e-3,
        warmup=100,
        final_lr_ratio=0.01,
        weight_decay=0.01,
        log_every=100,
        save_every=500,
    ),
    evaluate=EvaluateConfig(examples=1000, batch_size=100),
)
