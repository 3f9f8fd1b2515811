"""The service's interface for clients: predictions over HTTP and MQTT, and feedback, metrics and health over HTTP.

Start reading at `web.create_application` (the routes, which openapi.json describes) and `mqtt.Mqtt`. Both use
`predictions` to handle requests. `http_server` limits the number and duration of connections.
`edge_agent.service.endpoints` opens the sockets.

May import `monitoring`, `lifecycle`, `inference`, `storage`, `update` and `core`.
"""
