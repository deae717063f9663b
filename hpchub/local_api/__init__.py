"""How our processes speak to each other: HTTP with JSON bodies over a unix socket of one account."""
