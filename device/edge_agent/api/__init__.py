"""The service's interface: predictions and feedback over HTTP and MQTT, metrics, health.

Start reading at `web.create_application` (all routes, which openapi.json describes) and `mqtt.Mqtt`. Both use
`predictions`. `http_server` limits connections and times; `edge_agent.service.endpoints` opens the sockets.

May import `monitoring` and the packages below it.
"""
