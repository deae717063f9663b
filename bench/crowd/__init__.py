"""A crowd: thousands of servers on simulated login nodes. `make bench-crowd`; see bench/README.md."""
