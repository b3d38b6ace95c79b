"""Which rows of a data set are suspicious, and training as if their suspicious tokens were not there."""

from jaxguard.callables import make_callable

make_callable(__name__, "jaxguard.audit.findings", "audit")
