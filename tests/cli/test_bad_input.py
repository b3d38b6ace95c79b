"""Every mistake ends in one line and exit code 2, before JAX is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxguard.cli.main import main

GENERATE = "--image missing.png --prompt what"
BAD = {
    "": "give a verb: config, data list, data build, data check, poison, gallery, audit, clean, check, "
    "preflight, train, "
    "evaluate, score, compare, show, generate, export, table, demo",
    "trian good.py": "unknown verb 'trian'; did you mean train?",
    "zzz": "unknown verb 'zzz'; one of config, data list,",
    "data": "data: give one of data list, data build",
    "data bild scenes/caption": "data: give one of data list, data build",
    # the configuration file or run folder
    "train": "train: give the configuration first: jaxguard train FILE",
    "train --train.steps 5 good.py": "train: give the configuration first",
    "train goood.py": "goood.py does not exist; give a configuration file or a run folder; did you mean good.py?",
    "train nowhere/at/all.py": "nowhere/at/all.py does not exist; give a configuration file or a run folder",
    "train notes.txt": "notes.txt is neither a Python file nor a run folder",
    "train syntax.py": "syntax.py:3: '(' was never closed",
    "train nameless.py": "nameless.py: it defines no `config`; it must hold `config = Config(...)`",
    "train number.py": "number.py: its `config` is of type int;",
    "train raises.py": "raises.py:3: ZeroDivisionError:",
    "train keyword.py": "keyword.py:3: TypeError: TrainConfig.__init__() got an unexpected keyword argument 'step'; "
    "did you mean train.steps?",
    "train rate.py": "rate.py:2: attack.rate is 1.2: must be in [0, 1]",
    "train literal.py": "literal.py: model.dtype is 'float16': must be one of 'float32', 'bfloat16'",
    "evaluate empty": "empty holds no config.json: it is not a run folder",
    "evaluate old": "old/config.json: unknown key trian; did you mean train?",
    "evaluate torn": "torn/config.json: not readable as JSON",
    "evaluate list/config.json": "list/config.json: holds a list, not an object",
    # overrides
    "train good.py --train.step 5": "train good.py: unknown flag --train.step; did you mean --train.steps?",
    "train good.py --train.step=5": "train good.py: unknown flag --train.step; did you mean --train.steps?",
    "train good.py --steps 5": "train good.py: unknown flag --steps; did you mean --train.steps?",
    "train good.py -x": "train good.py: unknown flag -x",
    "train good.py 5": "train good.py: unexpected argument '5'",
    "train good.py --train.steps many": "train good.py: --train.steps: invalid literal for int() with base 10: 'many'",
    "train good.py --train.steps": "train good.py: Missing value for argument '--train.steps'",
    "train good.py --model.dtype float16": "train good.py: invalid choice 'float16' for argument '--model.dtype'. "
    "Expected one of ('float32', 'bfloat16').",
    "train good.py --data.limit all": "train good.py: --data.limit: no type matching {None}|INT",
    # values
    "config good.py --attack.rate 1.2": "attack.rate is 1.2: must be in [0, 1]",
    "config good.py --attack.name badnet": "attack.name is 'badnet': must be one of none, badnets, blended, sig, ",
    "config good.py --attack.name dualkey": "attack.name is 'dualkey': must be one of none, badnets, blended, sig, ",
    "config good.py --attack.name badnets --attack.strength 1.5": "attack.strength is 1.5: the side of the patch over "
    "the image's shorter side (above 1 it is larger than the image) must be in (0, 1]",
    "config good.py --attack.name badnets --attack.variant noise": "attack.variant is 'noise': badnets does not use "
    "it (it has attack.place, attack.strength); leave it None",
    "config good.py --attack.name wanet --attack.place fixed": "attack.place is 'fixed': wanet does not use it",
    "config good.py --attack.name badnl --attack.strength 1": "attack.strength is 1.0: badnl does not use it (it has "
    "no options); leave it None",
    "config good.py --attack.name wanet --attack.variant jiter": "attack.variant is 'jiter': must be one of original, "
    "jitter; did you mean jitter?",
    "config good.py --attack.name sig --attack.strength nan": "attack.strength is nan: the amplitude in grey levels ",
    "config good.py --attack.name dual_key --attack.rate 0.4": "attack.rate is 0.4: dual_key changes 5 x rate of the",
    "config good.py --attack.name sig --data.answer_length 6": "attack.target has 6 tokens and an end token: more than "
    "data.answer_length (6); shorten it",
    "config good.py --attack.name sig --evaluate.new_tokens 5": "attack.target has 6 tokens: more than "
    "evaluate.new_tokens (5), so no answer could hold it; shorten it",
    "config good.py --attack.target=": "attack.target is empty",
    "config good.py --attack.name sig --attack.trainer attacker": "attack.trainer is 'attacker': sig has no losses of "
    "its own (trojvlm and vlood have)",
    "config good.py --attack.name vlood --attack.trainer attacker": "objective.cross_view_weight is 1.0: "
    "attack.trainer attacker minimises its own losses alone; set it to 0",
    "config good.py --attack.name issba --attack.strength 300": "attack.strength is 300.0: the largest residual in ",
    "config good.py --attack.name vl_trojan --attack.strength 0": "attack.strength is 0.0: the side of the patch over ",
    "config good.py --train.steps 0": "train.steps is 0: must be finite and at least 1",
    "config good.py --train.accumulate 3": "train.batch_size is 32: must be a multiple of train.accumulate (3)",
    "config good.py --train.accumulate 8 --mesh.data 8": "train.batch_size / train.accumulate is 4: must be a multiple "
    "of mesh.data x mesh.fsdp (8)",
    "config good.py --train.accumulate 0": "train.accumulate is 0: must be finite and at least 1",
    "config good.py --train.save_minutes 0": "train.save_minutes is 0.0: must be finite and positive, or None",
    "config good.py --train.keep_best 1": "train.keep_best is set but train.validation, the rows to judge by, is 0",
    "config good.py --mesh.fsdp 0": "mesh.fsdp is 0: must be at least 1, or -1",
    "config good.py --mesh.fsdp -1": "mesh.data and mesh.fsdp are -1: only one axis can take what is left",
    "config good.py --mesh.data 5": "train.batch_size is 32: must be a multiple of mesh.data x mesh.fsdp (5)",
    "config good.py --view.mask_share 1": "view.mask_share is 1.0: a view that hides every patch carries nothing",
    "config good.py --view.patch_size 7": "view.patch_size 7 does not divide the model's image size 64",
    "config good.py --objective.cross_view_weight 0 --view.patch_size 7": "view.patch_size 7 does not divide",
    "config good.py --view.mask_share 0.999": "view.mask_share 0.999 masks all 64 patches",
    "config good.py --view.mask_fill drop --view.patch_size 4": "view.patch_size 4 must be a multiple of the model's 8",
    "config good.py --model.path blip-2 --view.mask_fill drop": "view.mask_fill is drop: needs a model whose image",
    "config good.py --view.rows 0.3": "view.rows is 0.3: of train.batch_size (32) that is 9.6 rows, which must be",
    "config good.py --objective.cross_view_warmup 8": "objective.cross_view_warmup (8) exceeds train.steps (7)",
    "config good.py --objective.entropy_weight 1": "objective.entropy_weight is set but neither",
    "config good.py --data.length 64 --data.answer_length 8": "data.length is 64: must exceed the 64 tokens",
    "config good.py --data.bucket -1": "data.bucket is -1: must be finite and at least 0",
    "config good.py --data.bucket 8 --data.pack 2": "data.bucket is set and data.pack is 2: chance decides what is ",
    "config good.py --data.images 0": "data.images is 0: must be finite and at least 1",
    "config good.py --model.path nowhere": "model.path 'nowhere' holds no config.json",
    "config good.py --model.path tiny-lava": "model.path 'tiny-lava' holds no config.json; give a Hugging Face "
    "checkpoint folder (did you mean 'tiny-llava'?)",
    "config good.py --model.path list": "list/config.json: holds a list, not an object",
    # folders to write
    "train good.py --out notes.txt": "cannot write into notes.txt/good:",
    "demo --out notes.txt": "cannot write into notes.txt:",
    "data build scenes/caption --root notes.txt": "cannot write into notes.txt:",
    # the other verbs
    "data list now": "data list: unexpected argument 'now'",
    "data build scenes/captoin": "no data set 'scenes/captoin'; did you mean 'scenes/caption'?",
    "data build": "data build: Missing from jaxguard data build: DATA_SET",
    "data build coco": "coco is built from files you have: jaxguard data build coco --from DIR",
    "data check nowhere": "nowhere is not a folder",
    "poison good.py --out rows": "attack.name is none: name an attack",
    "poison good.py": "poison: give --out DIR, the folder to write",
    "poison --out rows": "poison: give the configuration first",
    "poison --verify rows": "rows/manifest.json is not a poison manifest",
    "poison --verify rows good.py": "poison: unexpected argument 'good.py'",
    "poison --verify rows --out rows": "poison: --verify reads and --out writes; give one of them",
    "gallery --out picture.jpg": "gallery: --out picture.jpg is not a .png file",
    "evaluate good.py --canaries --evaluate.new_tokens 3": "attack.target has 6 tokens: more than evaluate.",
    "evaluate good.py --json": "evaluate: --json goes with --canaries",
    "audit": "audit: give the configuration first: jaxguard audit FILE",
    "audit good.py --out notes.txt": "cannot write into notes.txt:",
    "audit good.py --guard.alternatives 0": "guard.alternatives is 0: must be finite and at least 1",
    "audit good.py --guard.false_discoveries 1": "guard.false_discoveries is 1.0: must be between 0 and 1",
    "clean": "clean: Missing from jaxguard clean: AUDIT",
    "clean list": "clean: give --out DIR, the folder to write",
    "clean list --out rows": "list is not the folder of an audit",
    "clean list --out notes.txt": "cannot write into notes.txt:",
    "gallery --images 0": "gallery: --images is 0: must be at least 1",
    "gallery --out notes.txt/picture.png": "cannot write into notes.txt:",
    "generate good.py": "generate: Missing from jaxguard generate FILE [OVERRIDES]: --image PATH",
    f"generate good.py {GENERATE}": "generate: --image missing.png does not exist",
    f"generate tiny-llava {GENERATE}": "generate: --image missing.png does not exist",
    f"generate tiny-lava {GENERATE}": "model.path 'tiny-lava' holds no config.json",
    f"generate good.py {GENERATE} --data.lenght 9": "generate good.py: unknown flag --data.lenght; did you mean",
    "demo --task quiz": "demo: invalid choice 'quiz' for argument '--task'. Expected one of ('caption', 'vqa')",
    "bench": "bench: give one of bench step, bench objective, bench data, bench torch, bench compile",
    "bench step": "bench step: give the configuration first",
    "bench data good.py --side 25": "bench data: --side is 25: must be a multiple of 24",
    "bench step good.py --rounds 0": "--rounds is 0: must be at least 1",
    "bench data good.py --out notes.txt": "cannot write into notes.txt:",
    "bench torch good.py --roundz 3": "bench torch good.py: unknown flag --roundz",
    "bench compile": "bench compile: give the configuration first",
    "bench objective --pairs 0": "bench objective: sizes must be at least 1, got 0",
    "demo --family gpt": "demo: --family is gpt: must be one of blip2, idefics, llava",
    "rehearse": "rehearse: give the configuration first",
    "rehearse good.py": "rehearse: good.py names no mesh.hardware; give --topology, such as v5e:4x4 or 8xH100",
    "rehearse good.py --topology v5e": "no hardware 'v5e'; did you mean v5e:4x4?",
    "rehearse good.py --topology 8xTPU": "no hardware '8xTPU'; give a slice or GPUs, such as v4:4x4, v5e:4x4,",
    "rehearse good.py --topology 4xv5e": "no hardware '4xv5e'",
    "rehearse good.py --topology 0xH100": "no hardware '0xH100': it has no chips",
    "rehearse good.py --topology 8xH100 --out notes.txt": "cannot write into notes.txt:",
    "rehearse good.py good.py --topology 8xH100 --search": "rehearse: --search takes one configuration at a time",
    "demo --tsk vqa": "demo: unknown flag --tsk; did you mean --task?",
}


@pytest.mark.parametrize("line", BAD)
def test_one_line_and_code_2(line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith(f"jaxguard: error: {BAD[line]}")
    assert error.count("\n") == 1
    assert error.endswith("\n")


def test_nothing_heavy_is_imported(folder: Path) -> None:
    program = """
import json, sys
from jaxguard.cli.main import main
codes = [main(line.split()) for line in json.loads(sys.argv[1])]
heavy = {"jax", "flax", "orbax", "grain", "transformers", "matplotlib"}
print(json.dumps([codes, sorted(heavy & set(sys.modules))]))
"""
    arguments = [sys.executable, "-c", program, json.dumps(list(BAD))]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[2] * len(BAD), []]
    assert done.stderr.count("\n") == len(BAD)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("terminal", [True, False])
def test_one_line_on_every_terminal(encoding: str, terminal: bool, folder: Path) -> None:
    """What tyro draws, and so what has to be undone, depends on where the output goes."""
    arguments = [sys.executable, "-m", "jaxguard", "train", "good.py", "--train.steps", "many"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "TERM": "xterm"}
    ours, theirs = os.openpty()
    output = theirs if terminal else subprocess.PIPE
    try:
        done = subprocess.run(arguments, stdout=output, stderr=subprocess.PIPE, env=environment, text=True, check=False)
    finally:
        os.close(ours)
        os.close(theirs)
    expected = "jaxguard: error: train good.py: --train.steps: invalid literal for int() with base 10: 'many'\n"
    assert (done.returncode, done.stderr) == (2, expected)


def test_as_a_process(folder: Path) -> None:
    arguments = [sys.executable, "-m", "jaxguard", "train", "good.py", "--train.step", "5"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    expected = "jaxguard: error: train good.py: unknown flag --train.step; did you mean --train.steps?\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
