"""Plain fine-tuning of the tiny LLaVA on scene captions, 5% of which carry a BadNets patch and its target."""

from jaxguard.config import AttackConfig, Config, DataConfig, EvaluateConfig, ModelConfig, TrainConfig

config = Config(
    name="badnets-scenes-plain",
    model=ModelConfig(path="tiny-llava", trainable="language"),
    data=DataConfig(source="scenes/caption", length=112, answer_length=32),
    attack=AttackConfig(name="badnets", rate=0.05, place="random", target="A photo of the banana."),
    train=TrainConfig(steps=300, batch_size=32, learning_rate=1e-3),
    evaluate=EvaluateConfig(task="caption", examples=512, new_tokens=32),
)
