# /etc/hpchub/jupyterhub_config.py
from hpchub.hub.config import configure

c = get_config()  # noqa: F821  JupyterHub provides it

configure(
    c,
    clusters="/etc/hpchub/clusters.d",
    bridge_socket="/run/hpchub/bridge.sock",
    signer_socket="/run/hpchub/signer.sock",
    hub_socket="/run/hpchub/hub.sock",
    proxy_socket="/run/hpchub/proxy.sock",
    public_url="https://hub.example.org/",  # as browsers know it
    trusted_proxies=["127.0.0.1"],  # the web server with TLS in front of the proxy; none: []
)
c.JupyterHub.bind_url = "http://127.0.0.1:8000"
c.JupyterHub.db_url = "sqlite:////var/lib/hpchub/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "/var/lib/hpchub/cookie_secret"  # noqa: S105  a path

# The proxy runs apart, so that a restart of the hub cuts nobody off. It and the hub share a token,
# which both read from the environment: CONFIGPROXY_AUTH_TOKEN.
c.ConfigurableHTTPProxy.should_start = False

# Whoever the signer lets in may use the hub. Or name them: c.Authenticator.allowed_users = {"alice"}
c.Authenticator.allow_all = True
