"""What tests share: the demo cluster, a logged-in browserless session, and what a test may require."""
