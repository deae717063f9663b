"""The long-lived process that owns every SSH connection, every tunnel and the watch over jobs."""
