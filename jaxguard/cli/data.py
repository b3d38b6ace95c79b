"""The verbs that build, check and poison data sets. Heavy imports are inside the verbs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from jaxguard.cli.arguments import Arguments
from jaxguard.config import DataConfig
from jaxguard.errors import UserError
from jaxguard.files import check_writable


def data_list(arguments: Arguments) -> None:
    """List the data sets and formats that can be built."""
    arguments.parse(NoOptions)
    from jaxguard.data.builders import SOURCES
    from jaxguard.data.formats import ORIGINALS

    print("\n".join([*SOURCES, *(f"{name} --from DIR" for name in ORIGINALS)]))


@dataclass(frozen=True)
class NoOptions:
    """Options of a verb without options."""


@dataclass(frozen=True)
class BuildOptions:
    data_set: Positional[str]
    """Data set or format: one of `jaxguard data list`."""
    original: Annotated[str | None, arg(name="from")] = None
    """Folder or bucket path with the original files; not for embedded data sets."""
    root: Path = Path("data")
    """Folder of the built data sets."""
    name: str | None = None
    """Name of the built data set; None names it after the format."""
    threads: int = 4
    """Number of threads that read images."""


def data_build(arguments: Arguments) -> None:
    """Build a data set as ArrayRecord files; the same command resumes an interrupted build."""
    options = arguments.parse(BuildOptions)
    check_writable(options.root)
    _check_threads(options.threads)
    from jaxguard.data import builders

    if options.original is None:
        if options.name is not None:
            raise UserError("data build: --name goes with --from; embedded data sets keep their names")
        print(builders.build(options.data_set, options.root))
        return
    original = _original(options.original)
    print(builders.build_original(options.data_set, original, options.root, options.name, options.threads))


@dataclass(frozen=True)
class CheckOptions:
    folder: Positional[str]
    """Folder or bucket path of original files or of a built data set."""
    original: Annotated[str | None, arg(name="as")] = None
    """Format of the files, one of `jaxguard data list`; None detects it."""
    model: str | None = None
    """Checkpoint whose tokenizer measures the rows; None does not check their lengths."""
    length: int = DataConfig.length
    """Tokens per row, as data.length; needs --model."""
    answer_length: int = DataConfig.answer_length
    """Answer tokens per row, as data.answer_length; needs --model."""
    threads: int = 4
    """Number of threads that read images."""


def data_check(arguments: Arguments) -> None:
    """Check every row and image of a data set; problems are counted and listed (exit code 2)."""
    options = arguments.parse(CheckOptions)
    _check_threads(options.threads)
    from jaxguard.data.check import Budget, check
    from jaxguard.data.encode import Encoder
    from jaxguard.models import folders

    budget = None
    if options.model is not None:
        budget = Budget(Encoder(folders.resolve(options.model)), options.length, options.answer_length)
    counts, problems = check(_original(options.folder), options.original, budget, options.threads)
    print(f"{options.folder}: " + (", ".join(f"{count} {split}" for split, count in counts.items()) or "no") + " rows")
    if problems:
        print(problems.report())
        raise UserError(f"{options.folder} has {len(problems)} problems, listed above")


def _original(folder: str) -> Any:
    """Open a folder of original files."""
    from etils import epath

    try:
        path = epath.Path(folder)
        found = path.is_dir()
    except (ImportError, ValueError, OSError) as error:
        raise UserError(f"{folder} cannot be read ({error})") from error
    if not found:
        raise UserError(f"{folder} is not a folder")
    return path


def _check_threads(threads: int) -> None:
    if threads < 1:
        raise UserError(f"--threads is {threads}: must be at least 1")


@dataclass(frozen=True)
class PoisonOptions:
    out: Path | None = None
    """Folder to write: the poisoned training split of the configuration, and its manifest."""
    verify: Path | None = None
    """Folder to check against its manifest, instead of writing one."""


def poison(arguments: Arguments) -> None:
    """Write a poisoned training split (FILE --out DIR), or verify one (--verify DIR)."""
    options, rest = arguments.split(PoisonOptions)
    if options.verify is not None:
        rest.parse(NoOptions)
        if options.out is not None:
            raise UserError("poison: --verify reads and --out writes; give one of them")
        from jaxguard.attacks.poison import verify

        manifest = verify(options.verify)
        print(f"{options.verify}: {len(manifest['poisoned'])} of {manifest['rows']} rows poisoned, all hashes match")
        return
    settings = rest.configuration()
    if options.out is None:
        raise UserError("poison: give --out DIR, the folder to write")
    check_writable(options.out)
    from jaxguard.attacks.poison import write_poisoned

    manifest = write_poisoned(settings, options.out)
    print(f"{options.out}: {len(manifest['poisoned'])} of {manifest['rows']} rows poisoned")


@dataclass(frozen=True)
class GalleryOptions:
    out: Path = Path("gallery.png")
    """PNG file to write."""
    source: str = "scenes/caption"
    """Built data set whose first test rows are shown."""
    root: Path = Path("data")
    """Folder of the built data sets and of learnt triggers."""
    images: int = 2
    """Number of test rows."""


def gallery(arguments: Arguments) -> None:
    """Draw all attacks on the same images: original, triggered, difference."""
    options = arguments.parse(GalleryOptions)
    if options.out.suffix != ".png" or options.out.is_dir():
        raise UserError(f"gallery: --out {options.out} is not a .png file")
    if options.images < 1:
        raise UserError(f"gallery: --images is {options.images}: must be at least 1")
    check_writable(options.out.parent)
    from jaxguard.report.gallery import gallery

    gallery(options.out, options.source, options.root, options.images)
