"""Real reverse proxies in front of a service, each with keep-alive connections to it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from grp import getgrgid
from pathlib import Path
from pwd import getpwuid

from harness.ports import free_port, is_listening
from harness.processes import running_process
from harness.programs import SEARCH_PATH, find_program

# Like ingress-nginx's template: WebSocket map, HTTP/1.1 and keep-alive to the service.
_NGINX = """
daemon off;
user {user} {group};
worker_processes 1;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  map $http_upgrade $connection_upgrade {{
    default upgrade;
    ''      '';
  }}
  upstream service {{
    server 127.0.0.1:{service};
    keepalive 320;
    keepalive_timeout 60s;
  }}
  server {{
    listen 127.0.0.1:{port};
    client_max_body_size 20m;
    location / {{
      proxy_pass http://service;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto https;
      proxy_buffering off;
    }}
  }}
}}
"""

_CADDY = """
{{
  admin off
  auto_https off
}}
http://:{port} {{
  bind 127.0.0.1
  reverse_proxy 127.0.0.1:{service}
}}
"""

_HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option http-keep-alive
  http-reuse always
frontend door
  bind 127.0.0.1:{port}
  default_backend service
backend service
  server one 127.0.0.1:{service}
"""

Command = Callable[[str, Path], list[str]]
_KINDS: dict[str, tuple[str, Command]] = {
    "nginx": (
        _NGINX,
        lambda program, file: [program, "-p", str(file.parent), "-e", "stderr", "-c", str(file)],
    ),
    "caddy": (
        _CADDY,
        lambda program, file: [program, "run", "--adapter", "caddyfile", "--config", str(file)],
    ),
    "haproxy": (_HAPROXY, lambda program, file: [program, "-db", "-f", str(file)]),
}
KINDS = tuple(_KINDS)


@contextmanager
def proxied(kind: str, service: int, folder: Path) -> Iterator[int]:
    """Yield the port of a proxy that forwards to the port of a service, inside the block.

    Raises:
        NotInstalled: this kind of proxy is not installed on this machine.
    """
    template, command = _KINDS[kind]
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "configuration"
    user, group = getpwuid(os.getuid()).pw_name, getgrgid(os.getgid()).gr_name
    file.write_text(
        template.format(folder=folder, service=service, port=port, user=user, group=group)
    )
    with running_process(
        *command(find_program(kind), file),
        is_ready=lambda: is_listening(port),
        log=folder / "log",
        environment={"PATH": SEARCH_PATH, "HOME": str(folder), "XDG_DATA_HOME": str(folder)},
    ):
        yield port
