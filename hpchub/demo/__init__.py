"""A real Slurm cluster and a hub on one machine, for `make demo` and the tests.

Every host is a set of namespaces that descends from one private mount namespace: the machine's own
files, accounts and network stay as they are. Everything hangs off one state folder, so two demos
run side by side.
"""
