"""Which rows of a data set are suspicious, and training as if their suspicious tokens were not there."""
