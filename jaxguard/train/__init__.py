from jaxguard.callables import make_callable

make_callable(__name__, "jaxguard.audit.guard", "train")
