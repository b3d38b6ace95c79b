"""The verbs that build, check and poison data sets. Heavy imports are inside the verbs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from jaxguard.cli.arguments import Arguments
from jaxguard.config import DataConfig
from jaxguard.errors import UserError
from jaxguard.files import check_writable

if TYPE_CHECKING:
    from jaxguard.data.formats.reading import Reading


@dataclass(frozen=True)
class ListOptions:
    json: bool = False
    """Print JSON."""


def data_list(arguments: Arguments) -> None:
    """List the data sets and formats that can be built."""
    options = arguments.parse(ListOptions)
    from jaxguard.data.builders import SOURCES
    from jaxguard.data.formats import ORIGINALS

    if options.json:
        print(json.dumps({"embedded": list(SOURCES), "formats": list(ORIGINALS)}))
    else:
        print("\n".join([*SOURCES, *(f"{name} --from DIR" for name in ORIGINALS)]))


@dataclass(frozen=True)
class NoOptions:
    """Options of a verb without options."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Options of the verbs that read original files."""

    images: str | None = None
    """Folder under which the rows name their images; None: the folder of the files."""
    allow_root: UseAppendAction[tuple[str, ...]] = ()
    """Folder of your own that absolute image paths and links may lead into; may be given several times."""
    columns: str | None = None
    """Keys or columns of the parts of a row, as image=filepath,answer=caption; None: by their known names."""
    text_rows: bool = False
    """Allow captions and questions without an image."""
    group: bool = False
    """Make one row, with several references, of the rows of one image and one question."""
    threads: int = 4
    """Number of threads that read images."""


@dataclass(frozen=True)
class BuildOptions(ReadOptions):
    data_set: Positional[str]
    """Data set or format: one of `jaxguard data list`."""
    original: Annotated[str | None, arg(name="from")] = None
    """Folder or bucket path with the original files, or one of them; not for embedded data sets."""
    root: Path = Path("data")
    """Folder of the built data sets."""
    name: str | None = None
    """Name of the built data set; None names it after the format."""
    skip_bad: bool = False
    """Leave faulty rows, and rows with faulty images, out; they are listed in the built folder."""
    most_bad: float = 0.5
    """Largest share of the rows that --skip-bad may leave out."""
    store: int | None = None
    """Store images with a shorter side of at most this many pixels; None stores the original files."""


def data_build(arguments: Arguments) -> None:
    """Build a data set as ArrayRecord files; the same command resumes an interrupted build."""
    options = arguments.parse(BuildOptions)
    check_writable(options.root)
    _check_options(options)
    if options.store is not None and options.store < 1:
        raise UserError(f"--store is {options.store}: must be at least 1")
    if not 0 <= options.most_bad <= 1:
        raise UserError(f"--most-bad is {options.most_bad}: must be between 0 and 1")
    from jaxguard.data import builders, originals

    if options.original is None:
        if options.name is not None:
            raise UserError("data build: --name goes with --from; embedded data sets keep their names")
        print(builders.build(options.data_set, options.root))
        return
    building = originals.Building(options.threads, options.skip_bad, options.most_bad, options.store)
    reading = _reading(options.original, options)
    print(originals.build_original(options.data_set, reading, options.root, options.name, building))


@dataclass(frozen=True)
class CheckOptions(ReadOptions):
    folder: Positional[str]
    """Folder or bucket path of original files, or one of them; or the folder of a built data set."""
    original: Annotated[str | None, arg(name="as")] = None
    """Format of the files, one of `jaxguard data list`; None detects it."""
    model: str | None = None
    """Checkpoint whose tokenizer measures the rows; None does not check their lengths."""
    length: int = DataConfig.length
    """Tokens per row, as data.length; needs --model."""
    answer_length: int = DataConfig.answer_length
    """Answer tokens per row, as data.answer_length; needs --model."""
    all: bool = False
    """Show all problems, not ten of each kind."""
    report: Path | None = None
    """File to write all problems to, as JSON lines."""


def data_check(arguments: Arguments) -> None:
    """Check every row and image of a data set; problems are counted and listed (exit code 2)."""
    options = arguments.parse(CheckOptions)
    _check_options(options)
    if options.report is not None:
        check_writable(options.report.parent)
    from jaxguard.data import formats
    from jaxguard.data.check import Budget, check, check_built, is_built
    from jaxguard.data.encode import Encoder
    from jaxguard.data.problems import SHOWN
    from jaxguard.data.summary import report
    from jaxguard.models import folders

    name = None if options.original is None else formats.full_name(options.original)
    reading = _reading(options.folder, options)
    budget = None
    if options.model is not None:
        budget = Budget(Encoder(folders.resolve(options.model)), options.length, options.answer_length)
    if name is None and reading.only is None and is_built(reading.root):
        checked = check_built(Path(options.folder), budget, options.threads)
        print(report(options.folder, checked.survey))
    else:
        checked = check(reading, name, budget, options.threads)
        print(report(options.folder, checked.survey, reading))
    for line in checked.lengths:
        print(f"  {line}")
    if options.report is not None:
        checked.problems.write(options.report)
    if checked.problems:
        print(checked.problems.report(None if options.all else SHOWN))
        raise UserError(f"{options.folder} has {len(checked.problems)} problems, listed above")
    if not checked.survey.listing:
        raise UserError(f"{options.folder} holds no rows of {checked.survey.format}")


def _reading(source: str, options: ReadOptions) -> Reading:
    """Open a folder of original files, or one of its files."""
    from jaxguard.data.formats.reading import Choices, Reading

    images = None if options.images is None else _path(options.images)
    if images is not None and not images.is_dir():
        raise UserError(f"--images {options.images} is not a folder")
    for allowed in options.allow_root:
        if not Path(allowed).is_dir():
            raise UserError(f"--allow-root {allowed} is not a folder")
    choices = Choices(_columns(options.columns), options.text_rows, options.group, images, options.allow_root)
    path = _path(source)
    if path.is_dir():
        return Reading(path, None, choices)
    if path.is_file():
        return Reading(path.parent, path.name, choices)
    raise UserError(f"{source} is not a folder or a file")


def _path(folder: str) -> Any:
    from etils import epath

    try:
        path = epath.Path(folder)
        path.exists()
    except (ImportError, ValueError, OSError) as error:
        raise UserError(f"{folder} cannot be read ({error})") from error
    return path


def _columns(columns: str | None) -> dict[str, str]:
    """Parse PART=COLUMN,PART=COLUMN."""
    found = {}
    for part in (columns or "").split(",") if columns else ():
        name, equals, column = part.partition("=")
        if not (name.strip() and equals and column.strip()):
            raise UserError(f"--columns: {part!r} is not PART=COLUMN, as in image=filepath,answer=caption")
        found[name.strip()] = column.strip()
    return found


def _check_options(options: ReadOptions) -> None:
    if options.threads < 1:
        raise UserError(f"--threads is {options.threads}: must be at least 1")


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
