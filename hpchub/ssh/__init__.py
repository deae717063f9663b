"""The way into a cluster, as the person, over SSH: connections, commands, tunnels, attach."""
