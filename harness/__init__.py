"""Start and drive the platform, and everything around it, for tests, bench, chaos and rehearse.

It imports no test and no test framework. Whatever a module starts, it also ends.

Building blocks: `programs` finds installed programs, `processes` starts and ends them, `ports` has
free ports, and `waiting` waits until something is ready.

The platform: `platform` runs `tollgate up`, `services` runs each service as a process that can be
killed and frozen, `accounts` gives callers money, and `samples` is the sample model's request.

Around it: `mariadb` and `gcs` are a database server and a bucket emulator, `reverse_proxies` are
nginx, Caddy and HAProxy, `faulty_proxy` injects faults into connections, `http_servers` sends
the responses that a test decides, `github` is a fake GitHub, `storage_proxies` block and count
calls to the buckets, and `otlp_collector` receives traces. `cloud` runs the functions between all
of these.

What is sent and stored: `issuer` signs access tokens, `plans` has the sample plan, `usage_events`
are what inference sends to billing, `stores` fills model stores, `databases` empties tables, and
`raw_http` sends what no HTTP library would.

The workflows: `workflow_runner` runs their steps, `workflow_programs` are the fakes of the
programs they call, and `workflow_load` predicts continuously meanwhile.
"""
