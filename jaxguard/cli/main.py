"""The command line: verbs and exit codes."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Sequence

from jaxguard.cli.arguments import HELP, Arguments, wrapped
from jaxguard.cli.audit import audit, clean
from jaxguard.cli.bench import bench_compile, bench_data, bench_objective, bench_step, bench_torch, cost, rehearse
from jaxguard.cli.check import check
from jaxguard.cli.completion import completion
from jaxguard.cli.data import data_build, data_check, data_list, gallery, poison
from jaxguard.cli.experiments import demo, table
from jaxguard.cli.quiet import Quiet
from jaxguard.cli.scoring import compare, score, show
from jaxguard.cli.training import config, evaluate, export, generate, preflight, train
from jaxguard.config import suggestion
from jaxguard.errors import Failure, Preempted, UserError
from jaxguard.version import __version__

VERBS: dict[str, Callable[[Arguments], None]] = {
    "config": config,
    "data list": data_list,
    "data build": data_build,
    "data check": data_check,
    "poison": poison,
    "gallery": gallery,
    "audit": audit,
    "clean": clean,
    "check": check,
    "preflight": preflight,
    "train": train,
    "evaluate": evaluate,
    "score": score,
    "compare": compare,
    "show": show,
    "generate": generate,
    "export": export,
    "table": table,
    "demo": demo,
    "bench step": bench_step,
    "bench objective": bench_objective,
    "bench data": bench_data,
    "bench torch": bench_torch,
    "bench compile": bench_compile,
    "rehearse": rehearse,
    "cost": cost,
    "completion": completion,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        argv: Words after `jaxguard`; None takes those of the process.

    Returns:
        The exit code: 0 done, 1 part of the work failed, 2 bad input, 75 preempted with the checkpoint saved,
        130 interrupted, 141 the reader of standard output (such as `head`) has closed it.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it misses PyTorch, which is not needed
    words = list(sys.argv[1:] if argv is None else argv)
    quiet = words[:1] == ["--quiet"]
    try:
        with contextlib.redirect_stderr(Quiet(sys.stderr)) if quiet else contextlib.nullcontext():
            _run(words[1:] if quiet else words)
        sys.stdout.flush()
    except UserError as error:
        return _stop(2, f"error: {error}")
    except Failure as error:
        return _stop(1, f"error: {error}")
    except Preempted as note:
        return _stop(75, str(note))
    except KeyboardInterrupt:
        return _stop(130, "interrupted")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at exit
        return 141
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _stop(2, f"error: {error.strerror} ({error.filename or 'while writing'}); make room and run it again")
    return 0


def _run(words: Sequence[str]) -> None:
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in VERBS:
            return VERBS[name](Arguments(name, VERBS[name].__doc__ or "", words[count:]))
    if any(word in HELP for word in words):
        return print(_overview())
    if "--version" in words:
        return print(__version__)
    if not words:
        raise UserError(f"give a verb: {', '.join(VERBS)}")
    group = [verb for verb in VERBS if verb.split()[0] == words[0]]
    if group:
        raise UserError(f"{words[0]}: give one of {', '.join(group)}")
    raise UserError(f"unknown verb {words[0]!r}{suggestion(words[0], VERBS) or '; one of ' + ', '.join(VERBS)}")


FOOTER = (
    "FILE is a Python file that defines `config` (see configs/), or a run folder. Flags override its values: "
    "jaxguard train configs/NAME.py --train.steps 500. `jaxguard train FILE --help` lists all of them. --quiet leaves "
    "warnings, verdicts and errors on standard error. `source <(jaxguard completion bash)` completes verbs and flags."
)


def _overview() -> str:
    rows = "\n".join(wrapped(f"  {name:<15} {verb.__doc__}", indent=" " * 18) for name, verb in VERBS.items())
    usage = "usage: jaxguard [--quiet] VERB [arguments]   (jaxguard VERB --help shows the arguments of a verb)"
    return f"{wrapped(usage)}\n\n{rows}\n\n{wrapped(FOOTER, indent='')}"


def _stop(code: int, message: str) -> int:
    print("jaxguard:", " ".join(message.split("\n")), file=sys.stderr)
    return code
