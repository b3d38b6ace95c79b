"""The paper's objective on the rows of badnets_scenes_undefended.py.

Command:   jaxguard data build scenes/caption
           jaxguard train configs/badnets_scenes_paper.py
           jaxguard evaluate configs/badnets_scenes_paper.py
Hardware:  two CPU cores, three minutes.
Expected:  row "poisoned, paper's objective" of the demo (README.md).
"""

from jaxguard.config import (
    AttackConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    ObjectiveConfig,
    TrainConfig,
    ViewConfig,
)

config = Config(
    name="badnets-scenes-paper",
    model=ModelConfig(path="tiny-llava", trainable="all"),
    data=DataConfig(source="scenes/caption", length=104, answer_length=25, threads=1),
    view=ViewConfig(patch_size=8, shuffle_share=1.0, mask_share=0.0),
    attack=AttackConfig(name="badnets", rate=0.05, place="fixed", target="A photo of the banana."),
    objective=ObjectiveConfig(
        cross_view_weight=0.3, direction="repel", margin=5.0, entropy_weight=0.5, entropy_max=0.5, cross_view_warmup=20
    ),
    train=TrainConfig(steps=250, batch_size=32, learning_rate=2e-3, log_every=50),
    evaluate=EvaluateConfig(task="caption", examples=512, new_tokens=25),
)
