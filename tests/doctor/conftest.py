"""The bridge's fixtures: a signer of each test's own, and a store."""

from __future__ import annotations

from bridge.conftest import agent, clusters, login, migrated, seal, short_dir, signer, signer_settings, store

from support.folders import tmp_path

__all__ = [
    "agent",
    "clusters",
    "login",
    "migrated",
    "seal",
    "short_dir",
    "signer",
    "signer_settings",
    "store",
    "tmp_path",
]
