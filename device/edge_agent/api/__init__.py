"""The service's interface for its users: predictions over HTTP and MQTT, and feedback, metrics and health over HTTP.

Start reading at `web.create_application` (the routes, which openapi.json describes) and `mqtt.Mqtt`. Both use
`predictions`. `http_server` limits the number and duration of connections. `edge_agent.service.endpoints` opens the
sockets.

May import `monitoring` and the packages below it.
"""
