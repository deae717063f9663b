"""JupyterHub's plugins: who may log in, what the form offers, and a spawner that asks the bridge."""
