"""What runs on the cluster, uploaded as one file, and what the bridge must send to it."""
