"""What people run on their own machines: `hpchub login`, `logout` and `token`."""
