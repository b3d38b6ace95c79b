"""The verbs that judge rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from jaxguard.cli.arguments import Arguments
from jaxguard.errors import Failure
from jaxguard.files import check_writable, write_text


@dataclass(frozen=True)
class AuditOptions:
    out: Path | None = None
    """Folder of the report; None is audit in the run folder."""
    strict: bool = False
    """Exit with code 1 if a phrase is convicted, or if the model does not see the images."""


def audit(arguments: Arguments) -> None:
    """Look for poisoned rows among those that a run (FILE) would show: report.html and report.json."""
    options, rest = arguments.split(AuditOptions)
    settings = rest.configuration()
    out = options.out or settings.run_dir / "audit"
    check_writable(out)
    from jaxguard import processes
    from jaxguard.audit import findings
    from jaxguard.data.encode import Encoder
    from jaxguard.models import folders
    from jaxguard.report.audit_page import audit_page
    from jaxguard.train.loop import training_source

    processes.connect()
    encoder, source = Encoder.from_checkpoint(folders.resolve(settings.model.path)), training_source(settings)
    found = findings.audit(settings, encoder, source)
    if not processes.is_main():
        return
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "report.json", json.dumps(found.summary(encoder), indent=1) + "\n")
    write_text(out / "report.html", audit_page(settings, found, encoder, source))
    print(out / "report.html")
    if options.strict and found.groups.convicted:
        raise Failure(f"convicted phrases: {len(found.groups.convicted)}; see {out / 'report.html'}")
    if options.strict and found.sight is not None and not found.sight.sees:
        raise Failure(f"{settings.model.path} does not see these images, so the rows could not be judged")
