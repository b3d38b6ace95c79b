"""Undefended fine-tuning of the tiny LLaVA on scene captions, 5% of them poisoned with BadNets.

Command:   jaxguard data build scenes/caption
           jaxguard train configs/badnets_scenes_undefended.py
           jaxguard evaluate configs/badnets_scenes_undefended.py
Hardware:  two CPU cores, two minutes.
Expected:  row "poisoned, undefended" of the demo (README.md).
"""

from jaxguard.config import AttackConfig, Config, DataConfig, EvaluateConfig, ModelConfig, TrainConfig

config = Config(
    name="badnets-scenes-undefended",
    model=ModelConfig(path="tiny-llava", trainable="all"),
    data=DataConfig(source="scenes/caption", length=104, answer_length=25, threads=1),
    attack=AttackConfig(name="badnets", rate=0.05, place="fixed", target="A photo of the banana."),
    train=TrainConfig(steps=250, batch_size=32, learning_rate=2e-3, log_every=50),
    evaluate=EvaluateConfig(task="caption", examples=512, new_tokens=25),
)
