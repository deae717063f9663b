"""Texts of any length: SQLite never minded, PostgreSQL would refuse the row."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_LENGTHS = {
    "server_name": 255,
    "base_url": 512,
    "login_node": 255,
    "folder": 1024,
    "host_public_key": 1024,
    "job_id": 64,
    "node": 255,
    "native_state": 64,
}


def upgrade() -> None:
    """Take the lengths away."""
    with op.batch_alter_table("servers") as table:
        for name, length in _LENGTHS.items():
            table.alter_column(
                name, existing_type=sa.String(length), type_=sa.Text(), existing_nullable=False
            )


def downgrade() -> None:
    """Put them back."""
    with op.batch_alter_table("servers") as table:
        for name, length in _LENGTHS.items():
            table.alter_column(
                name, existing_type=sa.Text(), type_=sa.String(length), existing_nullable=False
            )
