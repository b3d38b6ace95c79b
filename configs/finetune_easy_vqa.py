"""Plain fine-tuning of the tiny LLaVA on clean easy-VQA, scored on all of its 9,673 test questions.

Command:   jaxguard data build easy_vqa/vqa
           jaxguard train configs/finetune_easy_vqa.py
           jaxguard evaluate configs/finetune_easy_vqa.py
Hardware:  two CPU cores.
"""

from jaxguard.config import Config, DataConfig, EvaluateConfig, ModelConfig, TrainConfig

config = Config(
    name="finetune-easy-vqa",
    model=ModelConfig(path="tiny-llava", trainable="language"),
    data=DataConfig(source="easy_vqa/vqa", length=104, answer_length=8),
    train=TrainConfig(steps=600, batch_size=32, learning_rate=1e-3),
    evaluate=EvaluateConfig(task="vqa", examples=9673, batch_size=128, new_tokens=6),
)
