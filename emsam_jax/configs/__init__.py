"""One file an experiment: what differs from the defaults, with the command and where the data comes from."""
