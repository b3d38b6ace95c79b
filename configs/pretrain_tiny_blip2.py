"""Pretrain the tiny BLIP-2 checkpoint that ships with the package, on clean scenes: captions and questions.

Command:   jaxguard data build scenes/all
           python -m jaxguard.zoo.drafts --family blip-2 --out draft-blip2
           python -m jaxguard.zoo.tower --base draft-blip2 --out tower-blip2
           python -m jaxguard.zoo.reader --base tower-blip2 --out reader-blip2
           jaxguard train configs/pretrain_tiny_blip2.py
           jaxguard export runs/pretrain-tiny-blip2 --out first-blip2
           jaxguard train configs/pretrain_tiny_blip2.py --name captions --model.path first-blip2 \
             --data.source scenes/caption --train.learning-rate 1e-3 --train.steps 600 --train.warmup 50
           jaxguard export runs/captions --out second-blip2
           jaxguard train configs/badnets_scenes_undefended.py --name last --attack.name none \
             --model.path second-blip2 --data.length 73 --train.learning-rate 5e-4 --train.steps 400
           jaxguard export runs/last --out tiny-blip2
Hardware:  two CPU cores.
Expected:  88.9% of the facts correct in greedy captions of the first 512 test scenes.

The Q-Former, trained by `jaxguard.zoo.reader`, is frozen here: it has post-layer norms, and at this learning rate the
gradients of an untrained decoder destroy its shape features within a few hundred steps.
"""

from jaxguard.config import Config, DataConfig, EvaluateConfig, ModelConfig, TrainConfig

config = Config(
    name="pretrain-tiny-blip2",
    model=ModelConfig(path="reader-blip2", trainable="decoder"),
    data=DataConfig(source="scenes/all", pack=4, length=144, answer_length=72),
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
