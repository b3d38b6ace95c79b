"""The verbs that judge rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from jaxguard.cli.arguments import Arguments
from jaxguard.errors import Failure, UserError
from jaxguard.files import check_writable, write_text


@dataclass(frozen=True)
class AuditOptions:
    out: Path | None = None
    """Folder of the report; None is audit in the run folder."""
    strict: bool = False
    """Exit with code 1 if a phrase is convicted, or if the model does not see the images."""


def audit(arguments: Arguments) -> None:
    """Look for poisoned rows among the training rows of a run (FILE): report.html, report.json, verdicts.csv."""
    options, rest = arguments.split(AuditOptions)
    settings = rest.configuration()
    out = options.out or settings.run_dir / "audit"
    check_writable(out)
    from jaxguard import processes
    from jaxguard.audit.findings import audit_all
    from jaxguard.audit.record import write_record
    from jaxguard.data.encode import Encoder
    from jaxguard.models import folders
    from jaxguard.report.audit_page import audit_page
    from jaxguard.train.loop import training_source

    processes.connect()
    encoder, source = Encoder.from_checkpoint(folders.resolve(settings.model.path)), training_source(settings)
    found = audit_all(settings, encoder, source)
    if not processes.is_main():
        return
    write_record(settings, found, encoder, source, out)
    write_text(out / "report.html", audit_page(settings, found, encoder, source))
    print(out / "report.html")
    if options.strict and found.groups.convicted:
        raise Failure(f"convicted phrases: {len(found.groups.convicted)}; see {out / 'report.html'}")
    if options.strict and found.sight is not None and not found.sight.sees:
        raise Failure(f"{settings.model.path} does not see these images, so the rows could not be judged")


@dataclass(frozen=True)
class CleanOptions:
    audit: Positional[Path]
    """Folder that `jaxguard audit` wrote; its verdicts.csv says which phrases' rows are taken out."""
    out: Path | None = None
    """Folder of the data set to write."""


def clean(arguments: Arguments) -> None:
    """Write a data set without the rows that an audit flagged (AUDIT --out DIR); the original stays as it is."""
    options = arguments.parse(CleanOptions)
    if options.out is None:
        raise UserError("clean: give --out DIR, the folder to write")
    check_writable(options.out)
    from jaxguard.audit.cleaning import clean

    rows = clean(options.audit, options.out)
    print(f"{options.out}: {rows['kept']} rows kept, {rows['quarantined']} quarantined (quarantined.csv)")
