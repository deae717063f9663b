"""Tries everything between the hub and a notebook as one user, hop by hop, and says what to fix."""
