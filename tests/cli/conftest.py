"""A folder with configuration files, good and bad, as the working directory."""

from pathlib import Path

import pytest

IMPORT = "from jaxguard.config import *\n"
FILES = {
    "good.py": IMPORT
    + "config = Config(name='good', train=TrainConfig(steps=7), objective=ObjectiveConfig(cross_view_weight=1.0))",
    "syntax.py": IMPORT + "\nconfig = Config(\n",
    "nameless.py": "settings = 1\n",
    "number.py": "config = 3\n",
    "raises.py": IMPORT + "\nconfig = Config(seed=1 // 0)\n",
    "keyword.py": IMPORT + "config = Config(\n    train=TrainConfig(\n        step=5,\n    ),\n)\n",
    "rate.py": IMPORT + "config = Config(attack=AttackConfig(rate=1.2))\n",
    "literal.py": IMPORT + "config = Config(model=ModelConfig(dtype='float16'))\n",
    "notes.txt": "",
    "old/config.json": '{"name": "old", "out": ".", "trian": {}}',
    "torn/config.json": '{"name": "torn", ',
    "list/config.json": "[]",
    "empty/notes.txt": "",
    "blip-2/config.json": '{"model_type": "blip-2", "vision_config": {"image_size": 64, "patch_size": 8}}',
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path
