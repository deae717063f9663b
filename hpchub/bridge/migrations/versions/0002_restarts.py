"""What a bridge that restarts goes on with: sessions, and the environment of servers that wait."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column and the table."""
    op.add_column("servers", sa.Column("environ", sa.Text, nullable=True))
    op.create_table(
        "sessions",
        sa.Column("user", sa.String(64), primary_key=True),
        sa.Column("public_key", sa.String(1024), nullable=False),
        sa.Column("grant", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
    )


def downgrade() -> None:
    """Take them away again."""
    op.drop_table("sessions")
    op.drop_column("servers", "environ")
